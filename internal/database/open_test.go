package database_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

func TestOpenSetsUpTheSession(t *testing.T) {
	// A DSN that asks for the opposite of what correctness rests on.
	dsn := dbtest.Empty(t) + "?parseTime=false&loc=Local&clientFoundRows=false&multiStatements=true&time_zone=%27%2B08:00%27&sql_mode=%27%27&lock_wait_timeout=86400"
	db := dbtest.Open(t, dsn)
	var session struct {
		Zone      string `db:"zone"`
		Mode      string `db:"mode"`
		Charset   string `db:"charset"`
		Collation string `db:"collation"`
		Patience  int    `db:"patience"` // with an ALTER that waits for a transaction
	}
	err := db.GetContext(t.Context(), &session, `
		SELECT @@session.time_zone AS zone, @@session.sql_mode AS mode,
		       @@session.character_set_client AS charset, @@session.collation_connection AS collation,
		       @@session.lock_wait_timeout AS patience`)
	if err != nil {
		t.Fatal(err)
	}
	if session.Zone != "+00:00" || session.Charset != "utf8mb4" ||
		session.Collation != "utf8mb4_bin" ||
		!strings.Contains(session.Mode, "STRICT_TRANS_TABLES") || session.Patience != 10 {
		t.Errorf("session = %+v, want UTC, utf8mb4_bin, a strict mode and 10 s", session)
	}

	isolation := "@@session.transaction_isolation" // MySQL, TiDB, MariaDB >= 11.1
	if _, err := db.ExecContext(t.Context(), "SELECT "+isolation); err != nil {
		isolation = "@@session.tx_isolation"
	}
	var level string
	if err := db.GetContext(t.Context(), &level, "SELECT "+isolation); err != nil ||
		level != "READ-COMMITTED" {
		t.Errorf("isolation = %q (%v), want READ-COMMITTED", level, err)
	}

	for _, stmt := range []string{`CREATE TABLE x (id INT PRIMARY KEY, s VARCHAR(3), at ` +
		`TIMESTAMP(3) NULL)`, `INSERT INTO x VALUES (1, 'abc', NULL)`} {
		if _, err := db.ExecContext(t.Context(), stmt); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := db.ExecContext(t.Context(), `UPDATE x SET s = 'abcd'`); err == nil {
		t.Error("a value that does not fit was cut silently")
	}
	if res, err := db.ExecContext(t.Context(), `UPDATE x SET s = 'abc'`); err != nil {
		t.Error(err)
	} else if n, _ := res.RowsAffected(); n != 1 {
		t.Errorf("an UPDATE that changes nothing matched %d rows, want 1", n)
	}
	moment := time.Date(2026, 3, 29, 1, 30, 0, 123e6, time.FixedZone("+8", 8*3600))
	if _, err := db.ExecContext(t.Context(), `UPDATE x SET at = ? WHERE id = ?`, moment,
		1); err != nil {
		t.Fatal(err)
	}
	var got time.Time
	if err := db.GetContext(t.Context(), &got, `SELECT at FROM x`); err != nil ||
		!got.Equal(moment) || got.Location() != time.UTC {
		t.Errorf("stored %s, read %s (%v), want the same moment in UTC", moment, got, err)
	}
	if _, err := db.ExecContext(t.Context(), `SELECT 1; SELECT 2`); err == nil {
		t.Error("two statements at once were accepted")
	}
}

const password = "s3cr3t/?p%40ss"

// TestOpenErrors: each says where and what to do, and none holds the password.
func TestOpenErrors(t *testing.T) {
	server, err := mysql.ParseDSN(dbtest.Empty(t))
	if err != nil {
		t.Fatal(err)
	}
	with := func(change func(*mysql.Config)) string {
		cfg := server.Clone()
		cfg.Passwd = password
		change(cfg)
		return cfg.FormatDSN()
	}
	for name, test := range map[string]struct {
		dsn  string
		max  int
		want []string
	}{
		"empty": {dsn: " ", want: []string{"DSN is empty", "database.dsn"}},
		"no slash": {dsn: "u:" + password,
			want: []string{"invalid DSN", "user:password@tcp(host:3306)/schema"}},
		"odd parameter":  {dsn: "u:" + password + "?timeout=s3cr3t", want: []string{"invalid DSN"}},
		"password split": {dsn: "u:pa/ss?parseTime=s3cr3t", want: []string{"invalid DSN"}},
		"no schema": {dsn: "u:" + password + "@tcp(db.example:3306)/",
			want: []string{"db.example:3306", "names no schema"}},
		"pool too small": {dsn: "u:" + password + "@tcp(127.0.0.1:1)/d", max: 2,
			want: []string{"max_connections is 2", "3 or more"}},
		"refused": {dsn: "u:" + password + "@tcp(127.0.0.1:1)/d",
			want: []string{"127.0.0.1:1", `"u"`, "is the server running"}},
		"no socket": {dsn: "u:" + password + "@unix(/nowhere/s.sock)/d",
			want: []string{"/nowhere/s.sock", "is the server running"}},
		"access denied": {
			dsn:  with(func(c *mysql.Config) {}),
			want: []string{server.Addr, "Access denied", "check user name and password"},
		},
		"no such schema": {
			dsn:  with(func(c *mysql.Config) { c.Passwd, c.DBName = server.Passwd, "nowhere" }),
			want: []string{"CREATE DATABASE nowhere"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			db, err := database.Open(t.Context(), database.Config{
				DSN: test.dsn, MaxConnections: test.max,
				Logger: slog.New(slog.NewTextHandler(&log,
					&slog.HandlerOptions{Level: slog.LevelDebug})),
			})
			if err == nil {
				_ = db.Close()
				t.Fatal("Open succeeded")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("Open = %v\nwant it to say %q", err, want)
				}
			}
			for _, secret := range []string{password, "s3cr3t", "p%40ss", server.Passwd} {
				if secret != "" && strings.Contains(fmt.Sprintf("%v %+v %#v %s", err, err, err,
					&log), secret) {
					t.Errorf("Open = %v, log %s\nholds the password (%q)", err, &log, secret)
				}
			}
		})
	}
}

