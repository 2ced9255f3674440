package sender

import (
	"context"

	"github.com/unionbridge/unionbridge/internal/database"
)

// dispatch hands claimed jobs to the senders at the account's rate, urgent ones first. What can no longer be sent
// is given back. It ends when both queues are closed and empty.
type dispatch struct {
	urgent, others chan job
	room           chan struct{} // a job has left the queues; holds one token
	senders        chan job
}

func newDispatch() *dispatch {
	// The queues take whole claims. senders has no buffer: what waits there could not be overtaken.
	return &dispatch{
		urgent: make(chan job, 2*claimMost), others: make(chan job, 2*claimMost),
		room: make(chan struct{}, 1), senders: make(chan job),
	}
}

func (d *dispatch) put(j job) {
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

// awaitRoom waits until at most n jobs stand in the queues.
func (d *dispatch) awaitRoom(ctx context.Context, n int) {
	for len(d.urgent)+len(d.others) > n {
		select {
		case <-d.room:
		case <-ctx.Done():
			return
		}
	}
}

// next returns the job whose turn it is; false: there will be no more.
func (d *dispatch) next() (job, bool) {
	urgent, others := d.urgent, d.others
	for urgent != nil || others != nil {
		select {
		case j, ok := <-urgent:
			if ok {
				signal(d.room)
				return j, true
			}
			urgent = nil
			continue
		default:
		}
		select {
		case j, ok := <-urgent:
			if ok {
				signal(d.room)
				return j, true
			}
			urgent = nil
		case j, ok := <-others:
			if ok {
				signal(d.room)
				return j, true
			}
			others = nil
		}
	}
	return job{}, false
}

// run dispatches until the queues end. ctx ends with the account's lease or the service.
func (d *dispatch) run(ctx context.Context, w *worker, lease *database.Lease, results chan<- result) {
	defer close(d.senders)
	for {
		j, ok := d.next()
		if !ok {
			return
		}
		if !w.mayPost(ctx, lease, j) || !w.limit(ctx, j.deadline.Sub(w.svc.cfg.Now())) {
			results <- w.giveBack(j)
			continue
		}
		d.senders <- j
	}
}
