package sender

import (
	"cmp"
	"context"
	"database/sql"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/move"
	"github.com/unionbridge/unionbridge/sender/queue"
	"github.com/unionbridge/unionbridge/sender/route"
)

// placing is what comes before the claim of due rows.
type placing struct {
	own    []queue.Request   // to be claimed, each with its account and route
	routes map[string]string // what their claim writes out, by template
	done   int               // rows that have been put into another account's queue, or held back
	left   []int64           // rows that another transaction holds, or that the server refuses
}

// place puts due rows that name no account into the queue of the one that their own words name, and
// holds back what instances of older versions would get wrong. The others are this account's.
func (c *claimer) place(
	ctx context.Context, rows []queue.Request, skipLocked bool,
) (p placing, err error) {
	p.routes = make(map[string]string)
	elsewhere := make(map[route.Plan][]int64)
	var held []int64
	for _, row := range rows {
		plan, rejection := c.rules.Plan(move.Way(row))
		placed := bridge.ID(row.AppID.String) != ""
		switch {
		case row.Cancel || row.InDoubtFor.Valid || rejection != nil:
			p.own = append(p.own, row)
			continue
		case c.attempts != nil:
			held = append(held, row.ID)
		case !placed && plan.First != c.AppID:
			held = append(held, row.ID)
		}
		if !placed && plan.First != c.AppID {
			plan.Next = "" // of no interest here
			elsewhere[plan] = append(elsewhere[plan], row.ID)
			continue
		}
		if !placed && plan.Words != "" {
			p.routes[bridge.ID(row.Template)] = plan.Words
			row.Route = sql.NullString{String: plan.Words, Valid: true}
		}
		row.AppID = sql.NullString{String: c.AppID, Valid: true}
		p.own = append(p.own, row)
	}
	if len(held) == 0 {
		return p, nil
	}
	older, err := c.mover.Older(ctx)
	if err != nil {
		return p, err
	}
	if older != nil {
		return p, c.holdBack(ctx, &p, held, *older)
	}
	for plan, ids := range elsewhere {
		err := database.Detached(ctx, func(ctx context.Context) error {
			n, left, err := c.queue.Place(ctx, queue.PlaceOrder{
				To: plan.First, Route: plan.Words, IDs: ids, SkipLocked: skipLocked,
			})
			p.done, p.left = p.done+int(n), append(p.left, left...)
			return err
		})
		if err != nil {
			return p, err
		}
	}
	return p, nil
}

// holdBack leaves rows alone for a while that need what an older instance does not know.
func (c *claimer) holdBack(
	ctx context.Context, p *placing, ids []int64, why channel.Rejection,
) error {
	p.own = withoutIDs(p.own, ids)
	return database.Detached(ctx, func(ctx context.Context) error {
		n, left, err := c.queue.HoldBack(ctx, queue.Hold{
			AppID: c.AppID, Reason: why.Reason, Message: why.Message, For: why.After, IDs: ids,
		})
		p.done, p.left = p.done+int(n), append(p.left, left...)
		return err
	})
}

func withoutIDs(rows []queue.Request, ids []int64) (kept []queue.Request) {
	gone := make(map[int64]bool, len(ids))
	for _, id := range ids {
		gone[id] = true
	}
	for _, row := range rows {
		if !gone[row.ID] {
			kept = append(kept, row)
		}
	}
	return kept
}

// deferPlaced leaves the rows out of the next claims that could not be placed.
func (c *claimer) deferPlaced(ids []int64) {
	until := c.Now().Add(lockedFor)
	for _, id := range ids {
		if len(c.deferred) < maxDeferred {
			c.deferred[id] = until
		}
	}
}

// rulesOf are the routes that the configuration makes.
func rulesOf(cfg Config) *route.Rules {
	rules := route.Config{Templates: cfg.Templates, Aliases: cfg.Routes}
	for _, a := range cfg.Accounts {
		rules.Accounts = append(rules.Accounts,
			route.Account{AppID: a.AppID, Kind: kindOf(cfg, a.AppID), Default: a.Default})
	}
	return route.New(rules)
}

func (s *Service) newMover() *move.Mover {
	cfg := move.Config{
		Rules: s.rules, Templates: s.Templates, Levels: s.Levels,
		Targets: &move.LiveTargets{DB: s.DB, NeedsPerson: s.NeedsPerson,
			Now: func() time.Time { return s.Now() }},
	}
	for _, a := range s.accounts {
		cfg.Accounts = append(cfg.Accounts,
			move.Account{AppID: a.AppID, Channel: a.channel, Recipient: a.recipient})
	}
	return move.New(cfg)
}

// named is the account that a row's openid belongs to: the one that it was tried at first.
func (a *account) named(row queue.Request) string {
	return cmp.Or(bridge.ID(row.FallbackFrom.String), bridge.ID(row.AppID.String), a.AppID)
}
