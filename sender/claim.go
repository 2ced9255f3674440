package sender

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/database"
)

// claimLoop claims whenever the poll has seen due rows, until ctx ends.
func (a *account) claimLoop(ctx context.Context, lease *database.Lease, d *dispatch, results chan<- result) {
	failures := 0
	a.last = claimed{}
	for a.awaitTurn(ctx, d); ctx.Err() == nil; a.awaitTurn(ctx, d) {
		err := a.refresh(ctx)
		a.last = claimed{}
		if err == nil && !a.breaker.active(a.svc.cfg.Now()) && lease.Valid() {
			a.last, err = a.claim(ctx, d, results)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			failures++
			if failures == 1 {
				a.log.Error("claiming requests", "err", err)
			}
			sleep(ctx, backoff(failures, time.Second, 10*time.Second))
			continue
		}
		failures = 0
		if a.last.more || a.urgentOnly.Load() {
			continue
		}
		a.idle.Store(true)
		select {
		case <-a.wake:
		case <-ctx.Done():
			return
		}
		a.idle.Store(false)
	}
}

const (
	// initialClaim is the first claim's size. From there it doubles and halves with what WeChat takes.
	initialClaim = 64
	// A claim lasts between these: long enough for batches to be worth it, and short enough for an urgent row
	// that comes just after it.
	minClaimTime = 60 * time.Millisecond
	maxClaimTime = 250 * time.Millisecond
)

// probePoll is how often the claim loop checks for the outcome of the probe.
const probePoll = 20 * time.Millisecond

// refresh loads the account's pauses and day budget.
func (a *account) refresh(ctx context.Context) error {
	if !a.loaded {
		if err := a.loadState(ctx); err != nil {
			return err
		}
		a.loadRedeliveries(ctx)
		a.loaded = true
	}
	if err := a.refreshBudget(ctx); err != nil {
		return err
	}
	a.stopAtBudget()
	return nil
}

// awaitTurn waits until no more than one claim stands in the queue, so that the senders have something to do while
// the next one is made, and finds its size: what WeChat takes in a fraction of a second, which is hundreds on a
// fast line and a handful where it answers slowly. So the rows that an urgent one cannot overtake, and that a kill
// leaves uncertain, are few. Where an urgent row has come it does not wait for room: then urgent ones alone are
// claimed. It also waits for the one message that finds out about a pause.
func (a *account) awaitTurn(ctx context.Context, d *dispatch) {
	for a.breaker.probeInFlight() && ctx.Err() == nil {
		sleep(ctx, probePoll)
	}
	c := a.last
	if c.more && c.taken == 0 {
		sleep(ctx, laneAge) // others hold what is due
	}
	begin := a.svc.cfg.Now()
	roomy := d.awaitRoom(ctx, c.limit, laneAge)
	for !roomy && !a.urgentFits(ctx, d, c.limit) {
		roomy = d.awaitRoom(ctx, c.limit, laneAge)
	}
	a.urgentOnly.Store(!roomy)
	switch took := a.svc.cfg.Now().Sub(begin); {
	case c.sending < c.limit/2: // it says nothing about WeChat
	case took < minClaimTime && c.limit == a.size:
		a.size = min(2*a.size, maxClaim)
	case took > maxClaimTime:
		a.size = max(a.size/2, minClaim)
	}
}

// urgentFits reports whether an urgent row is to be claimed although the queue is long.
func (a *account) urgentFits(ctx context.Context, d *dispatch, limit int) bool {
	return len(d.urgent) <= limit/2 && a.urgentDue(ctx)
}

// urgentDue reports whether there is an urgent row to claim. An error says so too: the claim will meet it.
func (a *account) urgentDue(ctx context.Context) bool {
	lanes, err := a.svc.pendingLanes(ctx, laneAge)
	return err != nil || ctx.Err() != nil || slices.ContainsFunc(lanes, func(l lane) bool {
		return l.Priority == priorityUrgent && a.claimable(l, 1) > 0
	})
}

// minClaim keeps a batch worth its statements where WeChat answers slowly.
const minClaim = 8

