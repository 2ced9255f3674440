package sender

import (
	"context"
	"slices"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// pollEvery is the pace of the one query that looks for due rows of all idle accounts. With the
// lease's renewals an idle daemon stays under five queries a second, and a row waits a ninth of a
// second on average.
const pollEvery = 221 * time.Millisecond

// pollBesideLogins is the pace while rows wait for logins: the reading of those and the walk take more
// than a query a second.
const pollBesideLogins = 290 * time.Millisecond

// poller wakes accounts that have something to do.
type poller struct {
	*shared
	accounts []*account
}

// run wakes idle accounts that have rows to claim, until ctx ends. Busy ones look for themselves.
func (p *poller) run(ctx context.Context) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for failures := 0; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if p.releaser.AwaitingLogin() {
			tick.Reset(pollBesideLogins)
		} else {
			tick.Reset(pollEvery)
		}
		idle := slices.DeleteFunc(slices.Clone(p.accounts), func(a *account) bool {
			return !a.idle.Load() || a.throttle.Paused()
		})
		if len(idle) == 0 {
			continue
		}
		begin := p.Now()
		lanes, err := p.lanes.Pending(ctx, pollEvery/2)
		if err != nil && ctx.Err() == nil {
			if failures++; failures == 1 {
				p.Logger.Error("looking for due requests", "err", err)
			}
			sleep(ctx, backoff(failures, pollEvery, 5*time.Second))
			continue
		}
		failures = 0
		for _, a := range idle {
			due := func(l queue.Lane) bool {
				return a.claimable(l, 1) > 0 || a.impossible(l) ||
					l.Due && a.owns(l) && a.throttle.BudgetDecides()
			}
			if a.redelivery.due(p.Now()) || slices.ContainsFunc(lanes, due) {
				notify(a.wake)
			}
		}
		// Where no index answers at once, looking must not become the server's main load.
		sleep(ctx, min(4*p.Now().Sub(begin)-pollEvery, 5*time.Second))
	}
}

// leasePoll is how often an instance checks, with one query for all accounts, whether a lease has
// run out that another one held. With the lease's own expiry it bounds how long a dead holder's
// account stands idle: 15 s also where its last renewal reached the database and its answer did
// not.
const leasePoll = time.Second

// watchLeases wakes the accounts that nobody sends for, until ctx ends.
func (p *poller) watchLeases(ctx context.Context) {
	tick := time.NewTicker(leasePoll)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if !slices.ContainsFunc(p.accounts, func(a *account) bool { return !a.owner.Load() }) {
			continue
		}
		held, err := database.HeldLeases(ctx, p.DB)
		if err != nil {
			continue // the accounts' own tries say so
		}
		for _, a := range p.accounts {
			name := queue.LeaseName(a.AppID)
			holds := func(l database.HeldLease) bool { return l.Name == name }
			if !a.owner.Load() && !slices.ContainsFunc(held, holds) {
				notify(a.free)
			}
		}
	}
}
