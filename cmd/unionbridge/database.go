package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/database"
)

type access struct {
	check func(context.Context, *sqlx.DB) error // of the schema; nil: any will do
	// what can be refused without a database; nil: nothing
	before  func(*config.Config) error
	timeout time.Duration // of one statement; 0: the usual
	log     io.Writer     // nil: standard error
}

func (c *cli) withDatabase(ctx context.Context, a access,
	fn func(*config.Config, *sqlx.DB) error) (err error) {
	cfg, err := c.loadConfig()
	if err != nil {
		return err
	}
	if a.before != nil {
		if err := a.before(cfg); err != nil {
			return err
		}
	}
	if a.log == nil {
		a.log = c.stderr
	}
	settings := databaseConfig(cfg, commandLogger(cfg.Log, a.log))
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
	return fn(cfg, db)
}

// databaseConfig is how every command opens the database. It makes one try.
func databaseConfig(cfg *config.Config, log *slog.Logger) database.Config {
	return database.Config{DSN: cfg.Database.DSN.Reveal(),
		MaxConnections: cfg.Database.MaxConnections, Logger: log}
}

const erTableDenied = 1142

// checkReadableSchema is CheckSchema for what a producer's or a reader's role can do too: those may
// not read the list of migrations, and learn what is missing from the statement itself.
func checkReadableSchema(ctx context.Context, db *sqlx.DB) error {
	err := database.CheckSchema(ctx, db)
	if me, ok := errors.AsType[*mysql.MySQLError](err); ok && me.Number == erTableDenied {
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
