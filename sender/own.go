package sender

import (
	"context"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/lanes"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// leaseTry is how often an instance tries for the lease even if the poller has not seen it free.
const leaseTry = 10 * time.Second

// leaseRetry is the pause after a try that failed. The row may be ours although the answer was lost:
// then the poller sees a lease that is held.
const leaseRetry = 500 * time.Millisecond

// run competes for the account's lease and works whenever it has it.
func (a *account) run(ctx context.Context) {
	complained := false
	for ctx.Err() == nil {
		lease, err := a.Leases.TryAcquire(ctx, queue.LeaseName(a.AppID))
		if err != nil && ctx.Err() == nil && !complained {
			a.log.Error("acquiring the send lease", "err", err)
		}
		complained = err != nil
		if lease != nil {
			a.own(ctx, lease)
			continue
		}
		wait := leaseTry
		if err != nil {
			wait = leaseRetry
		}
		select {
		case <-a.free:
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// own claims, sends and settles until ctx ends or the lease is lost, then drains.
func (a *account) own(ctx context.Context, lease *database.Lease) {
	service := ctx
	ctx, cancel := lease.Context(ctx)
	defer cancel()
	a.log.Info("sending for this account", "lease", lease.Name(), "epoch", lease.Epoch())

	d := newDispatch(2 * maxClaim) // one claim is queued while the next one is made
	d.serial = a.channel.Traits().SerialPerPerson
	results := make(chan queue.Result, maxClaim)
	senders := &sending{dispatch: d, account: a, lease: lease, results: results}
	var posting, settling, following sync.WaitGroup
	for range a.Concurrency {
		posting.Go(func() { senders.run(ctx) })
	}
	settling.Go(func() { a.settler.Run(service, results, ctx.Done()) })

	following.Go(func() { a.followPauses(ctx) })

	begin := a.Now()
	a.since.Store(&begin)
	a.owner.Store(true)
	notify(a.takenOver)
	claims := claimer{
		account: a, dispatch: d, results: results, size: initialClaim,
		deferred: make(map[int64]time.Time), fair: lanes.Divider{Named: a.configured},
	}
	claims.run(ctx, lease)
	following.Wait()
	a.channel.Wait()
	a.owner.Store(false)
	a.idle.Store(false)
	d.close()
	posting.Wait()
	close(results)
	settling.Wait()
	if err := database.Detached(ctx, lease.Release); err != nil {
		a.log.Warn("releasing the send lease", "err", err)
	}
}
