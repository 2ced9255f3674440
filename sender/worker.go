package sender

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/wechat"
)

// worker sends for one account while it holds the account's lease.
type worker struct {
	svc     *Service
	account Account
	limiter *rate.Limiter
	log     *slog.Logger
	pause   pauseState

	wake chan struct{} // the watcher saw due rows; holds one token
	idle atomic.Bool   // owns the lease and has claimed all that was due

	owner atomic.Bool // owns the lease
}

func newWorker(s *Service, a Account) *worker {
	// The burst lets a batch's POSTs start together and stays below a tenth of a second's worth.
	burst := max(1, int(a.Rate/10))
	return &worker{
		svc: s, account: a, limiter: rate.NewLimiter(rate.Limit(a.Rate), burst),
		log: s.cfg.Logger.With("appid", a.AppID), wake: make(chan struct{}, 1),
	}
}

// leasePoll is how often an instance tries for a lease that another one holds. With the lease's own
// expiry it bounds the time a dead holder's account stands still.
const leasePoll = 3 * time.Second

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
		wait(ctx, leasePoll)
	}
}

// job is one claimed row on its way to WeChat.
type job struct {
	row      request
	message  wechat.TemplateMessage
	deadline time.Time // after this no POST may begin: the row is about to fall due again
	unlisted bool      // the row names an openid that the map does not have
}

// own claims, sends and settles until ctx ends or the lease is lost, then drains.
func (w *worker) own(ctx context.Context, lease *database.Lease) {
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
	w.log.Info("sending for this account", "lease", lease.Name(), "epoch", lease.Epoch())
	w.loadPause(ctx)

	jobs := make(chan job, claimMost)
	results := make(chan result, claimMost)
	var senders, settling sync.WaitGroup
	for range w.account.Concurrency {
		senders.Go(func() {
			for j := range jobs {
				results <- w.deliver(ctx, lease, j)
			}
		})
	}
	settling.Go(func() { (&settler{w: w}).run(service, results) })

	w.owner.Store(true)
	signal(w.svc.house)
	w.claimLoop(ctx, lease, jobs, results)
	w.owner.Store(false)
	w.idle.Store(false)
	close(jobs)
	senders.Wait()
	close(results)
	settling.Wait()
	if err := detached(ctx, lease.Release); err != nil {
		w.log.Warn("releasing the send lease", "err", err)
	}
}

// claimLoop claims whenever the watcher has seen due rows, until ctx ends.
func (w *worker) claimLoop(ctx context.Context, lease *database.Lease, jobs chan<- job, results chan<- result) {
	failures := 0
	for {
		var n, sending int
		var err error
		limit := w.claimLimit()
		if !w.pause.active(w.svc.cfg.Now()) && lease.Valid() {
			n, sending, err = w.claim(ctx, limit, jobs, results)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			failures++
			if failures == 1 {
				w.log.Error("claiming requests", "err", err)
			}
			wait(ctx, backoff(failures, time.Second, 10*time.Second))
			continue
		case n == limit:
			failures = 0
			if sending > 0 {
				w.awaitProbe(ctx)
			}
			continue
		}
		failures = 0
		w.idle.Store(true)
		select {
		case <-w.wake:
		case <-ctx.Done():
			return
		}
		w.idle.Store(false)
	}
}

// awaitProbe lets one message at a time go while it is being found out whether a paused account works
// again: it waits for that message's answer, but not for ever.
func (w *worker) awaitProbe(ctx context.Context) {
	for range 20 {
		if ctx.Err() != nil || !w.pause.probing() || w.pause.active(w.svc.cfg.Now()) {
			return
		}
		wait(ctx, 50*time.Millisecond)
	}
}

// claimLimit keeps a claim at about what a second sends, and at one message while it is being found out
// whether a paused account works again.
func (w *worker) claimLimit() int {
	if w.pause.probing() {
		return 1
	}
	return min(claimMost, max(1, int(w.account.Rate)))
}

