package sender

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/wechat"
)

// worker sends for one account while it holds the account's lease.
type worker struct {
	svc      *Service
	account  Account
	log      *slog.Logger
	pause    pauseState
	gates    gates
	writing  sync.Mutex // of the account's state
	budget   budget
	again    again
	governor *governor
	library  library
	seconds  prometheus.Observer // of its POSTs

	free chan struct{} // nobody holds the account's lease; holds one token
	wake chan struct{} // the watcher saw due rows; holds one token
	idle atomic.Bool   // owns the lease and has claimed all that was due

	owner atomic.Bool // owns the lease

	// Of housekeeping alone:
	since   atomic.Pointer[time.Time] // when the account was taken over
	settled time.Time                 // when receipts of unknown outcomes were looked for last

	// Of the claim loop alone:
	turn   int                 // counts the claims, so that each begins with another lane
	size   int                 // rows of a claim, by what WeChat takes
	loaded bool                // the account's state has been read
	hurry  atomic.Bool         // the queue is long, and an urgent row is due
	locked map[int64]time.Time // rows that other transactions hold, and when to try them again
	wary   time.Time           // until when claims reckon with such rows
	last   claimed             // the last claim
}

func newWorker(s *Service, a Account) *worker {
	w := &worker{
		svc: s, account: a, log: s.cfg.Logger.With("appid", a.AppID), wake: make(chan struct{}, 1), free: make(chan struct{}, 1),
		seconds: s.metrics.seconds.WithLabelValues(a.AppID),
		gates:   gates{shut: make(map[string]*gate), opened: make(map[string]time.Time)}, locked: make(map[int64]time.Time),
		budget: budget{own: noLimit, quota: noLimit},
	}
	if a.Preflight {
		w.library.open(a.API, w.log, s.cfg.Now)
	}
	w.governor = newGovernor(a.Rate)
	w.governor.gauge, w.governor.note = s.metrics.rate.WithLabelValues(a.AppID).Set, w.rateChanged
	w.governor.gauge(a.Rate)
	return w
}

// rateChanged tells people when an account begins to be slowed down, and when it is back at its own rate.
func (w *worker) rateChanged(messages float64, slower bool) {
	if slower {
		w.log.Warn("WeChat is busy: sending more slowly", "rate", messages, "configured", w.account.Rate)
		return
	}
	w.log.Info("sending at the configured rate again", "rate", messages)
}

const (
	// leasePoll is how often an instance looks, with one query for all accounts, whether a lease has run out that
	// another one held. With the lease's own expiry it bounds the time a dead holder's account stands still: 15 s
	// also where its last renewal reached the database and its answer did not.
	leasePoll = time.Second
	// leaseTry is how often it tries for the lease all the same.
	leaseTry = 10 * time.Second
)

// watchLeases wakes the workers whose accounts nobody sends for.
func (s *Service) watchLeases(ctx context.Context) {
	tick := time.NewTicker(leasePoll)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if !slices.ContainsFunc(s.workers, func(w *worker) bool { return !w.owner.Load() }) {
			continue
		}
		leases, err := database.HeldLeases(ctx, s.cfg.DB)
		if err != nil {
			continue // the workers' own tries say so
		}
		held := make(map[string]bool, len(leases))
		for _, l := range leases {
			held[l.Name] = true
		}
		for _, w := range s.workers {
			if !w.owner.Load() && !held[LeaseName(w.account.AppID)] {
				signal(w.free)
			}
		}
	}
}

// run competes for the account's lease and works whenever it has it.
func (w *worker) run(ctx context.Context) {
	complained := false
	for ctx.Err() == nil {
		lease, err := w.svc.cfg.Leases.TryAcquire(ctx, LeaseName(w.account.AppID))
		if err != nil && ctx.Err() == nil && !complained {
			w.log.Error("acquiring the send lease", "err", err)
		}
		complained = err != nil
		if lease != nil {
			w.own(ctx, lease)
			continue
		}
		select {
		case <-w.free:
		case <-time.After(leaseTry):
		case <-ctx.Done():
		}
	}
}

