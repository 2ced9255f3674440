package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/database"
)

type importFlags struct {
	fromLine, maxBad int
	overwrite        bool
}

func (c *cli) importUsersCommand() *cobra.Command {
	var flags importFlags
	cmd := &cobra.Command{
		Use:   "import-users FILE",
		Short: "Store mini-program users from a CSV file",
		Long: `Store mini-program users from a CSV file into mini_user; "-" reads standard input. The columns
are appid, openid, unionid and, if there, seen_at, in this order or in that of a header line,
which may have other columns too. An empty unionid, NULL or \N means "not known" and never wipes a
known one. seen_at is RFC 3339, or "2006-01-02 15:04:05" in UTC. A file of any size takes the same
memory.

Lines that cannot be stored are reported with their number and skipped, at most --max-bad of
them. A unionid that differs from the known one is such a line, unless --overwrite is given.

What was stored stays, and running the same file again does no harm. After an interruption the
last line on standard error says with which --from-line to go on.`,
		Args: cobra.ExactArgs(1),
	}
	cmd.RunE = c.work(func(cmd *cobra.Command, args []string) error {
		if flags.fromLine < 1 || flags.maxBad < 0 {
			return usageError("--from-line is at least 1, and --max-bad at least 0")
		}
		return c.importUsers(cmd.Context(), args[0], flags)
	})
	cmd.Flags().IntVar(&flags.fromLine, "from-line", 1,
		"skip the lines before this `number`; a header line is read anyway")
	cmd.Flags().IntVar(&flags.maxBad, "max-bad", 100, "stop after more bad lines than this `number`")
	cmd.Flags().BoolVar(&flags.overwrite, "overwrite", false,
		"let the file's unionid replace a known one that differs")
	return cmd
}

func (c *cli) importUsers(ctx context.Context, name string, flags importFlags) error {
	if err := c.loadConfig(); err != nil {
		return err
	}
	in := c.stdin
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("reading mini-program users: %w", err)
		}
		defer func() { _ = file.Close() }() // only read
		in = file
	}
	return c.withDatabase(ctx, access{check: database.CheckSchema}, func(db *sqlx.DB) error {
		p := newParts(c.cfg, commandLogger(c.cfg.Log, c.stderr), prometheus.NewRegistry(), db)
		// It sends nothing, and releases the requests that wait for these users.
		sending, err := p.sender()
		if err != nil {
			return err
		}
		imp := importer{
			cli: c, flags: flags, people: bridge.New(db).Watched(sending),
			lines:   newUserLines(in, miniAppIDs(c.cfg)),
			batch:   make([]bridge.MiniUser, 0, bridge.ImportMaxUsers),
			numbers: make([]int, 0, bridge.ImportMaxUsers),
		}
		start := time.Now()
		err = imp.run(ctx)
		return imp.finish(ctx, err, time.Since(start))
	})
}

type importer struct {
	*cli
	flags  importFlags
	people *bridge.Map
	lines  *userLines

	batch   []bridge.MiniUser
	numbers []int // the lines' numbers of batch
	done    int   // the last line that needs no further look: it is stored or was reported
	stored  int
	bad     int
}

func (i *importer) run(ctx context.Context) error {
	for {
		user, err := i.lines.next()
		if errors.Is(err, io.EOF) {
			return i.flush(ctx, i.lines.number)
		}
		if err := i.take(user, err); err != nil {
			// What stood before that line is right.
			return errors.Join(i.flush(ctx, i.lines.number-1), err)
		}
		if len(i.batch) < cap(i.batch) {
			continue
		}
		if err := i.flush(ctx, i.lines.number); err != nil {
			return err
		}
	}
}

func (i *importer) take(user bridge.MiniUser, err error) error {
	skipped := i.lines.number < i.flags.fromLine
	bad, isBad := errors.AsType[badLine](err)
	switch {
	case isBad && !skipped:
		return i.report(bad)
	case err != nil && !isBad:
		return err
	case !skipped:
		i.batch, i.numbers = append(i.batch, user), append(i.numbers, i.lines.number)
	}
	return nil
}

