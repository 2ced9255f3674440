package sync

import (
	"context"
	"errors"
	"fmt"
	"maps"
	gosync "sync"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat"
)

// The kinds of a run, as sync_run.kind and as prefix of the lease's name.
const (
	kindSweep   = "sweep"
	kindRefresh = "refresh"
)

// State is the state of a run, as sync_run.state.
type State string

// The states of a run.
const (
	StateRunning     State = "running"
	StateDone        State = "done"
	StateFailed      State = "failed"
	StateInterrupted State = "interrupted" // by a signal, a lost lease, a crash
	StateBlocked     State = "blocked"     // would mark too many followers as gone
	StateSuspended   State = "suspended"   // out of quota: resumes at ResumeAt
)

// resumable reports whether the next sweep resumes a run in this state. A run that is called
// running belongs to an instance that died: the caller holds its lease.
func (s State) resumable() bool {
	return s == StateRunning || s == StateFailed || s == StateInterrupted || s == StateSuspended
}

// The modes of a run.
const (
	modeNormal = "normal"
	modeRebind = "rebind" // all unionids have changed: everybody is fetched again
)

// Run is one row of the ledger.
type Run struct {
	ID         int64            `db:"id"`
	Kind       string           `db:"kind"` // "sweep" or "refresh"
	AppID      string           `db:"appid"`
	Mode       string           `db:"mode"` // "normal"; "rebind": all unionids have changed
	State      State            `db:"state"`
	Started    time.Time        `db:"started_at"`
	Ended      time.Time        `db:"-"`       // zero while it runs
	ResumeAt   time.Time        `db:"-"`       // of a suspended run
	Pages      int64            `db:"pages"`   // pages of user/get that had entries
	Total      int64            `db:"total"`   // WeChat's own count, from the last page
	Listed     int64            `db:"listed"`  // openids listed; in a refresh, people rechecked
	Added      int64            `db:"added"`   // rows inserted
	Changed    int64            `db:"changed"` // rows that came back or got an answer
	Missing    int64            `db:"missing"` // rows called subscribed that the list lacks
	Gone       int64            `db:"gone"`    // rows marked as no longer subscribed
	Calls      map[string]int64 `db:"-"`       // by endpoint
	NextOpenID string           `db:"next_openid"`
	Error      string           `db:"error"`
}

// Progress is a snapshot of a run.
type Progress struct {
	Run
	Phase   string        // "list", "compare" or "gone"
	Done    int64         // people finished in this phase
	Of      int64         // people to finish in this phase, as far as is known; 0: not known
	Elapsed time.Duration // since the run started
}

// tracker is the run in progress. Its methods are safe for concurrent use.
type tracker struct {
	mu    gosync.Mutex
	run   Run
	phase string
	done  int64
	of    int64
	ID    int64

	resumed bool             // an earlier process began this run
	budget  map[string]int64 // calls that may still be made, by endpoint; no entry: any number
}

func newRun(kind, appid string, now time.Time) *tracker {
	return &tracker{run: Run{
		Kind: kind, AppID: appid, Mode: modeNormal, State: StateRunning, Started: now,
		Calls: map[string]int64{},
	}}
}

// update changes the run, or what stands beside it, under its lock.
func (t *tracker) update(change func(*Run)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	change(&t.run)
}

func (t *tracker) enter(phase string, of int64) {
	t.update(func(*Run) { t.phase, t.done, t.of = phase, 0, of })
}

func (t *tracker) advance(n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.done += n
}

// spend counts one call, or refuses it if the endpoint's budget is used up.
func (t *tracker) spend(endpoint string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if left, bounded := t.budget[endpoint]; bounded && left <= 0 {
		return fmt.Errorf("%w: %s", errBudget, endpoint)
	} else if bounded {
		t.budget[endpoint]--
	}
	t.run.Calls[endpoint]++
	return nil
}

func (t *tracker) snapshot() Run {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := t.run
	r.ID = t.ID
	r.Calls = maps.Clone(t.run.Calls)
	return r
}

func (t *tracker) progress(now time.Time) Progress {
	p := Progress{Run: t.snapshot()}
	p.Elapsed = now.Sub(p.Started)
	t.update(func(*Run) { p.Phase, p.Done, p.Of = t.phase, t.done, t.of })
	return p
}

