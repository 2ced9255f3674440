package database

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"
)

const (
	defaultLeaseTTL = 10 * time.Second

	// releaseTimeout bounds the last statement of a stopping instance.
	releaseTimeout = 3 * time.Second
)

var (
	errNoHolder = errors.New("a lease needs a holder's name, unique to the process")
	errStopped  = errors.New("leases are released, the instance is stopping")
)

// LeaseConfig configures Leases.
type LeaseConfig struct {
	// Holder is who holds: unique to the process (host, pid and something random), at most 128
	// characters. Two processes of one name would renew each other's leases.
	Holder string
	// TTL is how long a lease outlives its last renewal. 0 means 10 s. A successor takes over
	// within TTL and its own polling interval after a crash.
	TTL time.Duration
	// Logger hears of lost leases and of renewals that fail. nil: nothing.
	Logger *slog.Logger
	// Now is the clock of Valid; it must read both clocks, as time.Now does. nil: time.Now.
	Now func() time.Time
}

// Leases takes and renews rows of the table lease: the right of one instance to one job.
//
// The row's expiry is judged by the database's clock, so instances need not agree on the time. The
// holder itself judges by its own monotonic clock from the moment it *sent* the last renewal, which
// is earlier than the moment the server counts from; and it stops a fifth of the TTL early. So a
// holder that is cut off from the database knows that it has lost the lease before anybody else can
// get it. On a suspended machine the monotonic clock does not run, so the holder compares it with
// the wall clock as well. A process that is frozen (SIGSTOP) between that look and what it does
// cannot know; therefore what a holder writes should be fenced by its Epoch or by a compare-and-set
// as well.
type Leases struct {
	db     *sqlx.DB
	holder string
	ttl    time.Duration
	log    *slog.Logger
	now    func() time.Time

	mu      sync.Mutex
	held    map[string]*Lease
	doubts  map[string]int64 // by name: an epoch that the row may have from us, see doubt
	stopped bool
}

// NewLeases returns Leases on db. Run must be running for leases to last.
func NewLeases(db *sqlx.DB, cfg LeaseConfig) *Leases {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Leases{
		db: db, holder: cfg.Holder, ttl: cmp.Or(cfg.TTL, defaultLeaseTTL), now: cfg.Now,
		log:  cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler)),
		held: make(map[string]*Lease), doubts: make(map[string]int64),
	}
}

// Run renews all held leases with one statement every third of the TTL, none when nothing is held.
// When ctx ends it releases them, so that a successor need not wait, and returns nil. A database
// that is away is not an error: leases run out, and TryAcquire gets new ones later.
func (l *Leases) Run(ctx context.Context) error {
	if l.holder == "" {
		return errNoHolder
	}
	ticker := time.NewTicker(l.ttl / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			l.stop(context.WithoutCancel(ctx))
			return nil
		case <-ticker.C:
			if err := l.renew(ctx); err != nil && ctx.Err() == nil {
				l.log.WarnContext(ctx, "leases could not be renewed", "error", err)
			}
		}
	}
}

// TryAcquire takes the lease called name (at most 128 ASCII characters) if nobody has it. It
// returns nil, nil if another holder has it, or this one already. While another has it this costs
// one read by primary key and no write. If the row expires later than any holder can have written,
// it waits for one TTL whether somebody renews it.
func (l *Leases) TryAcquire(ctx context.Context, name string) (*Lease, error) {
	if l.holder == "" {
		return nil, errNoHolder
	}
	if stopped, held := l.state(name); stopped {
		return nil, errStopped
	} else if held {
		return nil, nil
	}
	seen, err := l.look(ctx, name)
	if err == nil && !seen.free() {
		return nil, nil
	}
	var start time.Time
	taken := false
	if err == nil {
		err = Retry(ctx, func(ctx context.Context) (err error) {
			start = l.now()
			taken, err = l.take(ctx, name, seen)
			return err
		})
	}
	if err != nil {
		return nil, fmt.Errorf("acquiring lease %s: %w", name, err)
	}
	if !taken {
		return nil, nil
	}
	return l.keep(ctx, newLease(l, name, seen.Epoch+1, start))
}

func (l *Leases) state(name string) (stopped, held bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, held = l.held[name]
	return l.stopped, held
}

