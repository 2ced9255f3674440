package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/spf13/cobra"

	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/status"
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
	cmd.Flags().BoolVar(&flags.coverage, "coverage", false,
		"count what the map covers; slow with millions of people")
	cmd.Flags().BoolVar(&flags.check, "check", false, "exit with 1 if there is an alarm, for monitoring")
	return cmd
}

// coverageTimeout is for an operator who waits: minutes for a hundred million people.
const coverageTimeout = time.Hour

func (c *cli) status(ctx context.Context, flags statusFlags) error {
	needs := access{check: database.CheckSchema}
	if flags.coverage {
		needs.timeout = coverageTimeout
	}
	return c.withDatabase(ctx, needs, func(cfg *config.Config, db *sqlx.DB) error {
		report, err := status.Read(ctx, db, statusConfig(cfg, flags.coverage))
		if err != nil {
			return databaseError(err)
		}
		if err := c.printStatus(report, flags.asJSON); err != nil {
			return err
		}
		if flags.check && len(report.Alarms) > 0 {
			return fmt.Errorf("%d alarms, the first: %s", len(report.Alarms), report.Alarms[0].Text)
		}
		return nil
	})
}

func statusConfig(cfg *config.Config, coverage bool) status.Config {
	s := status.Config{Coverage: coverage, Now: time.Now()}
	for _, a := range cfg.OfficialAccounts {
		s.Accounts = append(s.Accounts, status.Settings{
			AppID: a.AppID, Name: a.Name, Default: a.Default,
			Sweep: a.Sync.Sweep, Refresh: a.Sync.Refresh,
		})
	}
	return s
}

func (c *cli) printStatus(report status.Report, asJSON bool) error {
	if !asJSON {
		return writeStatus(c.stdout, report)
	}
	encoder := json.NewEncoder(c.stdout)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(report)
}
