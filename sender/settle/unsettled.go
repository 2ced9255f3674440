package settle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/queue"
)

const (
	// unsettledAfter is how long outcomes may be unwritten before it is an alarm.
	unsettledAfter = time.Minute
	// parkedRetry is how soon a result is tried again that the database refused.
	parkedRetry = time.Minute
	// maxParked is how many such results are kept beside the sending. More have one cause, and the
	// outcome of nothing new could be written either.
	maxParked = 100
	// unknownAlarm stands for what the last holder of the account left in account_state.
	unknownAlarm = "?"
)

// parking keeps the results that the database refuses: of all others the settler goes on. Their
// rows must not be claimed again while this instance knows what became of them.
type parking struct {
	mu      sync.Mutex
	results []queue.Result
	trouble error // why outcomes have not been written for a while; nil: they are
}

// Parked returns the rows whose outcomes the database refuses: they must not be claimed.
func (p *parking) Parked() []int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	ids := make([]int64, len(p.results))
	for i, r := range p.results {
		ids[i] = r.ID
	}
	return ids
}

// list returns the results.
func (p *parking) list() []queue.Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.results)
}

func (p *parking) set(results []queue.Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.results = results
}

func (p *parking) full() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.results) >= maxParked
}

func (p *parking) setTrouble(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.trouble = err
}

// Trouble returns why outcomes cannot be written, where that has lasted for a minute or one is
// refused; nil: they are written.
func (p *parking) Trouble() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.trouble
}

// park takes over what the database refused.
func (s *run) park(done queue.Settled) {
	if len(done.Refused) == 0 {
		return
	}
	s.cause = done.Cause
	s.Logger.Error("the database refuses an outcome; its request is left alone, and tried again every minute",
		"outcomes", summarize(done.Refused), "err", done.Cause)
	parked := s.parked.list()
	if len(parked) == 0 { // later ones do not put the first off
		s.parkedAt = s.Now()
	}
	s.parked.set(append(parked, done.Refused...))
}

// flushParked tries again what the database refused: some of it, and all where that helps.
func (s *run) flushParked(ctx context.Context) {
	now := s.Now()
	since := now.Sub(s.parkedAt)
	parked := s.parked.list()
	if len(parked) == 0 || since >= 0 && since < parkedRetry {
		return
	}
	s.parkedAt = now
	for begin := len(parked); begin > 0 && len(parked) > 0; begin -= maxParked {
		batch := slices.Clone(parked[:min(len(parked), maxParked)])
		done, err := s.settle(ctx, batch, true)
		left := without(batch, done.Written)
		parked = append(parked[min(len(parked), maxParked):], left...)
		if s.cause = cmp.Or(err, done.Cause, s.cause); len(left) > 0 {
			break
		}
	}
	s.parked.set(parked)
}

// leave ends the settler's work: the account goes to another instance, or the daemon stops. What the
// database refused is tried once more and then given up; its rows fall due again as attempts in
// doubt. That is no alarm of this instance any more. The one in account_state stays where something
// was given up, because the account's next holder decides whether it can store more.
func (s *run) leave(ctx context.Context) {
	if s.failures == 0 {
		s.parkedAt = time.Time{}
		s.flushParked(ctx)
	}
	left := s.parked.list()
	s.parked.set(nil)
	s.parked.setTrouble(nil)
	switch {
	case len(left) > 0:
		s.Logger.Error("outcomes that the database refuses are lost; the rows fall due again",
			"outcomes", summarize(left), "err", s.cause)
	case s.told != unknownAlarm && s.failures == 0:
		s.alarm(ctx, nil, time.Time{})
	}
}

// report raises the alarm where outcomes cannot be written, and ends it.
func (s *run) report(ctx context.Context) {
	now, parked := s.Now(), len(s.parked.list()) > 0
	failing := lasting(&s.failing, s.failures > 0, now)
	refused := lasting(&s.refused, parked, now)
	held := s.longestHeld(now)
	since := now.Add(-max(failing, refused, held))
	switch {
	case parked || failing >= unsettledAfter:
		s.alarm(ctx, s.cause, since)
	case held >= unsettledAfter:
		s.alarm(ctx, errors.New("another program's transaction holds their rows"), since)
	case s.failures == 0:
		s.alarm(ctx, nil, since)
	}
}

// lasting returns how long something has been so, and keeps since when.
func lasting(since *time.Time, is bool, now time.Time) time.Duration {
	switch {
	case !is:
		*since = time.Time{}
		return 0
	case since.IsZero() || now.Before(*since):
		*since = now
	}
	return now.Sub(*since)
}

// longestHeld returns how long the row has been locked that is so longest. Producers may lock one
// row after the other, each for a moment: that is no alarm.
func (s *run) longestHeld(now time.Time) (longest time.Duration) {
	held := make(map[int64]time.Time, len(s.locked))
	for _, r := range s.locked {
		since := s.held[r.ID]
		longest = max(longest, lasting(&since, true, now))
		held[r.ID] = since
	}
	s.held = held
	return longest
}

// alarm lets /readyz know why outcomes are not written, nil if they are, and by account_state
// everybody else, as soon as that can be written.
func (s *run) alarm(ctx context.Context, cause error, since time.Time) {
	now, why := s.Now(), ""
	if cause == nil {
		s.parked.setTrouble(nil)
	} else {
		why = cause.Error()
		s.parked.setTrouble(fmt.Errorf("outcomes of %s cannot be stored since %s: %w", s.AppID,
			since.UTC().Format(time.RFC3339), cause))
	}
	// The cause may change with each try; the first one stays.
	known := s.told != unknownAlarm && (s.told == "") == (why == "")
	if known || now.Before(s.tellAt) {
		return
	}
	err := database.Detached(ctx, func(ctx context.Context) error {
		return s.Store.NoteUnsettled(ctx, s.AppID, why)
	})
	if err != nil {
		s.tellAt = now.Add(Grace)
		return
	}
	s.told = why
}
