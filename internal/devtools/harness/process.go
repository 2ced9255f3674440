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
	command Command
	cmd     *exec.Cmd
	done    chan struct{}
	err     error // once done is closed
	peak    atomic.Int64
}

// Start starts a child that ends with the run.
func (t *T) Start(c Command) *Process {
	p := &Process{command: c}
	t.Check(p.Restart())
	t.Cleanup(p.Stop)
	return p
}

// Restart starts the command again, once the child has ended.
func (p *Process) Restart() error {
	cmd, done := exec.Command(p.command.Path, p.command.Args...), make(chan struct{}) //nolint:noctx // see Stop
	p.cmd, p.done = cmd, done
	cmd.Stdout, cmd.Stderr = p.command.Stdout, p.command.Stderr
	cmd.SysProcAttr = attributes()
	cmd.Env = append(os.Environ(), p.command.Env...)
	// A descendant that keeps the pipe open must not keep Wait waiting.
	cmd.WaitDelay = time.Second
	started := make(chan error, 1)
	go func() {
		// Linux sends the death signal when the thread that made the child ends, and Go ends
		// threads at will: this one stays as long as the child.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(done)
		err := cmd.Start()
		started <- err
		if err == nil {
			p.err = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("starting %s: %w", p.command.Path, err)
	}
	return nil
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

// Ended waits for the end and says how it was, for people: "exit status 1", "signal: killed".
func (p *Process) Ended() string {
	<-p.done
	return p.cmd.ProcessState.String()
}

// PeakMemory is the largest resident set of the child so far, in bytes; 0: not known.
func (p *Process) PeakMemory() int64 { return p.peak.Load() }

func (p *Process) watchMemory() {
	for {
		// The mark never sinks, so only what grows in the last 10 ms can be missed.
		p.peak.Store(max(p.peak.Load(), peakOf(p.Pid())))
		select {
		case <-p.done:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// Stop ends the child, by force after a while, and waits until it has gone.
func (p *Process) Stop() error {
	const grace = 15 * time.Second // the daemon's own shutdown_timeout is shorter
	p.Signal(syscall.SIGTERM)
	p.Signal(syscall.SIGCONT) // a frozen one has to wake for it
	select {
	case <-p.done:
		return nil
	case <-time.After(grace):
	}
	p.Kill()
	return fmt.Errorf("%s (pid %d) did not end within %s and was killed", p.cmd.Path, p.Pid(), grace)
}

// Kill ends the child as kill -9 does, and waits until it has gone.
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
