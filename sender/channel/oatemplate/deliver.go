package oatemplate

import (
	"context"
	"errors"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/sender/channel"
)

// Deliver posts a draft that Prepare made.
func (c *Channel) Deliver(
	ctx context.Context, d channel.Draft, to channel.Address,
) channel.Outcome {
	m := d.(*draft).message
	m.ToUser = to.OpenID
	msgid, err := c.cfg.API.SendTemplate(ctx, m)
	return outcome(msgid, err, to.Unlisted)
}

// Learn tells the catalog which templates WeChat knows or denies, and has the map ask about the
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