// end closes the run. A run without quota is suspended until the day's quota resets, at resetHour
// in China.
func (t *tracker) end(err error, now time.Time, resetHour int) {
	t.update(func(r *Run) {
		r.Ended, r.State = now, StateDone
		if err == nil {
			return
		}
		r.Error = err.Error()
		switch we, _ := errors.AsType[*wechat.Error](err); {
		case errors.Is(err, ErrTooManyGone):
			r.State = StateBlocked
		case errors.Is(err, errBudget), we != nil && we.Policy == wechat.PolicyQuotaDay:
			r.State, r.ResumeAt = StateSuspended, wechat.QuotaReset(now, resetHour)
		case errors.Is(err, context.Canceled):
			r.State = StateInterrupted
		default:
			r.State = StateFailed
		}
	})
}

// reportEvery is how often a run reports its progress: often enough for a progress bar. The ledger
// gets every fourth report.
const reportEvery = 250 * time.Millisecond

// report starts the goroutine that reports the progress. The returned function stops it and waits.
func (s *sweep) report(ctx context.Context, progress func(Progress)) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(reportEvery)
		defer tick.Stop()
		for n := 1; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if progress != nil {
				progress(s.run.progress(s.svc.cfg.Now()))
			}
			if n%4 != 0 {
				continue
			}
			if err := s.svc.ledger.save(ctx, s.run); err != nil && ctx.Err() == nil {
				s.svc.cfg.Logger.Warn("saving a run's progress", "run", s.run.ID, "err", err)
			}
		}
	}()
	return func() {
		cancel()
		<-done
		if progress != nil {
			progress(s.run.progress(s.svc.cfg.Now()))
		}
	}
}

// errBudget suspends a run: the rest of the day's quota is reserved for others.
var errBudget = errors.New("the day's quota is used up but for the reserve " +
	"(official_accounts[].sync.quota_reserve)")

// plan sets the run's budget: what is left of the day's quotas, less the account's reserve. A list
// that fits into a whole day's quota, but not into the rest of today's, waits for tomorrow. A
// larger one, and calls about people, are spread over several days: the run is suspended and
// resumed.
func (s *sweep) plan(ctx context.Context) error {
	budget, day := map[string]int64{}, map[string]int64{}
	for path, endpoint := range map[string]string{
		wechat.EndpointFollowers: endpointFollowers,
		wechat.EndpointUserInfo:  endpointUserInfo,
		wechat.EndpointBatchInfo: endpointBatch,
	} {
		quota, err := s.account.API.Quota(ctx, path)
		if err != nil {
			// Not every account may ask, and WeChat does not know every path. Its own refusal is
			// the limit then.
			if ctx.Err() != nil {
				return ctx.Err()
			}
			s.logger().Debug("asking for a quota", "path", path, "err", err)
			continue
		}
		if quota.DailyLimit <= 0 {
			continue // no limit that anybody has documented; it says nothing
		}
		reserve := int64(s.account.QuotaReserve * float64(quota.DailyLimit))
		budget[endpoint], day[endpoint] = quota.Remain-reserve, quota.DailyLimit-reserve
	}
	s.run.update(func(*Run) { s.run.budget = budget })
	if s.run.snapshot().Kind != kindSweep {
		return nil
	}
	need, err := s.pagesToCome(ctx)
	if err != nil {
		return err
	}
	left, known := budget[endpointFollowers]
	if known && left < need && need <= day[endpointFollowers] {
		return fmt.Errorf("%w: the list needs about %d calls of user/get, and %d are left",
			errBudget, need, max(left, 0))
	}
	return nil
}

// pagesToCome estimates how many calls the rest of the list takes, by the size of the last list.
func (s *sweep) pagesToCome(ctx context.Context) (int64, error) {
	r := s.run.snapshot()
	size := r.Total
	if size == 0 {
		done, err := s.svc.ledger.lastDone(ctx, kindSweep, r.AppID)
		if err != nil {
			return 0, err
		}
		if done != nil {
			size = done.Listed
		}
	}
	const page, emptyPage = 10_000, 1
	return max(1, (size+page-1)/page+emptyPage-r.Pages), nil
}
