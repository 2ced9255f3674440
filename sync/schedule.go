package sync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	gosync "sync"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/wechat"
)

type schedule struct {
	cron   *cron.Cron
	cancel context.CancelFunc
	jobs   gosync.WaitGroup // those that Start itself began
}

// Start sweeps and refreshes by the accounts' cron lines and returns at once. An account whose last
// sweep did not end well, or that has none, is swept at once, and again every ten minutes until it
// succeeds. An unreadable cron line is an error, and nothing runs then.
func (s *Service) Start(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	// Skip is outside Recover. The other way round a panic would leave Skip's token taken, and the
	// job would never run again.
	logger := cronLogger{s.cfg.Logger}
	sched := &schedule{
		cron: cron.New(cron.WithLogger(logger),
			cron.WithChain(cron.SkipIfStillRunning(logger), cron.Recover(logger))),
		cancel: cancel,
	}
	for _, a := range s.cfg.Accounts {
		for _, j := range []struct {
			line string
			do   func()
		}{
			{a.Sweep, func() { s.runJob(ctx, kindSweep, a.AppID) }},
			{a.Refresh, func() { s.runJob(ctx, kindRefresh, a.AppID) }},
			{retryCheck, func() { s.catchUp(ctx, a.AppID, retryAfter) }},
			{bindingCheck, func() { s.checkBinding(ctx, a.AppID) }},
		} {
			if _, err := sched.cron.AddFunc(j.line, j.do); err != nil {
				cancel()
				return fmt.Errorf("reading the schedule %q of %s: %w", j.line, a.AppID, err)
			}
		}
		sched.jobs.Go(func() { s.catchUp(ctx, a.AppID, 0) })
	}
	sched.jobs.Go(func() { s.adopt(ctx, &sched.jobs) })
	sched.jobs.Go(func() { s.recall(ctx) })
	s.schedule = sched
	sched.cron.Start()
	return nil
}

// recallPause is how often a database that is down is asked again.
const recallPause = 5 * time.Second

// recall fills the figures of each account's last good runs from the ledger: a restart must not look
// like an account that was never swept.
func (s *Service) recall(ctx context.Context) {
	for _, a := range s.cfg.Accounts {
		for _, kind := range []string{kindSweep, kindRefresh} {
			run, err := s.ledger.lastDone(ctx, kind, a.AppID)
			for err != nil && database.IsUnavailable(err) && ctx.Err() == nil {
				select {
				case <-time.After(recallPause):
				case <-ctx.Done():
				}
				run, err = s.ledger.lastDone(ctx, kind, a.AppID)
			}
			switch {
			case err != nil && ctx.Err() == nil:
				s.cfg.Logger.Warn("reading the last good run for the metrics", "appid", a.AppID,
					"kind", kind, "err", err)
			case run != nil:
				s.metrics.recall(run.Run)
			}
		}
	}
}

// Stop ends the schedule and the runs under way, and waits for them until ctx ends. It may be
// called more than once and without Start.
func (s *Service) Stop(ctx context.Context) error {
	if s.schedule == nil {
		return nil
	}
	s.schedule.cancel()
	err := await(ctx, func() {
		<-s.schedule.cron.Stop().Done()
		s.schedule.jobs.Wait()
	})
	if err != nil {
		return fmt.Errorf("waiting for sweeps to stop: %w", err)
	}
	return nil
}

// await runs wait, and returns its end or ctx's, whichever comes first.
func await(ctx context.Context, wait func()) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		wait()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A failed sweep resumes before its next turn, which may be a day away. Ten minutes between tries
// keep a lasting fault from using up the quota of user/get, 500 calls a day.
const (
	retryAfter = 10 * time.Minute
	retryCheck = "@every 1m"
)

// bindingCheck is how often a sample of the map is checked. It costs at most five calls of
// user/info.
const bindingCheck = "@every 1h"

// catchUp sweeps an account that has never been swept, or whose last sweep did not end well and was
// last active at least after ago. A suspended one waits for its quota.
func (s *Service) catchUp(ctx context.Context, appid string, after time.Duration) {
	last, err := s.ledger.last(ctx, kindSweep, appid)
	if err != nil {
		if ctx.Err() == nil {
			s.cfg.Logger.Error("reading the ledger", "appid", appid, "err", err)
		}
		return
	}
	if last == nil || last.overdue(after) {
		s.runJob(ctx, kindSweep, appid)
	}
}

// adoptEvery is how often an instance looks for sweeps whose instance died. With the lease's end it
// bounds how long such a sweep is interrupted.
const adoptEvery = 10 * time.Second

// adopt resumes sweeps whose instance died.
func (s *Service) adopt(ctx context.Context, jobs *gosync.WaitGroup) {
	tick := time.NewTicker(s.adoptEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		orphans, err := s.ledger.orphans(ctx)
		if err != nil && ctx.Err() == nil {
			s.cfg.Logger.Warn("looking for sweeps whose instance died", "err", err)
		}
		for _, appid := range orphans {
			if _, ours := s.accounts[appid]; ours {
				// The account's lease decides whether it really is an orphan.
				jobs.Go(func() { s.runJob(ctx, kindSweep, appid) })
			}
		}
	}
}

// overdue reports whether a sweep must be restarted or resumed.
func (r runRow) overdue(after time.Duration) bool {
	switch {
	case r.State == StateSuspended:
		return !r.Now.Before(r.ResumeAt)
	case r.State.resumable():
		return r.Now.Sub(r.Updated) >= after
	}
	return false
}

// runJob is what cron calls; the CLI calls Sweep. A run that ends well has logged its own line.
func (s *Service) runJob(ctx context.Context, kind, appid string) {
	var err error
	if kind == kindSweep {
		_, err = s.Sweep(ctx, appid, nil)
	} else {
		_, err = s.Refresh(ctx, appid)
	}
	s.report(ctx, kind, appid, err)
}

func (s *Service) report(ctx context.Context, what, appid string, err error) {
	switch {
	case err == nil:
	case errors.Is(err, ErrBusy):
		s.cfg.Logger.Debug("another instance has this run", "run", what, "appid", appid)
	case ctx.Err() != nil:
		s.cfg.Logger.Info("run interrupted by the shutdown, the next start resumes it",
			"run", what, "appid", appid)
	default:
		attrs := []any{"run", what, "appid", appid, "err", err}
		if we, ok := errors.AsType[*wechat.Error](err); ok {
			if cure := wechat.Explain(we.Code); cure != "" {
				attrs = append(attrs, "cure", cure)
			}
		}
		s.cfg.Logger.Error("run did not end well", attrs...)
	}
}

// cronLogger passes on cron's errors, and its other messages only at debug level.
type cronLogger struct{ log *slog.Logger }

func (l cronLogger) Info(msg string, kv ...any) { l.log.Debug("cron: "+msg, kv...) }

func (l cronLogger) Error(err error, msg string, kv ...any) {
	l.log.Error("cron: "+msg, append(kv, "err", err)...)
}
