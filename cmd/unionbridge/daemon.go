package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	gosync "sync"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/doctor"
	"github.com/unionbridge/unionbridge/internal/status/figures"
	"github.com/unionbridge/unionbridge/internal/web"
)

// databasePause is how often a daemon that waits for its database tries again.
const databasePause = time.Second

// webGrace is what stays for the listener after everything else: a scrape or a probe is quick.
const webGrace = 2 * time.Second

// daemon is everything that "unionbridge run" runs. start goes from cheap failures to costly ones:
// the listener, so that a taken port is known at once and /readyz shows what the daemon waits for;
// the database; the work. stop undoes what there is of it, work first.
type daemon struct {
	cfg      *config.Config
	log      *slog.Logger
	migrate  bool
	notify   notifier
	registry *prometheus.Registry
	web      *web.Admin
	db       *sqlx.DB

	callbacks *callbacks // nil: nothing listens for WeChat's pushes
	doors     *doors     // nil: nothing listens for applications
	leasing   *task
	work      []func(context.Context) error // the stops of sync, sender and retention

	// ready is what /readyz asks; it changes as the daemon starts and stops.
	ready atomic.Pointer[func(context.Context) error]
	watch atomic.Pointer[doctor.Watch] // nil: not started yet
}

func newDaemon(cfg *config.Config, log *slog.Logger, migrate bool, notify notifier) *daemon {
	d := &daemon{cfg: cfg, log: log, migrate: migrate, notify: notify, registry: newRegistry()}
	d.setPhase("starting")
	d.web = web.NewAdmin(web.AdminConfig{
		Listen: cfg.HTTP.Listen, Gatherer: d.registry, Version: buildInfo().version, Logger: log,
		Ready:    func(ctx context.Context) error { return (*d.ready.Load())(ctx) },
		Degraded: d.degraded,
	})
	return d
}

func (d *daemon) setPhase(phase string) {
	notReady := func(context.Context) error { return errors.New(phase) }
	d.ready.Store(&notReady)
	d.notify.status(phase)
}

// run works until ctx ends or something breaks for good, then drains.
func (d *daemon) run(ctx context.Context) error {
	err := d.start(ctx)
	if err == nil {
		err = d.wait(ctx)
	}
	if interrupted := ctx.Err() != nil; interrupted {
		d.log.Info("stopping", "cause", context.Cause(ctx), "timeout", d.cfg.ShutdownTimeout.Std())
		err = nil // a stop that was asked for is no failure, not even during the start
	}
	d.notify.stopping()
	d.setPhase("stopping")
	stopErr := d.stop(context.WithoutCancel(ctx))
	if stopErr == nil && err == nil {
		d.log.Info("stopped")
	}
	return errors.Join(err, stopErr)
}

func (d *daemon) start(ctx context.Context) error {
	if err := d.web.Start(ctx); err != nil {
		return exitError{exitFailed, err} // a network error, and not the database's
	}
	d.log.Info("starting", "version", buildInfo().version, "listen", d.web.Addr())
	if err := d.patiently(ctx, d.tryDatabase); err != nil {
		return err
	}
	d.registry.MustRegister(collectors.NewDBStatsCollector(d.db.DB, "unionbridge"))
	p := newParts(d.cfg, d.log, d.registry, d.db)
	d.registry.MustRegister(figures.NewCollector(p.figures(), p.holder))
	sending, err := p.sender()
	if err != nil {
		return err
	}
	syncing := p.sync(sending)
	err = d.patiently(ctx, func(ctx context.Context) error {
		return database.AnnounceInstance(ctx, d.db, p.holder)
	})
	if err != nil {
		return err
	}
	starting := ctx
	// The work must end by stop, in its order, and not all at once with ctx.
	ctx = context.WithoutCancel(ctx)
	d.leasing = startTask(ctx, p.renewLeases)
	d.work = append(d.work, sending.Stop, syncing.Stop)
	if err := syncing.Start(ctx); err != nil {
		return err
	}
	err = d.patiently(starting, func(context.Context) error { return sending.Start(ctx) })
	if err != nil {
		return err
	}
	// It does not hold up the start: WeChat may be slow, or away.
	d.watch.Store(p.watch)
	for _, run := range []func(context.Context){
		p.purger().Run, p.watch.Run, p.ledger.Run, p.announce, p.eraser.Run,
	} {
		d.work = append(d.work, startTask(ctx, run).stop)
	}
	if d.callbacks, err = p.callbacks(syncing, sending); err != nil {
		return err
	}
	if err := d.callbacks.start(ctx); err != nil {
		return exitError{exitFailed, err}
	}
	if d.doors, err = p.doors(); err != nil {
		return err
	}
	if err := d.doors.start(ctx); err != nil {
		return exitError{exitFailed, err}
	}
	working := func(ctx context.Context) error {
		return cmp.Or(d.checkDatabase(ctx), sending.Unsettled())
	}
	d.ready.Store(&working)
	accounts := "1 official account"
	if n := len(d.cfg.OfficialAccounts); n != 1 {
		accounts = fmt.Sprintf("%d official accounts", n)
	}
	if n := len(sendingMinis(d.cfg)); n > 0 {
		accounts += fmt.Sprintf(", %d sending mini programs", n)
	}
	d.notify.ready(fmt.Sprintf("%s, listening on %s", accounts, d.web.Addr()))
	d.log.Info("started", "accounts", len(sendingAccounts(d.cfg)), "holder", p.holder)
	return nil
}

