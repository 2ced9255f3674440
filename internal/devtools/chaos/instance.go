package main

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/devtools/link"
)

// instance is one place at which the real daemon runs, one process after the other, with its own
// link to the database.
type instance struct {
	*harness.Instance
	t    *harness.T
	name string
	link *link.Link
	log  *os.File

	mu      sync.Mutex
	process *harness.Process
	killed  bool // by us
	lives   int
	ended   []string // how processes ended that were not killed
	frozen  bool
}

// start starts the daemon and does not wait for it.
func (i *instance) start() {
	i.mu.Lock()
	defer i.mu.Unlock()
	c := i.Command("run")
	c.Stdout, c.Stderr = i.log, i.log
	process, err := harness.StartProcess(c)
	i.t.Check(err)
	i.lives++
	_, _ = fmt.Fprintf(i.log, "---- life %d, pid %d, %s\n",
		i.lives, process.Pid(), time.Now().Format(time.RFC3339Nano))
	i.process, i.killed, i.frozen = process, false, false
	go i.watch(process)
}

// watch notes a process that ends although it was not killed.
func (i *instance) watch(process *harness.Process) {
	<-process.Done()
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.process == process && !i.killed {
		i.ended = append(i.ended,
			fmt.Sprintf("life %d of %s: %s", i.lives, i.name, process.Ended()))
	}
}

// current is the present process, which from now on is ended on purpose.
func (i *instance) current() *harness.Process {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.killed = true
	return i.process
}

// kill ends the daemon as kill -9 does, and returns its process id.
func (i *instance) kill() (pid int) {
	process := i.current()
	process.Kill()
	return process.Pid()
}

// stop ends the daemon in order.
func (i *instance) stop() error {
	i.thaw()
	if process := i.current(); process != nil {
		return process.Stop()
	}
	return nil
}

// freeze stops the process, as a suspended machine does, until thaw.
func (i *instance) freeze() { i.signal(syscall.SIGSTOP, true) }

func (i *instance) thaw() { i.signal(syscall.SIGCONT, false) }

func (i *instance) signal(signal syscall.Signal, frozen bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.frozen != frozen {
		i.process.Signal(signal)
		i.frozen = frozen
	}
}

// running is the present process.
func (i *instance) running() *harness.Process {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.process
}

// unplanned says how processes have ended that were not killed.
func (i *instance) unplanned() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.ended)
}
