package minisubscribe

import (
	"errors"
	"math"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/channel/catalog"
)

// How long the first repetition of a transient error waits.
const (
	retryAfter           = 5 * time.Second
	retryConcurrentAfter = time.Second      // 43108: until the other message is through
	retryRecipientAfter  = 30 * time.Minute // 43117: this person got too many messages for now
)

const codeConcurrent = 43108

// outcome is what WeChat's answer to one POST means. counted: there is a ledger, so a person who
// allows nothing now may do so later and be noticed.
func outcome(msgid int64, err error, counted bool) channel.Outcome {
	if err == nil {
		return channel.Outcome{Verdict: channel.Sent, MsgID: msgid, Confirms: channel.ScopeTemplate}
	}
	we, ok := errors.AsType[*wechat.Error](err)
	if !ok {
		// Not from the client: whether the message went out is not known.
		we = &wechat.Error{Reason: "internal", Policy: wechat.PolicyUncertain, Message: err.Error()}
	}
	o := classify(we, counted)
	o.Reason, o.Message, o.Err = string(we.Reason), we.Message, we
	o.Cure = wechat.ExplainAt(wechat.EndpointSendSubscribe, we.Code)
	// An odd answer must not make the row unwritable: the column is an INT.
	o.Code = min(max(we.Code, math.MinInt32), math.MaxInt32)
	o.Confirms = confirms(we)
	o.Overloaded = we.Reason == wechat.ReasonSystemError
	o.Refused = we.Policy == wechat.PolicyRecipient && o.Verdict != channel.InDoubt
	return o
}

// classify is the table: what the engine does about an error.
func classify(we *wechat.Error, counted bool) channel.Outcome {
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
	}
	// 43101 is never accepted, used up and switched off alike. Without a ledger nobody would notice
	// that it has changed.
	if we.Reason == wechat.ReasonNoGrant && counted {
		return channel.Outcome{Verdict: channel.Unreachable}
	}
	// Also an openid that is not this mini program's: no other answer can be hoped for.
	return channel.Outcome{Verdict: channel.Rejected}
}

func classifyTransient(we *wechat.Error) channel.Outcome {
	posted := we.Endpoint == "" || we.Endpoint == wechat.EndpointSendSubscribe
	switch {
	case posted && we.Reason == wechat.ReasonInvalidTemplate:
		return channel.Outcome{Verdict: channel.Retry, After: catalog.RetryAfter}
	case posted && we.Code == codeConcurrent:
		return channel.Outcome{Verdict: channel.Retry, After: retryConcurrentAfter}
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
	if we.Uncertain || we.Endpoint != wechat.EndpointSendSubscribe || we.Code == 0 {
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
