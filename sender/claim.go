package sender

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/database"
)

// claimLoop claims whenever the watcher has seen due rows, until ctx ends.
func (w *worker) claimLoop(ctx context.Context, lease *database.Lease, d *dispatch, results chan<- result) {
	failures := 0
	w.last = claimed{}
	for w.awaitTurn(ctx, d); ctx.Err() == nil; w.awaitTurn(ctx, d) {
		err := w.prepare(ctx)
		w.last = claimed{}
		if err == nil && !w.pause.active(w.svc.cfg.Now()) && lease.Valid() {
			w.last, err = w.claim(ctx, d, results)
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
		}
		failures = 0
		if w.last.more || w.hurry.Load() {
			continue
		}
		w.idle.Store(true)
		select {
		case <-w.wake:
		case <-ctx.Done():
			return
		}
		w.idle.Store(false)
	}
}

const (
	// claimFirst is the first claim's size. From there it doubles and halves with what WeChat takes.
	claimFirst = 64
	// A claim lasts between these: long enough for batches to be worth it, and short enough for an urgent row
	// that comes just after it.
	claimShort = 60 * time.Millisecond
	claimLong  = 250 * time.Millisecond
)

// probeLook is how often the claim loop looks whether the message has landed that finds out about a pause.
const probeLook = 20 * time.Millisecond

// prepare reads what a claim goes by.
func (w *worker) prepare(ctx context.Context) error {
	if !w.loaded {
		if err := w.loadState(ctx); err != nil {
			return err
		}
		w.loadAgain(ctx)
		w.loaded = true
	}
	if err := w.refreshBudget(ctx); err != nil {
		return err
	}
	w.stopAtBudget()
	return nil
}

// awaitTurn waits until no more than one claim stands in the queue, so that the senders have something to do while
// the next one is made, and finds its size: what WeChat takes in a fraction of a second, which is hundreds on a
// fast line and a handful where it answers slowly. So the rows that an urgent one cannot overtake, and that a kill
// leaves uncertain, are few. Where an urgent row has come it does not wait for room: then urgent ones alone are
// claimed. It also waits for the one message that finds out about a pause.
func (w *worker) awaitTurn(ctx context.Context, d *dispatch) {
	for w.pause.probeOut() && ctx.Err() == nil {
		wait(ctx, probeLook)
	}
	c := w.last
	if c.more && c.taken == 0 {
		wait(ctx, laneAge) // others hold what is due
	}
	begin := w.svc.cfg.Now()
	roomy := d.awaitRoom(ctx, c.limit, laneAge)
	for !roomy && !w.urgentFits(ctx, d, c.limit) {
		roomy = d.awaitRoom(ctx, c.limit, laneAge)
	}
	w.hurry.Store(!roomy)
	switch took := w.svc.cfg.Now().Sub(begin); {
	case c.sending < c.limit/2: // it says nothing about WeChat
	case took < claimShort && c.limit == w.size:
		w.size = min(2*w.size, claimMost)
	case took > claimLong:
		w.size = max(w.size/2, claimLeast)
	}
}

// urgentFits tells whether an urgent row is to be claimed although the queue is long.
func (w *worker) urgentFits(ctx context.Context, d *dispatch, limit int) bool {
	return len(d.urgent) <= limit/2 && w.urgentDue(ctx)
}

// urgentDue tells whether there is an urgent row to claim. An error says so too: the claim will meet it.
func (w *worker) urgentDue(ctx context.Context) bool {
	lanes, err := w.svc.pendingLanes(ctx, laneAge)
	return err != nil || ctx.Err() != nil || slices.ContainsFunc(lanes, func(l lane) bool {
		return l.Priority == priorityUrgent && w.claimable(l, 1) > 0
	})
}

// claimLeast keeps a batch worth its statements where WeChat answers slowly.
const claimLeast = 8

// claimLimit keeps a claim at about what a fraction of a second sends, and at one message while it is being
// found out whether a paused account works again.
func (w *worker) claimLimit() int {
	if w.pause.probing() {
		return 1
	}
	return w.budget.room(min(w.size, max(1, int(w.account.Rate/4))))
}

// claimed is what became of one claim.
type claimed struct {
	limit   int  // rows that were asked for
	taken   int  // rows that were got
	sending int  // rows on their way to WeChat
	more    bool // more is due than was claimed
}

