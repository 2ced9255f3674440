// Package oatemplate is the channel of the official account's template messages. It knows what
// WeChat's answers to them mean, and tells the map and the catalog what they taught. It must not
// know the queue, retry, sleep or store.
package oatemplate

import (
	"context"
	"log/slog"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/channel/catalog"
)

// Name is send_request.channel of a message that went out as a template message.
const Name channel.Name = "oa_template"

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

var _ channel.Channel = (*Channel)(nil)

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
		Receipts:    true,
	}
}

// Resolve finds the targets' openids at the account.
func (c *Channel) Resolve(ctx context.Context, to []channel.Target) ([]channel.Address, error) {
	if len(to) == 0 {
		return nil, nil
	}
	recipients := make([]bridge.Recipient, len(to))
	for i, t := range to {
		recipients[i] = t.Recipient
	}
	return c.cfg.Identities.Resolve(ctx, c.cfg.AppID, recipients)
}

// Close waits for the load of the catalog that runs.
func (c *Channel) Close() { c.catalog.Close() }
