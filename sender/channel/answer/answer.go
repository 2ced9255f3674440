// Package answer turns WeChat's answer to a POST into an Outcome, where all kinds of messages agree.
// It is pure: each channel adds what is its own, and tests the whole table.
package answer

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
	retryAfter          = 5 * time.Second
	retryRecipientAfter = 30 * time.Minute // 43117: this person got too many messages for now
)

// Kind is what sets one channel's answers apart.
type Kind struct {
	Endpoint string                // of the POST
	After    map[int]time.Duration // by errcode: the first repetition, where it is not the usual one
}

// Outcome is what an answer means. person decides about a refusal whose reason is the recipient alone,
// Rejected or Unreachable.
func (k Kind) Outcome(
	msgid int64, err error, person func(*wechat.Error) channel.Verdict,
) channel.Outcome {
	if err == nil {
		return channel.Outcome{Verdict: channel.Sent, MsgID: msgid, Confirms: channel.ScopeTemplate}
	}
	we, ok := errors.AsType[*wechat.Error](err)
	if !ok {
		// Not from the client: whether the message went out is not known.
		we = &wechat.Error{Reason: "internal", Policy: wechat.PolicyUncertain, Message: err.Error()}
	}
	o := k.classify(we, person)
	o.Reason, o.Message, o.Err = string(we.Reason), we.Message, we
	o.Cure = wechat.ExplainAt(k.Endpoint, we.Code)
	// An odd answer must not make the row unwritable: the column is an INT.
	o.Code = min(max(we.Code, math.MinInt32), math.MaxInt32)
	o.Confirms = k.confirms(we)
	o.Overloaded = we.Reason == wechat.ReasonSystemError
	o.Refused = we.Policy == wechat.PolicyRecipient && o.Verdict != channel.InDoubt
	return o
}

// classify is the table: what the engine does about an error.
func (k Kind) classify(
	we *wechat.Error, person func(*wechat.Error) channel.Verdict,
) channel.Outcome {
	if we.Uncertain || we.Policy == wechat.PolicyUncertain {
		return channel.Outcome{Verdict: channel.InDoubt}
	}
	switch we.Policy {
	case wechat.PolicyRetry:
		return k.classifyTransient(we)
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
		return channel.Outcome{Verdict: person(we)}
	}
	return channel.Outcome{Verdict: channel.Rejected}
}

func (k Kind) classifyTransient(we *wechat.Error) channel.Outcome {
	if we.Endpoint != "" && we.Endpoint != k.Endpoint || we.Code == 0 &&
		we.Reason != wechat.ReasonInvalidTemplate {
		// There is no token, or WeChat cannot be reached: nothing has left, and it is not the
		// message's fault.
		return channel.Outcome{Verdict: channel.PauseAccount, Pause: channel.PauseNetwork}
	}
	after, own := k.After[we.Code]
	switch {
	case we.Reason == wechat.ReasonInvalidTemplate:
		after = catalog.RetryAfter
	case !own:
		after = retryAfter
	}
	return channel.Outcome{Verdict: channel.Retry, After: after}
}

// confirms says what a refusal proves to work. WeChat refused the message for a reason of its own:
// the account works. Where the reason is the person alone, the template does, too.
func (k Kind) confirms(we *wechat.Error) channel.Scope {
	if we.Uncertain || we.Endpoint != k.Endpoint || we.Code == 0 {
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
