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
	// maxWaiting callers wait at once; others are told what is known.
	maxWaiting = 2000
)

// waiting is the callers who wait for an outcome. One goroutine looks for all of them, while there are
// any.
type waiting struct {
	messages Messages

	mu      sync.Mutex
	callers map[*caller]bool
	polling bool
}

type caller struct {
	session applications.Session
	id      int64
	done    chan intake.Status // of one element
}

func newWaiting(messages Messages) *waiting {
	return &waiting{messages: messages, callers: make(map[*caller]bool)}
}

// outcome waits until a message is final, for at most the given time, and returns the last that is
// known of it.
func (w *waiting) outcome(
	ctx context.Context, s applications.Session, last intake.Status, wait time.Duration,
) intake.Status {
	c := &caller{session: s, id: last.ID, done: make(chan intake.Status, 1)}
	if !w.enter(c) {
		return last
	}
	defer w.leave(c)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case found := <-c.done:
		return found
	case <-timer.C:
	case <-ctx.Done():
	}
	return last
}

func (w *waiting) enter(c *caller) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.callers) >= maxWaiting {
		return false
	}
	w.callers[c] = true
	if !w.polling {
		w.polling = true
		go w.poll()
	}
	return true
}

func (w *waiting) leave(c *caller) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.callers, c)
}

// poll looks for outcomes until nobody waits any more.
func (w *waiting) poll() {
	for {
		time.Sleep(pollPause)
		groups := w.groups()
		if groups == nil {
			return
		}
		for _, group := range groups {
			w.look(group)
		}
	}
}

// groups are the callers of each application, in parts that one query takes; nil: there are none, and
// poll ends.
func (w *waiting) groups() (groups [][]*caller) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.callers) == 0 {
		w.polling = false
		return nil
	}
	last := make(map[*applications.Application]int)
	for c := range w.callers {
		i, begun := last[c.session.Application]
		if !begun || len(groups[i]) == intake.MaxBatch {
			i = len(groups)
			groups, last[c.session.Application] = append(groups, nil), i
		}
		groups[i] = append(groups[i], c)
	}
	return groups
}

func (w *waiting) look(group []*caller) {
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	ids := make([]int64, len(group))
	for i, c := range group {
		ids[i] = c.id
	}
	found, err := w.messages.Statuses(ctx, group[0].session, ids)
	if err != nil {
		return // they wait on
	}
	byID := make(map[int64]intake.Status, len(found))
	for _, s := range found {
		byID[s.ID] = s
	}
	for _, c := range group {
		if s, ok := byID[c.id]; ok && final(s) {
			select {
			case c.done <- s:
			default: // it has been told
			}
		}
	}
}