// claim takes up to limit due rows, settles at once those that cannot be sent, and hands the others to
// the senders. It returns how many rows were due, and how many of them are being sent.
func (w *worker) claim(ctx context.Context, limit int, jobs chan<- job, results chan<- result) (due, sending int, err error) {
	begin := w.svc.cfg.Now()
	rows, err := w.svc.store.due(ctx, w.account, limit)
	if err != nil || len(rows) == 0 {
		return 0, 0, err
	}
	// A claim that has begun is not interrupted: its outcome would be unknown, and the rows that it took would
	// lie still until their visibility runs out.
	var claimed []request
	err = detached(ctx, func(ctx context.Context) (err error) {
		claimed, err = w.svc.store.claim(ctx, w.account.AppID, rows)
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	// From here on every claimed row gets a result, whatever happens.
	deadline := begin.Add(visibility - w.svc.cfg.SendTimeout - 5*time.Second)
	ready := make([]job, 0, len(claimed))
	recipients := make([]bridge.Recipient, 0, len(claimed))
	for _, row := range claimed {
		recipient, message, verdict := w.svc.examine(row, w.account)
		if verdict != nil {
			results <- *verdict
			continue
		}
		ready = append(ready, job{row: row, message: message, deadline: deadline})
		recipients = append(recipients, recipient)
	}
	found, err := w.resolve(ctx, recipients)
	if err != nil {
		for _, j := range ready {
			results <- j.row.release(0)
		}
		return 0, 0, err
	}
	for i, j := range ready {
		if found[i].Standing != bridge.Reachable {
			results <- w.unreachable(j.row, found[i].Standing)
			continue
		}
		j.message.ToUser, j.unlisted = found[i].OpenID, found[i].Unlisted
		jobs <- j
		sending++
	}
	return len(rows), sending, nil
}

func (w *worker) resolve(ctx context.Context, recipients []bridge.Recipient) ([]bridge.Resolution, error) {
	if len(recipients) == 0 {
		return nil, nil
	}
	return w.svc.cfg.People.Resolve(ctx, w.account.AppID, recipients)
}

// deliver makes one attempt. Nothing is sent once ctx has ended, the account is paused, the lease is in
// doubt or the claim is about to run out: such a row is given back and its attempt not counted. A POST
// that has begun is not interrupted.
func (w *worker) deliver(ctx context.Context, lease *database.Lease, j job) result {
	if !w.limit(ctx, j.deadline.Sub(w.svc.cfg.Now())) || !w.mayPost(lease, j) {
		return j.row.release(0)
	}
	msgid, err := w.post(ctx, j.message)
	// A token that died is renewed by the client; the message was refused for certain, so it goes again.
	if policyOf(err) == wechat.PolicyToken && w.mayPost(lease, j) {
		msgid, err = w.post(ctx, j.message)
	}
	return w.outcome(j, msgid, err)
}

// mayPost tells whether a POST may begin now.
func (w *worker) mayPost(lease *database.Lease, j job) bool {
	now := w.svc.cfg.Now()
	return !w.pause.active(now) && lease.Valid() && now.Before(j.deadline)
}

// limit waits for the account's rate, for at most atMost.
func (w *worker) limit(ctx context.Context, atMost time.Duration) bool {
	ctx, cancel := context.WithTimeout(ctx, max(atMost, 0))
	defer cancel()
	return w.limiter.Wait(ctx) == nil
}

func (w *worker) post(ctx context.Context, m wechat.TemplateMessage) (int64, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), w.svc.cfg.SendTimeout)
	defer cancel()
	begin := w.svc.cfg.Now()
	msgid, err := w.account.API.SendTemplate(ctx, m)
	w.svc.metrics.seconds.WithLabelValues(w.account.AppID).Observe(w.svc.cfg.Now().Sub(begin).Seconds())
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
