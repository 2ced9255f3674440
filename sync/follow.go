package sync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	gosync "sync"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/wechat/push"
)

// kindFollow is the kind of the runs that confirm new follows, in the metrics and in the lease's
// name. They have no row in the ledger: one every few seconds would drive out everything else.
const kindFollow = "follow"

// Events brings the follows and unfollows that WeChat pushes into the map, between and during
// sweeps. It has a lease of its own, so it does not disturb a running sweep or refresh: an unfollow
// changes one row, and new followers are fetched one by one, as single answers can be trusted.
//
// A lost event costs nothing but time: the next sweep finds the same.
type Events struct {
	svc    *Service
	wake   map[string]chan struct{} // by appid
	cancel context.CancelFunc
	work   gosync.WaitGroup

	pause time.Duration // from an event to the pass, so that events gather
}

// NewEvents returns the events of svc's accounts. Until Start it does nothing but store what Follow
// gets.
func NewEvents(svc *Service) *Events {
	e := &Events{svc: svc, wake: map[string]chan struct{}{}, pause: bridge.FollowDelay}
	for appid := range svc.accounts {
		e.wake[appid] = make(chan struct{}, 1)
	}
	return e
}

// Follow stores an event: an unfollow marks the person at once, a follow requests a recheck, which
// runs within seconds. Once it returns nil, the event survives a crash. Events may come repeatedly
// and in any order: one older than the map's knowledge is ignored.
func (e *Events) Follow(ctx context.Context, appid string, event push.FollowEvent) error {
	wake, ok := e.wake[appid]
	if !ok {
		return errUnknownAccount(appid)
	}
	note := e.svc.identities.NoteUnfollow
	if event.Followed {
		note = e.svc.identities.NoteFollow
	}
	if err := note(ctx, appid, event.OpenID, event.At); err != nil {
		return err
	}
	select {
	case wake <- struct{}{}:
	default: // it is awake
	}
	return nil
}

// Start begins to recheck new followers, including those that an earlier process left over.
func (e *Events) Start(ctx context.Context) {
	ctx, e.cancel = context.WithCancel(ctx)
	for appid, wake := range e.wake {
		e.work.Go(func() { e.run(ctx, appid, wake) })
	}
}

// Stop ends the rechecks and waits for those under way until ctx ends. Open ones stay for the next
// start. It may be called more than once and without Start.
func (e *Events) Stop(ctx context.Context) error {
	if e.cancel == nil {
		return nil
	}
	e.cancel()
	if err := await(ctx, e.work.Wait); err != nil {
		return fmt.Errorf("waiting for rechecks of new followers: %w", err)
	}
	return nil
}

// After a failure the next pass waits, longer each time: a database or WeChat that is down needs no
// more load, and a used-up quota returns the next day.
const (
	initialFollowRetry = 5 * time.Second
	maxFollowRetry     = 5 * time.Minute
)

// run rechecks one account's new followers until ctx ends. Without any it costs nothing.
func (e *Events) run(ctx context.Context, appid string, wake <-chan struct{}) {
	retry := initialFollowRetry
	for {
		wait, err := e.pass(ctx, appid)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			e.svc.cfg.Logger.Warn("rechecking new followers",
				"appid", appid, "again_in", retry, "err", err)
			if !sleep(ctx, retry) {
				return
			}
			retry = min(2*retry, maxFollowRetry)
			continue
		}
		retry = initialFollowRetry
		var due <-chan time.Time
		if wait > 0 {
			due = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-due:
		case <-wake:
			// People who follow within these seconds are rechecked together.
			if !sleep(ctx, e.pause) {
				return
			}
		}
	}
}

// sleep reports whether d passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// openFollows reads the follows that are due in the next two minutes.
const (
	followBatch = 100
	followAhead = 2 * time.Minute
)

func (e *Events) openFollows(ctx context.Context, appid string) ([]bridge.Recheck, error) {
	return e.svc.identities.DueRechecks(ctx, appid, bridge.Due{
		Reason: bridge.RecheckFollowed, Within: followAhead, Limit: followBatch,
	})
}

// pass rechecks everybody who is due. wait is the time until the next one; 0: there is none.
func (e *Events) pass(ctx context.Context, appid string) (wait time.Duration, err error) {
	open, err := e.openFollows(ctx, appid)
	if err != nil || len(open) == 0 {
		return 0, err
	}
	if open[0].WaitMS > 0 {
		return time.Duration(open[0].WaitMS) * time.Millisecond, nil
	}
	ctx, release, err := e.svc.lease(ctx, kindFollow, appid)
	if errors.Is(err, ErrBusy) { // the other instance may be about to end
		return bridge.FollowDelay, nil
	}
	if err != nil {
		return 0, err
	}
	defer release()
	return e.recheckDue(ctx, appid, open)
}

// recheckDue rechecks the follows that are due, batch after batch.
func (e *Events) recheckDue(
	ctx context.Context, appid string, open []bridge.Recheck,
) (wait time.Duration, err error) {
	run := newRun(kindFollow, appid, e.svc.cfg.Now())
	sw, err := e.svc.newSweep(ctx, e.svc.accounts[appid], run)
	if err != nil {
		return 0, err
	}
	for err == nil && len(open) > 0 && wait == 0 {
		due := slices.DeleteFunc(open, func(r bridge.Recheck) bool { return r.WaitMS > 0 })
		if err = sw.recheckAll(ctx, due); err != nil {
			break
		}
		open, err = e.openFollows(ctx, appid)
		if err == nil && len(open) > 0 && open[0].WaitMS > 0 {
			wait = time.Duration(open[0].WaitMS) * time.Millisecond
		}
	}
	sw.run.end(err, e.svc.cfg.Now(), e.svc.cfg.QuotaResetHour)
	r := sw.run.snapshot()
	e.svc.metrics.observe(r)
	e.svc.cfg.Logger.Debug("rechecked new followers",
		"appid", appid, "stored", r.Changed, "calls", r.Calls)
	return wait, err
}
