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
	"github.com/unionbridge/unionbridge/sender/queue"
)

// account sends for one account while it holds the account's lease.
type account struct {
	svc            *Service
	cfg            Account
	log            *slog.Logger
	breaker        breaker
	templatePauses templatePauses
	writing        sync.Mutex // of the account's state
	budget         budget
	redeliveries   redeliveries
	limiter        *adaptiveLimiter
	catalog        catalog
	seconds        prometheus.Observer // of its POSTs

	free chan struct{} // nobody holds the account's lease; holds one token
	wake chan struct{} // the poll saw due rows; holds one token
	idle atomic.Bool   // owns the lease and has claimed all that was due

	owner atomic.Bool // owns the lease

	// Of maintenance alone:
	since   atomic.Pointer[time.Time] // when the account was taken over
	settled time.Time                 // when receipts of unknown outcomes were looked for last

	// Of the claim loop alone:
	turn            int                 // counts the claims, so that each begins with another lane
	size            int                 // rows of a claim, by what WeChat takes
	loaded          bool                // the account's state has been read
	urgentOnly      atomic.Bool         // the queue is long, and an urgent row is due
	deferredLocked  map[int64]time.Time // rows that other transactions hold, and when to try them again
	skipLockedUntil time.Time           // until when claims use SKIP LOCKED
	last            claimed             // the last claim
}

func newAccount(s *Service, cfg Account) *account {
	a := &account{
		svc: s, cfg: cfg, log: s.cfg.Logger.With("appid", cfg.AppID), wake: make(chan struct{}, 1), free: make(chan struct{}, 1),
		seconds:        s.metrics.seconds.WithLabelValues(cfg.AppID),
		templatePauses: templatePauses{paused: make(map[string]*templatePause), resumed: make(map[string]time.Time)}, deferredLocked: make(map[int64]time.Time),
		budget: budget{own: noLimit, quota: noLimit},
	}
	if cfg.Preflight {
		a.catalog.open(cfg.API, a.log, s.cfg.Now)
	}
	a.limiter = newAdaptiveLimiter(cfg.Rate)
	a.limiter.gauge, a.limiter.onChange = s.metrics.rate.WithLabelValues(cfg.AppID).Set, a.rateChanged
	a.limiter.gauge(cfg.Rate)
	return a
}

// rateChanged tells people when an account begins to be slowed down, and when it is back at its own rate.
func (a *account) rateChanged(messages float64, slower bool) {
	if slower {
		a.log.Warn("WeChat is busy: sending more slowly", "rate", messages, "configured", a.cfg.Rate)
		return
	}
	a.log.Info("sending at the configured rate again", "rate", messages)
}

const (
	// leasePoll is how often an instance looks, with one query for all accounts, whether a lease has run out that
	// another one held. With the lease's own expiry it bounds the time a dead holder's account stands still: 15 s
	// also where its last renewal reached the database and its answer did not.
	leasePoll = time.Second
	// leaseTry is how often it tries for the lease all the same.
	leaseTry = 10 * time.Second
)

// watchLeases wakes the accounts that nobody sends for.
func (s *Service) watchLeases(ctx context.Context) {
	tick := time.NewTicker(leasePoll)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if !slices.ContainsFunc(s.accounts, func(a *account) bool { return !a.owner.Load() }) {
			continue
		}
		leases, err := database.HeldLeases(ctx, s.cfg.DB)
		if err != nil {
			continue // the accounts' own tries say so
		}
		held := make(map[string]bool, len(leases))
		for _, l := range leases {
			held[l.Name] = true
		}
		for _, a := range s.accounts {
			if !a.owner.Load() && !held[queue.LeaseName(a.cfg.AppID)] {
				notify(a.free)
			}
		}
	}
}

// run competes for the account's lease and works whenever it has it.
func (a *account) run(ctx context.Context) {
	complained := false
	for ctx.Err() == nil {
		lease, err := a.svc.cfg.Leases.TryAcquire(ctx, queue.LeaseName(a.cfg.AppID))
		if err != nil && ctx.Err() == nil && !complained {
			a.log.Error("acquiring the send lease", "err", err)
		}
		complained = err != nil
		if lease != nil {
			a.own(ctx, lease)
			continue
		}
		select {
		case <-a.free:
		case <-time.After(leaseTry):
		case <-ctx.Done():
		}
	}
}

