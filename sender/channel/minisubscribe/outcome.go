package minisubscribe

import (
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/channel/answer"
)

const (
	codeConcurrent       = 43108
	retryConcurrentAfter = time.Second // until the other message to the person is through
)

// outcome is what WeChat's answer to one POST means. counted: there is a ledger, so a person who
// allows nothing now may do so later and be noticed.
func outcome(msgid int64, err error, counted bool) channel.Outcome {
	kind := answer.Kind{
		Endpoint: wechat.EndpointSendSubscribe,
		After:    map[int]time.Duration{codeConcurrent: retryConcurrentAfter},
	}
	return kind.Outcome(msgid, err, func(we *wechat.Error) channel.Verdict {
		// 43101 is never accepted, used up and switched off alike. Without a ledger nobody would
		// notice that it has changed.
		if we.Reason == wechat.ReasonNoGrant && counted {
			return channel.Unreachable
		}
		// Also an openid that is not this mini program's: no other answer can be hoped for.
		return channel.Rejected
	})
}
