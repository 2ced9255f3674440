package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
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
	cmd := exec.Command(p.command.Path, p.command.Args...) //nolint:noctx // Stop ends it
	done := make(chan struct{})
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
	p.cmd, p.done = cmd, done
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

// What is below reads Linux's /proc, and is 0 on other systems.

// peakOf returns the largest resident set that a living process has had, in bytes; 0 if it has
// gone. It is VmHWM, which the kernel resets at exec. ru_maxrss of wait4 would be there after the
// end too, but includes what the parent had when it forked.
func peakOf(pid int) int64 {
	status, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	_, rest, _ := strings.Cut(string(status), "\nVmHWM:")
	var kib int64
	_, _ = fmt.Sscan(rest, &kib)
	return kib << 10
}

// ClockTick is the unit of /proc/PID/stat on every Linux that Go runs on.
const ClockTick = 10 * time.Millisecond

// CPUTime returns the processor time that a process has used so far.
func CPUTime(pid int) time.Duration {
	stat, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	// The second field, the program's name, may hold spaces and brackets; utime and stime are the
	// 14th and 15th.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return time.Duration(user+system) * ClockTick
}
