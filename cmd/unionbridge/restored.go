package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/spf13/cobra"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/requests"
	"github.com/unionbridge/unionbridge/sender/restore"
)

type restoredFlags struct{ hold, discard, yes bool }

func (c *cli) restoredCommand() *cobra.Command {
	var f restoredFlags
	cmd := &cobra.Command{
		Use:   "restored --hold | --discard-open",
		Short: "Make a restored copy of the database an installation of its own",
		Long: `A database that was restored from a backup, or copied, has the open requests of that moment. The
live one has sent them since: a daemon on the copy would send each of them again. Run this on the
copy, before any daemon.

--hold pauses all accounts. Look at the open requests, cancel what was sent, and then end each pause
with "unionbridge resume". --discard-open cancels all open requests, with reason "restored": for a
copy that is meant for tests. Both give the copy an id of its own and end the tokens that
applications have from the live installation.

It refuses while an instance works on the database. Without --yes it shows what is open, and changes
nothing.`,
		Example: `  unionbridge restored --hold
  unionbridge restored --hold --yes`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&f.hold, "hold", false, "pause all accounts")
	cmd.Flags().BoolVar(&f.discard, "discard-open", false, "cancel all open requests")
	cmd.Flags().BoolVar(&f.yes, "yes", false, "do it, and not only show it")
	cmd.RunE = c.work(func(cmd *cobra.Command, _ []string) error {
		if f.hold == f.discard {
			return usageError("give one of --hold and --discard-open")
		}
		return c.restored(cmd.Context(), f)
	})
	return cmd
}

func (c *cli) restored(ctx context.Context, f restoredFlags) error {
	return c.withDatabase(ctx, access{check: database.CheckSchema}, func(db *sqlx.DB) error {
		if err := restore.Check(ctx, db); err != nil {
			return restoreError(err)
		}
		if err := c.printOpen(ctx, db); err != nil || !f.yes {
			return err
		}
		done, err := restore.Run(ctx, db, restore.Options{
			AppIDs: sendingAccounts(c.cfg), Discard: f.discard,
		})
		if err != nil {
			return restoreError(err)
		}
		lines := []string{"this database is the installation " + done.Installation + " now"}
		if f.discard {
			lines = append(lines, fmt.Sprintf("%d open requests are cancelled, reason restored", done.Discarded))
		}
		for _, appid := range done.Paused {
			lines = append(lines, appid+" is paused; after a look: unionbridge resume "+appid)
		}
		for _, line := range lines {
			err = errors.Join(err, printLine(c.stdout, line))
		}
		return err
	})
}

func restoreError(err error) error {
	if errors.Is(err, restore.ErrAlive) {
		return exitError{exitBusy, fmt.Errorf("%w: this is no restored copy at rest. Stop it, if it is "+
			"the copy's; its leases end after 10 s", err)}
	}
	return databaseError(err)
}

// printOpen says what a daemon would send.
func (c *cli) printOpen(ctx context.Context, db *sqlx.DB) error {
	o, err := requests.Store{DB: db}.Overview(ctx, sendingAccounts(c.cfg))
	if err != nil {
		return databaseError(err)
	}
	for _, open := range o.Open {
		words := fmt.Sprintf("%s%d %s requests of %s, due since or from %s", when(open.Capped, "at least "),
			open.Requests, open.Status, cmp.Or(open.AppID, "the default account"), localMoment(&open.Oldest))
		if err := printLine(c.stdout, words); err != nil {
			return err
		}
	}
	if len(o.Open) == 0 {
		return printLine(c.stdout, "no request is open")
	}
	return printLine(c.stdout, "unionbridge requests list --status pending,waiting shows them")
}
