package harness

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database/privatedb"
)

// DB is a connection pool whose statements end the run where they fail.
type DB struct {
	*sqlx.DB
	t *T
}

// Connect returns a pool. A statement that meets a server which has gone is an error soon, and the
// driver does not print about connections that ended with their server.
func (t *T) Connect(settings *mysql.Config) DB {
	settings = settings.Clone()
	settings.Logger = quiet{}
	connector, err := mysql.NewConnector(settings)
	t.Checkf(err, "preparing the database client")
	return t.Wrap(sqlx.NewDb(sql.OpenDB(connector), "mysql"))
}

// Wrap makes a pool the run's own, which closes it.
func (t *T) Wrap(pool *sqlx.DB) DB {
	t.Cleanup(pool.Close)
	return DB{pool, t}
}

type quiet struct{}

func (quiet) Print(...any) {}

// ParseDSN reads a DSN.
func (t *T) ParseDSN(dsn string) *mysql.Config {
	settings, err := mysql.ParseDSN(dsn)
	if err != nil {
		// The driver's error may quote the DSN, which holds a password.
		t.Fatal(errors.New("the DSN of the database server cannot be read; " +
			"it looks like user:password@tcp(127.0.0.1:3306)/"))
	}
	return settings
}

// Do executes a statement.
func (d DB) Do(query string, args ...any) sql.Result {
	result, err := d.ExecContext(d.t.ctx, query, args...)
	d.check(err, query)
	return result
}

// Prepared prepares a statement on the server and returns what executes it.
func (d DB) Prepared(query string) (do func(args ...any)) {
	statement, err := d.PrepareContext(d.t.ctx, query) //nolint:sqlclosecheck // closed with the run
	d.check(err, query)
	d.t.Cleanup(statement.Close)
	return func(args ...any) {
		_, err := statement.ExecContext(d.t.ctx, args...)
		d.check(err, query)
	}
}

// Fetch reads one row.
func (d DB) Fetch(dest any, query string, args ...any) {
	d.check(d.GetContext(d.t.ctx, dest, query, args...), query)
}

// FetchAll reads all rows into a slice.
func (d DB) FetchAll(dest any, query string, args ...any) {
	d.check(d.SelectContext(d.t.ctx, dest, query, args...), query)
}

// Count reads a number.
func (d DB) Count(query string, args ...any) (n int64) {
	d.Fetch(&n, query, args...)
	return n
}

func (d DB) check(err error, query string) {
	if err != nil {
		words := strings.Fields(query)
		d.t.Checkf(err, "%s", strings.Join(words[:min(len(words), 12)], " "))
	}
}

// Insert inserts n rows, a thousand a statement. into is "TABLE (COLUMN, …)", row one row's values.
func (d DB) Insert(into string, n int, row func(i int) []any) {
	const most = 1000
	for from := 0; from < n; from += most {
		to := min(from+most, n)
		var args []any
		for i := from; i < to; i++ {
			args = append(args, row(i)...)
		}
		marks := "(?" + strings.Repeat(", ?", len(args)/(to-from)-1) + ")"
		d.Do("INSERT INTO "+into+" VALUES "+marks+strings.Repeat(", "+marks, to-from-1), args...)
	}
}

// DatabaseConfig says where the schema is made.
type DatabaseConfig struct {
	// DSN of a server on which schemas may be created. Empty: a private server is started, and
	// MariaDB installed with the machine's package manager where there is none.
	DSN string
	// BufferPool of a private server in bytes; 0: privatedb's default.
	BufferPool int64
	// Output gets what an installation has to say.
	Output io.Writer
}

// Database is a schema of its own, on a private server or on an existing one.
type Database struct {
	t        *T
	settings *mysql.Config // with the schema
	// Admin is the server's administrator, outside the schema.
	Admin DB
}

