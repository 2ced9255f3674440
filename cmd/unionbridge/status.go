package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/queue"
	"github.com/unionbridge/unionbridge/sender/requests"
	"github.com/unionbridge/unionbridge/sync"
)

type statusFlags struct{ asJSON, coverage, check bool }

func (c *cli) statusCommand() *cobra.Command {
	var flags statusFlags
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show accounts, last runs, queue, pauses and alarms",
		Long: `Show how things stand, as the database knows it: each account's last sweep and refresh and its
next turn, the queue, paused accounts, which instance does what, and alarms: what a
person should look at. WeChat is not asked, and no daemon need run.

--coverage counts followers and mini-program users too: how many have a unionid, why others
do not, how many can be reached. It reads both tables whole, seconds for each million people.

The exit code is 0 also where there are alarms; with --check it is 1 then.`,
		Args: cobra.NoArgs,
		RunE: c.work(func(cmd *cobra.Command, _ []string) error { return c.status(cmd.Context(), flags) }),
	}
	cmd.Flags().BoolVar(&flags.asJSON, "json", false, "print JSON; docs/status.md has its shape")
	cmd.Flags().BoolVar(&flags.coverage, "coverage", false, "count what the map covers; slow with millions of people")
	cmd.Flags().BoolVar(&flags.check, "check", false, "exit with 1 if there is an alarm, for monitoring")
	return cmd
}

func (c *cli) status(ctx context.Context, flags statusFlags) (err error) {
	cfg, err := c.loadConfig()
	if err != nil {
		return err
	}
	settings := databaseConfig(cfg, commandLogger(cfg.Log, c.stderr))
	if flags.coverage {
		settings.StatementTimeout = coverageTimeout
	}
	db, err := database.Open(ctx, settings)
	if err != nil {
		return databaseError(err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := database.CheckSchema(ctx, db); err != nil {
		return databaseError(err)
	}
	reader := statusReader{cfg: cfg, now: time.Now()}
	if reader.held, err = database.HeldLeases(ctx, db); err != nil {
		return databaseError(err)
	}
	if reader.queue, err = (requests.Store{DB: db}).Overview(ctx); err != nil {
		return databaseError(err)
	}
	for _, a := range cfg.OfficialAccounts {
		history, err := sync.ReadHistory(ctx, db, a.AppID)
		if err != nil {
			return databaseError(err)
		}
		reader.history = append(reader.history, history)
	}
	if flags.coverage {
		reader.coverage, reader.miniWithout, err = bridge.New(db).Coverage(ctx)
		if err != nil {
			return databaseError(err)
		}
	}
	return c.showStatus(reader, flags)
}

// coverageTimeout is for an operator who waits: minutes for a hundred million people.
const coverageTimeout = time.Hour

func (c *cli) showStatus(reader statusReader, flags statusFlags) error {
	status, err := reader.status()
	if err != nil {
		return err
	}
	if flags.asJSON {
		encoder := json.NewEncoder(c.stdout)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(status)
	} else {
		err = writeStatus(c.stdout, status)
	}
	if err == nil && flags.check && len(status.Alarms) > 0 {
		return fmt.Errorf("%d alarms, the first: %s", len(status.Alarms), status.Alarms[0].Text)
	}
	return err
}

// statusReader makes a statusReport of what the packages have read.
type statusReader struct {
	cfg         *config.Config
	now         time.Time
	history     []sync.History // of cfg.OfficialAccounts, in their order
	queue       requests.Overview
	held        []database.HeldLease
	coverage    []bridge.Coverage // nil: not asked for
	miniWithout int64
}

func (r statusReader) status() (statusReport, error) {
	s := statusReport{At: jsonTime(r.now), Accounts: []accountStatus{}, Queue: r.queueStatus(), Pauses: []pauseStatus{},
		Leases: []leaseStatus{}, Alarms: []alarm{}}
	for i, a := range r.cfg.OfficialAccounts {
		account, err := r.account(a, r.history[i])
		if err != nil {
			return statusReport{}, err
		}
		s.Accounts = append(s.Accounts, account)
	}
	for _, p := range r.queue.Pauses {
		s.Pauses = append(s.Pauses, pauseStatus{AppID: p.AppID, Scope: p.Scope, Reason: p.Reason, ErrCode: p.ErrCode,
			ErrMsg: p.ErrMsg, Since: jsonTime(p.Since), Until: optionalTime(p.Until)})
	}
	for _, l := range r.held {
		s.Leases = append(s.Leases, leaseStatus{l.Name, l.Holder, l.Epoch, jsonTime(l.ExpiresAt)})
	}
	var err error
	s.Alarms, err = r.alarms()
	return s, err
}

func (r statusReader) account(a config.OfficialAccount, h sync.History) (accountStatus, error) {
	s := accountStatus{AppID: a.AppID, Name: a.Name, Default: a.Default, SentBy: orNull(r.holder(queue.LeaseName(a.AppID)))}
	sweep, err := r.turn(a.Sync.Sweep)
	if err != nil {
		return s, err
	}
	refresh, err := r.turn(a.Sync.Refresh)
	if err != nil {
		return s, err
	}
	s.Sweep = sweepStatus{jobStatus: sweep, LastGood: newRunStatus(h.GoodSweep)}
	s.Sweep.Last = newRunStatus(h.Sweep)
	s.Refresh = refresh
	s.Refresh.Last = newRunStatus(h.Refresh)
	for _, c := range r.coverage {
		if c.AppID == a.AppID {
			s.Coverage = &coverageStatus{Followers: c.Followers, Subscribed: c.Subscribed, WithUnionID: c.WithUnionID,
				NotAsked: c.NotAsked, AskedWithoutUnionID: c.AskedWithoutUnionID, UnionIDs: string(c.UnionIDs()),
				MiniUsers: c.MiniUsers, MiniUsersWithoutUnionID: r.miniWithout, ReachableMiniUsers: c.ReachableMiniUsers}
		}
	}
	return s, nil
}

func (r statusReader) turn(line string) (jobStatus, error) {
	next, err := sync.NextTurn(line, r.now)
	return jobStatus{Schedule: line, NextAt: optionalTime(next)}, err
}

// holder is who holds a lease; "": nobody.
func (r statusReader) holder(lease string) string {
	for _, l := range r.held {
		if l.Name == lease {
			return l.Holder
		}
	}
	return ""
}

func (r statusReader) queueStatus() queueStatus {
	s := queueStatus{Open: []openStatus{}, Recent: recentStatus{Requests: r.queue.Sampled, ByReason: []outcomeStatus{}}}
	for _, o := range r.queue.Open {
		s.Open = append(s.Open, openStatus{AppID: orNull(o.AppID), Status: o.Status, Requests: o.Requests, Late: o.Late,
			OldestDueAt: jsonTime(o.Oldest)})
	}
	for _, o := range r.queue.Recent {
		s.Recent.ByReason = append(s.Recent.ByReason, outcomeStatus{o.Status, orNull(o.Reason), o.Requests})
	}
	return s
}
