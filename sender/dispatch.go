package sender

import (
	"context"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// dispatch hands claimed jobs to the senders at the account's rate, urgent ones first.
type dispatch struct {
	urgent, others chan *job
	room           chan struct{} // a job has left the queues; holds one token

	turn sync.Mutex // of the sender that takes the next job, and waits for the rate
}

// newDispatch returns queues that take capacity jobs each: put never waits for a sender.
func newDispatch(capacity int) *dispatch {
	return &dispatch{
		urgent: make(chan *job, capacity), others: make(chan *job, capacity),
		room: make(chan struct{}, 1),
	}
}

func (d *dispatch) put(j *job) {
	if j.row.Priority == priorityUrgent {
		d.urgent <- j
		return
	}
	d.others <- j
}

func (d *dispatch) close() {
	close(d.urgent)
	close(d.others)
}

// awaitRoom waits until at most n jobs stand in the queues, and reports whether that was within a
// time.
func (d *dispatch) awaitRoom(ctx context.Context, n int, within time.Duration) bool {
	timeout := time.After(within)
	for len(d.urgent)+len(d.others) > n {
		select {
		case <-d.room:
		case <-timeout:
			return false
		case <-ctx.Done():
			return true
		}
	}
	return true
}

// next returns the job whose turn it is; false: there will be no more.
func (d *dispatch) next() (j *job, ok bool) {
	select {
	case j, ok = <-d.urgent:
	default:
		select {
		case j, ok = <-d.urgent:
		case j, ok = <-d.others:
		}
	}
	if !ok { // both have been closed, but either may hold some jobs yet
		if j, ok = <-d.urgent; !ok {
			j, ok = <-d.others
		}
	}
	if ok {
		notify(d.room)
	}
	return j, ok
}

// take waits for the next job and for the rate. The senders stand in line for it, so that an urgent
// job is behind one other at most. What can no longer be sent is released. false: there will be no
// more. ctx ends with the account's lease or the service.
func (d *dispatch) take(
	ctx context.Context, a *account, lease *database.Lease, results chan<- queue.Result,
) (*job, bool) {
	d.turn.Lock()
	defer d.turn.Unlock()
	for {
		j, ok := d.next()
		if !ok {
			return nil, false
		}
		if a.allowed(ctx, lease, j) && j.permit.Wait(ctx, j.deadline.Sub(a.Now())) {
			return j, true
		}
		results <- a.release(j)
	}
}
