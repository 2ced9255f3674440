// Package harness sets up what the devtools work on: a database, the WeChat simulator and the real
// unionbridge program, each as a process of its own, in a folder that vanishes afterwards. It ends
// what it started, and nothing else. The product does not import it.
package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"
)

// T is one run of a program, or of one scenario in it. The devtools are long tests and are written
// like tests: the first failure ends the run ([T.Check], [T.Fatal]), whatever it has started ends
// in reverse order ([T.Cleanup]), and then the failure is an ordinary error ([Try]).
//
// As in package testing, a failure ends the goroutine that reports it. Only the run's own goroutine
// and those of a [Group] may report one.
type T struct {
	*Screen
	ctx context.Context
	tb  TB // a test that runs this; nil in a program

	mu       sync.Mutex
	err      error
	cleanups []func() error
	dir      string
}

// TB is the part of [testing.TB] that a T in a test stands on.
type TB interface {
	Context() context.Context
	Cleanup(f func())
	Error(args ...any)
	FailNow()
}

// Try runs f and ends what it has started, whatever happens. It returns the first failure.
func Try(ctx context.Context, screen *Screen, f func(*T)) error {
	t := &T{Screen: screen, ctx: ctx}
	done := make(chan struct{})
	completed := false
	go func() {
		defer close(done)
		defer t.cleanUp()
		t.makeFolder()
		f(t)
		completed = true
	}()
	<-done
	if !completed && t.err == nil {
		return errElsewhere
	}
	return t.err
}

// errElsewhere is the failure of a part that used the T around it, which has the reason.
var errElsewhere = errors.New("ended by a failure of what is around it")

// ForTest returns a T that fails and ends together with a test.
func ForTest(tb TB, screen *Screen) *T {
	t := &T{Screen: screen, ctx: tb.Context(), tb: tb}
	tb.Cleanup(func() {
		if t.cleanUp(); t.err != nil {
			tb.Error(t.err)
		}
	})
	t.makeFolder()
	return t
}

// Scope runs a part whose folder and processes end with it. Its failure is t's.
func (t *T) Scope(f func(*T)) { t.Check(Try(t.ctx, t.Screen, f)) }

// Context ends when somebody interrupts the program, or when its time is over.
func (t *T) Context() context.Context { return t.ctx }

// Limit ends the run after a while.
func (t *T) Limit(d time.Duration) {
	ctx, cancel := context.WithTimeout(t.ctx, d)
	t.ctx = ctx
	t.Cleanup(func() error { cancel(); return nil })
}

// Check ends the run if err is one.
func (t *T) Check(err error) {
	if err != nil {
		t.Fatal(err)
	}
}

// Checkf is Check with a word on what failed.
func (t *T) Checkf(err error, format string, args ...any) {
	if err != nil {
		t.Fatal(fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err))
	}
}

// Fatalf ends the run.
func (t *T) Fatalf(format string, args ...any) { t.Fatal(fmt.Errorf(format, args...)) }

// Fatal ends the run. The first failure counts; others are its consequences.
func (t *T) Fatal(err error) {
	t.mu.Lock()
	if t.err == nil {
		t.err = err
	}
	t.mu.Unlock()
	if t.tb != nil {
		t.tb.FailNow()
	}
	runtime.Goexit()
}

func (t *T) failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.err != nil
}

// Cleanup adds something to be ended with the run: the last one first.
func (t *T) Cleanup(f func() error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, f)
}

func (t *T) cleanUp() {
	for _, f := range slices.Backward(t.cleanups) {
		err := f()
		t.mu.Lock()
		t.err = errors.Join(t.err, err)
		t.mu.Unlock()
	}
}

// Path is a file in the run's temporary folder.
func (t *T) Path(name string) string { return filepath.Join(t.dir, name) }

func (t *T) makeFolder() {
	dir, err := os.MkdirTemp("", "ub-devtools-")
	t.Checkf(err, "making a temporary folder")
	t.dir = dir
	t.Cleanup(func() error { return os.RemoveAll(dir) })
}

// Sleep waits. An interrupt ends it, and the run.
func (t *T) Sleep(d time.Duration) {
	select {
	case <-time.After(d):
	case <-t.ctx.Done():
		t.Fatal(t.ctx.Err())
	}
}

// Wait says how [T.Await] waits.
type Wait struct {
	For   string // what is awaited, for the error
	Every time.Duration
	Most  time.Duration
	// Process must live meanwhile; nil: there is none.
	Process *Process
	// Log is the end of the log that an error quotes; nil: none.
	Log func() string
}

// Await calls done again and again until it reports true.
func (t *T) Await(w Wait, done func() bool) {
	over := time.After(w.Most)
	var ended <-chan struct{}
	if w.Process != nil {
		ended = w.Process.Done()
	}
	fail := func(why string) {
		if w.Log != nil {
			why += "\n" + w.Log()
		}
		t.Fatalf("waiting for %s: %s", w.For, why)
	}
	for !done() {
		select {
		case <-time.After(w.Every):
		case <-t.ctx.Done():
			t.Fatal(t.ctx.Err())
		case <-ended:
			fail("the process ended: " + w.Process.Ended())
		case <-over:
			fail("it did not happen within " + w.Most.String())
		}
	}
}

// Group is a number of goroutines that work for one run. When one fails the others' context ends.
type Group struct {
	t      *T
	ctx    context.Context
	cancel context.CancelFunc
	slots  chan struct{}
	wg     sync.WaitGroup
}

// Group returns a group that runs at most limit goroutines at once.
func (t *T) Group(limit int) *Group {
	g := &Group{t: t, slots: make(chan struct{}, limit)}
	g.ctx, g.cancel = context.WithCancel(t.ctx)
	return g
}

// Go waits for a free place and runs f there.
func (g *Group) Go(f func(ctx context.Context)) {
	g.slots <- struct{}{}
	g.wg.Go(func() {
		defer func() {
			if <-g.slots; g.t.failed() {
				g.cancel()
			}
		}()
		f(g.ctx)
	})
}

// Wait waits for all. If one has failed, so has the run.
func (g *Group) Wait() {
	g.wg.Wait()
	g.cancel()
	if g.t.failed() {
		runtime.Goexit()
	}
}
