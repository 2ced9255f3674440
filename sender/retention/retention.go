// Package retention deletes requests that finished long ago, with their receipts, and archives them
// before where that is wanted. It never touches an open request.
package retention

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/queue"
)

const (
	// purgeEvery is the interval of the runs. What is an hour late has been kept for a month.
	purgeEvery = time.Hour
	// initialDelay is when the first run after a start begins: a daemon that comes back after an
	// outage has more urgent work.
	initialDelay = time.Minute
	// leaseName is the lease under which one instance at a time purges. Concurrent runs are
	// harmless but redundant.
	leaseName = "house:retention"
	// maxPurge rows are deleted in one transaction: tens of milliseconds, during which nobody
	// waits.
	maxPurge = 500
	// loadDivisor is the part of the time that a run works, one in so many; the rest it waits.
	loadDivisor = 4
	// minKeepUnknown is how long rows with an unknown outcome are kept at least: somebody has to
	// find out, and may be on holiday. They do not stay for ever: a receipt comes within minutes,
	// and an outcome that nobody has looked into while all other rows are kept stays unknown.
	minKeepUnknown = 7 * 24 * time.Hour
	// othersEvery is the interval of what reads whole tables.
	othersEvery = 24 * time.Hour
	// maxLoggedStuck rows that cannot be deleted are logged, each once; more would say nothing new.
	maxLoggedStuck = 100
)

// Config is what a Purger needs.
type Config struct {
	DB      *sqlx.DB
	Leases  *database.Leases
	Keep    time.Duration // since the end of a request; 0: for ever
	Archive bool          // copy requests into send_request_archive first
	// Others delete what is old in tables of other rooms, a piece at a time by pace. They run once a
	// day, whatever Keep is.
	Others []func(ctx context.Context, pace Pace) error
	Logger *slog.Logger
	Now    func() time.Time
}

// Pace runs one piece of work at a time, and waits between them.
type Pace = func(ctx context.Context, piece func() error) error

// Purger deletes old requests. It walks send_request_due lane by lane, and so never meets an open
// row: five million that are due next week cost it nothing, where a walk up the primary key read
// them again in every run.
type Purger struct {
	cfg   Config
	queue *queue.Queue
	stuck map[int64]bool // the ids that were logged as not deletable

	othersAt time.Time // when Others ran last; zero: not yet
}

// New returns a Purger that does nothing until Run.
func New(cfg Config) *Purger {
	return &Purger{cfg: cfg, queue: queue.New(cfg.DB), stuck: map[int64]bool{}}
}

// Run purges every hour, under a lease, until ctx ends.
func (p *Purger) Run(ctx context.Context) {
	failing := false
	for delay := initialDelay; ; delay = purgeEvery {
		sleep(ctx, delay)
		if ctx.Err() != nil {
			return
		}
		err := p.purgeUnderLease(ctx)
		// Logged once until it has worked again: the next hour's words would be the same.
		if err != nil && ctx.Err() == nil && !failing {
			p.cfg.Logger.Error("deleting old requests", "err", err)
		}
		failing = err != nil
	}
}

// purgeUnderLease is one run, if no other instance is doing it. It ends with the lease.
func (p *Purger) purgeUnderLease(ctx context.Context) error {
	lease, err := p.cfg.Leases.TryAcquire(ctx, leaseName)
	if lease == nil {
		return err
	}
	held, cancel := lease.Context(ctx)
	defer cancel()
	err = p.Purge(held)
	if releaseErr := database.Detached(ctx, lease.Release); releaseErr != nil {
		p.cfg.Logger.Warn("releasing the retention lease", "err", releaseErr)
	}
	if err != nil && held.Err() != nil && ctx.Err() == nil {
		return nil // the lease went to another instance, which does the rest
	}
	return err
}

// run is one pass over the old rows, and what it has deleted.
type run struct {
	*Purger
	begin                       time.Time // by the database's clock
	requests, unknown, receipts int64
	stuck                       int64 // requests that a value in them keeps from being deleted
}

// Purge deletes all that is old enough, whoever holds the lease. Interrupted, it has done a part,
// and the next run does the rest.
func (p *Purger) Purge(ctx context.Context) error {
	begin := p.cfg.Now()
	r := run{Purger: p}
	err := r.purge(ctx)
	if r.requests+r.receipts > 0 {
		p.cfg.Logger.Info("deleted old requests", "requests", r.requests,
			"unknown_outcome", r.unknown, "receipts_alone", r.receipts, "stuck", r.stuck,
			"archived", p.cfg.Archive, "seconds", p.cfg.Now().Sub(begin).Seconds())
	}
	return err
}

