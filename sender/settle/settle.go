// Package settle writes the outcomes of one account's messages, in batches, and says where it cannot.
//
// An outcome exists only in memory until it is written. So the package tries again while the database
// is down, lets no row that is locked or refused stop the others, and gives up only a while after the
// stop. It must not know WeChat, the rate or the map.
package settle

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/queue"
)

const (
	// linger is how long the first result of a batch waits for others. Nobody waits for it: the
	// message has been sent.
	linger = 20 * time.Millisecond
	// Grace is how long results may still be written after the stop.
	Grace = 10 * time.Second
	// retry is how soon what could not be written is tried again.
	retry = 200 * time.Millisecond
	// lockedRetry is the same of rows that somebody else's transaction holds.
	lockedRetry = time.Second
)

// Store is where outcomes are written, a *queue.Queue.
type Store interface {
	Settle(ctx context.Context, batch []queue.Result, o queue.SettleOrder) (queue.Settled, error)
	NoteUnsettled(ctx context.Context, appid, why string) error
}

// Config is what a Settler needs; every field is required but Hook, Tried and Enough.
type Config struct {
	AppID string
	Store Store
	Hook  queue.Hook // what belongs to outcomes; nil: nothing
	// Written is told of results that have been written, each once.
	Written func(results []queue.Result)
	// Tried is told of the same, and of results that are set aside, since their rows are locked or
	// the database refuses them: these once more when they have been written. nil: nobody asks.
	Tried func(results []queue.Result)
	// Enough results end the waiting for more; 0: queue.MaxSettle, the most that are written at once.
	Enough int
	Logger *slog.Logger
	Now    func() time.Time
}

// Settler writes the outcomes of an account. Its methods are safe for concurrent use, but Run is for
// one goroutine at a time.
type Settler struct {
	cfg Config
	parking
}

// New returns a Settler that does nothing until Run.
func New(cfg Config) *Settler {
	cfg.Enough = cmp.Or(cfg.Enough, queue.MaxSettle)
	return &Settler{cfg: cfg}
}

// Run settles until results is closed and everything is written. ctx is the service's: the end of the
// account's lease, when over is closed, is no reason to forget outcomes, since each is fenced by its
// row.
func (s *Settler) Run(ctx context.Context, results <-chan queue.Result, over <-chan struct{}) {
	s.newRun(over).settleAll(ctx, results)
}

func (s *Settler) newRun(over <-chan struct{}) *run {
	return &run{Config: s.cfg, parked: &s.parking, over: over}
}

// run is the settling of one ownership of the account.
type run struct {
	Config
	parked   *parking
	open     []queue.Result // not written yet
	locked   []queue.Result // the same, of rows that somebody else's transaction holds
	lockedAt time.Time      // when those were tried last
	parkedAt time.Time      // when those were that the database refuses
	failures int
	cause    error // why something was not written last

	unsettled

	skipLocked bool            // the last batch had to leave locked rows
	over       <-chan struct{} // closed when the account's lease or the service ends
	giveUp     time.Time       // zero: not told to stop
}

// unsettled is what the alarm goes by.
type unsettled struct {
	failing, refused time.Time           // since when; zero: not now
	held             map[int64]time.Time // locked rows, and since when each is
	told             string              // why, as account_state says; "": nothing
	tellAt           time.Time           // when account_state is written again at the earliest
}

func (s *run) settleAll(ctx context.Context, results <-chan queue.Result) {
	s.told = unknownAlarm
	defer s.leave(ctx)
	for more := true; more || s.unwritten(); {
		if more {
			more = s.collect(results)
		} else {
			time.Sleep(retry)
		}
		s.flush(ctx)
		s.report(ctx)
		if s.unwritten() && s.pastDeadline(ctx) {
			s.Logger.Error("outcomes could not be written before the stop; the rows fall due again",
				"outcomes", summarize(append(s.open, s.locked...)))
			s.open, s.locked = nil, nil
			for range results { // drain, so that senders do not block
			}
			return
		}
	}
}

func (s *run) unwritten() bool { return len(s.open)+len(s.locked) > 0 }

