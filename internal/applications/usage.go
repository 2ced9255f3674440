package applications

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"
)

// How amounts are counted. The limit of a minute or a day is handed out to instances in portions
// (application_usage.allocated), in a short transaction of its own. Accepted requests are counted
// (used) in the transaction that inserts them, in the instance's own row, and never beyond what it
// has. So a limit is never exceeded, whatever dies, and no row is written by two instances but when
// a portion is handed out. What an instance does not use, others take back.
const (
	// maxPortion bounds what an instance takes at once, and holds back if it dies.
	maxPortion = 1000
	// portionShare: at most this part of what is left, so that near the limit portions become
	// single requests and nobody holds back much.
	portionShare = 8
)

// ErrTakenBack means that another instance has taken an unused portion back: nothing was counted.
// Roll back, and begin again with Reserve.
var ErrTakenBack = errors.New("the reserved amount was taken back by another instance")

// Reservation is a number of requests that an application may still insert. The zero value is none.
// It may be divided: a copy with a smaller N is spent, one with the rest cancelled.
type Reservation struct {
	// N is how many, at most as many as were wanted.
	N       int64
	app     string
	periods [2]time.Time // when minute and day begin; zero: no limit
}

// Counted reports whether Spend writes anything for it: its application has a limit.
func (r Reservation) Counted() bool { return r.N > 0 && r.periods != [2]time.Time{} }

// The periods of a limit, in the order in which their rows are written.
const (
	day = iota
	minute
)

// periodName is application_usage.period.
func periodName(period int) string { return [...]string{"day", "minute"}[period] }

// usage is what this instance has been allocated and has not reserved yet.
type usage struct {
	mu   sync.Mutex
	apps map[string]*portions
}

type portions struct {
	allocating sync.Mutex // held by whoever fetches more
	windows    [2]window
}

type window struct {
	begins time.Time
	left   int64
}

func newUsage() *usage { return &usage{apps: make(map[string]*portions)} }

// Reserve takes n requests of an application's limits. If fewer are left it takes those, and
// returns a [Refusal] for the others as well. Use the reservation with Spend, or give it back with
// Cancel.
func (r *Registry) Reserve(ctx context.Context, s Session, n int64) (Reservation, error) {
	a := s.Application
	if a == nil {
		return Reservation{}, r.audit.refuse(refusal(reasonNoToken, ""), s, "")
	}
	limits := [2]int64{day: a.Limit.Day, minute: a.Limit.Minute}
	if limits == [2]int64{} {
		return Reservation{N: n, app: a.Name}, nil
	}
	want := request{limits: limits, n: n}
	if err := r.begin(ctx, &want); err != nil {
		return Reservation{}, err
	}
	p := r.usage.of(a.Name)
	got, short := r.usage.take(p, &want)
	if short >= 0 {
		var err error
		if got, short, err = r.allocate(ctx, a, p, &want); err != nil {
			return Reservation{}, err
		}
	}
	reservation := Reservation{N: got, app: a.Name, periods: want.begins}
	if got == n {
		return reservation, nil
	}
	reason, words := ReasonDay, fmt.Sprintf("the %d a day", limits[day])
	if short == minute {
		reason, words = ReasonMinute, fmt.Sprintf("the %d a minute", limits[minute])
	}
	words = fmt.Sprintf("quota of application %s, %s, is used up", a.Name, words)
	return reservation, r.audit.refuse(refusal(reason, words), s, "")
}

// request is what is to be taken of which windows.
type request struct {
	now    time.Time
	begins [2]time.Time
	limits [2]int64
	n      int64
}

// begin finds out when the periods that have a limit began, by the database's clock.
func (r *Registry) begin(ctx context.Context, want *request) error {
	st, err := r.current(ctx)
	if err != nil {
		return err
	}
	want.now = st.at(r.now()).UTC()
	if want.limits[day] > 0 {
		want.begins[day] = r.day(want.now).UTC()
	}
	if want.limits[minute] > 0 {
		want.begins[minute] = want.now.Truncate(time.Minute)
	}
	return nil
}

