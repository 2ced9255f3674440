// Package database owns the connection to the MySQL-compatible server: how it is set up, how its
// schema is migrated, how a transaction is retried, and the lease rows by which instances share
// work. It holds no SQL of the features; that stands beside their logic.
//
// Everything here keeps to the subset that MySQL >= 8.0, MariaDB >= 10.6, Galera and TiDB share.
package database

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"
)

const (
	// defaultMaxConnections fits a two-core server: beyond four busy connections it gets slower,
	// and the rest leave room for the status page and the migration's heartbeat.
	defaultMaxConnections = 8

	// minConnections is what one migration needs at once: its own connection, the lock's and the
	// lock's heartbeat. With fewer, goose waits for itself for ever.
	minConnections = 3

	dialTimeout = 5 * time.Second

	// defaultStatementTimeout is far above the slowest regular statement (a merge page or a batched
	// upsert: tens of milliseconds), and far below the hours that a connection to a vanished host
	// hangs without it.
	defaultStatementTimeout = 30 * time.Second

	// connLifetime moves the pool to another node within minutes after a failover or a change
	// behind a load balancer, and stays below the idle limits that firewalls commonly have.
	connLifetime = 5 * time.Minute

	openRetryPause = 500 * time.Millisecond
)

// Config says how to reach the server.
type Config struct {
	// DSN in the driver's form, user:password@tcp(host:3306)/schema?tls=…, see
	// https://github.com/go-sql-driver/mysql#dsn-data-source-name. It must name a schema.
	DSN string
	// MaxConnections bounds the pool. 0 means 8; less than 3 is refused.
	MaxConnections int
	// Logger gets the driver's complaints, and a line when Open has to wait. nil: nothing.
	Logger *slog.Logger
	// WaitTimeout is how long Open goes on trying while the server is down. 0: one try.
	WaitTimeout time.Duration
	// StatementTimeout is how long the server may stay silent during one statement. 0 means 30 s,
	// unless the DSN says readTimeout. A migration of a large table wants more.
	StatementTimeout time.Duration
}

// Open connects to the server and pings it. Its errors say where it tried to connect, what the
// matter is and what to do about it; they never hold the password.
func Open(ctx context.Context, cfg Config) (*sqlx.DB, error) {
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	cfg.MaxConnections = cmp.Or(cfg.MaxConnections, defaultMaxConnections)
	if cfg.MaxConnections < minConnections {
		return nil, fmt.Errorf("opening database: max_connections is %d; a migration needs %d at "+
			"once, set it to %d or more", cfg.MaxConnections, minConnections, minConnections)
	}
	settings, err := driverConfig(cfg)
	if err != nil {
		return nil, fmt.Errorf("opening database: %w", err)
	}
	inner, err := mysql.NewConnector(settings)
	if err != nil {
		return nil, fmt.Errorf("opening database: %w", parseError(err))
	}
	db := sqlx.NewDb(sql.OpenDB(connector{inner}), "mysql")
	db.SetMaxOpenConns(cfg.MaxConnections)
	// As many idle as open ones: the default of two would close and dial connections all day
	// under a load that alternates between two and eight.
	db.SetMaxIdleConns(cfg.MaxConnections)
	db.SetConnMaxLifetime(connLifetime)

	if err := ping(ctx, db, cfg); err != nil {
		err = errors.Join(connectError(settings, err), db.Close())
		return nil, fmt.Errorf("opening database: %w", err)
	}
	return db, nil
}

// driverConfig is the one place where the connection is set up. What correctness rests on is set
// whatever the DSN says; timeouts are set where the DSN does not.
func driverConfig(cfg Config) (*mysql.Config, error) {
	if strings.TrimSpace(cfg.DSN) == "" {
		return nil, errors.New("the DSN is empty; set database.dsn, dsn_file or dsn_env: " +
			"user:password@tcp(host:3306)/schema")
	}
	c, err := mysql.ParseDSN(cfg.DSN)
	if err != nil {
		return nil, parseError(err)
	}
	if c.DBName == "" {
		return nil, fmt.Errorf("the DSN for %s names no schema; end it with /unionbridge, or the "+
			"schema's name", where(c))
	}

	// Moments are compared in SQL and in Go; both sides speak UTC, whatever the server's zone is.
	c.ParseTime = true
	c.Loc = time.UTC
	if c.Params == nil {
		c.Params = make(map[string]string)
	}
	c.Params["time_zone"] = "'+00:00'"
	// A value that does not fit is an error: a lax server would store half an openid.
	c.Params["sql_mode"] = "'STRICT_TRANS_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'"

	// Shorter than the client's own patience: a statement that waits for a producer's open
	// transaction must not be carried out after we have given it up and gone on.
	c.Params["innodb_lock_wait_timeout"] = "2"
	// An ALTER of a migration waits for the open transactions that have used its table, and everybody
	// else waits behind it: for a day or a year by the servers' defaults. Better that it fails.
	c.Params["lock_wait_timeout"] = "10"

	// A compare-and-set asks "how many rows did I match", not "how many values differ".
	c.ClientFoundRows = true
	// Saves the round trip of a server-side prepare for each statement, and its handle. Escaping on
	// the client is safe in utf8mb4: no byte of a character can be taken for a quote.
	c.InterpolateParams = true
	if err := c.Apply(mysql.Charset("utf8mb4", "utf8mb4_bin")); err != nil {
		return nil, fmt.Errorf("setting the character set: %w", err)
	}
	// After a failover the old primary answers "read only": drop that connection and dial again,
	// the address may lead to the new one.
	c.RejectReadOnly = true
	// A connection that the server closed while it was idle is noticed before it is used.
	c.CheckConnLiveness = true
	// Nothing here sends several statements at once or loads files; both only widen an injection.
	c.MultiStatements = false
	c.AllowAllFiles = false

	setTimeouts(c, cfg.StatementTimeout)
	c.Logger = driverLogger{cfg.Logger}
	return c, nil
}

// setTimeouts fills in what the DSN leaves out. Without them a statement on a host that vanished
// without a word blocks until the kernel gives up, about 15 minutes.
func setTimeouts(c *mysql.Config, statement time.Duration) {
	c.Timeout = cmp.Or(c.Timeout, dialTimeout)
	c.ReadTimeout = cmp.Or(statement, c.ReadTimeout, defaultStatementTimeout)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, defaultStatementTimeout)
}

func ping(ctx context.Context, db *sqlx.DB, cfg Config) error {
	waiting, cancel := context.WithTimeout(ctx, cfg.WaitTimeout)
	defer cancel()
	err := db.PingContext(ctx)
	if err == nil || !IsUnavailable(err) || cfg.WaitTimeout <= 0 {
		return err
	}
	cfg.Logger.WarnContext(ctx, "database is not available, waiting for it", "wait",
		cfg.WaitTimeout, "error", err)
	for err != nil && IsUnavailable(err) {
		select {
		case <-waiting.Done():
			return err
		case <-time.After(openRetryPause):
		}
		err = db.PingContext(ctx)
	}
	return err
}

// driverLogger passes the driver's own messages on. They are about broken packets and connections
// that the caller hears of as errors too, hence the low level.
type driverLogger struct{ log *slog.Logger }

func (l driverLogger) Print(v ...any) {
	l.log.Debug("database driver", "message", strings.TrimSpace(fmt.Sprint(v...)))
}

func where(c *mysql.Config) string {
	if c.Net == "unix" {
		return c.Addr
	}
	if _, _, err := net.SplitHostPort(c.Addr); err == nil && c.Net == "tcp" {
		return c.Addr
	}
	return c.Net + "(" + c.Addr + ")"
}
