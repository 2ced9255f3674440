package privatedb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"github.com/go-sql-driver/mysql"
)

// Ports below 32768, where Linux's ephemeral ones begin: above, some connection's source port may
// sit on it. Above 20000, where few services live.
const (
	firstPort = 20000
	lastPort  = 32000
)

// process is a child that ends with this one.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// startProcess starts the program on a thread of its own that lives as long as the child: Linux
// sends the child its death signal when the *thread* that made it ends, and Go ends threads at
// will.
func startProcess(program string, args []string) (*process, error) {
	//nolint:noctx // outlives the context of its start; stop ends it
	p := &process{cmd: exec.Command(program, args...), done: make(chan struct{})}
	p.cmd.SysProcAttr = attributes()
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // how it ended stands in its error log
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop asks the server to shut down, and kills it when it does not within the timeout.
func (p *process) stop(timeout time.Duration) error {
	select {
	case <-p.done:
		return nil
	default:
	}
	// An error here means that it has just ended, which done shows as well.
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
	}
	_ = p.cmd.Process.Kill()
	<-p.done
	return fmt.Errorf("the database server (pid %d) did not shut down within %s and was killed",
		p.pid(), timeout)
}

func freePort(ctx context.Context) (int, error) {
	var last error
	for range 50 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, l.Close()
		}
		last = err
	}
	return 0, fmt.Errorf("looking for a free port between %d and %d: %w", firstPort, lastPort, last)
}

// answers asks the server for its connection, as root.
func (s *Server) answers(ctx context.Context) (err error) {
	cfg, err := mysql.ParseDSN(s.DSN())
	if err != nil {
		return err
	}
	cfg.Timeout = time.Second
	cfg.Logger = silent{}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	defer func() { err = errors.Join(err, db.Close()) }()
	return db.PingContext(ctx)
}

// silent keeps the driver from writing "unexpected EOF" while the server starts.
type silent struct{}

func (silent) Print(...any) {}

var _ mysql.Logger = silent{}
