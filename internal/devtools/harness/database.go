package harness

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"io"
	"log"
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
	settings.Logger = log.New(io.Discard, "", 0)
	connector, err := mysql.NewConnector(settings)
	t.Checkf(err, "preparing the database client")
	return t.Wrap(sqlx.NewDb(sql.OpenDB(connector), "mysql"))
}

// Wrap makes a pool the run's own, which closes it.
func (t *T) Wrap(pool *sqlx.DB) DB {
	t.Cleanup(pool.Close)
	return DB{pool, t}
}

// ParseDSN reads a DSN.
func (t *T) ParseDSN(dsn string) *mysql.Config {
	settings, err := mysql.ParseDSN(dsn)
	if err != nil {
		// The driver's error may quote the DSN, which holds a password.
		t.Fatalf("the DSN of the database server cannot be read; " +
			"it looks like user:password@tcp(127.0.0.1:3306)/")
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

// Database is a schema of its own, on a private server or on an existing one.
type Database struct {
	t        *T
	settings *mysql.Config
	DSN      string // leads to the schema, as the server's administrator
	Schema   string // its name
	Addr     string // the server's host:port, or the path of its socket
	Admin    DB     // the server's administrator, outside the schema
}

// OpenDatabase makes an empty schema that is dropped with the run. Where dsn is empty a private
// server is started, and MariaDB installed with the machine's package manager where there is none.
func (t *T) OpenDatabase(dsn string, private privatedb.Config) *Database {
	existing := dsn != ""
	if !existing {
		server, err := privatedb.Start(t.ctx, private)
		t.Check(err)
		t.Cleanup(server.Stop)
		dsn = server.DSN()
	}
	settings := t.ParseDSN(dsn)
	settings.DBName = ""
	d := &Database{t: t, Admin: t.Connect(settings), settings: settings, Addr: settings.Addr}
	d.Schema = "unionbridge_stage_" + strings.ToLower(rand.Text()[:10])
	d.Admin.Do("CREATE DATABASE " + d.Schema + " CHARACTER SET utf8mb4")
	settings.DBName = d.Schema
	d.DSN = settings.FormatDSN()
	if existing {
		t.Cleanup(d.drop)
	}
	return d
}

func (d *Database) drop() error {
	// It has to work after an interrupt, and ten million rows take their time.
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	_, err := d.Admin.ExecContext(ctx, "DROP DATABASE IF EXISTS "+d.Schema)
	return err
}

// Client connects as a program that knows nothing of unionbridge but its tables: the driver's
// defaults, statements prepared on the server, a session in China's time zone.
func (d *Database) Client() DB {
	settings := d.settings.Clone()
	settings.Params = map[string]string{"time_zone": "'+08:00'"}
	db := d.t.Connect(settings)
	d.t.Checkf(db.PingContext(d.t.ctx), "connecting to %s", settings.Addr)
	return db
}

// Reader connects to the schema as one who reads the tables back.
func (d *Database) Reader() DB { return d.t.OpenReader(d.DSN) }

// OpenReader connects with times that are times, in UTC, and does not wait for a stuck server.
func (t *T) OpenReader(dsn string) DB {
	settings := t.ParseDSN(dsn)
	settings.Timeout = 2 * time.Second
	settings.ReadTimeout, settings.WriteTimeout = 5*time.Second, 5*time.Second
	settings.ParseTime, settings.Loc = true, time.UTC
	settings.Params = map[string]string{"time_zone": "'+00:00'"}
	return t.Connect(settings)
}

// ClientFile is an option file with which the mariadb and mysql clients open the schema
// (--defaults-file), so that no password stands in a command line.
func (d *Database) ClientFile() string {
	text := fmt.Sprintf("[client]\ndefault-character-set=\"utf8mb4\"\nuser=%q\npassword=%q\n",
		d.settings.User, d.settings.Passwd)
	if host, port, err := net.SplitHostPort(d.Addr); err == nil && d.settings.Net == "tcp" {
		text += fmt.Sprintf("host=%q\nport=%q\nprotocol=\"tcp\"\n", host, port)
	} else {
		text += fmt.Sprintf("socket=%q\n", d.Addr)
	}
	for _, program := range []string{"mysql", "mariadb-client"} {
		text += fmt.Sprintf("[%s]\ndatabase=%q\n", program, d.Schema)
	}
	return text
}

// Version is the server's name and version.
func (d *Database) Version() (version string) {
	d.Admin.Fetch(&version, "SELECT VERSION()")
	if !strings.Contains(version, "-") { // MariaDB and TiDB name themselves there
		version = "MySQL " + version
	}
	return version
}

// Describe describes the server for the record of a measurement.
func (d *Database) Describe() string {
	var pool, flush int64
	err := d.Admin.QueryRowContext(d.t.ctx,
		"SELECT @@innodb_buffer_pool_size, @@innodb_flush_log_at_trx_commit").Scan(&pool, &flush)
	if err != nil { // TiDB has neither
		return d.Version()
	}
	meaning := "the log is flushed once a second"
	if flush == 1 {
		meaning = "each commit reaches the disk"
	}
	return fmt.Sprintf("%s, buffer pool %d MiB, innodb_flush_log_at_trx_commit=%d, %s",
		d.Version(), pool>>20, flush, meaning)
}
