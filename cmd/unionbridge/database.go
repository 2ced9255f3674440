package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"strconv"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/spf13/cobra"

	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/queue"
)

type access struct {
	check   func(context.Context, *sqlx.DB) error // of the schema; nil: any will do
	timeout time.Duration                         // of one statement; 0: the usual
	log     io.Writer                             // nil: standard error
}

func (c *cli) withDatabase(ctx context.Context, a access, fn func(*sqlx.DB) error) (err error) {
	if err := c.loadConfig(); err != nil {
		return err
	}
	if a.log == nil {
		a.log = c.stderr
	}
	settings := databaseConfig(c.cfg, commandLogger(c.cfg.Log, a.log))
	settings.StatementTimeout = a.timeout
	db, err := database.Open(ctx, settings)
	if err != nil {
		return databaseError(err)
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if a.check != nil {
		if err := a.check(ctx, db); err != nil {
			return databaseError(err)
		}
	}
	return fn(db)
}

// databaseConfig is how every command opens the database. It makes one try.
func databaseConfig(cfg *config.Config, log *slog.Logger) database.Config {
	return database.Config{DSN: cfg.Database.DSN.Reveal(),
		MaxConnections: cfg.Database.MaxConnections, Logger: log}
}

// checkReadableSchema is CheckSchema for what a producer's or a reader's role can do too: those may
// not read the list of migrations, and learn what is missing from the statement itself.
func checkReadableSchema(ctx context.Context, db *sqlx.DB) error {
	err := database.CheckSchema(ctx, db)
	if database.IsDenied(err) {
		return nil
	}
	return err
}

// databaseError marks what the database package returns: its errors are about the database also
// where no server has spoken yet, such as a DSN that cannot be read.
func databaseError(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	return exitError{exitDatabase, err}
}

const (
	// migrationTimeout bounds one statement of a migration: an ALTER of a table with a hundred
	// million rows takes its time.
	migrationTimeout = 12 * time.Hour
	// migrationConnections is the least that a migration works with.
	migrationConnections = 3
)

func (c *cli) migrateCommand() *cobra.Command {
	up := &cobra.Command{
		Use:   "up",
		Short: "Apply the migrations that the database lacks",
		Long: `Apply the migrations that the database lacks. Safe with several instances at once: one works,
the others wait. After a crash run it again. The database user needs the rights of the role
"daemon" and CREATE, ALTER, DROP, INDEX, CREATE VIEW.`,
		Args: cobra.NoArgs,
		RunE: c.work(func(cmd *cobra.Command, _ []string) error { return c.migrateUp(cmd.Context()) }),
	}
	status := &cobra.Command{
		Use:   "status",
		Short: "List the migrations and which of them the database has",
		Args:  cobra.NoArgs,
		RunE:  c.work(func(cmd *cobra.Command, _ []string) error { return c.migrateStatus(cmd.Context()) }),
	}
	return group(&cobra.Command{Use: "migrate", Short: "Create or update the database's schema"},
		up, status)
}

func (c *cli) migrateUp(ctx context.Context) error {
	if err := c.loadConfig(); err != nil {
		return err
	}
	c.logs = true
	c.cfg.Log.Level = "info" // the lines about each migration are this command's output
	return migrate(ctx, c.cfg, newLogger(c.cfg.Log, c.stderr))
}

// migrate works on a pool of its own, whose statements may take long.
func migrate(ctx context.Context, cfg *config.Config, log *slog.Logger) (err error) {
	settings := databaseConfig(cfg, log)
	settings.StatementTimeout = migrationTimeout
	settings.MaxConnections = max(settings.MaxConnections, migrationConnections)
	db, err := database.Open(ctx, settings)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	applied, err := database.Migrate(ctx, db, log)
	if err != nil {
		return databaseError(err)
	}
	log.Info("schema is up to date", "applied", applied)
	var minis []string
	for _, m := range sendingMinis(cfg) {
		minis = append(minis, m.AppID)
	}
	return databaseError(queue.ExpectAccounts(ctx, db, minis))
}

func (c *cli) migrateStatus(ctx context.Context) error {
	return c.withDatabase(ctx, access{}, func(db *sqlx.DB) error {
		list, err := database.Status(ctx, db)
		if err != nil {
			return databaseError(err)
		}
		if err := c.printMigrations(list); err != nil {
			return err
		}
		return database.CheckSchema(ctx, db)
	})
}

func (c *cli) printMigrations(list []database.Migration) error {
	rows := [][]string{{"VERSION", "APPLIED", "FILE"}}
	for _, m := range list {
		applied := "no"
		if m.Applied {
			applied = m.AppliedAt.UTC().Format("2006-01-02 15:04:05 UTC")
		}
		rows = append(rows, []string{strconv.FormatInt(m.Version, 10), applied,
			cmp.Or(m.Name, "(not known to this program)")})
	}
	return printTable(c.stdout, rows)
}
