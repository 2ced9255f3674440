package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/spf13/cobra"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/queue"
	"github.com/unionbridge/unionbridge/sender/retention"
)

// minPurge is the youngest that purge deletes: what has just ended is what people ask for.
const minPurge = time.Hour

func (c *cli) purgeCommand() *cobra.Command {
	var older time.Duration
	var statuses []string
	cmd := &cobra.Command{
		Use:   "purge --older-than DURATION",
		Short: "Delete finished requests now, whatever retention.finished is",
		Long: `Delete requests that ended longer ago, with their receipts, as the daemon does by
retention.finished; with retention.archive they are copied to send_request_archive first. It works
in small pieces, for at most a quarter of the time, beside daemons and producers, and may be
interrupted and run again. Requests with an unknown outcome stay for seven days at least.

A dedup_key is free again when its request is deleted: a producer that repeats an INSERT after
that sends a second message.`,
		Example: `  unionbridge purge --older-than 720h --status failed`,
		Args:    cobra.NoArgs,
	}
	cmd.Flags().DurationVar(&older, "older-than", 0, "since their end, at least 1h: `duration`, such as 720h")
	cmd.Flags().StringSliceVar(&statuses, "status", nil,
		"only these: sent, failed, expired, cancelled or unknown; repeatable")
	cmd.RunE = c.work(func(cmd *cobra.Command, _ []string) error {
		if older < minPurge {
			return usageError("--older-than is missing, or less than %v", minPurge)
		}
		chosen, err := finalStatuses(statuses)
		if err != nil {
			return err
		}
		return c.purge(cmd.Context(), older, chosen)
	})
	return cmd
}

func finalStatuses(names []string) ([]queue.Status, error) {
	known := retention.Statuses()
	if len(names) == 0 {
		return known, nil
	}
	var chosen []queue.Status
	for _, name := range names {
		if !slices.Contains(known, queue.Status(name)) {
			return nil, usageError("--status %q is none of sent, failed, expired, cancelled, unknown",
				strings.TrimSpace(name))
		}
		chosen = append(chosen, queue.Status(name))
	}
	return chosen, nil
}

func (c *cli) purge(ctx context.Context, older time.Duration, statuses []queue.Status) error {
	return c.withDatabase(ctx, access{check: database.CheckSchema}, func(db *sqlx.DB) error {
		n, err := retention.New(retention.Config{
			DB: db, Keep: older, Archive: c.cfg.Retention.Archive,
			Logger: commandLogger(c.cfg.Log, c.stderr), Now: time.Now,
		}).PurgeRequests(ctx, statuses)
		if said := printLine(c.stdout, fmt.Sprintf("%d requests are deleted", n)); said != nil {
			return said
		}
		if ctx.Err() != nil {
			return errInterrupted
		}
		return databaseError(err)
	})
}
