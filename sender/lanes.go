package sender

import (
	"context"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/sender/queue"
)

// laneAge is how old the list of lanes may be that a claim goes by: what an urgent row waits for at
// most before a busy account notices it.
const laneAge = 150 * time.Millisecond

// laneList is the list of pending lanes that all accounts of this instance share.
type laneList struct {
	queue *queue.Queue
	now   func() time.Time

	mu    sync.Mutex
	read  time.Time
	lanes []queue.Lane
}

// pending returns the lanes of pending rows, at most maxAge old.
func (l *laneList) pending(ctx context.Context, maxAge time.Duration) ([]queue.Lane, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// By the clock of this process alone; one that jumped back must not freeze the list.
	if age := l.now().Sub(l.read); age >= 0 && age <= maxAge {
		return l.lanes, nil
	}
	lanes, err := l.queue.Lanes(ctx, queue.Pending)
	if err != nil {
		return nil, err
	}
	l.lanes, l.read = lanes, l.now()
	return lanes, nil
}
