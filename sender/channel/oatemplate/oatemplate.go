// Package oatemplate is the channel of the official account's template messages. It knows what
// WeChat's answers to them mean, and tells the map and the catalog what they taught. It must not
// know the queue, retry, sleep or store.
package oatemplate

import (
	"context"
	"log/slog"
	"net/url"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechat/keyword"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/channel/catalog"
)

// Name is send_request.channel of a message that went out as a template message.
const Name channel.Name = "oa_template"

// clockSkew is how far WeChat's clock, by which people follow, may be from the database's. Too much
// costs one more refusal, too little a message.
const clockSkew = 5 * time.Second

// API is what the channel asks WeChat. SendTemplate makes exactly one POST a call.
type API interface {
	SendTemplate(ctx context.Context, m wechat.TemplateMessage) (msgid int64, err error)
	PrivateTemplates(ctx context.Context) ([]wechat.Template, error)
}

// Identities is what the channel asks the map.
type Identities interface {
	Resolve(ctx context.Context, appid string, to []bridge.Recipient) ([]bridge.Resolution, error)
	RequestRecheck(ctx context.Context, appid string, openids []string, reason bridge.RecheckReason) error
}

// Alias is what the configuration says of a template's alias for this account.
type Alias struct {
	ID       string
	Truncate bool // values of kind thing are cut to WeChat's limit
}

// Config is what a Channel needs; Aliases and MiniApps may be empty.
type Config struct {
	AppID      string
	API        API
	Identities Identities
	Aliases    map[string]Alias
	MiniApps   channel.MiniApps
	Preflight  bool // check messages against the account's templates first
	Logger     *slog.Logger
	Now        func() time.Time
}

// Channel sends template messages from one official account.
type Channel struct {
	cfg     Config
	catalog *catalog.Catalog // nil: no pre-flight
}

var (
	_ channel.Channel   = (*Channel)(nil)
	_ channel.Previewer = (*Channel)(nil)
)

// New returns the channel. It makes no call.
func New(cfg Config) *Channel {
	c := &Channel{cfg: cfg}
	if cfg.Preflight {
		c.catalog = catalog.New(cfg.API, cfg.Logger, cfg.Now)
	}
	return c
}

// Name is "oa_template".
func (c *Channel) Name() channel.Name { return Name }

// AppID is the official account.
func (c *Channel) AppID() string { return c.cfg.AppID }

// Traits of template messages.
//
// https://developers.weixin.qq.com/doc/service/api/notify/template/api_sendtemplatemessage
func (c *Channel) Traits() channel.Traits {
	return channel.Traits{
		Idempotency: 10 * time.Minute,
		QuotaPath:   wechat.EndpointSendTemplate,
		Waits:       true,
		WaitOver:    "no_follower",
		Receipts:    true,
	}
}

// draft is a message that lacks only its receiver's openid.
type draft struct {
	message wechat.TemplateMessage
	warning string
}

func (d *draft) TemplateID() string { return d.message.TemplateID }
func (d *draft) Warning() string    { return d.warning }

// Prepare checks what a row says, with the catalog if there is one.
func (c *Channel) Prepare(
	ctx context.Context, row channel.Content,
) (channel.Draft, *channel.Rejection) {
	m, link, why := c.message(row)
	if why == nil {
		why = c.catalog.Validate(ctx, &m)
	}
	if why != nil {
		return nil, why
	}
	return &draft{warning: channel.Describe(m.Warnings), message: wechat.TemplateMessage{
		TemplateID: row.TemplateID, URL: row.URL, MiniProgram: link,
		Data: wechat.TemplateData(m.Values), ClientMsgID: row.ClientMsgID,
	}}, nil
}

// Preview says what Prepare would reject, as far as is known.
func (c *Channel) Preview(row channel.Content) *channel.Rejection {
	m, _, why := c.message(row)
	if why != nil {
		return why
	}
	return c.catalog.Peek(&m)
}

// Keys returns the keys of a template, as far as they are known.
func (c *Channel) Keys(templateID string) []string { return c.catalog.Keys(templateID) }

// message reads what a row says.
func (c *Channel) message(
	row channel.Content,
) (m catalog.Message, link *wechat.MiniProgramLink, why *channel.Rejection) {
	values, why := channel.ParseData(row.Data)
	if why != nil {
		return m, nil, why
	}
	if link, why = c.link(row); why != nil {
		return m, nil, why
	}
	m = catalog.Message{TemplateID: row.TemplateID, Values: values, Redelivery: row.Redelivery}
	if c.truncates(row) {
		m.Warn(keyword.Fit(m.Values)...)
	}
	return m, link, nil
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
			return nil, channel.RejectField(channel.ReasonBadLink, "url",
				"url must be a whole address that begins with https:// or http://")
		}
	}
	if row.JumpAppID != "" { // WeChat knows which ones the account is linked with; no path: its first page
		return &wechat.MiniProgramLink{AppID: row.JumpAppID, PagePath: row.MiniPath}, nil
	}
	if row.MiniPath == "" {
		return nil, nil
	}
	appid, why := c.cfg.MiniApps.Choose(row.MiniAppID, "mini_path")
	if why != nil {
		return nil, channel.RejectField(channel.ReasonBadLink, "mini_path", why.Message)
	}
	return &wechat.MiniProgramLink{AppID: appid, PagePath: row.MiniPath}, nil
}

// Resolve finds the targets' openids at the account.
func (c *Channel) Resolve(ctx context.Context, to []channel.Target) ([]channel.Address, error) {
	recipients := make([]bridge.Recipient, len(to))
	for i, t := range to {
		recipients[i] = t.Recipient
	}
	found, err := c.cfg.Identities.Resolve(ctx, c.cfg.AppID, recipients)
	if err != nil {
		return nil, err
	}
	for i, t := range to {
		again := found[i].FollowedAt.Add(clockSkew).After(t.RefusedAt)
		if found[i].Reachability == bridge.Reachable && !t.RefusedAt.IsZero() && !again {
			found[i].Reachability, found[i].OpenID = bridge.Refused, ""
		}
	}
	return found, nil
}

// Deliver posts a draft that Prepare made.
func (c *Channel) Deliver(
	ctx context.Context, d channel.Draft, to channel.Address,
) channel.Outcome {
	m := d.(*draft).message
	m.ToUser = to.OpenID
	msgid, err := c.cfg.API.SendTemplate(ctx, m)
	return outcome(msgid, err, to.Unlisted)
}

// Wait waits for the load of the catalog that runs.
func (c *Channel) Wait() { c.catalog.Wait() }
