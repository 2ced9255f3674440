// Package move finds out whether a request that its account cannot deliver may go to the other
// account of its route. It asks that account's channel, and decides nothing about the row: the
// engine and the releaser of waiting rows do.
package move

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/queue"
	"github.com/unionbridge/unionbridge/sender/route"
)

// Account is one that rows may be moved to.
type Account struct {
	AppID   string
	Channel channel.Channel
	// Recipient is the person a row names, as this account is asked for them.
	Recipient func(queue.Request) (bridge.Recipient, *channel.Rejection)
}

// Levels are what all live instances can do: database.FeatureLevels.
type Levels interface {
	Lowest(ctx context.Context) (level int, holder string, err error)
}

// Targets reports whether messages of a template go out from an account at present: an instance
// sends for it, and nothing waits for a person.
type Targets interface {
	Open(ctx context.Context, appid, templateID string) (bool, error)
}

// Config is what a Mover needs; every field is required but Levels.
type Config struct {
	Rules     *route.Rules
	Templates channel.Templates
	Accounts  []Account
	Targets   Targets
	Levels    Levels // nil: all instances are as new as this one
}

// Mover asks the other accounts of rows. It is safe for concurrent use.
type Mover struct{ cfg Config }

// New returns a Mover.
func New(cfg Config) *Mover { return &Mover{cfg} }

// Answer is what the other account of a row said.
type Answer struct {
	First string // the account that the row was, or is, tried at first
	Other string // the one that was asked; "": the row has no other
	// Reachable: the other one can reach the person, and nothing speaks against asking it to.
	Reachable bool
	Address   channel.Address // what its channel said of the person
}

// Certain reports whether an account's word about a person is no for certain: the map does not take
// them for somebody whom the account may reach after all.
func Certain(r bridge.Reachability) bool {
	return r != bridge.Reachable && r != bridge.InDoubt && r != bridge.Ambiguous
}

// Way returns what the columns of a row say of its way.
func Way(r queue.Request) route.Row {
	return route.Row{Template: r.Template, AppID: r.AppID.String, Route: r.Route.String,
		MiniAppID: r.MiniAppID.String, FallbackFrom: r.FallbackFrom.String}
}

// RefusedAt is when the person last refused a row's message at an account; zero: never. What came
// before does not make the account reach them again.
func (m *Mover) RefusedAt(row queue.Request, appid string) time.Time {
	plan, rejection := m.cfg.Rules.Plan(Way(row))
	switch {
	case rejection != nil:
	case appid == plan.First:
		return row.FirstRefusedAt.Time
	case appid == plan.Next:
		return row.OtherRefusedAt.Time
	}
	return time.Time{}
}

// Ask asks the other account of each row, which stands in the queue of its AppID; same length and
// order.
func (m *Mover) Ask(ctx context.Context, rows []queue.Request) ([]Answer, error) {
	looks, err := m.look(ctx, rows, false)
	answers := make([]Answer, len(looks))
	for i := range looks {
		answers[i] = looks[i].Answer
	}
	return answers, err
}

// Look is what both accounts of a row said.
type Look struct {
	Own       channel.Address    // of the account in whose queue it stands
	Rejection *channel.Rejection // why that one cannot be asked; nil: it has been
	Answer
}

// Goes reports whether a waiting row goes to its other account: that one can reach the person, and
// its own cannot for certain. A refusal of the row itself is certain, although the map has the
// person rechecked because of it.
func (l Look) Goes(row queue.Request) bool {
	rechecked := l.Own.Reachability == bridge.InDoubt && row.Reason.String != string(bridge.InDoubt)
	return l.Reachable && (rechecked || Certain(l.Own.Reachability))
}

// Look asks both accounts of each row; same length and order. Where an account reaches a person for
// some of the rows only, these are the earlier ones.
func (m *Mover) Look(ctx context.Context, rows []queue.Request) ([]Look, error) {
	return m.look(ctx, rows, true)
}

// question is a row whose recipient an account is asked for.
type question struct {
	row    int
	own    bool // it stands in the account's queue
	target channel.Target
}

func (m *Mover) look(ctx context.Context, rows []queue.Request, own bool) ([]Look, error) {
	looks, asked := make([]Look, len(rows)), make(map[string][]question)
	for i, row := range rows {
		at := bridge.ID(row.AppID.String)
		plan, rejection := m.cfg.Rules.Plan(Way(row))
		if rejection != nil {
			looks[i].Rejection = rejection
			continue
		}
		if own {
			looks[i].Rejection = m.ask(asked, at, question{row: i, own: true}, row)
		}
		if other := plan.Other(at); other != "" && m.account(other) != nil {
			looks[i].First, looks[i].Other = plan.First, other
			_ = m.ask(asked, other, question{row: i}, row) // else the person cannot be named there
		}
	}
	for _, appid := range slices.Sorted(maps.Keys(asked)) {
		if err := m.answer(ctx, appid, asked[appid], looks); err != nil {
			return nil, fmt.Errorf("asking whether %s can reach them: %w", appid, err)
		}
	}
	return looks, nil
}

// ask adds a question to those of an account, or says why it cannot be asked.
func (m *Mover) ask(
	asked map[string][]question, appid string, q question, row queue.Request,
) *channel.Rejection {
	a := m.account(appid)
	if a == nil {
		return nil
	}
	recipient, rejection := a.Recipient(row)
	if rejection != nil {
		return rejection
	}
	q.target = channel.Target{
		Recipient: recipient, TemplateID: m.cfg.Templates.Known(row.Template, appid),
		RefusedAt: m.RefusedAt(row, appid),
	}
	asked[appid] = append(asked[appid], q)
	return nil
}

func (m *Mover) account(appid string) *Account {
	for i := range m.cfg.Accounts {
		if m.cfg.Accounts[i].AppID == appid {
			return &m.cfg.Accounts[i]
		}
	}
	return nil
}

// answer asks one account and fills in what it says.
func (m *Mover) answer(
	ctx context.Context, appid string, questions []question, looks []Look,
) error {
	targets := make([]channel.Target, len(questions))
	for i, q := range questions {
		targets[i] = q.target
	}
	found, err := m.account(appid).Channel.Resolve(ctx, targets)
	if err != nil {
		return err
	}
	for i, q := range questions {
		look := &looks[q.row]
		if q.own {
			look.Own = found[i]
			continue
		}
		look.Address = found[i]
		if found[i].Reachability != bridge.Reachable {
			continue
		}
		if look.Reachable, err = m.cfg.Targets.Open(ctx, appid, q.target.TemplateID); err != nil {
			return err
		}
	}
	return nil
}

// How long a row is left alone that needs what an older instance does not know.
const olderFor = 30 * time.Second

// ReasonOlderInstance is send_request.reason of a row that waits until all instances can do what it
// needs.
const ReasonOlderInstance = "older_instance"

// Older returns why rows that need routes, moves or attempts must not change yet; nil: all live
// instances know them.
func (m *Mover) Older(ctx context.Context) (*channel.Rejection, error) {
	if m.cfg.Levels == nil {
		return nil, nil
	}
	level, holder, err := m.cfg.Levels.Lowest(ctx)
	if err != nil || level >= database.FeatureLevel {
		return nil, err
	}
	return &channel.Rejection{Reason: ReasonOlderInstance, After: olderFor, Message: fmt.Sprintf(
		"instance %s is of an older version, which knows neither routes nor mini programs that send: "+
			"the request waits until that instance is updated or stopped", holder)}, nil
}
