// Package erasure erases people: in the map, in the ledger of grants, and in the requests, finished
// and archived ones too. Whatever erases somebody calls it, so that nothing is forgotten.
//
// The map and the grants go at once. No index finds a person in send_request, so a walk through all
// rows takes them out, for many people at a time. What an instance had read before, and writes after
// the first deletion, is deleted a second time at the end.
package erasure

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/bridge/grants"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/queue"
)

const (
	// leaseName is the lease under which one instance at a time walks.
	leaseName = "house:erasure"
	// pollEvery is how often an instance looks whether another one has begun an erasure.
	pollEvery = 20 * time.Second
	// settleTime is what is on its way at most: a statement's timeout and its repetitions, with
	// some to spare. After it, nobody writes what they read before the erasure.
	settleTime = 2 * time.Minute
	// maxIDs are erased in one walk.
	maxIDs = 200
	// loadDivisor is the part of the time that a walk works, one in so many; the rest it waits.
	loadDivisor = 4
)

// Config is what an Eraser needs.
type Config struct {
	DB     *sqlx.DB
	Leases *database.Leases
	// Others erase an account in tables of which this package does not know.
	Others []func(ctx context.Context, account bridge.Account) error
	Logger *slog.Logger
	Now    func() time.Time
}

// Eraser erases people. It is safe for concurrent use, in any number of instances.
type Eraser struct {
	cfg      Config
	erasures *bridge.Erasures
	queue    *queue.Queue
	wake     chan struct{} // holds one token

	settleTime time.Duration
}

// New returns an Eraser in cfg.DB, whose schema must be migrated.
func New(cfg Config) *Eraser {
	return &Eraser{cfg: cfg, erasures: bridge.NewErasures(cfg.DB), queue: queue.New(cfg.DB),
		wake: make(chan struct{}, 1), settleTime: settleTime}
}

// Person erases a person: the account that is named, and all that share its unionid, or the given
// one. Either may be "". It returns when the map and the grants have nobody of that any more; Run or
// Finish take them out of the requests. Once the first step is done, that happens also without a
// second call. A person of whom nothing is known is remembered nevertheless.
func (e *Eraser) Person(
	ctx context.Context, who bridge.Account, unionid string,
) (accounts []bridge.Account, err error) {
	if accounts, err = e.begin(ctx, who, unionid); err != nil {
		return nil, err
	}
	for _, a := range accounts {
		if err := e.account(ctx, a); err != nil {
			return nil, err
		}
	}
	select {
	case e.wake <- struct{}{}:
	default:
	}
	return accounts, nil
}

func (e *Eraser) begin(
	ctx context.Context, who bridge.Account, unionid string,
) (accounts []bridge.Account, err error) {
	err = database.InTx(ctx, e.cfg.DB, func(ctx context.Context, tx *sqlx.Tx) error {
		accounts, err = e.erasures.Erase(ctx, tx, who, unionid)
		return err
	})
	return accounts, err
}

// account erases what is found by an account.
func (e *Eraser) account(ctx context.Context, a bridge.Account) error {
	err := database.InTx(ctx, e.cfg.DB, func(ctx context.Context, tx *sqlx.Tx) error {
		return grants.Forget(ctx, tx, a.AppID, a.OpenID)
	})
	if err == nil {
		err = e.queue.EraseReceipts(ctx, a.AppID, a.OpenID)
	}
	for _, other := range e.cfg.Others {
		if err == nil {
			err = other(ctx, a)
		}
	}
	return err
}

// Run finishes erasures until ctx ends, also those that another instance began.
func (e *Eraser) Run(ctx context.Context) {
	failing := false
	for {
		select {
		case <-e.wake:
		case <-time.After(pollEvery):
		case <-ctx.Done():
			return
		}
		err := e.underLease(ctx)
		// Logged once until it has worked again.
		if err != nil && ctx.Err() == nil && !failing {
			e.cfg.Logger.ErrorContext(ctx, "people are not erased yet, trying again", "err", err)
		}
		failing = err != nil
	}
}