func (r *run) purge(ctx context.Context) (err error) {
	if err := r.purgeDays(ctx); err != nil {
		return err
	}
	// What stops one lane or status must not stop the others: the first error is returned at the
	// end.
	first := r.purgeOthers(ctx)
	if err := r.purgeAttempts(ctx); err != nil {
		first = cmp.Or(first, err)
	}
	if ctx.Err() != nil || r.cfg.Keep <= 0 {
		return first
	}
	if r.begin, err = r.now(ctx); err != nil {
		return cmp.Or(first, err)
	}
	err = r.purgeAll(ctx, Statuses())
	if first = cmp.Or(first, err); ctx.Err() != nil {
		return first
	}
	// After the requests, whose receipts went with them: these are of requests that somebody else
	// deleted, and of messages that were not ours.
	err = r.purgeReceipts(ctx, r.begin.Add(-r.cfg.Keep))
	return cmp.Or(first, err)
}

// Statuses are those of finished requests.
func Statuses() []queue.Status {
	return []queue.Status{queue.Sent, queue.Failed, queue.Expired, queue.Cancelled, queue.Unknown}
}

// PurgeRequests deletes requests in some of the Statuses that ended longer than Keep ago, whoever
// holds the lease, and returns how many. Unknown ones stay for minKeepUnknown at least. Interrupted,
// it has done a part.
func (p *Purger) PurgeRequests(ctx context.Context, of []queue.Status) (int64, error) {
	r := run{Purger: p}
	var err error
	if r.begin, err = r.now(ctx); err != nil {
		return 0, err
	}
	err = r.purgeAll(ctx, of)
	return r.requests, err
}

// purgeAll goes on after the error of one status, and returns the first.
func (r *run) purgeAll(ctx context.Context, of []queue.Status) (first error) {
	for _, final := range of {
		if err := r.purgeStatus(ctx, final); err != nil {
			first = cmp.Or(first, fmt.Errorf("%s requests: %w", final, err))
		}
		if ctx.Err() != nil {
			return first
		}
	}
	return first
}

// purgeOthers lets other rooms delete what is old of theirs.
func (p *Purger) purgeOthers(ctx context.Context) (first error) {
	if !p.othersAt.IsZero() && p.cfg.Now().Sub(p.othersAt).Abs() < othersEvery {
		return nil
	}
	for _, purge := range p.cfg.Others {
		first = cmp.Or(first, purge(ctx, p.throttled))
	}
	if first == nil {
		p.othersAt = p.cfg.Now()
	}
	return first
}

// purgeStatus deletes the old rows of one final status, in one lane after the other. It returns the
// first error.
func (r *run) purgeStatus(ctx context.Context, final queue.Status) error {
	keep := r.cfg.Keep
	if final == queue.Unknown {
		keep = max(keep, minKeepUnknown)
	}
	var first error
	for at := (*queue.Lane)(nil); ; {
		var err error
		if at, err = r.queue.NextLane(ctx, final, at); err != nil || at == nil {
			return cmp.Or(first, err)
		}
		first = cmp.Or(first, r.purgeLane(ctx, *at, r.begin.Add(-keep)))
		if ctx.Err() != nil {
			return first
		}
	}
}

func (r *run) purgeLane(ctx context.Context, l queue.Lane, before time.Time) error {
	for at := (oldRow{}); ; {
		var page []oldRow
		err := r.throttled(ctx, func() (err error) {
			if page, err = r.oldRows(ctx, l, at, before); err != nil || len(page) == 0 {
				return err
			}
			ids := make([]int64, len(page))
			for i, row := range page {
				ids[i] = row.ID
			}
			return r.purgeRows(ctx, l.Status, before, ids)
		})
		if err != nil || len(page) < maxPurge {
			return err
		}
		at = page[len(page)-1]
	}
}

// purgeRows deletes a page. Where a value in a row makes it fail, such as one that the archive does
// not take, the page is halved down to that row, which stays: it would otherwise stop all behind it
// in every run.
func (r *run) purgeRows(
	ctx context.Context, status queue.Status, before time.Time, ids []int64,
) error {
	n, err := r.deleteOld(ctx, status, before, ids)
	r.requests += n
	if status == queue.Unknown {
		r.unknown += n
	}
	if err == nil || !database.IsRowError(err) {
		return err
	}
	if len(ids) == 1 {
		r.stuck++
		r.logStuck(ids[0], err)
		return nil
	}
	half := len(ids) / 2
	if err := r.purgeRows(ctx, status, before, ids[:half]); err != nil {
		return err
	}
	return r.purgeRows(ctx, status, before, ids[half:])
}

// logStuck logs once that a row cannot be deleted.
func (p *Purger) logStuck(id int64, err error) {
	if p.stuck[id] || len(p.stuck) >= maxLoggedStuck {
		return
	}
	p.stuck[id] = true
	p.cfg.Logger.Error("an old request cannot be deleted, and stays", "request", id, "err", err)
}

// throttled runs one batch and then waits for three times as long, so that old rows are never the
// database's main load, however many there are.
func (p *Purger) throttled(ctx context.Context, batch func() error) error {
	begin := p.cfg.Now()
	if err := batch(); err != nil {
		return err
	}
	sleep(ctx, (loadDivisor-1)*p.cfg.Now().Sub(begin))
	return ctx.Err()
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
