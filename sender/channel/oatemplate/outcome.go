package oatemplate

import (
	"context"
	"errors"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/channel/answer"
)

// outcome is what WeChat's answer to one POST means. unlisted: the message went to an openid that
// the map does not have.
func outcome(msgid int64, err error, unlisted bool) channel.Outcome {
	kind := answer.Kind{Endpoint: wechat.EndpointSendTemplate}
	return kind.Outcome(msgid, err, func(we *wechat.Error) channel.Verdict {
		// An openid that only the producer knows and WeChat does not is simply wrong.
		if we.Reason == wechat.ReasonNotFollower ||
			we.Reason == wechat.ReasonInvalidOpenID && !unlisted {
			return channel.Unreachable
		}
		return channel.Rejected
	})
}

// Learn tells the catalog which templates WeChat knows or denies, and has the map recheck the
// people whom it took for followers and WeChat does not.
func (c *Channel) Learn(ctx context.Context, done []channel.Delivery) error {
	doubtful := make(map[bridge.RecheckReason][]string)
	for _, d := range done {
		c.catalog.Learn(d)
		if d.Outcome.Verdict != channel.Unreachable {
			continue
		}
		doubt := bridge.RecheckSendRefused
		if wechat.Reason(d.Outcome.Reason) == wechat.ReasonInvalidOpenID {
			doubt = bridge.RecheckSendInvalid
		}
		doubtful[doubt] = append(doubtful[doubt], d.Address.OpenID)
	}
	var errs []error
	for doubt, openids := range doubtful {
		errs = append(errs, c.cfg.Identities.RequestRecheck(ctx, c.cfg.AppID, openids, doubt))
	}
	return errors.Join(errs...)
}
