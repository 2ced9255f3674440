package oatemplate

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/channel/catalog"
)

// How long the first repetition of a transient error waits.
const (
	retryAfter          = 5 * time.Second
	retryRecipientAfter = 30 * time.Minute // 43117: this person got too many messages for now
)

// outcome is what WeChat's answer to one POST means. unlisted: the message went to an openid that
// the map does not have.
func outcome(msgid int64, err error, unlisted bool) channel.Outcome {
	if err == nil {
		return channel.Outcome{Verdict: channel.Sent, MsgID: msgid, Confirms: channel.ScopeTemplate}
	}
	we, ok := errors.AsType[*wechat.Error](err)
	if !ok {
		// Not from the client: whether the message went out is not known.
		we = &wechat.Error{Reason: "internal", Policy: wechat.PolicyUncertain, Message: err.Error()}
	}
	o := classify(we, unlisted)
	o.Reason, o.Message, o.Err = string(we.Reason), we.Message, we
	o.Cure = wechat.Explain(we.Code)
	// An odd answer must not make the row unwritable: the column is an INT.
	o.Code = min(max(we.Code, math.MinInt32), math.MaxInt32)
	o.Confirms = confirms(we)
	o.Overloaded = we.Reason == wechat.ReasonSystemError
	o.Refused = we.Policy == wechat.PolicyRecipient && o.Verdict != channel.InDoubt
	return o
}

// classify is the table: what the engine does about an error.
func classify(we *wechat.Error, unlisted bool) channel.Outcome {
	if we.Uncertain || we.Policy == wechat.PolicyUncertain {
		return channel.Outcome{Verdict: channel.InDoubt}
	}
	switch we.Policy {
	case wechat.PolicyRetry:
		return classifyTransient(we)
	case wechat.PolicyToken:
		return channel.Outcome{Verdict: channel.PauseAccount, Pause: channel.PauseToken}
	case wechat.PolicyConfig:
		return channel.Outcome{Verdict: channel.PauseAccount, Pause: channel.PauseConfig}
	case wechat.PolicyQuotaDay:
		return channel.Outcome{Verdict: channel.PauseAccount, Pause: channel.PauseDay}
	case wechat.PolicyQuotaMinute:
		return channel.Outcome{Verdict: channel.PauseAccount, Pause: channel.PauseMinute}
	case wechat.PolicyTemplate:
		return channel.Outcome{Verdict: channel.PauseTemplate}
	case wechat.PolicyRecipientLater:
		return channel.Outcome{Verdict: channel.Retry, After: retryRecipientAfter}
	case wechat.PolicyRecipient:
		// An openid that only the producer knows and WeChat does not is simply wrong.
		if we.Reason == wechat.ReasonNotFollower ||
			we.Reason == wechat.ReasonInvalidOpenID && !unlisted {
			return channel.Outcome{Verdict: channel.Unreachable}
		}
	}
	return channel.Outcome{Verdict: channel.Rejected}
}

func classifyTransient(we *wechat.Error) channel.Outcome {
	posted := we.Endpoint == "" || we.Endpoint == wechat.EndpointSendTemplate
	switch {
	case posted && we.Reason == wechat.ReasonInvalidTemplate:
		return channel.Outcome{Verdict: channel.Retry, After: catalog.RetryAfter}
	case posted && we.Code != 0:
		return channel.Outcome{Verdict: channel.Retry, After: retryAfter}
	}
	// There is no token, or WeChat cannot be reached: nothing has left, and it is not the message's
	// fault.
	return channel.Outcome{Verdict: channel.PauseAccount, Pause: channel.PauseNetwork}
}

// confirms says what a refusal proves to work. WeChat refused the message for a reason of its own:
// the account works. Where the reason is the person alone, the template does, too.
func confirms(we *wechat.Error) channel.Scope {
	if we.Uncertain || we.Endpoint != wechat.EndpointSendTemplate || we.Code == 0 {
		return channel.ScopeNone
	}
	switch we.Policy {
	case wechat.PolicyRecipient, wechat.PolicyRecipientLater:
		return channel.ScopeTemplate
	case wechat.PolicyRequest:
		return channel.ScopeAccount
	}
	return channel.ScopeNone
}

// Learn tells the catalog which templates WeChat knows or denies, and has the map recheck the
// people whom it took for followers and WeChat does not.
func (c *Channel) Learn(ctx context.Context, done []channel.Delivery) error {
	doubtful := make(map[bridge.RecheckReason][]string)
	for _, d := range done {
		o, template := d.Outcome, d.Draft.TemplateID()
		reason := wechat.Reason(o.Reason)
		switch {
		case o.Verdict == channel.Sent:
			c.catalog.Confirm(template)
		case o.Verdict == channel.Retry && reason == wechat.ReasonInvalidTemplate:
			c.catalog.Invalidate(template)
		case o.Verdict == channel.Rejected && reason == wechat.ReasonInvalidKeyword:
			c.catalog.Invalidate(template)
			c.catalog.Confirm(template)
		case o.Verdict == channel.Unreachable:
			doubt := bridge.RecheckSendRefused
			if reason == wechat.ReasonInvalidOpenID {
				doubt = bridge.RecheckSendInvalid
			}
			doubtful[doubt] = append(doubtful[doubt], d.Address.OpenID)
		}
	}
	var errs []error
	for doubt, openids := range doubtful {
		errs = append(errs, c.cfg.Identities.RequestRecheck(ctx, c.cfg.AppID, openids, doubt))
	}
	return errors.Join(errs...)
}