func (u *usage) of(application string) *portions {
	u.mu.Lock()
	defer u.mu.Unlock()
	p := u.apps[application]
	if p == nil {
		p = new(portions)
		u.apps[application] = p
	}
	return p
}

// maxLate is how late a caller may come to a period that is over.
const maxLate = 5 * time.Second

// follow takes the windows that p has where another caller has seen a period begin just after want
// looked: else the two would set them back and forth. A clock that was set back is followed.
func (p *portions) follow(want *request) {
	for i, w := range p.windows {
		if !want.begins[i].IsZero() && w.begins.After(want.begins[i]) &&
			w.begins.Sub(want.now) < maxLate {
			want.begins[i] = w.begins
		}
	}
}

// take takes all that is wanted, or nothing; then short is a window that has less.
func (u *usage) take(p *portions, want *request) (got int64, short int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	p.follow(want)
	for i, begins := range want.begins {
		w := p.windows[i]
		if !begins.IsZero() && (!w.begins.Equal(begins) || w.left < want.n) {
			return 0, i
		}
	}
	p.subtract(want.begins, want.n)
	return want.n, -1
}

func (p *portions) subtract(begins [2]time.Time, n int64) {
	for i := range begins {
		if !begins[i].IsZero() {
			p.windows[i].left -= n
		}
	}
}

// lack returns what is missing in each window, and begins those that are new.
func (u *usage) lack(p *portions, want *request) (lack [2]int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i, begins := range want.begins {
		if begins.IsZero() {
			continue
		}
		if !p.windows[i].begins.Equal(begins) {
			p.windows[i] = window{begins: begins}
		}
		lack[i] = max(0, want.n-p.windows[i].left)
	}
	return lack
}

// allocate fetches what is missing, and takes as many as there are then. One caller of an
// application fetches, the others wait, and mostly find enough.
func (r *Registry) allocate(
	ctx context.Context, a *Application, p *portions, want *request,
) (got int64, short int, err error) {
	p.allocating.Lock()
	defer p.allocating.Unlock()
	if got, short = r.usage.take(p, want); short < 0 {
		return got, short, nil
	}
	more, err := r.fetch(ctx, a.Name, want, r.usage.lack(p, want))
	if err != nil {
		return 0, 0, err
	}
	r.usage.mu.Lock()
	defer r.usage.mu.Unlock()
	got, short = want.n, -1
	for i, begins := range want.begins {
		w := &p.windows[i]
		if begins.IsZero() {
			continue
		}
		if !w.begins.Equal(begins) {
			*w = window{begins: begins} // taken back meanwhile
		}
		if w.left += more[i]; w.left < got {
			got, short = max(0, w.left), i
		}
	}
	p.subtract(want.begins, got)
	return got, short, nil
}

// Cancel gives a reservation back that was not spent, because its requests were not inserted. Where
// the outcome of the COMMIT is unknown, do not: they may have been counted.
func (r *Registry) Cancel(reservation Reservation) {
	r.usage.mu.Lock()
	defer r.usage.mu.Unlock()
	p := r.usage.apps[reservation.app]
	for i, begins := range reservation.periods {
		if p != nil && !begins.IsZero() && p.windows[i].begins.Equal(begins) {
			p.windows[i].left += reservation.N
		}
	}
}

// Spend counts reservations in tx, which inserts their requests: both happen or neither. It locks
// rows of this instance alone; call it last, since others of this instance wait for them until the
// COMMIT. After [ErrTakenBack] the reservations are void.
func (r *Registry) Spend(ctx context.Context, tx *sqlx.Tx, reservations ...Reservation) error {
	for _, row := range usedRows(reservations) {
		ok, err := r.spend(ctx, tx, row)
		if err != nil {
			return fmt.Errorf("counting requests of application %s: %w", row.application, err)
		}
		if !ok {
			r.usage.forget(row.application)
			return fmt.Errorf("counting requests of application %s: %w", row.application, ErrTakenBack)
		}
	}
	return nil
}

func (u *usage) forget(application string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if p := u.apps[application]; p != nil {
		p.windows = [2]window{}
	}
}
