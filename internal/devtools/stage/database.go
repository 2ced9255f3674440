package stage

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

	"github.com/unionbridge/unionbridge/internal/database/privatedb"
)

// DatabaseConfig says where the schema is made.
type DatabaseConfig struct {
	// DSN of a server on which schemas may be created. Empty: a private server is started, and MariaDB
	// installed with the machine's package manager where there is none.
	DSN string
	// BufferPool of a private server in bytes; 0: privatedb's default.
	BufferPool int64
	// Output gets what an installation has to say.
	Output io.Writer
}

// Database is a schema of its own, on a private server or on an existing one.
type Database struct {
	settings *mysql.Config // with the schema
	server   *privatedb.Server
	admin    *sql.DB // outside the schema
}

// OpenDatabase makes an empty schema. Close drops it.
func OpenDatabase(ctx context.Context, cfg DatabaseConfig) (_ *Database, err error) {
	d := &Database{}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	if cfg.DSN == "" {
		if d.server, err = privatedb.Start(ctx, privatedb.Config{BufferPool: cfg.BufferPool, Output: cfg.Output}); err != nil {
			return d, err
		}
		cfg.DSN = d.server.DSN()
	}
	settings, err := mysql.ParseDSN(cfg.DSN)
	if err != nil {
		// The driver's error may quote the DSN, which holds a password.
		return d, errors.New("the DSN of the database server cannot be read; it looks like user:password@tcp(127.0.0.1:3306)/")
	}
	settings.DBName = ""
	if d.admin, err = connect(settings); err != nil {
		return d, err
	}
	name := "unionbridge_stage_" + strings.ToLower(rand.Text()[:10])
	if _, err = d.admin.ExecContext(ctx, "CREATE DATABASE "+name+" CHARACTER SET utf8mb4"); err != nil {
		return d, fmt.Errorf("creating a schema on %s: %w", settings.Addr, err)
	}
	d.settings = settings.Clone()
	d.settings.DBName = name
	return d, nil
}

func connect(settings *mysql.Config) (*sql.DB, error) {
	settings = settings.Clone()
	settings.Logger = quiet{}
	connector, err := mysql.NewConnector(settings)
	if err != nil {
		return nil, fmt.Errorf("preparing the database client: %w", err)
	}
	return sql.OpenDB(connector), nil
}

// quiet keeps the driver from writing past the screen about connections that ended with their server.
type quiet struct{}

func (quiet) Print(...any) {}

// Close drops the schema, and ends the server if it is a private one. It needs no context: it has to
// work after an interrupt.
func (d *Database) Close() error {
	var failures []error
	if d.settings != nil && d.server == nil {
		// Ten million rows take their time.
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		if _, err := d.admin.ExecContext(ctx, "DROP DATABASE IF EXISTS "+d.settings.DBName); err != nil {
			failures = append(failures, fmt.Errorf("dropping the schema: %w", err))
		}
	}
	if d.admin != nil {
		failures = append(failures, d.admin.Close())
	}
	if d.server != nil {
		failures = append(failures, d.server.Stop())
	}
	return errors.Join(failures...)
}

// DSN leads to the schema, as the server's administrator.
func (d *Database) DSN() string { return d.settings.FormatDSN() }

// Schema is the schema's name.
func (d *Database) Schema() string { return d.settings.DBName }

// Addr is the server's host:port, or the path of its socket.
func (d *Database) Addr() string { return d.settings.Addr }

// Private tells whether the server was started for this and has no other clients.
func (d *Database) Private() bool { return d.server != nil }

// Client connects as a program that knows nothing of unionbridge but its tables: the driver's defaults,
// statements prepared on the server, a session in China's time zone.
func (d *Database) Client(ctx context.Context) (*sql.DB, error) {
	settings := d.settings.Clone()
	settings.Params = map[string]string{"time_zone": "'+08:00'"}
	db, err := connect(settings)
	if err != nil {
		return nil, err
	}
	if err := db.PingContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("connecting to %s: %w", settings.Addr, err), db.Close())
	}
	return db, nil
}

// ClientFile is an option file with which the mariadb and mysql clients open the schema
// (--defaults-file), so that no password stands in a command line.
func (d *Database) ClientFile() string {
	var b strings.Builder
	line := func(key, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s=\"%s\"\n", key, strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value))
		}
	}
	b.WriteString("[client]\n")
	line("default-character-set", "utf8mb4")
	line("user", d.settings.User)
	line("password", d.settings.Passwd)
	if host, port, err := net.SplitHostPort(d.settings.Addr); err == nil && d.settings.Net == "tcp" {
		line("host", host)
		line("port", port)
		line("protocol", "tcp")
	} else {
		line("socket", d.settings.Addr)
	}
	for _, program := range []string{"mysql", "mariadb-client"} {
		fmt.Fprintf(&b, "[%s]\n", program)
		line("database", d.settings.DBName)
	}
	return b.String()
}

// Server describes the server for people and for the record of a measurement.
type Server struct {
	Version    string
	BufferPool int64 // bytes; 0: the server does not say
	// Durability is what a commit costs, in words.
	Durability string
}

// Describe asks the server what it is.
func (d *Database) Describe(ctx context.Context) (Server, error) {
	var s Server
	if err := d.admin.QueryRowContext(ctx, "SELECT VERSION()").Scan(&s.Version); err != nil {
		return s, fmt.Errorf("asking the server for its version: %w", err)
	}
	if !strings.Contains(s.Version, "-") { // MariaDB and TiDB name themselves there
		s.Version = "MySQL " + s.Version
	}
	var flush sql.NullInt64
	err := d.admin.QueryRowContext(ctx,
		"SELECT @@innodb_buffer_pool_size, @@innodb_flush_log_at_trx_commit").Scan(&s.BufferPool, &flush)
	switch {
	case err != nil: // TiDB has neither
		s.Durability = "not known"
	case flush.Int64 == 1:
		s.Durability = "innodb_flush_log_at_trx_commit=1, each commit reaches the disk"
	default:
		s.Durability = fmt.Sprintf("innodb_flush_log_at_trx_commit=%d, the log is flushed once a second", flush.Int64)
	}
	return s, nil
}

// Admin is a connection pool as the server's administrator, outside the schema.
func (d *Database) Admin() *sql.DB { return d.admin }