func (i *importer) report(bad badLine) error {
	if i.bad == i.flags.maxBad {
		return fmt.Errorf("more bad lines than --max-bad %d: %w", i.flags.maxBad, bad)
	}
	i.bad++
	_ = printLine(i.stderr, bad.Error()) // the exit code tells too
	return nil
}

// flush stores the batch. Afterwards every line up to the one given is dealt with.
func (i *importer) flush(ctx context.Context, upTo int) error {
	contradictions, err := i.people.ImportMiniUsers(ctx, i.batch, i.flags.overwrite)
	if err != nil {
		return databaseError(err)
	}
	i.stored += len(i.batch) - len(contradictions)
	for _, c := range contradictions {
		user, number := i.batch[c.Index], i.numbers[c.Index]
		err := i.report(badLine{number, fmt.Sprintf("%s has the unionid %s in the map, not %s; "+
			"the map's stays (--overwrite)", user.OpenID, c.Known, user.UnionID)})
		if err != nil {
			i.done = number - 1 // it and those after it are looked at again
			return err
		}
	}
	i.done, i.batch, i.numbers = upTo, i.batch[:0], i.numbers[:0]
	return nil
}

// finish says what was done and, if not all was, where to go on.
func (i *importer) finish(ctx context.Context, err error, took time.Duration) error {
	_, printErr := fmt.Fprintf(i.stdout, "%d users stored, %d lines skipped, %.0f a second\n",
		i.stored, i.bad, float64(i.stored)/max(took.Seconds(), 0.001))
	switch {
	case err == nil && i.bad > 0:
		return fmt.Errorf("%d lines were not stored", i.bad)
	case err == nil:
		return printErr
	}
	from := max(i.done+1, i.flags.fromLine)
	if ctx.Err() != nil {
		_, _ = fmt.Fprintf(i.stderr, "interrupted: resume with --from-line %d\n", from)
		return exitError{exitInterrupted, errInterrupted}
	}
	return fmt.Errorf("importing stopped: %w; all lines before %d are dealt with: resume with "+
		"--from-line %d", err, from, from)
}

func (c *cli) exportUsersCommand() *cobra.Command {
	var appid string
	cmd := &cobra.Command{
		Use:   "export-users",
		Short: "Print mini-program users as CSV",
		Long: `Print the table mini_user as CSV (RFC 4180) with a header line, in the order of appid and openid,
as import-users reads it. It reads page by page and keeps no transaction open. An id that a
spreadsheet would take for a formula has an apostrophe before it, which import-users removes.`,
		Args: cobra.NoArgs,
		RunE: c.work(func(cmd *cobra.Command, _ []string) error {
			return c.exportUsers(cmd.Context(), appid)
		}),
	}
	cmd.Flags().StringVar(&appid, "appid", "", "only the users of this mini program; default: all")
	return cmd
}

func (c *cli) exportUsers(ctx context.Context, appid string) error {
	if appid != "" {
		if err := checkID("--appid", appid); err != nil {
			return err
		}
	}
	return c.withDatabase(ctx, access{check: database.CheckSchema}, func(db *sqlx.DB) error {
		out := csv.NewWriter(c.stdout)
		out.UseCRLF = true           // RFC 4180
		_ = out.Write(userColumns()) // out keeps an error
		err := bridge.New(db).ExportMiniUsers(ctx, appid, func(u bridge.MiniUser) error {
			return out.Write([]string{sheetCell(u.AppID), sheetCell(u.OpenID),
				sheetCell(u.UnionID), jsonTime(u.SeenAt)})
		})
		if writing := out.Error(); writing != nil { // a broken pipe, and not a broken database
			return fmt.Errorf("writing users: %w", writing)
		}
		if err != nil {
			return databaseError(err)
		}
		out.Flush()
		return out.Error()
	})
}