// underLease is one round, if there is something to do and no other instance does it.
func (e *Eraser) underLease(ctx context.Context) error {
	open, err := e.erasures.Open(ctx, 1)
	if err != nil || len(open) == 0 {
		return err
	}
	lease, err := e.cfg.Leases.TryAcquire(ctx, leaseName)
	if lease == nil {
		return err
	}
	held, cancel := lease.Context(ctx)
	defer cancel()
	_, err = e.Finish(held)
	if held.Err() != nil && ctx.Err() == nil {
		err = nil // another instance has the lease, and goes on
	}
	return errors.Join(err, database.Detached(ctx, lease.Release))
}

// Finish does what can be done now, and reports whether nobody is left. What is on its way needs two
// minutes to arrive; it is deleted after that.
func (e *Eraser) Finish(ctx context.Context) (done bool, err error) {
	for {
		open, err := e.erasures.Open(ctx, maxIDs)
		if err != nil || len(open) == 0 {
			return err == nil, err
		}
		var fresh, ripe []bridge.Erasure
		for _, id := range open {
			switch {
			case !id.Walked:
				fresh = append(fresh, id)
			case time.Duration(id.Age)*time.Millisecond >= e.settleTime:
				ripe = append(ripe, id)
			}
		}
		if len(fresh)+len(ripe) == 0 {
			return false, nil
		}
		for _, id := range ripe {
			if err := e.close(ctx, id); err != nil {
				return false, err
			}
		}
		left, err := e.walk(ctx, fresh)
		if err != nil || left > 0 {
			return false, err
		}
	}
}

// close deletes what was on its way when a person was erased, and then the erasure. Accounts that
// appear only now get erasures of their own.
func (e *Eraser) close(ctx context.Context, id bridge.Erasure) error {
	who, unionid := id.Account, ""
	if who.AppID == "" {
		who, unionid = bridge.Account{}, who.OpenID
	}
	accounts, err := e.begin(ctx, who, unionid)
	if err != nil {
		return err
	}
	for _, a := range accounts {
		if err := e.account(ctx, a); err != nil {
			return err
		}
		if err := e.queue.EraseAttempts(ctx, a.AppID, a.OpenID, e.settleTime); err != nil {
			return err
		}
	}
	return e.erasures.Close(ctx, []bridge.Erasure{id})
}

// walk takes people out of all requests, and returns how many of those another transaction holds:
// then it has to be done again.
func (e *Eraser) walk(ctx context.Context, ids []bridge.Erasure) (left int, err error) {
	if len(ids) == 0 {
		return 0, nil
	}
	begin := e.cfg.Now()
	traces := make(queue.Traces, len(ids))
	for _, id := range ids {
		traces[queue.Trace{AppID: id.AppID, Value: id.OpenID}] = true
	}
	// Retention moves rows into the archive meanwhile, so that comes second.
	for _, archive := range []bool{false, true} {
		o := queue.EraseOrder{Archive: archive, Before: math.MaxInt64, Of: traces}
		for o.Before > 0 {
			var held []int64
			err := e.throttled(ctx, func() (err error) {
				o.Before, held, err = e.queue.Erase(ctx, o)
				return err
			})
			if left += len(held); err != nil {
				return left, err
			}
		}
	}
	if left > 0 {
		e.cfg.Logger.WarnContext(ctx, "people are still in requests that other transactions hold: "+
			"they are tried again", "requests", left)
		return left, nil
	}
	if err := e.erasures.Walked(ctx, ids); err != nil {
		return 0, err
	}
	e.cfg.Logger.InfoContext(ctx, "people were taken out of all requests", "ids", len(ids),
		"seconds", e.cfg.Now().Sub(begin).Seconds())
	return 0, nil
}

// throttled runs one piece and then waits for three times as long, so that the walk is never the
// database's main load.
func (e *Eraser) throttled(ctx context.Context, piece func() error) error {
	begin := e.cfg.Now()
	if err := piece(); err != nil {
		return err
	}
	select {
	case <-time.After((loadDivisor - 1) * e.cfg.Now().Sub(begin)):
		return nil
	case <-ctx.Done():
		return fmt.Errorf("erasing people: %w", ctx.Err())
	}
}
