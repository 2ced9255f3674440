// Package minisubscribe is the channel of a mini program's subscribe messages. It knows what
// WeChat's answers to them mean, and what a person has to have allowed. It must not know the queue,
// retry or sleep, and stores nothing but what its ledger of grants does.
package minisubscribe

import (
	"context"
	"log/slog"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/bridge/grants"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/channel/catalog"
)

// Name is send_request.channel of a message that went out as a subscribe message.
const Name channel.Name = "mini_subscribe"

// API is what the channel asks WeChat. SendSubscribe makes exactly one POST a call.
type API interface {
	SendSubscribe(ctx context.Context, m wechat.SubscribeMessage) (msgid int64, err error)
	SubscribeTemplates(ctx context.Context) ([]wechat.SubscribeTemplate, error)
}

// Identities is what the channel asks the map.
type Identities interface {
	ResolveMini(
		ctx context.Context, appid string, to []bridge.Recipient,
	) ([]bridge.Resolution, error)
}

// Grants is the ledger of what people allow, a *grants.Ledger. It is a hint: WeChat decides.
type Grants interface {
	// Available returns how many messages each person still allows of a template, less those that
	// are under way, in one query; same length and order. A long-term grant is a large number.
	Available(ctx context.Context, appid string, asked []grants.Grant) ([]int, error)
	// AcceptedAt returns when each person last accepted a template; same length and order.
	AcceptedAt(ctx context.Context, appid string, asked []grants.Grant) ([]time.Time, error)
	// Settle writes uses into the ledger, in the transaction that settles their messages. A message
	// that WeChat refused for another reason than the person's will uses none.
	Settle(ctx context.Context, tx *sqlx.Tx, appid string, uses []grants.Use) error
}

// Attempts are where attempts are written down, a *grants.Ledger: what they hold of a grant is not
// available.
type Attempts interface {
	// Reserve reports of each attempt whether the person allows it; those are written. Of an account
	// whose grants are not counted all are.
	Reserve(
		ctx context.Context, tx *sqlx.Tx, appid string, attempts []grants.Attempt,
	) ([]bool, error)
}

// Alias is what the configuration says of a template's alias for this mini program.
type Alias struct {
	ID       string
	Truncate bool              // values of kind thing are cut to WeChat's limit
	Keys     map[string]string // the alias's own key → this template's key
	Page     string
	State    string // developer, trial, formal; "": formal
	Lang     string // "": zh_CN
}

// Config is what a Channel needs; Aliases may be empty.
type Config struct {
	AppID      string
	API        API
	Identities Identities
	Grants     Grants // nil: nothing is counted, WeChat alone decides
	Attempts   Attempts
	Aliases    map[string]Alias
	Preflight  bool // check messages against the mini program's templates first
	Logger     *slog.Logger
	Now        func() time.Time
}

// Channel sends subscribe messages from one mini program.
type Channel struct {
	cfg     Config
	catalog *catalog.Catalog // nil: neither pre-flight nor a ledger, which needs to know the types
}

var (
	_ channel.Channel   = (*Channel)(nil)
	_ channel.Settler   = (*Channel)(nil)
	_ channel.Previewer = (*Channel)(nil)

	_ channel.Attempter = (*Channel)(nil)
)

// New returns the channel. It makes no call.
func New(cfg Config) *Channel {
	c := &Channel{cfg: cfg}
	if cfg.Preflight || cfg.Grants != nil {
		c.catalog = catalog.NewSubscribe(cfg.API, cfg.Logger, cfg.Now)
	}
	return c
}

// Name is "mini_subscribe".
func (c *Channel) Name() channel.Name { return Name }

// AppID is the mini program.
func (c *Channel) AppID() string { return c.cfg.AppID }

// Traits of subscribe messages. There is no client_msg_id, so an attempt in doubt is not repeated.
// subscribe_msg_sent_event is no receipt: it is promised for failures only.
//
// https://developers.weixin.qq.com/miniprogram/dev/OpenApiDoc/mp-message-management/subscribe-message/sendMessage.html
func (c *Channel) Traits() channel.Traits {
	return channel.Traits{
		SerialPerPerson: true,
		QuotaPath:       wechat.EndpointSendSubscribe,
		Waits:           true,
		Ledger:          c.cfg.Grants != nil,
	}
}

// Resolve finds the targets' openids at the mini program, and whether they allow the template.
// Where several messages of a batch go to one person, the earlier ones take what is left.
func (c *Channel) Resolve(ctx context.Context, to []channel.Target) ([]channel.Address, error) {
	recipients := make([]bridge.Recipient, len(to))
	for i, t := range to {
		recipients[i] = t.Recipient
	}
	found, err := c.cfg.Identities.ResolveMini(ctx, c.cfg.AppID, recipients)
	if err != nil {
		return nil, err
	}
	for i, t := range to {
		// Where nothing is counted, nobody would notice that the person allows it by now.
		refused := c.cfg.Grants == nil && !t.RefusedAt.IsZero()
		if refused && found[i].Reachability == bridge.Reachable {
			found[i].Reachability, found[i].OpenID = bridge.Refused, ""
		}
	}
	if c.cfg.Grants == nil {
		return found, nil
	}
	left, err := c.available(ctx, to, found)
	if err != nil {
		return nil, err
	}
	closed, err := c.closed(ctx, to, found)
	if err != nil {
		return nil, err
	}
	for i := range found {
		grant := grants.Grant{OpenID: found[i].OpenID, TemplateID: to[i].TemplateID}
		if found[i].Reachability != bridge.Reachable {
			continue
		}
		found[i].Awaits = append(found[i].Awaits,
			bridge.GrantKey(c.cfg.AppID, grant.OpenID, grant.TemplateID))
		if !closed[i] && left[grant] > 0 {
			left[grant]--
			continue
		}
		found[i].Reachability, found[i].OpenID = channel.NoGrant, ""
	}
	return found, nil
}

