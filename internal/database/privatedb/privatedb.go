// Package privatedb starts a MariaDB, MySQL or TiDB server of its own for the demo, the tests and the
// benchmarks: own data folder, a loopback port, no system service touched. It stops only what it
// started. The product binary does not link it.
package privatedb

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

const (
	defaultBufferPool = 128 << 20

	// startTimeout is generous for a slow CI machine; two seconds are usual.
	startTimeout = 60 * time.Second
	// stopTimeout is how long the server may take to shut down before it is killed.
	stopTimeout = 20 * time.Second

	// maxSocketPath is the size of sockaddr_un.sun_path without its NUL, on Linux; macOS has 103.
	maxSocketPath = 103

	// A port can be taken between the check and the server's bind.
	startTries = 3
)

// Config configures a server. The zero value is a throwaway server in the temporary folder.
type Config struct {
	// Server is the path of mariadbd, mysqld or tidb-server. Empty: $UNIONBRIDGE_TEST_SERVER, else the machine's,
	// MariaDB where it has both.
	Server string
	// OwnCollation leaves the server's own character set and collation, where utf8mb4 and
	// utf8mb4_bin are set otherwise.
	OwnCollation bool
	// Dir is the data folder. It is created where missing and kept by Stop; a server started on it
	// again finds its data. Empty: a temporary one that Stop removes.
	Dir string
	// BufferPool is InnoDB's buffer pool in bytes. 0: 128 MiB. A benchmark wants 256 MiB or more.
	BufferPool int64
	// Durable makes each commit reach the disk, as on a production server. Without it the log is
	// handed to the kernel at each commit and flushed once a second
	// (innodb_flush_log_at_trx_commit=2): a crash of the server loses nothing, a crash of the
	// machine up to a second. Neither matters to throwaway data; a benchmark says which it used.
	Durable bool
	// Args are passed to the server behind its own arguments.
	Args []string
	// Output gets the installer's output and a line on what is being done. nil: os.Stderr.
	Output io.Writer
}

// Variable names the environment variable with the path of the server program to start where
// Config names none: the programs that start servers of their own (demo, chaos) run on it too.
const Variable = "UNIONBRIDGE_TEST_SERVER"

// Server is a running server.
type Server struct {
	flavour  flavour
	dir      string
	remove   bool
	port     int
	password string
	process  *process
}

// Start starts the configured server program, else mariadbd or mysqld of this machine, and installs
// MariaDB with the machine's package manager where neither exists. The server is ready when Start
// returns. It dies with this process (Linux: even if this is killed). The context bounds the start
// only; call Stop.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Output == nil {
		cfg.Output = os.Stderr
	}
	if cfg.BufferPool == 0 {
		cfg.BufferPool = defaultBufferPool
	}
	cfg.Server = cmp.Or(cfg.Server, os.Getenv(Variable))
	found, err := find(ctx, machine(cfg.Output), cfg.Server)
	if err != nil {
		return nil, fmt.Errorf("starting a private database: %w", err)
	}
	s := &Server{flavour: found, dir: cfg.Dir, password: rand.Text()}
	if err := s.makeDir(); err != nil {
		return nil, fmt.Errorf("starting a private database: %w", err)
	}
	if err := s.bootstrap(ctx, cfg); err != nil {
		return nil, errors.Join(fmt.Errorf("starting a private database: %w", err), s.cleanUp())
	}
	return s, nil
}

// DSN is that of an administrator who may create schemas and users, without a schema:
// root:password@tcp(127.0.0.1:port)/.
func (s *Server) DSN() string {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd = "root", s.password
	cfg.Net, cfg.Addr = "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port))
	return cfg.FormatDSN()
}

// Socket is the path of the server's socket, for clients on the same machine.
func (s *Server) Socket() string { return filepath.Join(s.dir, "s.sock") }

// Dir is the data folder.
func (s *Server) Dir() string { return s.dir }

// Version is what the server's program says about itself.
func (s *Server) Version() string { return s.flavour.version }

// Pid is the server's process id.
func (s *Server) Pid() int { return s.process.pid() }

// Done is closed when the server's process has ended, with or without Stop.
func (s *Server) Done() <-chan struct{} { return s.process.done }

// Stop shuts the server down, and removes a temporary data folder. It may be called twice.
func (s *Server) Stop() error {
	err := s.process.stop(stopTimeout)
	return errors.Join(err, s.cleanUp())
}

func (s *Server) cleanUp() error {
	if !s.remove {
		return nil
	}
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("removing the data folder: %w", err)
	}
	return nil
}

// makeDir makes the folder, closed to other users: it holds root's password for a moment.
func (s *Server) makeDir() (err error) {
	if s.dir == "" {
		s.remove = true
		if s.dir, err = os.MkdirTemp("", "ubdb-"); err != nil {
			return fmt.Errorf("making a temporary data folder: %w", err)
		}
	}
	if s.dir, err = filepath.Abs(s.dir); err != nil {
		return fmt.Errorf("resolving the data folder: %w", err)
	}
	if len(s.Socket()) > maxSocketPath {
		return fmt.Errorf("the path of the data folder is too long for a socket (%s: more than "+
			"%d bytes); choose a shorter one", s.Socket(), maxSocketPath)
	}
	if err := os.MkdirAll(filepath.Join(s.dir, "tmp"), 0o700); err != nil {
		return fmt.Errorf("making the data folder: %w", err)
	}
	return nil
}