// job is one claimed row on its way to WeChat.
type job struct {
	row      request
	message  wechat.TemplateMessage
	warning  string    // what was changed of it, or is doubtful
	expires  time.Time // zero: never
	probe    bool      // it finds out whether a paused account works again
	gated    bool      // it finds out whether its template's messages go again
	deadline time.Time // after this no POST may begin: the row is about to fall due again
	unlisted bool      // the row names an openid that the map does not have
}

// own claims, sends and settles until ctx ends or the lease is lost, then drains.
func (w *worker) own(ctx context.Context, lease *database.Lease) {
	service := ctx
	ctx, cancel := lease.Context(ctx)
	defer cancel()
	w.log.Info("sending for this account", "lease", lease.Name(), "epoch", lease.Epoch())
	w.size, w.loaded = claimFirst, false

	d := newDispatch()
	results := make(chan result, claimMost)
	var sending, settling sync.WaitGroup
	for range w.account.Concurrency {
		sending.Go(func() {
			for {
				j, ok := d.take(ctx, w, lease, results)
				if !ok {
					return
				}
				results <- w.deliver(ctx, lease, j)
			}
		})
	}
	settling.Go(func() { (&settler{w: w}).run(service, results) })

	begin := w.svc.cfg.Now()
	w.since.Store(&begin)
	w.owner.Store(true)
	signal(w.svc.house)
	w.claimLoop(ctx, lease, d, results)
	w.library.wait()
	w.owner.Store(false)
	w.idle.Store(false)
	d.close()
	sending.Wait()
	close(results)
	settling.Wait()
	if err := database.Detached(ctx, lease.Release); err != nil {
		w.log.Warn("releasing the send lease", "err", err)
	}
}

// deliver makes one attempt. Nothing is sent once ctx has ended, the account is paused, the lease is in
// doubt or the claim is about to run out: such a row is given back and its attempt not counted. A POST
// that has begun is not interrupted.
func (w *worker) deliver(ctx context.Context, lease *database.Lease, j job) result {
	if !w.mayPost(ctx, lease, j) {
		return w.giveBack(j)
	}
	msgid, err := w.post(ctx, j.message)
	// A token that died is renewed by the client; the message was refused for certain, so it goes again.
	if policyOf(err) == wechat.PolicyToken && w.mayPost(ctx, lease, j) {
		msgid, err = w.post(ctx, j.message)
	}
	r := w.outcome(j, msgid, err)
	w.land(j, r.posted)
	return r
}

// mayPost tells whether a POST may begin now.
func (w *worker) mayPost(ctx context.Context, lease *database.Lease, j job) bool {
	now := w.svc.cfg.Now()
	return ctx.Err() == nil && !w.pause.active(now) && lease.Valid() && now.Before(j.deadline) && !j.late(now) &&
		w.gates.passes(j.message.TemplateID, j.gated, now)
}

// late tells whether the row's expires_at has passed since it was claimed.
func (j *job) late(now time.Time) bool { return !j.expires.IsZero() && !now.Before(j.expires) }

// giveBack is the result of a job that was claimed to be sent and was not.
func (w *worker) giveBack(j job) result {
	w.land(j, false)
	if j.late(w.svc.cfg.Now()) {
		j.row.Expired = true
		return *j.row.overdue(w.account.ResendWindow)
	}
	return j.row.release(0)
}

// limit waits for the account's rate, for at most atMost.
func (w *worker) limit(ctx context.Context, atMost time.Duration) bool {
	if w.governor.limiter.Allow() {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, max(atMost, 0))
	defer cancel()
	return w.governor.limiter.Wait(ctx) == nil
}

func (w *worker) post(ctx context.Context, m wechat.TemplateMessage) (int64, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.svc.cfg.SendTimeout)
	defer cancel()
	begin := w.svc.cfg.Now()
	msgid, err := w.account.API.SendTemplate(ctx, m)
	w.seconds.Observe(w.svc.cfg.Now().Sub(begin).Seconds())
	return msgid, err
}

// signal puts a token into a channel that holds one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
