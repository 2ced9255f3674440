package sender

import (
	"context"
	"slices"
	"time"
)

// pollInterval is the pace of the one query that looks for due rows of all idle accounts. With the lease's
// renewals an idle daemon stays under five queries a second, and a row waits a ninth of a second on
// average.
const pollInterval = 221 * time.Millisecond

// poll wakes idle accounts that have rows to claim. Busy ones look for themselves.
func (s *Service) poll(ctx context.Context) {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for failures := 0; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		idle := s.idle()
		if len(idle) == 0 {
			continue
		}
		begin := s.cfg.Now()
		lanes, err := s.pendingLanes(ctx, pollInterval/2)
		if err != nil && ctx.Err() == nil {
			if failures++; failures == 1 {
				s.cfg.Logger.Error("looking for due requests", "err", err)
			}
			sleep(ctx, backoff(failures, pollInterval, 5*time.Second))
			continue
		}
		failures = 0
		for _, a := range idle {
			due := func(l lane) bool { return a.claimable(l, 1) > 0 || l.Due && a.owns(l) && a.budgetDecides() }
			if a.redeliveries.due(s.cfg.Now()) || slices.ContainsFunc(lanes, due) {
				notify(a.wake)
			}
		}
		// Where no index answers at once, looking must not become the server's main load.
		sleep(ctx, min(4*s.cfg.Now().Sub(begin)-pollInterval, 5*time.Second))
	}
}

func (s *Service) idle() []*account {
	var idle []*account
	for _, a := range s.accounts {
		if a.idle.Load() && !a.breaker.active(s.cfg.Now()) {
			idle = append(idle, a)
		}
	}
	return idle
}
