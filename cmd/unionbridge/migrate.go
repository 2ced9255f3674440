package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"strconv"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/spf13/cobra"

	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/database"
)

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
	cfg, err := c.loadConfig()
	if err != nil {
		return err
	}
	cfg.Log.Level = "info" // the lines about each migration are this command's output
	return migrate(ctx, cfg, newLogger(cfg.Log, c.stderr))
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
	return nil
}

func (c *cli) migrateStatus(ctx context.Context) error {
	return c.withDatabase(ctx, access{}, func(_ *config.Config, db *sqlx.DB) error {
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