// claim takes due rows, settles at once those that cannot be sent, and hands the others to the senders.
func (w *worker) claim(ctx context.Context, d *dispatch, results chan<- result) (c claimed, err error) {
	begin := w.svc.cfg.Now()
	limit := w.claimLimit()
	rows, more, err := w.dueRows(ctx, limit)
	if err != nil || len(rows) == 0 {
		return claimed{limit: limit, more: more && err == nil}, err
	}
	c.limit, c.more = limit, more
	// A claim that has begun is not interrupted: its outcome would be unknown, and the rows that it took would
	// lie still until their visibility runs out.
	var mine []request
	var locked []int64
	err = database.Detached(ctx, func(ctx context.Context) (err error) {
		mine, locked, err = w.svc.store.claim(ctx, claimOrder{w.account.AppID, rows, begin.Before(w.wary)})
		return err
	})
	if err != nil {
		w.keepAgain(rows)
		return claimed{}, err
	}
	w.avoid(rows, locked)
	c.taken = len(rows) - len(locked)
	// From here on every claimed row gets a result, whatever happens.
	ready := make([]job, 0, len(mine))
	recipients := make([]bridge.Recipient, 0, len(mine))
	for _, row := range mine {
		recipient, j, verdict := w.examine(ctx, row)
		if verdict != nil {
			results <- *verdict
			continue
		}
		j.setTimes(begin, w.svc.cfg.SendTimeout)
		ready, recipients = append(ready, j), append(recipients, recipient)
	}
	found, err := w.resolve(ctx, recipients)
	if err != nil {
		for _, j := range ready {
			results <- j.row.release(0)
		}
		return claimed{}, err
	}
	for i, j := range ready {
		if found[i].Standing != bridge.Reachable {
			results <- w.unreachable(j.row, found[i].Standing)
			continue
		}
		j.message.ToUser, j.unlisted = found[i].OpenID, found[i].Unlisted
		w.launch(&j)
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

// launch counts a job that is about to go; land what has become of it.
func (w *worker) launch(j *job) {
	w.budget.launch()
	j.probe, j.gated = w.pause.launch(), w.gates.launch(j.message.TemplateID)
}

func (w *worker) land(j job, sent bool) {
	w.budget.landed(sent)
	if j.probe {
		w.pause.landed()
	}
	if j.gated {
		w.gates.landed(j.message.TemplateID)
	}
}

const (
	// lockedFor is how long a row that another transaction holds is left out of the claims; lockedMost how many
	// are known at once.
	lockedFor  = 5 * time.Second
	lockedMost = 2000
	// waryFor is how long claims look for held rows first. Else they find one by waiting for it.
	waryFor = time.Minute
)

// avoid notes rows that other transactions hold.
func (w *worker) avoid(rows []request, locked []int64) {
	if len(locked) == 0 {
		return
	}
	now := w.svc.cfg.Now()
	w.wary = now.Add(waryFor)
	for _, id := range locked {
		if len(w.locked) < lockedMost {
			w.locked[id] = now.Add(lockedFor)
		}
	}
	for _, r := range rows {
		if r.UncertainAge.Valid && slices.Contains(locked, r.ID) {
			w.again.add(r.ID, now.Add(lockedFor))
		}
	}
}

// avoided returns the rows that are left out of the claims for now.
func (w *worker) avoided() []int64 {
	now := w.svc.cfg.Now()
	maps.DeleteFunc(w.locked, func(_ int64, until time.Time) bool { return now.After(until) || until.Sub(now) > lockedFor })
	return slices.Collect(maps.Keys(w.locked))
}

// dueRows returns up to limit rows that may be claimed, and whether there are more: half of them, where there are
// such, rows whose last attempt has an open outcome, and the others by their lanes. Where the queue is long, urgent
// ones alone.
func (w *worker) dueRows(ctx context.Context, limit int) (rows []request, more bool, err error) {
	if !w.hurry.Load() {
		if rows, err = w.dueAgain(ctx, (limit+1)/2); err != nil || len(rows) == limit {
			return rows, true, err
		}
	}
	lanes, err := w.svc.pendingLanes(ctx, laneAge)
	if err != nil {
		w.keepAgain(rows)
		return nil, false, err
	}
	limit -= len(rows)
	shares, left := w.shares(lanes, limit)
	if len(shares) == 0 {
		return rows, len(rows) > 0, nil
	}
	fresh, err := w.svc.store.due(ctx, shares, limit, append(w.avoided(), idsOf(rows)...))
	if err != nil {
		w.keepAgain(rows)
		return nil, false, err
	}
	return append(rows, fresh...), left || len(rows) > 0 || len(fresh) >= limit || exhausts(fresh, shares), nil
}

// dueAgain returns rows to be repeated. They may use the reserve of urgent ones, but not more than the account's own
// number of messages, and those of a template that is held back stay listed.
func (w *worker) dueAgain(ctx context.Context, most int) ([]request, error) {
	now := w.svc.cfg.Now()
	if !w.budget.allows(priorityUrgent) {
		return nil, nil
	}
	listed := w.again.take(now, most)
	if len(listed) == 0 {
		return nil, nil
	}
	found, err := w.svc.store.dueByID(ctx, w.account.AppID, listed)
	if err != nil {
		for _, id := range listed {
			w.again.add(id, now)
		}
		return nil, err
	}
	return slices.DeleteFunc(found, func(r request) bool {
		held := w.gates.most(w.svc.knownTemplate(r.Template, w.account.AppID), now, 1) == 0
		if held {
			w.again.add(r.ID, now.Add(againHeld))
		}
		return held
	}), nil
}

// againHeld is how long a row stays listed whose template is held back.
const againHeld = 10 * time.Second

// keepAgain lists rows again that were not claimed after all.
func (w *worker) keepAgain(rows []request) {
	for _, r := range rows {
		if r.UncertainAge.Valid {
			w.again.add(r.ID, w.svc.cfg.Now())
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

// exhausts tells whether a lane gave all of its share, and may have more.
func exhausts(rows []request, shares []share) bool {
	taken := make([]int, len(shares))
	for _, r := range rows {
		if taken[r.Lane]++; taken[r.Lane] >= shares[r.Lane].most {
			return true
		}
	}
	return false
}

func (w *worker) resolve(ctx context.Context, recipients []bridge.Recipient) ([]bridge.Resolution, error) {
	if len(recipients) == 0 {
		return nil, nil
	}
	return w.svc.cfg.People.Resolve(ctx, w.account.AppID, recipients)
}
