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
	// maxLoggedStuck rows that cannot be deleted are logged, each once; more would say nothing new.
	maxLoggedStuck = 100
)

// Config is what a Purger needs.
type Config struct {
	DB      *sqlx.DB
	Leases  *database.Leases
	Keep    time.Duration // since the end of a request; 0: for ever
	Archive bool          // copy requests into send_request_archive first
	Logger  *slog.Logger
	Now     func() time.Time
}

// Purger deletes old requests. It walks send_request_due lane by lane, and so never meets an open
// row: five million that are due next week cost it nothing, where a walk up the primary key read
// them again in every run.
type Purger struct {
	cfg   Config
	store store
	// stuck are the ids that were logged as not deletable.
	stuck map[int64]bool
}

// New returns a Purger that does nothing until Run.
func New(cfg Config) *Purger {
	return &Purger{cfg: cfg, store: store{db: cfg.DB}, stuck: map[int64]bool{}}
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

// purged counts what one run deleted.
type purged struct {
	requests, unknown, receipts int64
	stuck                       int64 // requests that could not be deleted because of a value in them
}

// Purge deletes all that is old enough, whoever holds the lease. Interrupted, it has done a part,
// and the next run does the rest.
func (p *Purger) Purge(ctx context.Context) error {
	begin := p.cfg.Now()
	var done purged
	err := p.purge(ctx, &done)
	if done.requests+done.receipts > 0 {
		p.cfg.Logger.Info("deleted old requests", "requests", done.requests,
			"unknown_outcome", done.unknown, "receipts_alone", done.receipts, "stuck", done.stuck,
			"archived", p.cfg.Archive, "seconds", p.cfg.Now().Sub(begin).Seconds())
	}
	return err
}

func (p *Purger) purge(ctx context.Context, done *purged) error {
	if err := p.store.purgeDays(ctx); err != nil {
		return err
	}
	if p.cfg.Keep <= 0 {
		return nil
	}
	// What stops one lane or status must not stop the others: the first error is returned at the
	// end.
	var first error
	for _, final := range []queue.Status{
		queue.Sent, queue.Failed, queue.Expired, queue.Cancelled, queue.Unknown,
	} {
		before := done.requests
		if err := p.purgeStatus(ctx, final, done); err != nil && first == nil {
			first = fmt.Errorf("%s requests: %w", final, err)
		}
		if final == queue.Unknown {
			done.unknown = done.requests - before
		}
		if ctx.Err() != nil {
			return first
		}
	}
	// After the requests, whose receipts went with them: these are of requests that somebody else
	// deleted, and of messages that were not ours.
	n, err := p.purgeReceipts(ctx)
	done.receipts = n
	return cmp.Or(first, err)
}

// purgeStatus deletes the old rows of one final status, in one lane after the other. It returns the
// first error.
func (p *Purger) purgeStatus(ctx context.Context, final queue.Status, done *purged) error {
	keep := p.cfg.Keep
	if final == queue.Unknown {
		keep = max(keep, minKeepUnknown)
	}
	before, err := p.store.ago(ctx, keep)
	if err != nil {
		return err
	}
	var first error
	for at := (*finalLane)(nil); ; {
		if at, err = p.store.nextFinalLane(ctx, final, at); err != nil || at == nil {
			return cmp.Or(first, err)
		}
		first = cmp.Or(first, p.purgeLane(ctx, *at, before, done))
		if ctx.Err() != nil {
			return first
		}
	}
}

func (p *Purger) purgeLane(ctx context.Context, l finalLane, before time.Time, done *purged) error {
	for at := (oldRow{}); ; {
		var page []oldRow
		err := p.throttled(ctx, func() (err error) {
			if page, err = p.store.oldRows(ctx, l, at, before); err != nil {
				return err
			}
			batch := purgeBatch{status: l.Status, rows: page, before: before, archive: p.cfg.Archive}
			return p.purgeRows(ctx, batch, done)
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
func (p *Purger) purgeRows(ctx context.Context, batch purgeBatch, done *purged) error {
	n, err := p.store.purge(ctx, batch)
	done.requests += n
	if err == nil || !isRowError(err) {
		return err
	}
	if len(batch.rows) == 1 {
		done.stuck++
		p.logStuck(batch.rows[0].ID, err)
		return nil
	}
	rows, half := batch.rows, len(batch.rows)/2
	batch.rows = rows[:half]
	if err := p.purgeRows(ctx, batch, done); err != nil {
		return err
	}
	batch.rows = rows[half:]
	return p.purgeRows(ctx, batch, done)
}

// logStuck logs once that a row cannot be deleted.
func (p *Purger) logStuck(id int64, err error) {
	if p.stuck[id] || len(p.stuck) >= maxLoggedStuck {
		return
	}
	p.stuck[id] = true
	p.cfg.Logger.Error("an old request cannot be deleted, and stays", "request", id, "err", err)
}

func (p *Purger) purgeReceipts(ctx context.Context) (total int64, err error) {
	before, err := p.store.ago(ctx, p.cfg.Keep)
	if err != nil {
		return 0, err
	}
	for from := firstMoment(); ; {
		var page receiptPage
		err := p.throttled(ctx, func() (err error) {
			page, err = p.store.purgeReceipts(ctx, from, before)
			return err
		})
		total += page.deleted
		if err != nil || page.read == 0 {
			return total, err
		}
		from = page.last
	}
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
