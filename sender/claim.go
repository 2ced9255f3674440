package sender

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/lanes"
	"github.com/unionbridge/unionbridge/sender/queue"
)

const (
	// maxClaim rows are claimed at once. 500 measured a twentieth slower, and these are the rows
	// that a kill leaves in doubt.
	maxClaim = 800
	// minClaim keeps a batch worth its statements where WeChat answers slowly.
	minClaim = 8
	// initialClaim is where a claim's size begins, which doubles and halves with what WeChat takes.
	initialClaim = 64
	// A claim lasts between these: long enough for batches to be worth it, and short enough for an
	// urgent row that comes just after it.
	minClaimTime = 60 * time.Millisecond
	maxClaimTime = 250 * time.Millisecond
	// laneAge is how old the list of lanes may be that a claim goes by: what an urgent row waits for
	// at most before a busy account notices it.
	laneAge = 150 * time.Millisecond
	// probePoll is how often the claim loop checks for the outcome of the probe.
	probePoll = 20 * time.Millisecond
)

// claimer claims for an account while it owns the lease. It belongs to one goroutine.
type claimer struct {
	*account
	dispatch *dispatch
	results  chan<- queue.Result

	loaded     bool // the account's state has been read
	fair       lanes.Divider
	size       int  // rows of a claim, by what WeChat takes
	urgentOnly bool // the queue is long, and an urgent row is due
	last       claimed

	deferred        map[int64]time.Time // rows that could not be claimed, and when to try them again
	skipLockedUntil time.Time
}

// claimed is what became of one claim.
type claimed struct {
	limit   int  // rows that were asked for
	taken   int  // rows that were got or ended
	sending int  // rows on their way to WeChat
	more    bool // more is due than was claimed
}

