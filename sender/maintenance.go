package sender

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
)

const (
	// maintenanceInterval is the pace of the maintenance of waiting rows and rows nobody claims.
	maintenanceInterval = 20 * time.Second
	// pageSize rows are looked at in one statement.
	pageSize = 1000
)

// maintain handles the rows that the claim loop does not see, every maintenanceInterval and when an account has been
// taken over.
func (s *Service) maintain(ctx context.Context) {
	for {
		begin := s.cfg.Now()
		if err := s.maintainOnce(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Logger.Error("looking after open requests", "err", err)
		}
		// A round over a million waiting rows takes a while: it must not become the database's main load.
		pause := time.NewTimer(max(maintenanceInterval, 3*s.cfg.Now().Sub(begin)))
		select {
		case <-pause.C:
		case <-s.takenOver:
			pause.Stop()
		case <-ctx.Done():
			pause.Stop()
			return
		}
	}
}

// maintainOnce costs one query where there is nothing to do.
func (s *Service) maintainOnce(ctx context.Context) error {
	lanes, err := s.store.lanes(ctx, statusPending, statusWaiting, statusUnknown)
	if err != nil {
		return err
	}
	var errs []error
	for _, a := range s.accounts {
		if a.owner.Load() {
			a.limiter.tick(s.cfg.Now())
			errs = append(errs, a.reloadState(ctx), a.settleByReceipts(ctx, lanes))
		}
	}
	for _, l := range lanes {
		if unroutable := s.unroutable(l); unroutable != nil && l.Status != statusUnknown {
			errs = append(errs, s.failUnroutable(ctx, l, *unroutable))
			continue
		}
		for _, a := range s.accounts {
			if l.Status == statusWaiting && a.cfg.AppID == l.AppID.String && a.owner.Load() {
				errs = append(errs, a.maintainWaiting(ctx, l))
			}
		}
	}
	return errors.Join(errs...)
}

// unroutable says why no claimer sees a lane; nil: one does.
func (s *Service) unroutable(l lane) *rejection {
	known := false
	for _, a := range s.accounts {
		known = known || a.cfg.AppID == l.AppID.String || (!l.AppID.Valid && a.cfg.Default)
	}
	switch {
	case !known:
		return &rejection{reasonUnknownAccount, fmt.Sprintf("appid %q is not configured under official_accounts", l.AppID.String)}
	case l.Priority < 0 || l.Priority > 2:
		return &rejection{reasonBadPriority, fmt.Sprintf(
			"priority is %d: it must be 0 (urgent), 1 (normal) or 2 (bulk)", l.Priority)}
	}
	return nil
}

func (s *Service) failUnroutable(ctx context.Context, l lane, why rejection) error {
	n, err := s.store.failLane(ctx, l, why)
	if n > 0 {
		s.cfg.Logger.Warn("requests that no account can send have failed", "rows", n, "reason", why.reason, "errmsg", why.text)
	}
	return err
}

// maintainWaiting ends the waits that have lasted long enough and releases the rows whose recipients
// have appeared.
func (a *account) maintainWaiting(ctx context.Context, l lane) error {
	if err := a.svc.store.endWaits(ctx, l); err != nil {
		return err
	}
	for last := (request{}); ; {
		rows, err := a.svc.store.waiting(ctx, l, last, pageSize)
		if err != nil || len(rows) == 0 {
			return err
		}
		last = rows[len(rows)-1]
		if err := a.releaseReachable(ctx, rows); err != nil {
			return err
		}
	}
}

func (a *account) releaseReachable(ctx context.Context, rows []request) error {
	var withdrawn, released []int64
	var candidates []request
	var recipients []bridge.Recipient
	for _, row := range rows {
		recipient, rejected := a.svc.recipient(row)
		switch {
		case row.Cancel:
			withdrawn = append(withdrawn, row.ID)
		case rejected != nil:
			released = append(released, row.ID) // the configuration has changed: the claim says what is wrong
		default:
			candidates, recipients = append(candidates, row), append(recipients, recipient)
		}
	}
	found, err := a.resolve(ctx, recipients)
	if err != nil {
		return err
	}
	for i, row := range candidates {
		// Somebody whom the map does not have has been refused: he has to appear there first.
		if found[i].Standing == bridge.Reachable && !found[i].Unlisted {
			released = append(released, row.ID)
		}
	}
	if _, err := a.svc.store.cancel(ctx, cancelOrder{from: statusWaiting, ids: withdrawn}); err != nil {
		return err
	}
	return a.svc.store.releaseWaiting(ctx, released)
}