// keep enters the lease into the renewed ones, unless Run ended, or another call was faster, while
// the statement was under way.
func (l *Leases) keep(ctx context.Context, lease *Lease) (*Lease, error) {
	l.mu.Lock()
	_, twice := l.held[lease.name]
	if !l.stopped && !twice {
		l.held[lease.name] = lease
		l.mu.Unlock()
		return lease, nil
	}
	l.mu.Unlock()
	if err := lease.Release(context.WithoutCancel(ctx)); err != nil {
		return nil, err
	}
	return nil, errStopped
}

// renew extends all held leases. Where fewer rows matched than are held, it asks which.
func (l *Leases) renew(ctx context.Context) error {
	leases := l.list()
	if len(leases) == 0 {
		return nil
	}
	// A renewal that hangs must not keep the next one from trying on another connection.
	ctx, cancel := context.WithTimeout(ctx, l.ttl/3)
	defer cancel()

	var start time.Time
	var renewed int64
	where, args := ours(l.holder, leases)
	err := Retry(ctx, func(ctx context.Context) error {
		start = l.now()
		res, err := l.db.ExecContext(ctx, `
			UPDATE lease
			   SET expires_at = CURRENT_TIMESTAMP(3) + INTERVAL ? MICROSECOND
			 WHERE `+where, append([]any{l.ttl.Microseconds()}, args...)...)
		if err != nil {
			return err
		}
		renewed, err = res.RowsAffected()
		return err
	})
	if err != nil {
		return fmt.Errorf("renewing %d leases: %w", len(leases), err)
	}
	if renewed < int64(len(leases)) {
		if leases, err = l.dropLost(ctx, leases); err != nil {
			return err
		}
	}
	for _, lease := range leases {
		lease.extend(start)
	}
	return nil
}

// dropLost returns those of the leases that the database says are still ours, and ends the others.
func (l *Leases) dropLost(ctx context.Context, leases []*Lease) ([]*Lease, error) {
	where, args := ours(l.holder, leases)
	var names []string
	if err := l.db.SelectContext(ctx, &names, `SELECT name FROM lease WHERE `+where, args...); err != nil {
		return nil, fmt.Errorf("asking which leases are left: %w", err)
	}
	return slices.DeleteFunc(leases, func(lease *Lease) bool {
		lost := !slices.Contains(names, lease.name) // a few names an account
		if lost {
			lease.end(reasonTaken)
		}
		return lost
	}), nil
}

// stop ends all leases and frees their rows. A failure is only logged: the rows expire.
func (l *Leases) stop(ctx context.Context) {
	l.mu.Lock()
	l.stopped = true
	l.mu.Unlock()
	leases := l.list()
	if len(leases) == 0 {
		return
	}
	for _, lease := range leases {
		lease.end(reasonReleased)
	}
	if err := l.free(ctx, leases); err != nil {
		l.log.WarnContext(ctx, "leases could not be released, they expire on their own", "ttl",
			l.ttl, "error", err)
	}
}

// free lets the rows expire now. They stay: the epoch must go on growing. Without a holder they no
// longer match a renewal that is under way and would extend them once more.
func (l *Leases) free(ctx context.Context, leases []*Lease) error {
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	where, args := ours(l.holder, leases)
	err := Retry(ctx, func(ctx context.Context) error {
		_, err := l.db.ExecContext(ctx, `
			UPDATE lease
			   SET holder = '', expires_at = CURRENT_TIMESTAMP(3)
			 WHERE `+where, args...)
		return err
	})
	if err != nil {
		for _, lease := range leases {
			l.doubt(lease.name, lease.epoch)
		}
		return fmt.Errorf("releasing %d leases: %w", len(leases), err)
	}
	return nil
}

func (l *Leases) forget(lease *Lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[lease.name] == lease {
		delete(l.held, lease.name)
	}
}

func (l *Leases) list() []*Lease {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Collect(maps.Values(l.held))
}

// ours is the condition for the rows that these leases stand for, each with the epoch it was taken
// in: a row that another holder had in between is not ours any more, even if it is free.
func ours(holder string, leases []*Lease) (where string, args []any) {
	args = append(args, holder)
	for _, lease := range leases {
		args = append(args, lease.name, lease.epoch)
	}
	pairs := strings.TrimSuffix(strings.Repeat("(name = ? AND epoch = ?) OR ", len(leases)), " OR ")
	return "holder = ? AND (" + pairs + ")", args
}