// closed reports of each reachable target whether its message was refused here and the person has
// accepted nothing since. The ledger alone would let it go again: only 43101 uses up what is left.
func (c *Channel) closed(
	ctx context.Context, to []channel.Target, found []channel.Address,
) ([]bool, error) {
	closed := make([]bool, len(to))
	var which []int
	var asked []grants.Grant
	for i, t := range to {
		if found[i].Reachability == bridge.Reachable && !t.RefusedAt.IsZero() {
			which = append(which, i)
			asked = append(asked, grants.Grant{OpenID: found[i].OpenID, TemplateID: t.TemplateID})
		}
	}
	if len(asked) == 0 {
		return closed, nil
	}
	accepted, err := c.cfg.Grants.AcceptedAt(ctx, c.cfg.AppID, asked)
	if err != nil {
		return nil, err
	}
	for k, i := range which {
		closed[i] = !accepted[k].After(to[i].RefusedAt)
	}
	return closed, nil
}

// Reserve writes down whom messages are about to go to, and what they hold of each grant.
func (c *Channel) Reserve(
	ctx context.Context, tx *sqlx.Tx, attempts []channel.Reservation,
) ([]channel.Address, error) {
	asked, addresses := make([]grants.Attempt, len(attempts)), make([]channel.Address, len(attempts))
	for i, a := range attempts {
		addresses[i] = a.Address
		asked[i] = grants.Attempt{
			RequestID: a.RequestID, Lease: a.Lease,
			Grant: grants.Grant{OpenID: a.Address.OpenID, TemplateID: a.Draft.TemplateID()},
		}
	}
	may, err := c.cfg.Attempts.Reserve(ctx, tx, c.cfg.AppID, asked)
	for i := range may {
		if !may[i] {
			addresses[i].Reachability, addresses[i].OpenID = channel.NoGrant, ""
		}
	}
	return addresses, err
}

// available is how many messages the reachable people still allow, each of their template.
func (c *Channel) available(
	ctx context.Context, to []channel.Target, found []channel.Address,
) (map[grants.Grant]int, error) {
	left := make(map[grants.Grant]int, len(found))
	var asked []grants.Grant
	for i, address := range found {
		grant := grants.Grant{OpenID: address.OpenID, TemplateID: to[i].TemplateID}
		if _, twice := left[grant]; twice || address.Reachability != bridge.Reachable {
			continue
		}
		left[grant], asked = 0, append(asked, grant)
	}
	if len(asked) == 0 {
		return left, nil
	}
	counts, err := c.cfg.Grants.Available(ctx, c.cfg.AppID, asked)
	if err != nil {
		return nil, err
	}
	for i, grant := range asked {
		left[grant] = counts[i]
	}
	return left, nil
}

// Deliver posts a draft that Prepare made.
func (c *Channel) Deliver(
	ctx context.Context, d channel.Draft, to channel.Address,
) channel.Outcome {
	m := d.(*draft).message
	m.ToUser = to.OpenID
	msgid, err := c.cfg.API.SendSubscribe(ctx, m)
	return outcome(msgid, err, c.cfg.Grants != nil)
}

// Learn tells the catalog which templates WeChat knows or denies.
func (c *Channel) Learn(_ context.Context, done []channel.Delivery) error {
	for _, d := range done {
		c.catalog.Learn(d)
	}
	return nil
}

// Settle writes into the ledger what was used up, and what WeChat says is not there.
func (c *Channel) Settle(ctx context.Context, tx *sqlx.Tx, done []channel.Delivery) error {
	if c.cfg.Grants == nil {
		return nil
	}
	var uses []grants.Use
	for _, d := range done {
		refused := wechat.Reason(d.Outcome.Reason) == wechat.ReasonNoGrant
		if d.Outcome.Verdict != channel.Sent && !refused {
			continue // a message in doubt keeps what it holds until somebody knows
		}
		use := grants.Use{RequestID: d.Attempt.RequestID, At: d.Attempt.At, Refused: refused,
			Grant: grants.Grant{OpenID: d.Address.OpenID, TemplateID: d.Draft.TemplateID()}}
		use.LongTerm, use.Known = c.catalog.LongTerm(use.TemplateID)
		uses = append(uses, use)
	}
	if len(uses) == 0 {
		return nil
	}
	return c.cfg.Grants.Settle(ctx, tx, c.cfg.AppID, uses)
}

// Wait waits for the load of the catalog that runs.
func (c *Channel) Wait() { c.catalog.Wait() }
