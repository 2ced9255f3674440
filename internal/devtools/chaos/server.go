package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/unionbridge/unionbridge/internal/database/privatedb"
	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

// server is a database server that a round may hurt: stop, kill, start again with the same data, port and
// password.
type server struct {
	command stage.Command
	process *stage.Process
	dsn     string // without a schema
}

// serverConfig says what the server is like.
type serverConfig struct {
	args   []string // added to privatedb's
	env    []string
	output io.Writer
}

// findServer looks for a server program; nothing is installed for this.
func findServer() error {
	for _, path := range []string{"mariadbd", "/usr/sbin/mariadbd", "mysqld", "/usr/sbin/mysqld"} {
		if _, err := exec.LookPath(path); err == nil {
			return nil
		}
	}
	return errors.New("there is no mariadbd or mysqld on this machine")
}

// startServer fills a data folder and starts a server on it. The first start is privatedb's, which knows
// how; its command line is then used again, since only a child of our own can be killed and started at will.
func startServer(ctx context.Context, s *stage.Stage, cfg serverConfig) (_ *server, err error) {
	installed, err := privatedb.Start(ctx, privatedb.Config{Dir: s.Path("db"), BufferPool: 64 << 20, Args: cfg.args, Output: cfg.output})
	if err != nil {
		return nil, err
	}
	d := &server{}
	err = d.adopt(ctx, installed, cfg.env)
	if err = errors.Join(err, installed.Stop()); err != nil {
		return nil, err
	}
	s.OnClose(d.stop)
	return d, d.start(ctx)
}

// adopt takes over the command line of a running server, and makes a user whose password does not change.
func (d *server) adopt(ctx context.Context, running *privatedb.Server, env []string) error {
	proc := "/proc/" + strconv.Itoa(running.Pid())
	line, err := os.ReadFile(proc + "/cmdline")
	if err != nil {
		return fmt.Errorf("reading the server's command line, which works on Linux only: %w", err)
	}
	words := strings.Split(string(bytes.TrimRight(line, "\x00")), "\x00")
	// The init file is gone after the first start.
	words = slices.DeleteFunc(words, func(word string) bool { return strings.HasPrefix(word, "--init-file=") })
	d.command = stage.Command{Path: words[0], Args: words[1:], Env: env}
	settings, err := mysql.ParseDSN(running.DSN())
	if err != nil {
		return fmt.Errorf("reading the server's DSN: %w", err)
	}
	db, err := open(running.DSN())
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	settings.User, settings.Passwd = "chaos", rand.Text()
	for _, query := range []string{
		"CREATE USER 'chaos'@'127.0.0.1' IDENTIFIED BY '" + settings.Passwd + "'",
		"GRANT ALL PRIVILEGES ON *.* TO 'chaos'@'127.0.0.1' WITH GRANT OPTION",
	} {
		if _, err := db.ExecContext(ctx, query); err != nil {
			return fmt.Errorf("making the server's user: %w", err)
		}
	}
	d.dsn = settings.FormatDSN()
	return nil
}

// start starts the server and waits until it answers.
func (d *server) start(ctx context.Context) (err error) {
	if d.process, err = stage.Start(d.command); err != nil {
		return err
	}
	db, err := open(d.dsn)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	return poll(ctx, time.Minute, func(ctx context.Context) (bool, error) {
		select {
		case <-d.process.Done():
			return false, fmt.Errorf("the database server ended while starting: %s", d.process.Ended())
		default:
		}
		return db.PingContext(ctx) == nil, nil
	})
}

func (d *server) stop() error {
	if d.process == nil {
		return nil
	}
	return d.process.Stop()
}

// open returns a pool that gives a statement up after five seconds.
func open(dsn string) (*sql.DB, error) {
	settings, err := mysql.ParseDSN(dsn)
	if err != nil {
		// The driver's error may quote the DSN, which holds a password.
		return nil, errors.New("the DSN of the database server cannot be read")
	}
	settings.Timeout, settings.ReadTimeout, settings.WriteTimeout = 2*time.Second, 5*time.Second, 5*time.Second
	settings.ParseTime, settings.Loc = true, time.UTC
	settings.Params = map[string]string{"time_zone": "'+00:00'"}
	settings.Logger = silent{}
	connector, err := mysql.NewConnector(settings)
	if err != nil {
		return nil, fmt.Errorf("preparing the database client: %w", err)
	}
	return sql.OpenDB(connector), nil
}

// silent keeps the driver from writing about connections that are broken on purpose.
type silent struct{}

func (silent) Print(...any) {}

// through returns the DSN with another address.
func through(dsn string, l *link) (string, error) {
	settings, err := mysql.ParseDSN(dsn)
	if err != nil {
		return "", errors.New("the DSN of the database server cannot be read")
	}
	settings.Addr = l.addr
	return settings.FormatDSN(), nil
}

// address returns the server's host:port.
func address(dsn string) (string, error) {
	settings, err := mysql.ParseDSN(dsn)
	if err != nil {
		return "", errors.New("the DSN of the database server cannot be read")
	}
	if _, _, err := net.SplitHostPort(settings.Addr); err != nil || settings.Net != "tcp" {
		return "", fmt.Errorf("the database server listens on %s; a link needs tcp(host:port)", settings.Addr)
	}
	return settings.Addr, nil
}

// poll asks until the answer is yes, an error, or the time is over.
func poll(ctx context.Context, most time.Duration, done func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, most, fmt.Errorf("it did not happen within %s", most))
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		yes, err := done(ctx)
		if yes || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// sleep waits; false: ctx has ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