// run claims whenever the poller has seen due rows, until ctx ends.
func (c *claimer) run(ctx context.Context, lease *database.Lease) {
	failures := 0
	for c.awaitTurn(ctx); ctx.Err() == nil; c.awaitTurn(ctx) {
		err := c.refresh(ctx)
		c.last = claimed{}
		if err == nil && !c.throttle.Paused() && lease.Valid() {
			c.last, err = c.claim(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			if failures++; failures == 1 {
				c.log.Error("claiming requests", "err", err)
			}
			sleep(ctx, backoff(failures, time.Second, 10*time.Second))
			continue
		}
		failures = 0
		if c.last.more || c.urgentOnly {
			continue
		}
		c.idle.Store(true)
		select {
		case <-c.wake:
		case <-ctx.Done():
		}
		c.idle.Store(false)
	}
}

// refresh loads the account's pauses and day budget.
func (c *claimer) refresh(ctx context.Context) error {
	if !c.loaded {
		if err := c.throttle.Load(ctx); err != nil {
			return err
		}
		c.loadRedelivery(ctx)
		if c.attempts != nil {
			if err := c.endAbandoned(ctx); err != nil {
				return err
			}
		}
		c.loaded = true
		notify(c.account.loaded)
	}
	if err := c.throttle.Refresh(ctx); err != nil {
		return err
	}
	return c.throttle.RefreshBudget(ctx)
}

// loadRedelivery lists what the account's last claimer left behind: rows that it claimed and did
// not settle, and those that it was to repeat soon.
func (c *claimer) loadRedelivery(ctx context.Context) {
	lanes, err := c.lanes.Pending(ctx, laneAge)
	var rows []queue.InDoubt
	if err == nil {
		lanes = slices.DeleteFunc(slices.Clone(lanes), func(l queue.Lane) bool {
			return l.Account() != c.AppID
		})
		rows, err = c.queue.InDoubtSoon(ctx, lanes, maxRedelivery)
	}
	if err != nil {
		if ctx.Err() == nil {
			c.log.Error("looking for attempts in doubt", "err", err)
		}
		return
	}
	now := c.Now()
	for _, r := range rows {
		c.redelivery.add(r.ID, now.Add(time.Duration(r.DueIn)*time.Microsecond))
	}
}

// awaitTurn waits until no more than one claim stands in the queue, so that the senders have
// something to do while the next one is made, and finds its size: what WeChat takes in a fraction
// of a second, which is hundreds on a fast line and a handful where it answers slowly. So the rows
// that an urgent one cannot overtake, and that a kill leaves in doubt, are few. Where an urgent row
// has come it does not wait for room: then urgent ones alone are claimed. It also waits for the
// probe of a pause.
func (c *claimer) awaitTurn(ctx context.Context) {
	for c.throttle.Probing() && ctx.Err() == nil {
		sleep(ctx, probePoll)
	}
	if c.last.more && c.last.taken == 0 {
		sleep(ctx, laneAge) // others hold what is due
	}
	limit, begin := c.last.limit, c.Now()
	c.urgentOnly = false
	for !c.urgentOnly && !c.dispatch.awaitRoom(ctx, limit, laneAge) {
		c.urgentOnly = len(c.dispatch.urgent) <= limit/2 && c.urgentDue(ctx)
	}
	switch took := c.Now().Sub(begin); {
	case c.last.sending < limit/2: // it says nothing about WeChat
	case took < minClaimTime && limit == c.size:
		c.size = min(2*c.size, maxClaim)
	case took > maxClaimTime:
		c.size = max(c.size/2, minClaim)
	}
}

// urgentDue reports whether there is an urgent row to claim, or an error for the claim to meet.
func (c *claimer) urgentDue(ctx context.Context) bool {
	lanes, err := c.lanes.Pending(ctx, laneAge)
	return err != nil || ctx.Err() != nil || slices.ContainsFunc(lanes, func(l queue.Lane) bool {
		return l.Priority == priorityUrgent && c.claimable(l, 1) > 0
	})
}

// claim takes due rows, and settles or dispatches them. Those that are to fail come last: the
// senders are at work meanwhile.
func (c *claimer) claim(ctx context.Context) (got claimed, err error) {
	if got, err = c.claimDue(ctx); err != nil {
		return got, err
	}
	ended, err := c.failImpossible(ctx)
	got.taken, got.more = got.taken+ended, got.more || ended > 0
	return got, err
}

func (c *claimer) claimDue(ctx context.Context) (got claimed, err error) {
	begin := c.Now()
	got.limit = c.throttle.ClaimLimit(c.size)
	rows, more, err := c.dueRows(ctx, got.limit)
	if err == nil && len(rows) == 0 {
		got.more = more
		return got, nil
	}
	skipLocked := begin.Before(c.skipLockedUntil)
	var p placing
	if err == nil {
		p, err = c.place(ctx, rows, skipLocked)
		c.deferPlaced(p.left)
		if err == nil && len(p.own) == 0 {
			got.taken, got.more = p.done, more
			return got, nil
		}
		rows = p.own
	}
	var won queue.Claimed
	if err == nil {
		// A claim that has begun is not interrupted: its outcome would be unknown, and the rows that
		// it took would stay untouched until their visibility runs out.
		err = database.Detached(ctx, func(ctx context.Context) (err error) {
			won, err = c.queue.Claim(ctx, queue.ClaimOrder{
				AppID: c.AppID, Rows: rows, SkipLocked: skipLocked, Routes: p.routes,
				Attempts: c.attempts != nil,
			})
			return err
		})
	}
	if err != nil {
		c.requeue(rows, c.Now())
		return got, err
	}
	got.taken, got.more = p.done+len(rows)-len(won.Locked)-len(won.Refused), more
	c.deferLeft(rows, won)
	if len(won.Refused) > 0 && got.taken == 0 {
		return got, won.Cause // it may refuse all of them: nothing to try at full speed
	}
	ours, doubtErr := c.doubt(ctx, won.Ours)
	got.sending, err = c.dispatchAll(ctx, ours, begin)
	return got, cmp.Or(err, doubtErr)
}

// dispatchAll hands claimed rows to the senders where they can be sent and their recipients be
// reached, and returns how many. Each of the others gets a result, whatever happens.
func (c *claimer) dispatchAll(
	ctx context.Context, rows []queue.Request, begin time.Time,
) (sending int, err error) {
	jobs, targets := make([]*job, 0, len(rows)), make([]channel.Target, 0, len(rows))
	for _, row := range rows {
		j, target, ended := c.prepare(ctx, row, begin)
		if ended != nil {
			c.results <- *ended
			continue
		}
		jobs, targets = append(jobs, j), append(targets, target)
	}
	if len(jobs) == 0 {
		return 0, nil
	}
	addresses, err := c.channel.Resolve(ctx, targets)
	if err != nil {
		for _, j := range jobs {
			c.results <- j.row.Release()
		}
		return 0, err
	}
	var refusals []refusal
	for i, j := range jobs {
		if j.address = addresses[i]; j.address.Reachability != bridge.Reachable {
			refusals = append(refusals, c.unreached(j.row, j.address))
			continue
		}
		j.permit = c.throttle.Reserve(j.row.Template, j.draft.TemplateID())
		c.dispatch.put(j)
		sending++
	}
	return sending, c.passAllOn(ctx, refusals)
}

const (
	// lockedFor is how long a row that another transaction holds is left out of the claims, and
	// refusedFor one that the server refuses to change; maxDeferred how many are known at once.
	lockedFor   = 5 * time.Second
	refusedFor  = time.Minute
	maxDeferred = 2000
	// After a lock timeout, claims use SKIP LOCKED for skipLockedFor; otherwise each would wait for
	// the lock again.
	skipLockedFor = time.Minute
)

// deferLeft leaves the rows out of the next claims that could not be claimed.
func (c *claimer) deferLeft(rows []queue.Request, won queue.Claimed) {
	if len(won.Locked) > 0 {
		c.skipLockedUntil = c.Now().Add(skipLockedFor)
	}
	if n := len(won.Refused); n > 0 {
		c.log.Error("the database refuses to change requests; they are not sent, and tried again "+
			"every minute", "rows", n, "one of them", won.Refused[n-1], "err", won.Cause)
	}
	c.deferFor(lockedFor, rows, won.Locked)
	c.deferFor(refusedFor, rows, won.Refused)
}

func (c *claimer) deferFor(d time.Duration, rows []queue.Request, ids []int64) {
	until := c.Now().Add(d)
	for _, id := range ids {
		if len(c.deferred) < maxDeferred {
			c.deferred[id] = until
		}
	}
	c.requeue(slices.DeleteFunc(slices.Clone(rows), func(r queue.Request) bool {
		return !slices.Contains(ids, r.ID)
	}), until)
}

// deferredIDs returns the rows that are left out of the claims for now.
func (c *claimer) deferredIDs() []int64 {
	now := c.Now()
	maps.DeleteFunc(c.deferred, func(_ int64, until time.Time) bool {
		return now.After(until) || until.Sub(now) > refusedFor
	})
	return slices.AppendSeq(c.settler.Parked(), maps.Keys(c.deferred))
}

// dueRows returns up to limit rows that may be claimed, and whether there are more: up to half of
// them rows whose last attempt is in doubt, and the others by their lanes. Where the queue is long,
// urgent ones alone.
func (c *claimer) dueRows(ctx context.Context, limit int) (rows []queue.Request, more bool, err error) {
	if !c.urgentOnly {
		rows, err = c.dueRedeliveries(ctx, (limit+1)/2)
		if err != nil || len(rows) == limit {
			return rows, true, err
		}
	}
	pending, err := c.lanes.Pending(ctx, laneAge)
	if err != nil {
		return rows, false, err
	}
	limit -= len(rows)
	shares, left := c.shares(pending, limit)
	except := c.deferredIDs()
	for _, r := range rows {
		except = append(except, r.ID)
	}
	fresh, err := c.queue.Due(ctx, shares, limit, except)
	more = left || len(rows) > 0 || len(fresh) >= limit || lanes.Exhausts(fresh, shares)
	return append(rows, fresh...), more, err
}

// shares returns what a claim of limit rows takes of each lane.
func (c *claimer) shares(lanes []queue.Lane, limit int) (shares []queue.Share, left bool) {
	var open []queue.Share
	for _, l := range lanes {
		if c.urgentOnly && l.Priority != priorityUrgent {
			continue
		}
		if n := c.claimable(l, limit); n > 0 {
			open = append(open, queue.Share{Lane: l, Quantum: n})
		}
	}
	return c.fair.Shares(open, limit)
}

// heldRedelivery is how long a row stays listed whose template is paused.
const heldRedelivery = 10 * time.Second

// dueRedeliveries returns rows to be repeated. They may use the reserve of urgent ones, but not
// more than the account's own number of messages. Those of a paused template stay listed.
func (c *claimer) dueRedeliveries(ctx context.Context, limit int) ([]queue.Request, error) {
	now := c.Now()
	if c.throttle.Claimable(true, "", 1) == 0 {
		return nil, nil
	}
	listed := c.redelivery.take(now, limit)
	if len(listed) == 0 {
		return nil, nil
	}
	parked := c.settler.Parked()
	listed = slices.DeleteFunc(listed, func(id int64) bool { return slices.Contains(parked, id) })
	if len(listed) == 0 {
		return nil, nil
	}
	found, err := c.queue.DueByID(ctx, c.AppID, listed)
	if err != nil {
		for _, id := range listed {
			c.redelivery.add(id, now)
		}
		return nil, err
	}
	return slices.DeleteFunc(found, func(r queue.Request) bool {
		held := c.throttle.Claimable(true, c.Templates.Known(r.Template, c.AppID), 1) == 0
		if held {
			c.redelivery.add(r.ID, now.Add(heldRedelivery))
		}
		return held
	}), nil
}

// requeue lists those of rows again that were to be repeated and not claimed after all.
func (c *claimer) requeue(rows []queue.Request, at time.Time) {
	for _, r := range rows {
		if r.InDoubtFor.Valid {
			c.redelivery.add(r.ID, at)
		}
	}
}