// OpenDatabase makes an empty schema that is dropped with the run.
func (t *T) OpenDatabase(cfg DatabaseConfig) *Database {
	private := cfg.DSN == ""
	if private {
		server, err := privatedb.Start(t.ctx,
			privatedb.Config{BufferPool: cfg.BufferPool, Output: cfg.Output})
		t.Check(err)
		t.Cleanup(server.Stop)
		cfg.DSN = server.DSN()
	}
	settings := t.ParseDSN(cfg.DSN)
	settings.DBName = ""
	d := &Database{t: t, Admin: t.Connect(settings)}
	d.settings = settings.Clone()
	d.settings.DBName = "unionbridge_stage_" + strings.ToLower(rand.Text()[:10])
	_, err := d.Admin.ExecContext(t.ctx, "CREATE DATABASE "+d.Schema()+" CHARACTER SET utf8mb4")
	t.Checkf(err, "creating a schema on %s", settings.Addr)
	if !private {
		t.Cleanup(d.drop)
	}
	return d
}

// drop has a context of its own: it has to work after an interrupt.
func (d *Database) drop() error {
	// Ten million rows take their time.
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if _, err := d.Admin.ExecContext(ctx, "DROP DATABASE IF EXISTS "+d.Schema()); err != nil {
		return fmt.Errorf("dropping the schema: %w", err)
	}
	return nil
}

// DSN leads to the schema, as the server's administrator.
func (d *Database) DSN() string { return d.settings.FormatDSN() }

// Schema is the schema's name.
func (d *Database) Schema() string { return d.settings.DBName }

// Addr is the server's host:port, or the path of its socket.
func (d *Database) Addr() string { return d.settings.Addr }

// Client connects as a program that knows nothing of unionbridge but its tables: the driver's
// defaults, statements prepared on the server, a session in China's time zone.
func (d *Database) Client() DB {
	settings := d.settings.Clone()
	settings.Params = map[string]string{"time_zone": "'+08:00'"}
	db := d.t.Connect(settings)
	d.t.Checkf(db.PingContext(d.t.ctx), "connecting to %s", settings.Addr)
	return db
}

// Reader connects as one who reads the tables back: times are times, in UTC.
func (d *Database) Reader() DB {
	settings := d.settings.Clone()
	settings.ParseTime, settings.Loc = true, time.UTC
	settings.Params = map[string]string{"time_zone": "'+00:00'"}
	return d.t.Connect(settings)
}

// ClientFile is an option file with which the mariadb and mysql clients open the schema
// (--defaults-file), so that no password stands in a command line.
func (d *Database) ClientFile() string {
	text := fmt.Sprintf("[client]\ndefault-character-set=\"utf8mb4\"\nuser=%q\npassword=%q\n",
		d.settings.User, d.settings.Passwd)
	if host, port, err := net.SplitHostPort(d.Addr()); err == nil && d.settings.Net == "tcp" {
		text += fmt.Sprintf("host=%q\nport=%q\nprotocol=\"tcp\"\n", host, port)
	} else {
		text += fmt.Sprintf("socket=%q\n", d.Addr())
	}
	for _, program := range []string{"mysql", "mariadb-client"} {
		text += fmt.Sprintf("[%s]\ndatabase=%q\n", program, d.Schema())
	}
	return text
}

// Server describes the server for people and for the record of a measurement.
type Server struct {
	Version    string
	BufferPool int64 // bytes; 0: the server does not say
	Durability string
}

// Describe asks the server what it is.
func (d *Database) Describe() (s Server) {
	d.Admin.Fetch(&s.Version, "SELECT VERSION()")
	if !strings.Contains(s.Version, "-") { // MariaDB and TiDB name themselves there
		s.Version = "MySQL " + s.Version
	}
	var flush sql.NullInt64
	err := d.Admin.QueryRowContext(d.t.ctx,
		"SELECT @@innodb_buffer_pool_size, @@innodb_flush_log_at_trx_commit").
		Scan(&s.BufferPool, &flush)
	const setting = "innodb_flush_log_at_trx_commit="
	switch {
	case err != nil: // TiDB has neither
		s.Durability = "not known"
	case flush.Int64 == 1:
		s.Durability = setting + "1, each commit reaches the disk"
	default:
		s.Durability = fmt.Sprintf(setting+"%d, the log is flushed once a second", flush.Int64)
	}
	return s
}
