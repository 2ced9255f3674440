package main

import (
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/devtools/link"
)

// instance is one place at which the real daemon runs, one process after the other, with its own
// link to the database. One goroutine at a time uses it.
type instance struct {
	*harness.Instance
	t    *harness.T
	name string
	link *link.Link
	log  *os.File

	process *harness.Process
	lives   int
	ended   []string // how processes ended that were not killed
	frozen  bool
}

func (i *instance) start() {
	c := i.Command("run")
	c.Stdout, c.Stderr = i.log, i.log
	var err error
	i.process, err = harness.StartProcess(c)
	i.t.Check(err)
	i.lives++
	i.frozen = false
	_, _ = fmt.Fprintf(i.log, "---- life %d, pid %d, %s\n",
		i.lives, i.process.Pid(), time.Now().Format(time.RFC3339Nano))
}

// alive reports whether the daemon runs, and notes it if it has ended although it was not killed.
func (i *instance) alive() bool {
	if i.process.Alive() {
		return true
	}
	i.ended = append(i.ended, fmt.Sprintf("life %d of %s: %s", i.lives, i.name, i.process.Ended()))
	return false
}

func (i *instance) kill() (pid int) {
	i.alive()
	i.process.Kill()
	return i.process.Pid()
}

func (i *instance) stop() error {
	if i.process == nil {
		return nil
	}
	i.thaw()
	return i.process.Stop()
}

func (i *instance) freeze() {
	i.process.Signal(syscall.SIGSTOP)
	i.frozen = true
}

func (i *instance) thaw() {
	if i.frozen {
		i.process.Signal(syscall.SIGCONT)
		i.frozen = false
	}
}
