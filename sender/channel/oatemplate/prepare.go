package oatemplate

import (
	"context"
	"net/url"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechat/keyword"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/channel/catalog"
)

// draft is a message that lacks only its receiver's openid.
type draft struct {
	message wechat.TemplateMessage
	warning string
}

func (d *draft) TemplateID() string { return d.message.TemplateID }

func (d *draft) Warning() string { return d.warning }

// Prepare checks what a row says, with the catalog if there is one.
func (c *Channel) Prepare(
	ctx context.Context, row channel.Content,
) (channel.Draft, *channel.Rejection) {
	values, why := channel.ParseData(row.Data)
	if why != nil {
		return nil, why
	}
	link, why := c.link(row)
	if why != nil {
		return nil, why
	}
	m := catalog.Message{TemplateID: row.TemplateID, Values: values, Redelivery: row.Redelivery}
	if c.truncates(row) {
		m.Warn(keyword.Fit(m.Values)...)
	}
	if why := c.catalog.Validate(ctx, &m); why != nil {
		return nil, why
	}
	return &draft{warning: channel.Describe(m.Warnings), message: wechat.TemplateMessage{
		TemplateID: row.TemplateID, URL: row.URL, MiniProgram: link,
		Data: wechat.TemplateData(m.Values), ClientMsgID: row.ClientMsgID,
	}}, nil
}

// truncates reports whether the free texts of a row are cut: as the alias says that it names, or,
// if it names the template by its id, as any alias of that template says.
func (c *Channel) truncates(row channel.Content) bool {
	if alias, ok := c.cfg.Aliases[row.Template]; ok {
		return alias.Truncate
	}
	for _, alias := range c.cfg.Aliases { // a few dozen at most
		if alias.Truncate && alias.ID == row.TemplateID {
			return true
		}
	}
	return false
}

func (c *Channel) link(row channel.Content) (*wechat.MiniProgramLink, *channel.Rejection) {
	if row.URL != "" {
		u, err := url.Parse(row.URL)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return nil, channel.Reject(channel.ReasonBadLink,
				"url must be a whole address that begins with https:// or http://")
		}
	}
	if row.MiniPath == "" {
		return nil, nil
	}
	appid, why := c.cfg.MiniApps.Choose(row.MiniAppID, "mini_path")
	if why != nil {
		return nil, channel.Reject(channel.ReasonBadLink, why.Message)
	}
	return &wechat.MiniProgramLink{AppID: appid, PagePath: row.MiniPath}, nil
}
