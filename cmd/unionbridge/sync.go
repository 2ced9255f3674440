package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sync"
)

func (c *cli) syncCommand() *cobra.Command {
	var appids []string
	var acceptGone int64
	cmd := &cobra.Command{
		Use:   "sync",
		Short: "Sweep the follower lists now, and show the progress",
		Long: `Compare WeChat's whole follower list with the map now, as the daemon does on its schedule.
It may run beside the daemon: only one of them sweeps an account at a time.

The progress goes to standard error, a summary line for each account to standard output.
Interrupted by Ctrl-C nothing is lost: what was stored stays, and nobody is marked as gone.
The next sweep resumes where this one stopped.

A sweep that would mark more followers as gone than max_gone allows marks nobody and is
blocked. If they really left, --accept-gone RUN sweeps that run's account once more and
allows as many as RUN has missed, and 100 more, as people go on leaving. Each of them is
checked first, as always. The error message and "unionbridge status" name RUN.`,
		Args: cobra.NoArgs,
	}
	cmd.RunE = c.work(func(cmd *cobra.Command, _ []string) error {
		if cmd.Flags().Changed("accept-gone") && acceptGone <= 0 {
			return usageError("--accept-gone %d: the number of a run is above 0", acceptGone)
		}
		return c.sync(cmd.Context(), appids, acceptGone)
	})
	cmd.Flags().Int64Var(&acceptGone, "accept-gone", 0,
		"confirm the blocked `run`: its missing followers really left")
	cmd.Flags().StringArrayVar(&appids, "account", nil,
		"`appid` of an official account to sweep; repeatable; default: all")
	cmd.MarkFlagsMutuallyExclusive("account", "accept-gone") // the run names its account
	return cmd
}

// sync sweeps accounts, or that of the blocked run acceptGone if it is not 0.
func (c *cli) sync(ctx context.Context, appids []string, acceptGone int64) error {
	var accounts []config.OfficialAccount
	screen := newProgress(c.stderr, time.Now)
	needs := access{check: database.CheckSchema, log: screen, before: func(cfg *config.Config) (err error) {
		accounts, err = officialAccounts(cfg, appids)
		return err
	}}
	return c.withDatabase(ctx, needs, func(cfg *config.Config, db *sqlx.DB) (err error) {
		p := newParts(cfg, commandLogger(cfg.Log, screen), prometheus.NewRegistry(), db)
		// A signal ends the sweep first, and then its lease.
		detached := context.WithoutCancel(ctx)
		leasing := startTask(detached, p.renewLeases)
		defer func() { _ = leasing.stop(detached) }() // it waits without a limit
		service := p.sync()
		if acceptGone > 0 {
			run, err := service.AcceptGone(ctx, acceptGone, screen.show)
			screen.end()
			return c.swept(ctx, cfg, run, err)
		}
		for _, account := range accounts {
			run, failure := service.Sweep(ctx, account.AppID, screen.show)
			screen.end()
			// The other accounts have nothing to do with this one's failure.
			err = errors.Join(err, c.swept(ctx, cfg, run, failure))
			if ctx.Err() != nil {
				return err
			}
		}
		return err
	})
}

// swept prints what a sweep did, and says what its error means here.
func (c *cli) swept(ctx context.Context, cfg *config.Config, run sync.Run, err error) error {
	if run.ID == 0 { // nothing has begun: ErrBusy, or a run that cannot be accepted
		return err
	}
	if _, err := fmt.Fprintln(c.stdout, summary(accountName(cfg, run.AppID), run)); err != nil {
		return err
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return exitError{exitInterrupted, errInterrupted}
	}
	return fmt.Errorf("sweeping %s: %w", run.AppID, err)
}

func accountName(cfg *config.Config, appid string) string {
	for _, a := range cfg.OfficialAccounts {
		if a.AppID == appid && a.Name != appid {
			return appid + " " + a.Name
		}
	}
	return appid
}

func summary(name string, run sync.Run) string {
	line := fmt.Sprintf("%s: %s: %d listed, %d added, %d changed, %d gone, %d calls, %.1f seconds",
		name, run.State, run.Listed, run.Added, run.Changed, run.Gone, totalCalls(run),
		run.Ended.Sub(run.Started).Seconds())
	if run.State == sync.StateSuspended {
		line += "; out of quota, a running daemon resumes it at " +
			run.ResumeAt.Local().Format(time.RFC3339)
	}
	return line
}

func totalCalls(run sync.Run) int64 {
	var n int64
	for _, calls := range run.Calls {
		n += calls
	}
	return n
}
