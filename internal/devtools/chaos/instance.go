package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

// instance is one place at which the real daemon runs, life after life, with its own link to the database.
type instance struct {
	name     string
	stage    *stage.Stage
	settings stage.Settings
	link     *link
	log      *os.File

	mu      sync.Mutex
	process *stage.Process
	killed  bool // by us
	lives   int
	ended   []string // how lives ended that nobody ended
	frozen  bool
}

func (i *instance) config() string { return i.name + ".yaml" }

func (i *instance) logName() string { return "daemon-" + i.name + ".log" }

// begin starts the daemon and does not wait for it.
func (i *instance) begin() error {
	i.mu.Lock()
	defer i.mu.Unlock()
	c := i.stage.UnionbridgeWith(i.config(), "run")
	c.Stdout, c.Stderr = i.log, i.log
	process, err := stage.Start(c)
	if err != nil {
		return err
	}
	i.lives++
	_, _ = fmt.Fprintf(i.log, "---- life %d, pid %d, %s\n", i.lives, process.Pid(), time.Now().Format(time.RFC3339Nano))
	i.process, i.killed = process, false
	go i.watch(process)
	return nil
}

// watch notes a life that ends although nobody has ended it.
func (i *instance) watch(process *stage.Process) {
	<-process.Done()
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.process == process && !i.killed {
		i.ended = append(i.ended, fmt.Sprintf("life %d of %s: %s", i.lives, i.name, process.Ended()))
	}
}

// kill ends the daemon as kill -9 does. It returns the process that has died.
func (i *instance) kill() *stage.Process {
	i.mu.Lock()
	process := i.process
	i.killed, i.frozen = true, false
	i.mu.Unlock()
	process.Kill()
	return process
}

// stop ends the daemon in order.
func (i *instance) stop() error {
	i.thaw()
	i.mu.Lock()
	process := i.process
	i.killed = true
	i.mu.Unlock()
	if process == nil {
		return nil
	}
	return process.Stop()
}

// freeze stops the daemon's clockwork, as a suspended machine does, until thaw.
func (i *instance) freeze() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.process.Signal(syscall.SIGSTOP)
	i.frozen = true
}

func (i *instance) thaw() {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.frozen {
		i.process.Signal(syscall.SIGCONT)
		i.frozen = false
	}
}

// pid of the present life.
func (i *instance) pid() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.process.Pid()
}

// alive tells whether the daemon runs, frozen or not.
func (i *instance) alive() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	select {
	case <-i.process.Done():
		return false
	default:
		return true
	}
}

// unplanned says how lives have ended by themselves.
func (i *instance) unplanned() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return append([]string(nil), i.ended...)
}

// awaitReady waits until the daemon says that it works.
func (i *instance) awaitReady(ctx context.Context, most time.Duration) error {
	err := poll(ctx, most, func(ctx context.Context) (bool, error) {
		if !i.alive() {
			return false, fmt.Errorf("daemon %s has ended", i.name)
		}
		return ready(ctx, i.settings.Listen), nil
	})
	if err != nil {
		return fmt.Errorf("waiting for daemon %s: %w\n%s", i.name, err, i.stage.LogTail(i.logName()))
	}
	return nil
}

func ready(ctx context.Context, listen string) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+listen+"/readyz", nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	return response.Body.Close() == nil && response.StatusCode == http.StatusOK
}