// bootstrap fills an empty data folder and starts the server on it.
func (s *Server) bootstrap(ctx context.Context, cfg Config) error {
	fill := s.install
	if s.flavour.tidb {
		fill = s.prepareTiDB
	}
	if err := fill(ctx); err != nil {
		return err
	}
	if err := os.WriteFile(s.initFile(), []byte(s.initSQL()), 0o600); err != nil {
		return fmt.Errorf("writing the init file: %w", err)
	}
	// It holds the password and is read once, at the start.
	defer func() { _ = os.Remove(s.initFile()) }()

	var err error
	for range startTries {
		if err = s.run(ctx, cfg); err == nil || !strings.Contains(err.Error(), "in use") {
			return err
		}
	}
	return err
}

func (s *Server) initFile() string { return filepath.Join(s.dir, "init.sql") }

// initSQL gives root a password on loopback. Throwaway or not, a server without one would let every
// user of the machine read and write files as the one who started it. One statement a line, as
// MySQL wants it. With skip-name-resolve 127.0.0.1 is not "localhost".
func (s *Server) initSQL() string {
	if s.flavour.tidb { // its root is '%' at first
		return "ALTER USER 'root'@'%' IDENTIFIED BY '" + s.password + "';\n"
	}
	var b strings.Builder
	for _, host := range []string{"localhost", "127.0.0.1"} {
		user := "'root'@'" + host + "'"
		fmt.Fprintf(&b, "CREATE USER IF NOT EXISTS %s IDENTIFIED BY '%s';\n", user, s.password)
		fmt.Fprintf(&b, "ALTER USER %s IDENTIFIED BY '%s';\n", user, s.password)
		fmt.Fprintf(&b, "GRANT ALL PRIVILEGES ON *.* TO %s WITH GRANT OPTION;\n", user)
	}
	return b.String()
}

// install fills the data folder. The commands are those that were measured to work on both servers
// without a system service and without root.
func (s *Server) install(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(s.dir, "data", "mysql")); err == nil {
		return nil // by an earlier start
	}
	data, tmp := filepath.Join(s.dir, "data"), filepath.Join(s.dir, "tmp")
	args := []string{"--no-defaults", "--initialize-insecure", "--datadir=" + data}
	program := s.flavour.server
	if s.flavour.mariadb {
		program = s.flavour.installer
		args = []string{
			"--no-defaults", "--datadir=" + data, "--tmpdir=" + tmp,
			"--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve",
		}
	}
	cmd := exec.CommandContext(ctx, program, append(args, asUser()...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("filling the data folder: %s: %w: %s", program, err, tail(out))
	}
	return nil
}

// run starts the server on a free port and waits until it answers.
func (s *Server) run(ctx context.Context, cfg Config) error {
	port, err := freePort(ctx)
	if err != nil {
		return err
	}
	s.port = port
	if s.process, err = startProcess(s.flavour.server, s.serverArgs(cfg)); err != nil {
		return fmt.Errorf("starting %s: %w", s.flavour.server, err)
	}
	if err := s.waitReady(ctx); err != nil {
		return errors.Join(err, s.process.stop(stopTimeout))
	}
	return nil
}

func (s *Server) serverArgs(cfg Config) []string {
	flush := "2"
	if cfg.Durable {
		flush = "1"
	}
	if s.flavour.tidb {
		return s.tidbArgs(cfg)
	}
	args := []string{
		"--no-defaults",
		"--datadir=" + filepath.Join(s.dir, "data"),
		"--tmpdir=" + filepath.Join(s.dir, "tmp"),
		"--socket=" + s.Socket(),
		"--pid-file=" + filepath.Join(s.dir, "pid"),
		"--log-error=" + s.errorLog(),
		"--init-file=" + s.initFile(),
		"--port=" + strconv.Itoa(s.port),
		"--bind-address=127.0.0.1",
		"--skip-name-resolve",
		"--skip-log-bin",
		"--max-connections=300",
		"--innodb-buffer-pool-size=" + strconv.FormatInt(cfg.BufferPool, 10),
		"--innodb-flush-log-at-trx-commit=" + flush,
	}
	if !cfg.OwnCollation {
		args = append(args, "--character-set-server=utf8mb4", "--collation-server=utf8mb4_bin")
	}
	if !s.flavour.mariadb {
		args = append(args, "--mysqlx=OFF")
	}
	return append(append(args, asUser()...), cfg.Args...)
}

func (s *Server) errorLog() string { return filepath.Join(s.dir, "err.log") }

// waitReady asks until the server answers to the password, which it does after the init file.
func (s *Server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := s.answers(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.process.done:
			return fmt.Errorf("the server ended while starting: %s", s.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("waiting for the server: %w: %w: %s", ctx.Err(), err, s.lastWords())
		case <-ticker.C:
		}
	}
}

func (s *Server) lastWords() string {
	out, err := os.ReadFile(s.errorLog())
	if err != nil {
		return "it left no error log"
	}
	return tail(out)
}

// asUser: both servers refuse to run as root unless they are told to.
func asUser() []string {
	if os.Geteuid() == 0 {
		return []string{"--user=root"}
	}
	return nil
}

// tail keeps the end of a server's output, where the reason stands.
func tail(out []byte) string {
	const limit = 1500
	text := strings.TrimSpace(string(out))
	if len(text) > limit {
		text = "… " + text[len(text)-limit:]
	}
	return text
}
