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

	serial bool // one message at a time to each person
	people people

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

// awaitRoom waits until at most n jobs stand in the queues or behind another, and reports whether that was within a
// time.
func (d *dispatch) awaitRoom(ctx context.Context, n int, within time.Duration) bool {
	timeout := time.After(within)
	for len(d.urgent)+len(d.others)+d.people.waiting() > n {
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

// sending is what the senders of an account have in common while it holds its lease.
type sending struct {
	*dispatch
	account *account
	lease   *database.Lease
	results chan<- queue.Result
}

// run sends until there are no more jobs. ctx ends with the account's lease or the service.
func (s *sending) run(ctx context.Context) {
	for j := s.take(ctx); j != nil; j = s.take(ctx) {
		s.results <- s.account.deliver(ctx, s.lease, j)
		for j = s.leave(j); j != nil; j = s.leave(j) {
			if s.ready(ctx, j) {
				s.results <- s.account.deliver(ctx, s.lease, j)
			} else {
				s.results <- s.account.release(j)
			}
		}
	}
}

// take waits for the next job and for the rate. The senders stand in line for it, so that an urgent
// job is behind one other at most, and behind those of the same person. What can no longer be sent
// is released. nil: there will be no more.
func (s *sending) take(ctx context.Context) *job {
	s.turn.Lock()
	defer s.turn.Unlock()
	for {
		j, ok := s.next()
		if !ok {
			return nil
		}
		if s.serial && !s.people.enter(j) {
			continue
		}
		for ; j != nil; j = s.leave(j) {
			if s.ready(ctx, j) {
				return j
			}
			s.results <- s.account.release(j)
		}
	}
}

// leave returns the job that stood behind one that has been posted or released; nil: none.
func (s *sending) leave(j *job) *job {
	if !s.serial {
		return nil
	}
	next := s.people.leave(j)
	notify(s.room)
	return next
}

// ready waits for the rate, and reports whether a job may be posted then.
func (s *sending) ready(ctx context.Context, j *job) bool {
	return s.account.allowed(ctx, s.lease, j) &&
		j.permit.Wait(ctx, j.deadline.Sub(s.account.Now()))
}
