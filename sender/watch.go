package sender

import (
	"context"
	"time"
)

// watchEvery is the pace of the one query that looks for due rows of all idle accounts. With the lease's
// renewals an idle daemon stays under five queries a second, and a row waits a ninth of a second on
// average.
const watchEvery = 230 * time.Millisecond

// watch wakes idle accounts that have due rows. Busy ones look for themselves.
func (s *Service) watch(ctx context.Context) {
	byAppID := make(map[string]*worker, len(s.workers))
	for _, w := range s.workers {
		byAppID[w.account.AppID] = w
	}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for failures := 0; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		var idle []Account
		for _, w := range s.workers {
			if w.idle.Load() && !w.pause.active(s.cfg.Now()) {
				idle = append(idle, w.account)
			}
		}
		if len(idle) == 0 {
			continue
		}
		due, err := s.store.anyDue(ctx, idle)
		if err != nil && ctx.Err() == nil {
			if failures++; failures == 1 {
				s.cfg.Logger.Error("looking for due requests", "err", err)
			}
			wait(ctx, backoff(failures, watchEvery, 5*time.Second))
			continue
		}
		failures = 0
		for _, appid := range due {
			signal(byAppID[appid].wake)
		}
	}
}
