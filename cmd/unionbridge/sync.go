package main

import (
	"context"
	"errors"
	"fmt"
	gosync "sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sync"
)

func (c *cli) syncCommand() *cobra.Command {
	var appids []string
	cmd := &cobra.Command{
		Use:   "sync",
		Short: "Sweep the follower lists now, and show the progress",
		Long: `Compare WeChat's whole follower list with the map now, as the daemon does on its schedule.
It may run beside the daemon: only one of them sweeps an account at a time.

The progress goes to standard error, a summary line for each account to standard output.
Interrupted by Ctrl-C nothing is lost: what was stored stays, and nobody is marked as gone.`,
		Args: cobra.NoArgs,
		RunE: c.work(func(cmd *cobra.Command, _ []string) error { return c.sync(cmd.Context(), appids) }),
	}
	cmd.Flags().StringArrayVar(&appids, "account", nil, "`appid` of an official account to sweep; repeatable; default: all")
	return cmd
}

func (c *cli) sync(ctx context.Context, appids []string) (err error) {
	cfg, err := c.loadConfig()
	if err != nil {
		return err
	}
	accounts, err := officialAccounts(cfg, appids)
	if err != nil {
		return err
	}
	screen := newProgress(c.stderr, time.Now)
	log := commandLogger(cfg.Log, screen)
	db, err := database.Open(ctx, databaseConfig(cfg, log))
	if err != nil {
		return databaseError(err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := database.CheckSchema(ctx, db); err != nil {
		return databaseError(err)
	}
	p := newParts(cfg, log, prometheus.NewRegistry(), db)
	defer keepLeases(ctx, p.leases)()
	service := p.sync()
	for _, account := range accounts {
		// The other accounts have nothing to do with this one's failure.
		err = errors.Join(err, c.sweep(ctx, service, account, screen))
		if ctx.Err() != nil {
			return err
		}
	}
	return err
}

// keepLeases renews the leases of a command until the returned function is called, which releases them.
func keepLeases(ctx context.Context, leases *database.Leases) (stop func()) {
	// A signal ends the sweep first, and then its lease.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running gosync.WaitGroup
	running.Go(func() { _ = leases.Run(ctx) }) // its only error is a missing holder
	return func() {
		cancel()
		running.Wait()
	}
}

// sweep sweeps one account and prints its summary.
func (c *cli) sweep(ctx context.Context, service *sync.Service, account config.OfficialAccount, screen *progress) error {
	screen.begin(account)
	run, err := service.Sweep(ctx, account.AppID, screen.show)
	screen.end()
	if errors.Is(err, sync.ErrBusy) {
		return err // it names the account, and there is no run
	}
	if run.ID != 0 {
		if _, err := fmt.Fprintln(c.stdout, summary(account, run)); err != nil {
			return err
		}
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return exitError{exitInterrupted, errInterrupted}
	}
	return fmt.Errorf("sweeping %s: %w", account.AppID, err)
}

// summary is one line of a finished run, for people and for awk.
func summary(account config.OfficialAccount, run sync.Run) string {
	name := account.AppID
	if account.Name != account.AppID {
		name += " " + account.Name
	}
	return fmt.Sprintf("%s: %s: %d listed, %d added, %d changed, %d gone, %d calls, %.1f seconds",
		name, run.State, run.Listed, run.Added, run.Changed, run.Gone, totalCalls(run), run.Ended.Sub(run.Started).Seconds())
}

func totalCalls(run sync.Run) int64 {
	var n int64
	for _, calls := range run.Calls {
		n += calls
	}
	return n
}
