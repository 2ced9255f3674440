package sender

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/unionbridge/unionbridge/sender/queue"
)

// maintainEvery is the pace of maintenance.
const maintainEvery = 20 * time.Second

// maintenance handles rows the claim loop cannot see: waiting rows, rows no account can send, those
// that a pause holds back, and those whose outcome is unknown.
type maintenance struct {
	*shared
	accounts []*reconciler
	others   *queue.Watch // of waiting rows and of those with an unknown outcome
	held     held
}

func newMaintenance(s *Service) *maintenance {
	m := &maintenance{
		shared: s.shared, others: s.queue.Watch(nil, queue.Waiting, queue.Unknown),
		held: held{at: make(map[queue.Lane]queue.Request)},
	}
	for _, a := range s.accounts {
		m.accounts = append(m.accounts, &reconciler{account: a})
	}
	return m
}

// run maintains every maintainEvery and after each takeover, until ctx ends.
func (m *maintenance) run(ctx context.Context) {
	for {
		begin := m.Now()
		if err := m.once(ctx); err != nil && ctx.Err() == nil {
			m.Logger.Error("maintaining open requests", "err", err)
		}
		select {
		// Where a round takes long, it must not become the database's main load.
		case <-time.After(max(maintainEvery, 3*m.Now().Sub(begin))):
		case <-m.takenOver:
		case <-ctx.Done():
			return
		}
	}
}

// once costs one query where there is nothing to do.
func (m *maintenance) once(ctx context.Context) error {
	lanes, err := m.others.LookAtAll(ctx)
	if err != nil {
		return err
	}
	pending, err := m.lanes.Pending(ctx, pollEvery)
	if err != nil {
		return err
	}
	errs := []error{m.failUnroutable(ctx, slices.Concat(lanes, pending))}
	for _, a := range m.accounts {
		if a.owner.Load() {
			errs = append(errs, a.throttle.Reload(ctx), a.reconcile(ctx, lanes))
		}
	}
	errs = append(errs, m.endHeld(ctx, pending))
	var waiting []queue.Lane
	for _, l := range lanes {
		for _, a := range m.accounts {
			if l.Status != queue.Waiting || a.AppID != l.Account() || !a.owner.Load() {
				continue
			}
			waiting = append(waiting, l)
			if l.Due { // of a waiting row, due_at is the end of its wait
				errs = append(errs, a.queue.EndWaits(ctx, l, a.channel.Traits().WaitOver))
			}
		}
	}
	return errors.Join(append(errs, m.releaser.Walk(ctx, waiting))...)
}

// failUnroutable fails the rows that no claimer sees.
func (m *maintenance) failUnroutable(ctx context.Context, lanes []queue.Lane) error {
	var stuck []queue.Lane
	for _, l := range lanes {
		if l.Status != queue.Unknown && (!m.owned(l) || !validPriority(l.Priority)) {
			stuck = append(stuck, l)
		}
	}
	var errs []error
	for _, group := range queue.Group(stuck) {
		u := queue.Unroutable{Lanes: group, Reason: "bad_priority", Message: fmt.Sprintf(
			"priority is %d: it must be 0 (urgent), 1 (normal) or 2 (bulk)", group.Priority), Everywhere: true}
		if !m.owned(queue.Lane{AppID: group.AppID}) {
			u = queue.Unroutable{Lanes: group, Reason: "unknown_account", Message: fmt.Sprintf(
				"appid %q is not an account that sends: it is not configured under official_accounts, "+
					"nor under mini_programs with a secret and a template, or send", group.AppID.String)}
		}
		n, err := m.queue.FailUnroutable(ctx, u)
		if n > 0 {
			m.Logger.Warn("requests that no account can send have failed",
				"rows", n, "reason", u.Reason, "errmsg", u.Message)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// owned reports whether a lane belongs to an account of this instance.
func (m *maintenance) owned(l queue.Lane) bool {
	return slices.ContainsFunc(m.accounts, func(a *reconciler) bool { return a.owns(l) })
}
