package settle

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/unionbridge/unionbridge/sender/queue"
)

// store is a database that refuses the outcomes of some rows, finds some locked, and fails.
type store struct {
	mu              sync.Mutex
	refused, locked []int64
	err             error
	written         []int64
	noted           []string
	calls           int // of Settle
}

func (s *store) Settle(
	_ context.Context, batch []queue.Result, _ queue.SettleOrder,
) (done queue.Settled, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.err != nil {
		return done, s.err
	}
	for _, r := range batch {
		switch {
		case slices.Contains(s.refused, r.ID):
			done.Refused, done.Cause = append(done.Refused, r), errors.New("not this one")
		case slices.Contains(s.locked, r.ID):
			done.Locked = append(done.Locked, r)
		default:
			done.Written = append(done.Written, r)
			s.written = append(s.written, r.ID)
		}
	}
	return done, nil
}

func (s *store) NoteUnsettled(_ context.Context, _, why string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noted = append(s.noted, why)
	return s.err
}

// change changes what the database does.
func (s *store) change(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
}

func newSettler(s *store) (*Settler, *[]int64) {
	var told []int64
	return New(Config{
		AppID: "wx1", Store: s, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
		Written: func(results []queue.Result) {
			for _, r := range results {
				told = append(told, r.ID)
			}
		},
	}), &told
}

func sent(ids ...int64) []queue.Result {
	results := make([]queue.Result, len(ids))
	for i, id := range ids {
		results[i] = queue.Result{ID: id, Status: queue.Sent}
	}
	return results
}

// TestNothingIsLost: a database that is away, a row that is locked and one that is refused: all
// others are written at once, and these when it goes again.
func TestNothingIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := &store{refused: []int64{3}, locked: []int64{4}, err: errors.New("gone away")}
		s, told := newSettler(db)
		results := make(chan queue.Result, 10)
		for _, r := range sent(1, 2, 3, 4, 5) {
			results <- r
		}
		over, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			s.Run(t.Context(), results, over)
		}()
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if len(db.written) > 0 || s.Trouble() != nil {
			t.Errorf("%v are written, %v", db.written, s.Trouble())
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if s.Trouble() == nil {
			t.Error("a minute without a database is no alarm")
		}
		db.change(func() { db.err = nil })
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if !slices.Equal(db.written, []int64{1, 2, 5}) || !slices.Equal(s.Parked(), []int64{3}) {
			t.Errorf("%v are written, %v parked", db.written, s.Parked())
		}
		if s.Trouble() == nil {
			t.Error("a refused outcome is no alarm")
		}
		db.change(func() { db.refused, db.locked = nil, nil })
		time.Sleep(parkedRetry + time.Second)
		close(results)
		<-done
		slices.Sort(*told)
		if !slices.Equal(*told, []int64{1, 2, 3, 4, 5}) || s.Trouble() != nil || len(s.Parked()) > 0 {
			t.Errorf("told of %v, %v, parked %v", *told, s.Trouble(), s.Parked())
		}
		if last := db.noted[len(db.noted)-1]; last != "" {
			t.Errorf("account_state still says %q", last)
		}
	})
}

// TestEnough: enough results end the waiting, and all that are there then go in one transaction.
func TestEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := new(store)
		s, told := newSettler(db)
		s.cfg.Enough = 2
		results := make(chan queue.Result, 500)
		for i := range cap(results) {
			results <- sent(int64(i + 1))[0]
		}
		close(results)
		began := time.Now()
		s.Run(t.Context(), results, make(chan struct{}))
		if len(*told) != cap(results) || db.calls > 3 {
			t.Errorf("%d results were written in %d transactions", len(*told), db.calls)
		}
		if waited := time.Since(began); waited > 0 {
			t.Errorf("it waited %v with enough there", waited)
		}
	})
}

// TestGivesUp: what the database does not take after the stop is given up, and the senders do not
// block.
func TestGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, told := newSettler(&store{err: errors.New("gone away")})
		ctx, stop := context.WithCancel(t.Context())
		results, done := make(chan queue.Result), make(chan struct{})
		go func() {
			defer close(done)
			s.Run(ctx, results, ctx.Done())
		}()
		results <- sent(1)[0]
		begin := time.Now()
		stop()
		time.Sleep(Grace + time.Second)
		for range 1000 { // nobody writes them any more, but they are taken
			results <- sent(2)[0]
		}
		close(results)
		<-done
		if took := time.Since(begin); took > Grace+2*time.Second || len(*told) > 0 {
			t.Errorf("it took %s, and %v were written", took, *told)
		}
	})
}

// TestShortLocks: producers who hold one row after the other, each for less than a minute, are no
// alarm.
func TestShortLocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newSettler(new(store))
		r := s.newRun(nil)
		for id := range int64(5) {
			r.locked = sent(id+1, id+2)
			r.report(t.Context())
			if err := s.Trouble(); err != nil {
				t.Fatalf("after %d locks: %v", id, err)
			}
			time.Sleep(unsettledAfter / 2)
		}
		r.report(t.Context())
		time.Sleep(unsettledAfter / 2)
		r.report(t.Context())
		if s.Trouble() == nil {
			t.Error("a row that is locked for a minute is no alarm")
		}
	})
}

// TestRefusedAgain: outcomes that are refused one after the other do not put off the next try of the
// first.
func TestRefusedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := newSettler(new(store))
		r := s.newRun(nil)
		for id := range int64(3) {
			r.park(queue.Settled{Refused: sent(id + 1)})
			time.Sleep(parkedRetry / 3)
			r.flushParked(t.Context())
		}
		if left := s.Parked(); len(left) > 0 {
			t.Errorf("%v have not been tried again", left)
		}
	})
}