// TestOpenHintsAtTLS: both servers answer a user with REQUIRE SSL as they answer a wrong password.
func TestOpenHintsAtTLS(t *testing.T) {
	db := dbtest.Open(t, dbtest.Empty(t))
	name := "'tls_" + strings.ToLower(rand.Text()[:12]) + "'@'%'"
	if _, err := db.ExecContext(t.Context(),
		`CREATE USER `+name+` IDENTIFIED BY 'pw' REQUIRE SSL`); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := db.ExecContext(context.Background(), `DROP USER `+name); err != nil {
			t.Error(err)
		}
	})
	user, _, _ := strings.Cut(strings.Trim(name, "'"), "'")
	for dsn, want := range map[string]bool{
		dbtest.DSNAs(t, db, user, "pw"):                                        true,
		listen(t, 3159, "Connections using insecure transport are prohibited"): true,
		// A server without a certificate, and one whose certificate nobody knows, say so.
		dbtest.DSNAs(t, db, user, "pw") + "?tls=true": false,
	} {
		_, err := database.Open(t.Context(), database.Config{DSN: dsn})
		if err == nil || strings.Contains(err.Error(), "end database.dsn with ?tls=true") != want {
			t.Errorf("Open = %v, want a hint at ?tls=true: %t", err, want)
		}
	}
}

// listen is a server that refuses its first connection with an error of that number.
func listen(t *testing.T, number uint16, message string) (dsn string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	body := append([]byte{0xff, byte(number), byte(number >> 8)}, message...)
	go func() {
		if conn, err := l.Accept(); err == nil {
			_, _ = conn.Write(append([]byte{byte(len(body)), 0, 0, 0}, body...))
			_ = conn.Close()
		}
	}()
	return "u:p@tcp(" + l.Addr().String() + ")/d"
}

func TestOpenWaitsForTheServer(t *testing.T) {
	proxy := dbtest.NewProxy(t, dbtest.Empty(t))
	proxy.Cut()
	if _, err := database.Open(t.Context(),
		database.Config{DSN: proxy.DSN()}); !database.IsUnavailable(err) {
		t.Errorf("Open of a server that is down = %v, want an unavailable database", err)
	}
	ready := make(chan error, 1)
	log := waiting{started: make(chan struct{}, 1)}
	go func() {
		db, err := database.Open(t.Context(),
			database.Config{DSN: proxy.DSN(), WaitTimeout: patience, Logger: slog.New(log)})
		if err == nil {
			err = db.Close()
		}
		ready <- err
	}()
	<-log.started
	proxy.Restore()
	if err := <-ready; err != nil {
		t.Error(err)
	}
}

