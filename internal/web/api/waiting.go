package api

import (
	"context"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/intake"
)

const (
	// pollPause is how often those who wait are looked up, all of an application in one query.
	pollPause = 500 * time.Millisecond
	// maxWaiting callers wait at once, and of one application as many as one query takes, so that it
	// takes no other's place; others are told what is known.
	maxWaiting = 2000
	maxOfOne   = intake.MaxBatch
)

// waiting is the callers who wait for an outcome. One goroutine looks for all of them, while there
// are any.
type waiting struct {
	messages Messages

	mu       sync.Mutex
	callers  map[*applications.Application]map[*caller]bool
	number   int           // of all callers
	polling  bool          // there is a goroutine
	released chan struct{} // closed: nobody waits any more
	ending   sync.Once
	running  sync.WaitGroup
}

type caller struct {
	session applications.Session
	id      int64
	done    chan intake.Status // of one element
}

func newWaiting(messages Messages) *waiting {
	return &waiting{messages: messages, released: make(chan struct{}),
		callers: make(map[*applications.Application]map[*caller]bool)}
}

// release ends all waiting, for good, and waits for the goroutine.
func (w *waiting) release() {
	w.ending.Do(func() {
		w.mu.Lock()
		close(w.released)
		w.mu.Unlock()
	})
	w.running.Wait()
}

// outcome waits until a message is final, for at most the given time, and returns the last that is
// known of it. waited is false where there was no place to wait.
func (w *waiting) outcome(
	ctx context.Context, s applications.Session, last intake.Status, wait time.Duration,
) (found intake.Status, waited bool) {
	c := &caller{session: s, id: last.ID, done: make(chan intake.Status, 1)}
	if !w.enter(c) {
		return last, false
	}
	defer w.leave(c)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case found = <-c.done:
		return found, true
	case <-timer.C:
	case <-ctx.Done():
	case <-w.released:
	}
	return last, true
}

func (w *waiting) enter(c *caller) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := c.session.Application
	select {
	case <-w.released:
		return false
	default:
	}
	if w.number == maxWaiting || len(w.callers[a]) == maxOfOne {
		return false
	}
	if w.callers[a] == nil {
		w.callers[a] = make(map[*caller]bool)
	}
	w.callers[a][c] = true
	w.number++
	if !w.polling {
		w.polling = true
		w.running.Go(w.poll)
	}
	return true
}

func (w *waiting) leave(c *caller) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := c.session.Application
	delete(w.callers[a], c)
	w.number--
	if len(w.callers[a]) == 0 {
		delete(w.callers, a)
	}
}

// poll looks for outcomes until nobody waits any more.
func (w *waiting) poll() {
	tick := time.NewTicker(pollPause)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-w.released:
			return
		}
		groups := w.groups()
		if groups == nil {
			return
		}
		for _, group := range groups {
			w.look(group)
		}
	}
}

// groups are the callers of each application; nil: there are none, and poll ends.
func (w *waiting) groups() (groups [][]*caller) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, callers := range w.callers {
		group := make([]*caller, 0, len(callers))
		for c := range callers {
			group = append(group, c)
		}
		groups = append(groups, group)
	}
	w.polling = groups != nil
	return groups
}

// look tells the callers of one application whose messages are final. After an error they wait on.
func (w *waiting) look(group []*caller) {
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	ids := make([]int64, len(group))
	for i, c := range group {
		ids[i] = c.id
	}
	found, err := w.messages.Statuses(ctx, group[0].session, ids)
	if err != nil {
		return
	}
	byID := make(map[int64]intake.Status, len(found))
	for _, s := range found {
		byID[s.ID] = s
	}
	for _, c := range group {
		s, ok := byID[c.id]
		if !ok || !final(s) {
			continue
		}
		select {
		case c.done <- s:
		default: // it has been told
		}
	}
}
