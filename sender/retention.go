package sender

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
)

const (
	// retentionEvery is the pace of the runs. What is late by an hour has been kept for a month.
	retentionEvery = time.Hour
	// retentionFirst is when the first run after a start begins: a daemon that comes back after an outage has
	// better things to do.
	retentionFirst = time.Minute
	// retentionLease gives the runs to one instance at a time. Two would do no harm, only each other's work.
	retentionLease = "house:retention"
	// retireMost rows are deleted in one transaction: tens of milliseconds, during which nobody waits.
	retireMost = 500
	// retireShare is the part of the time that a run works, one in so many; the rest it waits.
	retireShare = 4
	// unknownAtLeast is how long rows with an unknown outcome are kept at the least: somebody has to find out, and
	// may be on holiday. They do not stay for ever: a receipt comes within minutes, and what nobody has asked about
	// for as long as all other rows are kept, nobody will.
	unknownAtLeast = 7 * 24 * time.Hour
	// daysKept is how long send_day's counts stay.
	daysKept = 40
	// stuckNamed rows that cannot be deleted are named in the log, each once; more would tell nothing new.
	stuckNamed = 100
)

// retention deletes requests that finished long ago, with their receipts, after copying them into the archive
// where that is wanted. It goes by send_request_due, lane by lane, and so never meets an open row: five million
// that are due next week cost it nothing, where a walk up the primary key read them again in every run.
type retention struct {
	store   store
	keep    time.Duration // since the end of a request; 0: for ever
	archive bool
	log     *slog.Logger
	now     func() time.Time
	// stuck are the ids that were named as not deletable.
	stuck map[int64]bool
}

// loop runs every hour, under a lease, until ctx ends.
func (r retention) loop(ctx context.Context, leases *database.Leases) {
	r.stuck = map[int64]bool{}
	complained := false
	for pause := retentionFirst; ; pause = retentionEvery {
		wait(ctx, pause)
		if ctx.Err() != nil {
			return
		}
		err := r.turn(ctx, leases)
		// Once is enough until it has worked again: the next hour's words would be the same.
		if err != nil && ctx.Err() == nil && !complained {
			r.log.Error("deleting old requests", "err", err)
		}
		complained = err != nil
	}
}

// turn is one run, if no other instance is at it. It ends with the lease.
func (r retention) turn(ctx context.Context, leases *database.Leases) error {
	lease, err := leases.TryAcquire(ctx, retentionLease)
	if lease == nil {
		return err
	}
	under, cancel := lease.Context(ctx)
	defer cancel()
	err = r.run(under)
	if releaseErr := database.Detached(ctx, lease.Release); releaseErr != nil {
		r.log.Warn("releasing the retention lease", "err", releaseErr)
	}
	if err != nil && under.Err() != nil && ctx.Err() == nil {
		return nil // the lease went to another instance, which goes on with it
	}
	return err
}

// retired counts what one run deleted.
type retired struct {
	requests, unknown, receipts int64
	stuck                       int64 // requests that could not be deleted for what stands in them
}

// run deletes all that is old enough. Interrupted, it has done a part, and the next run does the rest.
func (r retention) run(ctx context.Context) error {
	begin := r.now()
	var done retired
	err := r.retire(ctx, &done)
	if done.requests+done.receipts > 0 {
		r.log.Info("deleted old requests", "requests", done.requests, "unknown_outcome", done.unknown,
			"receipts_alone", done.receipts, "stuck", done.stuck, "archived", r.archive, "seconds", r.now().Sub(begin).Seconds())
	}
	return err
}

func (r retention) retire(ctx context.Context, done *retired) error {
	if err := r.store.forgetDays(ctx); err != nil {
		return err
	}
	if r.keep <= 0 {
		return nil
	}
	// What stops one lane or status is not to stop the others: the first error is told at the end.
	var first error
	for _, final := range []status{statusSent, statusFailed, statusExpired, statusCancelled, statusUnknown} {
		before := done.requests
		if err := r.retireStatus(ctx, final, done); err != nil && first == nil {
			first = fmt.Errorf("%s requests: %w", final, err)
		}
		if final == statusUnknown {
			done.unknown = done.requests - before
		}
		if ctx.Err() != nil {
			return first
		}
	}
	// After the requests, whose receipts went with them: these are of requests that somebody else deleted, and of
	// messages that were not ours.
	n, err := r.retireReceipts(ctx)
	done.receipts = n
	return cmp.Or(first, err)
}

// retireStatus deletes the old rows of one final status, in one lane after the other. It returns the first error.
func (r retention) retireStatus(ctx context.Context, final status, done *retired) error {
	keep := r.keep
	if final == statusUnknown {
		keep = max(keep, unknownAtLeast)
	}
	before, err := r.store.ago(ctx, keep)
	if err != nil {
		return err
	}
	var first error
	for at := (*finalLane)(nil); ; {
		if at, err = r.store.nextFinalLane(ctx, final, at); err != nil || at == nil {
			return cmp.Or(first, err)
		}
		first = cmp.Or(first, r.retireLane(ctx, *at, before, done))
		if ctx.Err() != nil {
			return first
		}
	}
}

func (r retention) retireLane(ctx context.Context, l finalLane, before time.Time, done *retired) error {
	for at := (oldRow{}); ; {
		var page []oldRow
		err := r.paced(ctx, func() (err error) {
			if page, err = r.store.oldRows(ctx, l, at, before); err != nil {
				return err
			}
			return r.retireRows(ctx, retirement{status: l.Status, rows: page, before: before, archive: r.archive}, done)
		})
		if err != nil || len(page) < retireMost {
			return err
		}
		at = page[len(page)-1]
	}
}

// retireRows deletes a page. Where it fails for what stands in a row, such as a value that the archive does not take,
// the page is halved down to that row, which stays: it would otherwise stop all behind it in each run anew.
func (r retention) retireRows(ctx context.Context, what retirement, done *retired) error {
	n, err := r.store.retire(ctx, what)
	done.requests += n
	if err == nil || !isRowError(err) {
		return err
	}
	if len(what.rows) == 1 {
		done.stuck++
		r.name(what.rows[0].ID, err)
		return nil
	}
	rows, half := what.rows, len(what.rows)/2
	what.rows = rows[:half]
	if err := r.retireRows(ctx, what, done); err != nil {
		return err
	}
	what.rows = rows[half:]
	return r.retireRows(ctx, what, done)
}

// name tells once of a row that cannot be deleted.
func (r retention) name(id int64, err error) {
	if r.stuck[id] || len(r.stuck) >= stuckNamed {
		return
	}
	r.stuck[id] = true
	r.log.Error("an old request cannot be deleted, and stays", "request", id, "err", err)
}

func (r retention) retireReceipts(ctx context.Context) (total int64, err error) {
	before, err := r.store.ago(ctx, r.keep)
	if err != nil {
		return 0, err
	}
	for from := firstMoment(); ; {
		var page receiptPage
		err := r.paced(ctx, func() (err error) {
			page, err = r.store.retireReceipts(ctx, from, before)
			return err
		})
		total += page.deleted
		if err != nil || page.read == 0 {
			return total, err
		}
		from = page.last
	}
}

// paced runs one batch and then waits for three times as long, so that old rows are never the database's main
// load, however many there are.
func (r retention) paced(ctx context.Context, batch func() error) error {
	begin := r.now()
	if err := batch(); err != nil {
		return err
	}
	wait(ctx, (retireShare-1)*r.now().Sub(begin))
	return ctx.Err()
}
