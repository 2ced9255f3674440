package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
)

// Command is a program to start. Its output goes where Stdout and Stderr say; nil: nowhere.
type Command struct {
	Path   string
	Args   []string
	Stdout io.Writer
	Stderr io.Writer
	// Env is added to this process's environment.
	Env []string
	// Peak has the process's memory watched, see [Process.PeakMemory].
	Peak bool
}

// Process is a child that does not outlive this process (Linux: even if this one is killed).
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error // once done is closed
	peak atomic.Int64
}

// Start starts a child. Every Process needs a Stop, or a Wait that has returned.
func Start(c Command) (*Process, error) {
	p := &Process{cmd: exec.Command(c.Path, c.Args...), done: make(chan struct{})} //nolint:noctx // Stop ends it, with a signal first
	p.cmd.Stdout, p.cmd.Stderr = c.Stdout, c.Stderr
	p.cmd.SysProcAttr = attributes()
	if len(c.Env) > 0 {
		p.cmd.Env = append(os.Environ(), c.Env...)
	}
	// A descendant that keeps the pipe open must not keep Wait waiting.
	p.cmd.WaitDelay = time.Second
	started := make(chan error, 1)
	go func() {
		// Linux sends the death signal when the thread that made the child ends, and Go ends threads at
		// will: this one stays as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", c.Path, err)
	}
	if c.Peak {
		go p.watchMemory()
	}
	return p, nil
}

// Pid is the child's process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the child has ended; then Err tells how.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is nil for a child that ended with exit code 0; an *exec.ExitError otherwise.
func (p *Process) Err() error {
	<-p.done
	return p.err
}

// ExitCode of a child that has ended; -1 if a signal ended it.
func (p *Process) ExitCode() int {
	<-p.done
	return p.cmd.ProcessState.ExitCode()
}

// Ended says how a child has ended, for people: "exit status 1", "signal: killed".
func (p *Process) Ended() string {
	<-p.done
	return p.cmd.ProcessState.String()
}

// PeakMemory is the largest resident set of the child so far, in bytes, to the exactness of a look
// every 10 ms. 0: not known, or not watched.
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

// Stop ends the child, with SIGTERM first and by force after 15 s, and waits until it has gone. It may
// be called twice, and for a child that has ended.
func (p *Process) Stop() error {
	select {
	case <-p.done:
		return nil
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // an error means that it has just ended
	timer := time.NewTimer(stopGrace)
	defer timer.Stop()
	select {
	case <-p.done:
		return nil
	case <-timer.C:
	}
	_ = p.cmd.Process.Kill()
	<-p.done
	return fmt.Errorf("%s (pid %d) did not end within %s and was killed", p.cmd.Path, p.Pid(), stopGrace)
}

// Kill ends the child as kill -9 does, and waits until it has gone. It may be called twice, and for a
// child that has ended.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill() // an error means that it has just ended
	<-p.done
}

// Signal sends a signal to the child; one that has ended is left in peace.
func (p *Process) Signal(signal os.Signal) { _ = p.cmd.Process.Signal(signal) }

// Wait waits for the child to end by itself. If ctx ends first, it is stopped.
func (p *Process) Wait(ctx context.Context) error {
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
		return errors.Join(ctx.Err(), p.Stop())
	}
}