// waiting signals when Open says that it waits.
type waiting struct {
	slog.Handler
	started chan struct{}
}

func (w waiting) Enabled(_ context.Context,
	level slog.Level) bool {
	return level >= slog.LevelWarn
}

func (w waiting) Handle(context.Context, slog.Record) error {
	w.started <- struct{}{}
	return nil
}

// A pool survives a network that goes away and comes back.
func TestPoolRecovers(t *testing.T) {
	proxy := dbtest.NewProxy(t, dbtest.Empty(t))
	db := dbtest.Open(t, proxy.DSN())
	proxy.Cut()
	_, err := db.ExecContext(t.Context(), `DO 1`)
	if !database.IsUnavailable(err) {
		t.Errorf("statement on a cut connection = %v, want an unavailable database", err)
	}
	proxy.Restore()
	if _, err := db.ExecContext(t.Context(), `DO 1`); err != nil {
		t.Errorf("statement after the network came back: %v", err)
	}
}

// dialTimedOut is the error of a dial that ran into its own timeout.
func dialTimedOut(t *testing.T) error {
	t.Helper()
	dialer := net.Dialer{Timeout: time.Nanosecond}
	_, err := dialer.DialContext(t.Context(), "tcp", "127.0.0.1:1")
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the dial ended with %v", err)
	}
	return err
}

func TestIsUnavailable(t *testing.T) {
	number := func(n uint16) error { return fmt.Errorf("doing: %w", &mysql.MySQLError{Number: n}) }
	for _, test := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{driver.ErrBadConn, true},
		{mysql.ErrInvalidConn, true},
		{io.ErrUnexpectedEOF, true},
		{fmt.Errorf("dialing: %w", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}), true},
		{&net.DNSError{Err: "no such host", Name: "db"}, true},
		{number(1040), true}, // too many connections
		{number(1047), true}, // Galera: node not ready
		{number(1053), true}, // shutdown in progress
		{number(1290), true}, // read-only
		{number(1045), false},
		{number(1062), false},
		{number(1213), false},
		{context.Canceled, false},
		{context.DeadlineExceeded, false},
		{dialTimedOut(t), true},
		{errors.New("boom"), false},
	} {
		if got := database.IsUnavailable(test.err); got != test.want {
			t.Errorf("IsUnavailable(%v) = %t, want %t", test.err, got, test.want)
		}
	}
}

func TestExplain(t *testing.T) {
	for _, test := range []struct {
		number        uint16
		message, want string
	}{
		{1142, "INSERT command denied to user 'ub'@'10.%' for table `unionbridge`.`follower`",
			"missing: GRANT INSERT ON unionbridge.follower TO 'ub'@'10.%' (sql/grants.sql has " +
				"the roles)"},
		{1142, "UPDATE command denied to user 'ub'@'h' for table 'lease'",
			"missing: GRANT UPDATE ON lease TO 'ub'@'h' (sql/grants.sql has the roles)"},
		{1143, "SELECT command denied to user 'ub'@'h' for column 'data' in table 'send_request'",
			"missing: GRANT SELECT (data) ON send_request TO 'ub'@'h' (sql/grants.sql has the " +
				"roles)"},
		{8121, "privilege check for 'Select' fail",
			"missing: GRANT SELECT ON a table of this statement (sql/grants.sql has the roles, " +
				"sql/grants-tidb.sql those of TiDB)"},
		{1142, "quelque chose", "a grant is missing: see sql/grants.sql"},
		{1044, "Access denied for user 'ub'@'h' to database 'x'",
			"the user has no grant on this schema, or it does not exist: see sql/grants.sql"},
		{1146, "Table 'x.lease' doesn't exist", "run: unionbridge migrate up"},
	} {
		cause := &mysql.MySQLError{Number: test.number, Message: test.message}
		err := database.Explain(fmt.Errorf("doing: %w", cause))
		if diff := cmp.Diff("doing: "+cause.Error()+"; "+test.want, err.Error()); diff != "" {
			t.Errorf("Explain (-want +got):\n%s", diff)
		}
		if !errors.Is(err, cause) {
			t.Errorf("Explain(%v) does not wrap it", cause)
		}
	}
	boom := errors.New("boom")
	if got := database.Explain(boom); got != boom { //nolint:errorlint // identity is what is tested
		t.Errorf("Explain(boom) = %v", got)
	}
}
