// Package lanes knows which lanes have requests that are due, and divides a claim among them: all
// templates of one priority alike, however long their queues are. It must not claim.
package lanes

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/sender/queue"
)

// List is the list of pending lanes that all accounts of an instance share. It is safe for concurrent
// use.
type List struct {
	watch *queue.Watch
	now   func() time.Time

	mu    sync.Mutex
	read  time.Time
	lanes []queue.Lane
}

// NewList returns a list of what the watch finds.
func NewList(watch *queue.Watch, now func() time.Time) *List {
	return &List{watch: watch, now: now}
}

// Pending returns the lanes of pending rows, at most maxAge old.
func (l *List) Pending(ctx context.Context, maxAge time.Duration) ([]queue.Lane, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// By the clock of this process alone; one that jumped back must not freeze the list.
	if age := l.now().Sub(l.read); age >= 0 && age <= maxAge {
		return l.lanes, nil
	}
	lanes, err := l.watch.Look(ctx)
	if err != nil {
		return nil, err
	}
	l.lanes, l.read = lanes, l.now()
	return lanes, nil
}

// Drop takes lanes from the list until they are found again.
func (l *List) Drop(gone []queue.Lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watch.Drop(gone)
	dropped := make(map[queue.Lane]bool, len(gone))
	for _, lane := range gone {
		dropped[lane] = true
	}
	// Others read the old list.
	l.lanes = slices.DeleteFunc(slices.Clone(l.lanes), func(lane queue.Lane) bool {
		return dropped[lane]
	})
}