// collect adds results until there is a batch or for a short while. It reports whether the channel
// is still open.
func (s *run) collect(results <-chan queue.Result) bool {
	pause := linger
	switch {
	case s.failures > 0 || len(s.open) >= queue.MaxSettle || s.parked.full() && !ended(s.over):
		// The senders wait meanwhile: the outcome of nothing new could be written either.
		time.Sleep(retry)
		return true
	case s.unwritten() || len(s.parked.list()) > 0 || s.told != "":
		pause = retry
	default:
		first, ok := <-results
		if !ok {
			return false
		}
		s.open = append(s.open, first)
	}
	timeout := time.After(pause)
	for len(s.open) < s.Enough {
		select {
		case r, ok := <-results:
			if !ok {
				return false
			}
			s.open = append(s.open, r)
		case <-timeout:
			return true
		}
	}
	return s.takeReady(results)
}

// takeReady adds the results that are there, without waiting: most of a transaction's cost does not depend on their number.
// It reports whether the channel is still open.
func (s *run) takeReady(results <-chan queue.Result) bool {
	for len(s.open) < queue.MaxSettle {
		select {
		case r, ok := <-results:
			if !ok {
				return false
			}
			s.open = append(s.open, r)
		default:
			return true
		}
	}
	return true
}

// flush writes what is open and keeps what could not be written.
func (s *run) flush(ctx context.Context) {
	s.flushLocked(ctx)
	s.flushParked(ctx)
	batch := s.open[:min(len(s.open), queue.MaxSettle)]
	if len(batch) == 0 {
		return
	}
	done, err := s.settle(ctx, batch, s.skipLocked)
	s.park(done)
	if err != nil {
		if s.failures++; s.failures == 1 {
			s.Logger.Error("settling requests, trying again until it works", "rows", len(batch), "err", err)
		}
		s.cause = err
		// A part of the batch may have been written.
		s.open = without(without(s.open, done.Written), done.Refused)
		return
	}
	s.failures, s.skipLocked = 0, len(done.Locked) > 0
	s.open, s.locked = s.open[len(batch):], append(s.locked, done.Locked...)
}

// flushLocked tries some of the rows that another transaction held: they must not keep the others
// waiting.
func (s *run) flushLocked(ctx context.Context) {
	now := s.Now()
	since := now.Sub(s.lockedAt)
	if len(s.locked) == 0 || since >= 0 && since < lockedRetry {
		return
	}
	s.lockedAt = now
	batch := s.locked[:min(len(s.locked), queue.MaxSettle)]
	done, err := s.settle(ctx, batch, true)
	s.park(done)
	left := without(without(slices.Clone(batch), done.Written), done.Refused)
	s.locked = append(s.locked[len(batch):], left...)
	if err != nil {
		s.cause = err
	}
	if err != nil && s.failures == 0 {
		s.Logger.Warn("settling requests that another transaction held", "rows", len(left), "err", err)
	}
}

// without removes from a batch what has been written of it.
func without(batch, written []queue.Result) []queue.Result {
	return slices.DeleteFunc(batch, func(r queue.Result) bool { return slices.Contains(written, r) })
}

// settle writes results, and says which have been written.
func (s *run) settle(
	ctx context.Context, batch []queue.Result, skipLocked bool,
) (done queue.Settled, err error) {
	err = database.Detached(ctx, func(ctx context.Context) (err error) {
		order := queue.SettleOrder{AppID: s.AppID, SkipLocked: skipLocked, Hook: s.Hook}
		done, err = s.Store.Settle(ctx, batch, order)
		return err
	})
	if done.Overtaken > 0 {
		s.Logger.Warn("settling found rows that another instance has claimed since",
			"rows", done.Overtaken)
	}
	s.Written(done.Written)
	if s.Tried != nil {
		s.Tried(slices.Concat(done.Written, done.Locked, done.Refused))
	}
	return done, err
}

func (s *run) pastDeadline(ctx context.Context) bool {
	if ctx.Err() == nil {
		return false
	}
	now := s.Now()
	if s.giveUp.IsZero() {
		s.giveUp = now.Add(Grace)
	}
	return now.After(s.giveUp)
}

// summarize lists a batch for the log: ids and outcomes, no personal data.
func summarize(batch []queue.Result) string {
	outcomes := make([]string, len(batch))
	for i, r := range batch {
		outcomes[i] = fmt.Sprintf("%d:%s", r.ID, r.Final())
	}
	return strings.Join(outcomes, " ")
}

// ended reports whether a channel is closed that nobody sends to.
func ended(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
