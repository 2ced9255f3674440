package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Command is a program to start. Its output goes where Stdout and Stderr say; nil: nowhere.
type Command struct {
	Path           string
	Args           []string
	Stdout, Stderr io.Writer
	Env            []string // added to this process's environment
}

// Process is a child that does not outlive this process (Linux: even if this one is killed).
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // once done is closed
	peak atomic.Int64
}

// Start starts a child that ends with the run.
func (t *T) Start(c Command) *Process {
	//nolint:noctx // Stop ends it, with a signal first
	p := &Process{cmd: exec.Command(c.Path, c.Args...), done: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = c.Stdout, c.Stderr
	p.cmd.SysProcAttr = attributes()
	p.cmd.Env = append(os.Environ(), c.Env...)
	// A descendant that keeps the pipe open must not keep Wait waiting.
	p.cmd.WaitDelay = time.Second
	started := make(chan error, 1)
	go func() {
		// Linux sends the death signal when the thread that made the child ends, and Go ends
		// threads at will: this one stays as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
		}
	}()
	t.Checkf(<-started, "starting %s", c.Path)
	t.Cleanup(p.Stop)
	return p
}

// Output runs a command to its end and returns its output. The error of a failed one holds it.
func (t *T) Output(c Command) (string, error) {
	var out strings.Builder
	c.Stdout, c.Stderr = &out, &out
	if err := t.Start(c).Wait(t.ctx); err != nil {
		return out.String(), fmt.Errorf("%s %s: it ended with %w\n%s", c.Path,
			strings.Join(c.Args, " "), err, strings.TrimSpace(out.String()))
	}
	return out.String(), nil
}

// Pid is the child's process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the child has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Alive reports whether the child runs.
func (p *Process) Alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// Ended waits for the end and says how it was, for people: "exit status 1", "signal: killed".
func (p *Process) Ended() string {
	<-p.done
	return p.cmd.ProcessState.String()
}

// PeakMemory is the largest resident set of the child so far, in bytes, sampled every 10 ms. 0: not
// known, or not watched.
func (p *Process) PeakMemory() int64 { return p.peak.Load() }

func (p *Process) watchMemory() {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		// The mark never sinks, so only what grows in the last 10 ms can be missed.
		p.peak.Store(max(p.peak.Load(), peakOf(p.Pid())))
		select {
		case <-p.done:
			return
		case <-tick.C:
		}
	}
}

// stopGrace is how long a child may take to end after SIGTERM. The daemon's own shutdown_timeout is
// shorter here.
const stopGrace = 15 * time.Second

// Stop ends the child, with SIGTERM first and by force after 15 s, and waits until it has gone. It
// may be called twice, and for a child that has ended.
func (p *Process) Stop() error {
	if !p.Alive() {
		return nil
	}
	p.Signal(syscall.SIGTERM)
	p.Signal(syscall.SIGCONT) // a frozen one has to wake for it
	timer := time.NewTimer(stopGrace)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
	}
	p.Kill()
	return fmt.Errorf("%s (pid %d) did not end within %s and was killed", p.cmd.Path, p.Pid(), stopGrace)
}

// Kill ends the child as kill -9 does, and waits until it has gone. It may be called twice, and for
// a child that has ended.
func (p *Process) Kill() {
	p.Signal(syscall.SIGKILL)
	<-p.done
}

// Signal sends a signal to the child. An error means that it has just ended.
func (p *Process) Signal(signal os.Signal) { _ = p.cmd.Process.Signal(signal) }

// Wait waits for the child to end. If ctx ends first, the child is stopped. An exit code but 0 is an
// *exec.ExitError.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return errors.Join(ctx.Err(), p.Stop())
	}
}
