package database

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"
)

const (
	reasonTaken   = "another instance has taken it"
	reasonExpired = "it could not be renewed in time"
	// reasonReleased is empty: releasing a lease is not worth a log line.
	reasonReleased = ""
)

var errLeaseGone = errors.New("the lease went to another instance")

// Lease is the right to one job, held until it is released or lost.
type Lease struct {
	leases *Leases
	name   string
	epoch  int64
	done   chan struct{}

	mu    sync.Mutex
	since time.Time // when the statement was sent that gave or renewed it
	until time.Time
	timer *time.Timer
	ended bool
}

func newLease(leases *Leases, name string, epoch int64, start time.Time) *Lease {
	l := &Lease{leases: leases, name: name, epoch: epoch, done: make(chan struct{}),
		since: start, until: start.Add(leases.span())}
	l.mu.Lock() // the timer may fire before it is assigned
	defer l.mu.Unlock()
	// The timer, not Run, ends a lease that ran out: Run may hang in a statement at that moment.
	l.timer = time.AfterFunc(l.until.Sub(leases.now()), func() { l.end(reasonExpired) })
	return l
}

// span is how long after the start of a renewal the holder may rely on it: the TTL without a
// margin of a fifth for a statement under way and for clocks that run at different speeds.
func (l *Leases) span() time.Duration { return l.ttl - l.ttl/5 }

// Name is the name the lease was acquired by.
func (l *Lease) Name() string { return l.name }

// Epoch grows with every change of hands. A write fenced by it cannot come from an earlier holder.
func (l *Lease) Epoch() int64 { return l.epoch }

// Done is closed when the lease is lost or released: stop the job.
func (l *Lease) Done() <-chan struct{} { return l.done }

// Context returns a context that ends with ctx and with the lease, whichever comes first;
// context.Cause tells a lost lease apart. Call the function when the job is done.
func (l *Lease) Context(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-l.done:
			cancel(errLeaseGone)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// maxJump is how far the wall clock may get away from the monotonic one while a lease is not
// renewed. The fifth of the TTL that a holder does not rely on is more.
const maxJump = time.Second

// Valid reports whether the job may go on. Cheap enough to call before each batch. Where the wall
// clock has jumped, the machine may have been suspended, in which the monotonic clock does not run,
// and another instance hold the lease by now: it is not valid until the next renewal confirms it.
func (l *Lease) Valid() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.leases.now()
	jump := now.Round(0).Sub(l.since.Round(0)) - now.Sub(l.since)
	return !l.ended && now.Before(l.until) && jump.Abs() <= maxJump
}

// Release gives the lease back at once. It is safe to call twice and after a loss. When it fails
// the row expires within the TTL.
func (l *Lease) Release(ctx context.Context) error {
	if !l.end(reasonReleased) {
		return nil
	}
	return l.leases.free(ctx, []*Lease{l})
}

func (l *Lease) extend(start time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	l.since, l.until = start, start.Add(l.leases.span())
	l.timer.Reset(l.until.Sub(l.leases.now()))
}

// end closes Done once, and reports whether this call did. A reason means a loss, and is logged.
func (l *Lease) end(reason string) bool {
	l.mu.Lock()
	// The timer may have fired while a renewal was being counted.
	early := reason == reasonExpired && l.leases.now().Before(l.until)
	if l.ended || early {
		l.mu.Unlock()
		return false
	}
	l.ended = true
	l.timer.Stop()
	close(l.done)
	l.mu.Unlock()

	l.leases.forget(l)
	if reason != reasonReleased {
		l.leases.log.Warn("lease lost", "lease", l.name, "epoch", l.epoch, "reason", reason)
	}
	return true
}

// HeldLease is a lease that an instance holds, as pages and commands show it.
type HeldLease struct {
	Name      string    `db:"name"`
	Holder    string    `db:"holder"`
	Epoch     int64     `db:"epoch"`
	ExpiresAt time.Time `db:"expires_at"` // by the database's clock, unless it is renewed
}

// HeldLeases returns the leases that have not run out, in the order of their names. A released one
// has no holder, whatever its expiry says. The table is small: a few rows for each account.
func HeldLeases(ctx context.Context, db *sqlx.DB) ([]HeldLease, error) {
	const query = `
		SELECT name, holder, epoch, expires_at
		  FROM lease
		 WHERE expires_at > CURRENT_TIMESTAMP(3) AND holder <> ''
		 ORDER BY name`
	held := []HeldLease{}
	if err := db.SelectContext(ctx, &held, query); err != nil {
		return nil, fmt.Errorf("reading who holds which lease: %w", Explain(err))
	}
	return held, nil
}