// job is one claimed row on its way to WeChat.
type job struct {
	row           request
	message       wechat.TemplateMessage
	warning       string    // what was changed of it, or is doubtful
	expires       time.Time // zero: never
	probe         bool      // it is the probe of a paused account
	templateProbe bool      // it is the probe of a paused template
	deadline      time.Time // after this no POST may begin: the row is about to fall due again
	unlisted      bool      // the row names an openid that the map does not have
}

// own claims, sends and settles until ctx ends or the lease is lost, then drains.
func (a *account) own(ctx context.Context, lease *database.Lease) {
	service := ctx
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-lease.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	a.log.Info("sending for this account", "lease", lease.Name(), "epoch", lease.Epoch())
	a.size, a.loaded = initialClaim, false

	d := newDispatch()
	results := make(chan result, maxClaim)
	var sending, settling sync.WaitGroup
	for range a.cfg.Concurrency {
		sending.Go(func() {
			for {
				j, ok := d.take(ctx, a, lease, results)
				if !ok {
					return
				}
				results <- a.deliver(ctx, lease, j)
			}
		})
	}
	settling.Go(func() { (&settler{account: a}).run(service, results) })

	begin := a.svc.cfg.Now()
	a.since.Store(&begin)
	a.owner.Store(true)
	notify(a.svc.takenOver)
	a.claimLoop(ctx, lease, d, results)
	a.catalog.wait()
	a.owner.Store(false)
	a.idle.Store(false)
	d.close()
	sending.Wait()
	close(results)
	settling.Wait()
	if err := database.Detached(ctx, lease.Release); err != nil {
		a.log.Warn("releasing the send lease", "err", err)
	}
}

// deliver makes one attempt. Nothing is sent once ctx has ended, the account is paused, the lease is in
// doubt or the claim is about to run out: such a row is given back and its attempt not counted. A POST
// that has begun is not interrupted.
func (a *account) deliver(ctx context.Context, lease *database.Lease, j job) result {
	if !a.allowed(ctx, lease, j) {
		return a.release(j)
	}
	msgid, err := a.post(ctx, j.message)
	// A token that died is renewed by the client; the message was refused for certain, so it goes again.
	if policyOf(err) == wechat.PolicyToken && a.allowed(ctx, lease, j) {
		msgid, err = a.post(ctx, j.message)
	}
	r := a.outcome(j, msgid, err)
	a.done(j, r.posted)
	return r
}

// allowed reports whether a POST may begin now.
func (a *account) allowed(ctx context.Context, lease *database.Lease, j job) bool {
	now := a.svc.cfg.Now()
	return ctx.Err() == nil && !a.breaker.active(now) && lease.Valid() && now.Before(j.deadline) && !j.late(now) &&
		a.templatePauses.allows(j.message.TemplateID, j.templateProbe, now)
}

// late reports whether the row's expires_at has passed since it was claimed.
func (j *job) late(now time.Time) bool { return !j.expires.IsZero() && !now.Before(j.expires) }

// release is the result of a job that was claimed to be sent and was not.
func (a *account) release(j job) result {
	a.done(j, false)
	if j.late(a.svc.cfg.Now()) {
		j.row.Expired = true
		return *j.row.overdue(a.cfg.ResendWindow)
	}
	return j.row.release(0)
}

// limit waits for the account's rate, for at most atMost.
func (a *account) limit(ctx context.Context, atMost time.Duration) bool {
	if a.limiter.bucket.Allow() {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, max(atMost, 0))
	defer cancel()
	return a.limiter.bucket.Wait(ctx) == nil
}

func (a *account) post(ctx context.Context, m wechat.TemplateMessage) (int64, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.svc.cfg.SendTimeout)
	defer cancel()
	begin := a.svc.cfg.Now()
	msgid, err := a.cfg.API.SendTemplate(ctx, m)
	a.seconds.Observe(a.svc.cfg.Now().Sub(begin).Seconds())
	return msgid, err
}

// notify puts a token into a channel that holds one.
func notify(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