// claimLimit keeps a claim at about what a fraction of a second sends, and at one message while it is being
// found out whether a paused account works again.
func (a *account) claimLimit() int {
	if a.breaker.isHalfOpen() {
		return 1
	}
	return a.budget.room(min(a.size, max(1, int(a.cfg.Rate/4))))
}

// claimed is what became of one claim.
type claimed struct {
	limit   int  // rows that were asked for
	taken   int  // rows that were got
	sending int  // rows on their way to WeChat
	more    bool // more is due than was claimed
}

// claim takes due rows, settles at once those that cannot be sent, and hands the others to the senders.
func (a *account) claim(ctx context.Context, d *dispatch, results chan<- result) (c claimed, err error) {
	begin := a.svc.cfg.Now()
	limit := a.claimLimit()
	rows, more, err := a.dueRows(ctx, limit)
	if err != nil || len(rows) == 0 {
		return claimed{limit: limit, more: more && err == nil}, err
	}
	c.limit, c.more = limit, more
	// A claim that has begun is not interrupted: its outcome would be unknown, and the rows that it took would
	// lie still until their visibility runs out.
	var mine []request
	var locked []int64
	err = database.Detached(ctx, func(ctx context.Context) (err error) {
		mine, locked, err = a.svc.store.claim(ctx, claimOrder{a.cfg.AppID, rows, begin.Before(a.skipLockedUntil)})
		return err
	})
	if err != nil {
		a.requeue(rows)
		return claimed{}, err
	}
	a.deferLocked(rows, locked)
	c.taken = len(rows) - len(locked)
	// From here on every claimed row gets a result, whatever happens.
	ready := make([]job, 0, len(mine))
	recipients := make([]bridge.Recipient, 0, len(mine))
	for _, row := range mine {
		recipient, j, verdict := a.prepare(ctx, row)
		if verdict != nil {
			results <- *verdict
			continue
		}
		j.setTimes(begin, a.svc.cfg.SendTimeout)
		ready, recipients = append(ready, j), append(recipients, recipient)
	}
	found, err := a.resolve(ctx, recipients)
	if err != nil {
		for _, j := range ready {
			results <- j.row.release(0)
		}
		return claimed{}, err
	}
	for i, j := range ready {
		if found[i].Standing != bridge.Reachable {
			results <- a.unreachable(j.row, found[i].Standing)
			continue
		}
		j.message.ToUser, j.unlisted = found[i].OpenID, found[i].Unlisted
		a.acquire(&j)
		d.put(j)
		c.sending++
	}
	return c, nil
}

// setTimes notes until when a job that was claimed at a moment may begin.
func (j *job) setTimes(begin time.Time, sendTimeout time.Duration) {
	j.deadline = begin.Add(visibility - sendTimeout - 5*time.Second)
	if j.row.ExpiresIn.Valid {
		j.expires = begin.Add(time.Duration(j.row.ExpiresIn.Int64) * time.Microsecond)
	}
}

// acquire counts a job that is about to go; done what has become of it.
func (a *account) acquire(j *job) {
	a.budget.acquire()
	j.probe, j.templateProbe = a.breaker.acquire(), a.templatePauses.acquire(j.message.TemplateID)
}

func (a *account) done(j job, sent bool) {
	a.budget.done(sent)
	if j.probe {
		a.breaker.probeDone()
	}
	if j.templateProbe {
		a.templatePauses.probeDone(j.message.TemplateID)
	}
}

const (
	// deferLockedFor is how long a row that another transaction holds is left out of the claims; maxDeferredLocked how many
	// are known at once.
	deferLockedFor    = 5 * time.Second
	maxDeferredLocked = 2000
	// skipLockedFor is how long claims use SKIP LOCKED after a lock timeout; otherwise each would wait for the lock again.
	skipLockedFor = time.Minute
)

