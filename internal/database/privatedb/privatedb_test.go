package privatedb

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
)

// requireServer keeps these tests from installing packages: they run where a server is installed,
// and in CI, where one must be.
func requireServer(t *testing.T) {
	t.Helper()
	_, err := search(t.Context(), machine(t.Output()))
	if errors.Is(err, errNotFound) && os.Getenv("CI") == "" {
		t.Skip("neither mariadbd nor mysqld is installed; `make test` installs MariaDB")
	}
	if err != nil {
		t.Fatal(err)
	}
}

func start(t *testing.T, cfg Config) *Server {
	t.Helper()
	cfg.Output = t.Output()
	s, err := Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Stop() })
	return s
}

func open(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func TestServerLivesInItsFolderAndLeavesNothing(t *testing.T) {
	requireServer(t)
	s := start(t, Config{})
	db := open(t, s.DSN())
	for _, stmt := range []string{
		`CREATE DATABASE one`, `CREATE TABLE one.x (id INT PRIMARY KEY)`,
		`CREATE USER 'someone'@'%' IDENTIFIED BY 'pw'`, `GRANT SELECT ON one.* TO 'someone'@'%'`,
	} {
		if _, err := db.ExecContext(t.Context(), stmt); err != nil {
			t.Fatalf("%s: %v", stmt, err)
		}
	}
	if s.port < firstPort || s.port >= lastPort {
		t.Errorf("port %d is not between %d and %d", s.port, firstPort, lastPort)
	}
	info, err := os.Stat(s.Dir())
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("data folder: %v, %v; want it closed to others", info, err)
	}
	if _, err := os.Stat(s.initFile()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the init file with the password is still there (%v)", err)
	}

	// Nobody gets in without the password: neither root nor an anonymous user.
	for _, user := range []string{"root", "", "nobody"} {
		cfg, err := mysql.ParseDSN(s.DSN())
		if err != nil {
			t.Fatal(err)
		}
		cfg.User, cfg.Passwd = user, ""
		var denied *mysql.MySQLError
		if err := open(t, cfg.FormatDSN()).PingContext(t.Context()); !errors.As(err, &denied) {
			t.Errorf("connecting as %q without a password = %v, want it denied", user, err)
		}
	}

	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s.Dir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the temporary data folder is still there (%v)", err)
	}
	if err := syscall.Kill(s.Pid(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d is still there (%v)", s.Pid(), err)
	}
	if err := s.Stop(); err != nil {
		t.Errorf("second Stop = %v", err)
	}
}

func TestServerKeepsAGivenFolder(t *testing.T) {
	requireServer(t)
	dir, err := os.MkdirTemp("", "ubdbtest-") // t.TempDir is too long a path for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })

	first := start(t, Config{Dir: dir})
	if _, err := open(t, first.DSN()).ExecContext(t.Context(), `CREATE DATABASE kept`); err != nil {
		t.Fatal(err)
	}
	if err := first.Stop(); err != nil {
		t.Fatal(err)
	}
	second := start(t, Config{Dir: dir, Durable: true, BufferPool: 64 << 20})
	db := open(t, second.DSN())
	var flush, pool int
	err = db.QueryRowContext(t.Context(),
		`SELECT @@innodb_flush_log_at_trx_commit, @@innodb_buffer_pool_size FROM `+
			`information_schema.schemata WHERE schema_name = 'kept'`).
		Scan(&flush, &pool)
	if err != nil || flush != 1 || pool != 64<<20 {
		t.Errorf("after a second start: %v, flush %d, pool %d; want the schema, 1 and 64 MiB", err,
			flush, pool)
	}
}

func TestServerThatCannotStart(t *testing.T) {
	requireServer(t)
	_, err := Start(t.Context(), Config{Args: []string{"--no-such-option=1"}, Output: t.Output()})
	if err == nil || !strings.Contains(err.Error(), "no-such-option") {
		t.Errorf("Start = %v, want the server's last words", err)
	}
	long := filepath.Join(t.TempDir(), strings.Repeat("x", maxSocketPath))
	if _, err := Start(t.Context(), Config{Dir: long, Output: t.Output()}); err == nil ||
		!strings.Contains(err.Error(), "too long") {
		t.Errorf("Start in a folder with a long path = %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Start(ctx, Config{Output: t.Output()}); !errors.Is(err, context.Canceled) {
		t.Errorf("Start with an ended context = %v", err)
	}
}

// TestServerDiesWithItsParent kills a process that has a server, and looks for the server.
func TestServerDiesWithItsParent(t *testing.T) {
	const variable = "UNIONBRIDGE_TEST_PRIVATEDB_CHILD"
	if dir := os.Getenv(variable); dir != "" {
		s := start(t, Config{Dir: dir})
		_, _ = os.Stdout.WriteString("pid " + s.Dir() + "\n")
		select {}
	}
	requireServer(t)
	if runtime.GOOS != "linux" {
		t.Skip("this system cannot tie a child's life to its parent's")
	}
	dir, err := os.MkdirTemp("", "ubdbtest-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestServerDiesWithItsParent$",
		"-test.count=1")
	child.Env = append(os.Environ(), variable+"="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatalf("the child did not start a server: %v", err)
	}
	pidFile := filepath.Join(dir, "pid")
	if _, err := os.Stat(pidFile); err != nil {
		t.Fatalf("the server's pid file: %v", err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()

	// The server removes its pid file at the end of an orderly shutdown.
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.After(30 * time.Second); ; {
		if _, err := os.Stat(pidFile); errors.Is(err, os.ErrNotExist) {
			return
		}
		select {
		case <-deadline:
			t.Fatal("the server outlived its parent")
		case <-ticker.C:
		}
	}
}