type task struct {
	cancel context.CancelFunc
	ended  chan struct{}
}

func startTask(ctx context.Context, run func(context.Context)) *task {
	ctx, cancel := context.WithCancel(ctx)
	t := &task{cancel: cancel, ended: make(chan struct{})}
	go func() {
		defer close(t.ended)
		run(ctx)
	}()
	return t
}

// stop ends the task and waits for that until ctx ends. A nil task was never started.
func (t *task) stop(ctx context.Context) error {
	if t == nil {
		return nil
	}
	t.cancel()
	select {
	case <-t.ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for background work to end: %w", ctx.Err())
	}
}

// patiently does a part of the start, and waits for a database that is down: at boot, daemons start in
// any order, and it may go again between two parts. What a person must fix ends the start: a wrong
// password, an older schema, a missing grant.
func (d *daemon) patiently(ctx context.Context, part func(context.Context) error) error {
	for waiting := false; ; waiting = true {
		err := part(ctx)
		if err == nil && waiting {
			d.log.Info("the database is available")
		}
		if err == nil || ctx.Err() != nil || !database.IsUnavailable(err) {
			return err
		}
		if !waiting {
			d.log.Warn("waiting for the database", "err", err)
			d.setPhase("waiting for the database: " + err.Error())
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(databasePause):
		}
	}
}

func (d *daemon) tryDatabase(ctx context.Context) error {
	db, err := database.Open(ctx, databaseConfig(d.cfg, d.log))
	if err != nil {
		return err
	}
	if d.migrate {
		err = migrate(ctx, d.cfg, d.log)
	}
	if err == nil {
		err = database.CheckSchema(ctx, db)
	}
	if err == nil {
		err = database.CheckGrants(ctx, db)
	}
	if err != nil {
		return errors.Join(err, db.Close())
	}
	d.db = db
	return nil
}

func (d *daemon) checkDatabase(ctx context.Context) error {
	if err := d.db.PingContext(ctx); err != nil {
		return fmt.Errorf("database: %w", err)
	}
	return database.CheckSchema(ctx, d.db)
}

// wait keeps systemd's watchdog content until ctx ends or the listener breaks.
func (d *daemon) wait(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var watching gosync.WaitGroup
	watching.Go(func() { d.notify.watchdog(ctx, d.web.Alive) })
	defer watching.Wait()
	defer cancel()
	select {
	case <-ctx.Done():
		return nil
	case err := <-d.web.Failed():
		return err
	case err := <-d.callbacks.failed():
		return err
	case err := <-d.doors.failed():
		return err
	}
}

// stop ends what has been started: intake and work first, side by side because they share the time
// that there is; then the leases, so that a successor takes over at once; the listener last, so
// that probes and scrapes see the drain.
func (d *daemon) stop(ctx context.Context) error {
	drain, cancel := context.WithTimeout(ctx, d.cfg.ShutdownTimeout.Std())
	defer cancel()
	var intakeErrs [2]error
	var closing gosync.WaitGroup
	closing.Go(func() { intakeErrs[0] = d.callbacks.stop(drain) })
	closing.Go(func() { intakeErrs[1] = d.doors.stop(drain) })
	closing.Wait()
	workErrs := make([]error, len(d.work))
	var stopping gosync.WaitGroup
	for i, stop := range d.work {
		stopping.Go(func() { workErrs[i] = stop(drain) })
	}
	stopping.Wait()
	leaseErr := d.leasing.stop(ctx)
	grace, cancel := context.WithTimeout(ctx, webGrace)
	defer cancel()
	webErr := d.web.Stop(grace)
	var dbErr error
	if d.db != nil {
		dbErr = d.db.Close()
	}
	return errors.Join(errors.Join(intakeErrs[:]...), errors.Join(workErrs...), leaseErr, webErr, dbErr)
}