// deferLocked notes rows that other transactions hold.
func (a *account) deferLocked(rows []request, locked []int64) {
	if len(locked) == 0 {
		return
	}
	now := a.svc.cfg.Now()
	a.skipLockedUntil = now.Add(skipLockedFor)
	for _, id := range locked {
		if len(a.deferredLocked) < maxDeferredLocked {
			a.deferredLocked[id] = now.Add(deferLockedFor)
		}
	}
	for _, r := range rows {
		if r.InDoubtAge.Valid && slices.Contains(locked, r.ID) {
			a.redeliveries.add(r.ID, now.Add(deferLockedFor))
		}
	}
}

// deferredIDs returns the rows that are left out of the claims for now.
func (a *account) deferredIDs() []int64 {
	now := a.svc.cfg.Now()
	maps.DeleteFunc(a.deferredLocked, func(_ int64, until time.Time) bool { return now.After(until) || until.Sub(now) > deferLockedFor })
	return slices.Collect(maps.Keys(a.deferredLocked))
}

// dueRows returns up to limit rows that may be claimed, and whether there are more: half of them, where there are
// such, rows whose last attempt is in doubt, and the others by their lanes. Where the queue is long, urgent
// ones alone.
func (a *account) dueRows(ctx context.Context, limit int) (rows []request, more bool, err error) {
	if !a.urgentOnly.Load() {
		if rows, err = a.dueRedeliveries(ctx, (limit+1)/2); err != nil || len(rows) == limit {
			return rows, true, err
		}
	}
	lanes, err := a.svc.pendingLanes(ctx, laneAge)
	if err != nil {
		a.requeue(rows)
		return nil, false, err
	}
	limit -= len(rows)
	quanta, left := a.quanta(lanes, limit)
	if len(quanta) == 0 {
		return rows, len(rows) > 0, nil
	}
	fresh, err := a.svc.store.due(ctx, quanta, limit, append(a.deferredIDs(), idsOf(rows)...))
	if err != nil {
		a.requeue(rows)
		return nil, false, err
	}
	return append(rows, fresh...), left || len(rows) > 0 || len(fresh) >= limit || exhausts(fresh, quanta), nil
}

// dueRedeliveries returns rows to be redelivered. They may use the reserve of urgent ones, but not more than the account's own
// number of messages, and those of a template that is held back stay listed.
func (a *account) dueRedeliveries(ctx context.Context, limit int) ([]request, error) {
	now := a.svc.cfg.Now()
	if !a.budget.allows(priorityUrgent) {
		return nil, nil
	}
	listed := a.redeliveries.take(now, limit)
	if len(listed) == 0 {
		return nil, nil
	}
	found, err := a.svc.store.dueByID(ctx, a.cfg.AppID, listed)
	if err != nil {
		for _, id := range listed {
			a.redeliveries.add(id, now)
		}
		return nil, err
	}
	return slices.DeleteFunc(found, func(r request) bool {
		held := a.templatePauses.allowance(a.svc.knownTemplate(r.Template, a.cfg.AppID), now, 1) == 0
		if held {
			a.redeliveries.add(r.ID, now.Add(redeliveryHeldFor))
		}
		return held
	}), nil
}

// redeliveryHeldFor is how long a row stays listed whose template is held back.
const redeliveryHeldFor = 10 * time.Second

// requeue lists rows again that were not claimed after all.
func (a *account) requeue(rows []request) {
	for _, r := range rows {
		if r.InDoubtAge.Valid {
			a.redeliveries.add(r.ID, a.svc.cfg.Now())
		}
	}
}

func idsOf(rows []request) []int64 {
	list := make([]int64, len(rows))
	for i, r := range rows {
		list[i] = r.ID
	}
	return list
}

// exhausts reports whether a lane gave all of its quantum, and may have more.
func exhausts(rows []request, quanta []quantum) bool {
	taken := make([]int, len(quanta))
	for _, r := range rows {
		if taken[r.Lane]++; taken[r.Lane] >= quanta[r.Lane].maxRows {
			return true
		}
	}
	return false
}

func (a *account) resolve(ctx context.Context, recipients []bridge.Recipient) ([]bridge.Resolution, error) {
	if len(recipients) == 0 {
		return nil, nil
	}
	return a.svc.cfg.Identities.Resolve(ctx, a.cfg.AppID, recipients)
}
