package sync

import (
	"context"
	"fmt"
	"slices"
	gosync "sync"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/wechat/push"
)

// kindFollow is the kind of the runs that ask about people who have just followed, in the metrics and as prefix of the
// lease's name. They have no row in the ledger: one every few seconds would drive everything else out of it.
const kindFollow = "follow"

// Events takes the follows and unfollows that WeChat announces into the map, between the sweeps and beside them. It
// works with leases and notes of its own, so a sweep or a refresh that is under way is not disturbed: an unfollow touches
// one row, and whoever has followed is asked about one by one, as single answers are to be trusted.
//
// An event that is lost costs nothing but time: the next sweep finds what it would have said.
type Events struct {
	svc    *Service
	wake   map[string]chan struct{} // by appid
	cancel context.CancelFunc
	work   gosync.WaitGroup

	pause time.Duration // from an event to the question, by which questions come together
}

// NewEvents returns the events of svc's accounts. It does nothing until Start, except that Follow writes notes.
func NewEvents(svc *Service) *Events {
	e := &Events{svc: svc, wake: make(map[string]chan struct{}, len(svc.accounts)), pause: bridge.FollowDelay}
	for appid := range svc.accounts {
		e.wake[appid] = make(chan struct{}, 1)
	}
	return e
}

// Follow makes an event last: somebody who left is marked so at once, about somebody who follows it leaves a note.
// When it has returned nil the event survives a crash; the question follows within seconds. Events may be repeated and may
// come in any order: what is older than what the map knows is ignored.
func (e *Events) Follow(ctx context.Context, appid string, event push.FollowEvent) error {
	wake, ok := e.wake[appid]
	if !ok {
		return fmt.Errorf("official account %s is not configured: add it to official_accounts", appid)
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

// Start begins to ask about people who have followed, also those whom an earlier process has left over.
func (e *Events) Start(ctx context.Context) {
	ctx, e.cancel = context.WithCancel(ctx)
	for appid, wake := range e.wake {
		e.work.Go(func() { e.run(ctx, appid, wake) })
	}
}

// Stop ends the questions and waits for those under way until ctx ends. Open notes stay for the next start. It may be
// called more than once and without Start.
func (e *Events) Stop(ctx context.Context) error {
	if e.cancel == nil {
		return nil
	}
	e.cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.work.Wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for questions about new followers: %w", ctx.Err())
	}
}

// After a failure the questions wait, longer each time: a database or a WeChat that is down hears enough already, and a
// quota that is used up comes back the next day.
const (
	initialFollowRetry = 5 * time.Second
	maxFollowRetry     = 5 * time.Minute
)

// run asks about one account's new followers until ctx ends. Without any it costs nothing.
func (e *Events) run(ctx context.Context, appid string, wake <-chan struct{}) {
	retry := initialFollowRetry
	for {
		wait, err := e.pass(ctx, appid)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			e.svc.cfg.Logger.Warn("asking about new followers", "appid", appid, "again_in", retry, "err", err)
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
			// Those who follow within these seconds are asked about together.
			if !sleep(ctx, e.pause) {
				return
			}
		}
	}
}

// sleep tells whether d has passed before ctx ended.
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

// openFollows chooses the notes of follows that are read at once: those of the next two minutes.
const (
	followBatch = 100
	followAhead = 2 * time.Minute
)

func (e *Events) openFollows(ctx context.Context, appid string) ([]bridge.Recheck, error) {
	return e.svc.identities.DueRechecks(ctx, appid, bridge.Due{
		Reason: bridge.RecheckFollowed, Within: followAhead, Limit: followBatch,
	})
}

// pass asks about everybody who is due. wait is how long until the next one is, 0: nobody is waiting.
func (e *Events) pass(ctx context.Context, appid string) (wait time.Duration, err error) {
	open, err := e.openFollows(ctx, appid)
	if err != nil || len(open) == 0 {
		return 0, err
	}
	if open[0].WaitMS > 0 {
		return time.Duration(open[0].WaitMS) * time.Millisecond, nil
	}
	lease, err := e.svc.cfg.Leases.TryAcquire(ctx, LeaseName(kindFollow, appid))
	if err != nil {
		return 0, fmt.Errorf("acquiring the follow lease: %w", err)
	}
	if lease == nil { // another instance is asking; it may have been about to end
		return bridge.FollowDelay, nil
	}
	defer func() {
		if err := database.Detached(ctx, lease.Release); err != nil {
			e.svc.cfg.Logger.Warn("releasing a lease", "lease", lease.Name(), "err", err)
		}
	}()
	ctx, cancel := lease.Context(ctx)
	defer cancel()
	return e.askDue(ctx, appid, open)
}

// askDue asks about the notes that are due, batch after batch.
func (e *Events) askDue(ctx context.Context, appid string, open []bridge.Recheck) (time.Duration, error) {
	run := newRun(kindFollow, appid, e.svc.cfg.Now())
	sw, err := e.svc.newSweep(ctx, e.svc.accounts[appid], run)
	if err != nil {
		return 0, err
	}
	var wait time.Duration
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
	e.svc.cfg.Logger.Debug("asked about new followers", "appid", appid, "stored", r.Changed, "calls", r.Calls)
	return wait, err
}
