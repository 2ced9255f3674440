package sender

import (
	"context"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
)

// watchEvery is the pace of the one query that looks for due rows of all idle accounts. With the lease's
// renewals an idle daemon stays under five queries a second, and a row waits a ninth of a second on
// average.
const watchEvery = 220 * time.Millisecond

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

const (
	// houseEvery is the pace of the rounds that look after waiting rows and rows nobody claims.
	houseEvery = 20 * time.Second
	// housePage rows are looked at in one statement.
	housePage = 1000
)

// keepHouse looks after the rows that claiming does not see, every houseEvery and when an account has been
// taken over.
func (s *Service) keepHouse(ctx context.Context) {
	for {
		begin := s.cfg.Now()
		for _, w := range s.workers {
			if !w.owner.Load() || ctx.Err() != nil {
				continue
			}
			if err := w.lookAfterWaiting(ctx); err != nil && ctx.Err() == nil {
				w.log.Error("looking after waiting requests", "err", err)
			}
		}
		if err := s.endStrays(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.Error("looking for requests that nobody claims", "err", err)
		}
		// A round over a million waiting rows takes a while: it must not become the database's main load.
		pause := time.NewTimer(max(houseEvery, 10*s.cfg.Now().Sub(begin)))
		select {
		case <-pause.C:
		case <-s.house:
			pause.Stop()
		case <-ctx.Done():
			pause.Stop()
			return
		}
	}
}

// lookAfterWaiting ends the waits that have lasted long enough and releases the rows whose recipients
// have appeared.
func (w *worker) lookAfterWaiting(ctx context.Context) error {
	if err := w.svc.store.endWaits(ctx, w.account.AppID); err != nil {
		return err
	}
	for after := int64(0); ; {
		rows, err := w.svc.store.waiting(ctx, w.account.AppID, after, housePage)
		if err != nil || len(rows) == 0 {
			return err
		}
		after = rows[len(rows)-1].ID
		if err := w.release(ctx, rows); err != nil {
			return err
		}
	}
}

func (w *worker) release(ctx context.Context, rows []request) error {
	var withdrawn, released []int64
	var candidates []request
	var recipients []bridge.Recipient
	for _, row := range rows {
		recipient, wrong := w.svc.recipient(row)
		switch {
		case row.Cancel:
			withdrawn = append(withdrawn, row.ID)
		case wrong != nil:
			released = append(released, row.ID) // the configuration has changed: the claim says what is wrong
		default:
			candidates, recipients = append(candidates, row), append(recipients, recipient)
		}
	}
	found, err := w.resolve(ctx, recipients)
	if err != nil {
		return err
	}
	for i, row := range candidates {
		if found[i].Standing == bridge.Reachable {
			released = append(released, row.ID)
		}
	}
	if err := w.svc.store.cancel(ctx, statusWaiting, withdrawn); err != nil {
		return err
	}
	return w.svc.store.release(ctx, released)
}
