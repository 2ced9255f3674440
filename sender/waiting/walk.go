package waiting

import (
	"context"
	"slices"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// walk goes through all that waits, slowly, for what nobody was told of: another program has
// changed the map, an instance died between its change of the map and the release, an older one
// made rows wait. It looks at walkSize rows a round. That is some 200 entries of indexes a second,
// however many rows wait: of a million each comes twice a day, and the few of a small account in
// each round.
type walk struct {
	since map[string]time.Time // by account: the takeover that it knows of
	all   bool                 // it has to look at all rows, from the first one on

	lane      queue.Lane
	row       queue.Request // of the lane, the last one that was looked at
	hint      int64         // the same of send_wait
	withdrawn queue.Withdrawn
}

// walkSize is how many waiting rows, and how many hints, the walk looks at in a round.
const walkSize = queue.PageSize / 2

// allTime is how long a round looks at rows after a takeover: a quarter of the rounds' pace, so
// that neither the rest of the maintenance waits nor the database.
const allTime = 5 * time.Second

// Walk looks at the next rows of the waiting lanes that this instance sends for.
func (r *Releaser) Walk(ctx context.Context, lanes []queue.Lane) error {
	w := &r.walk
	// What the last sender of an account did not release must not wait for hours.
	for _, a := range r.cfg.Accounts {
		if since, sends := a.Since(); sends && !w.since[a.AppID].Equal(since) {
			w.since[a.AppID], w.all, w.lane = since, true, queue.Lane{}
		}
	}
	if len(lanes) == 0 {
		w.all = false
		return nil
	}
	if err := r.look(ctx, lanes); err != nil {
		return err
	}
	if err := r.forget(ctx); err != nil {
		return err
	}
	return r.cancelNext(ctx)
}

// look looks at the next rows, of several lanes where they are short.
func (r *Releaser) look(ctx context.Context, lanes []queue.Lane) error {
	w, begin := &r.walk, r.cfg.Now()
	slices.SortFunc(lanes, queue.Lane.Compare)
	for looked, ends := 0, 0; w.all || looked < walkSize && ends < len(lanes); {
		at, found := slices.BinarySearchFunc(lanes, w.lane, queue.Lane.Compare)
		if !found { // it is new, or nothing waits there any more
			at %= len(lanes)
			w.lane, w.row = lanes[at], queue.Request{}
		}
		size := walkSize
		if w.all {
			size = queue.PageSize
		}
		rows, err := r.page(ctx, size)
		if err != nil {
			return err
		}
		if looked += len(rows); len(rows) == size {
			w.row = rows[len(rows)-1]
		} else {
			ends++
			w.all = w.all && at+1 < len(lanes)
			w.lane, w.row = lanes[(at+1)%len(lanes)], queue.Request{}
		}
		if r.cfg.Now().Sub(begin).Abs() > allTime {
			return nil
		}
	}
	return nil
}

// page looks at the next rows of the lane, up to size.
func (r *Releaser) page(ctx context.Context, size int) ([]queue.Request, error) {
	rows, err := r.cfg.Queue.WaitingAfter(ctx, r.walk.lane, r.walk.row, size)
	if err != nil || len(rows) == 0 {
		return rows, err
	}
	_, err = r.review(ctx, rows)
	return rows, err
}

// forget deletes what the next rows wait for, where they wait no more.
func (r *Releaser) forget(ctx context.Context) error {
	w := &r.walk
	ids, err := r.cfg.Queue.WaitersAfter(ctx, w.hint, walkSize)
	if err != nil {
		return err
	}
	w.hint = 0
	if len(ids) == walkSize {
		w.hint = ids[len(ids)-1]
	}
	_, others, err := r.cfg.Queue.WaitingByID(ctx, ids)
	if err != nil || len(others) == 0 {
		return err
	}
	return r.cfg.Queue.Forget(ctx, others, string(bridge.KeyGrant))
}

// cancelNext ends waiting rows among a page of those that are withdrawn.
func (r *Releaser) cancelNext(ctx context.Context) error {
	w := &r.walk
	rows, err := r.cfg.Queue.WithdrawnAfter(ctx, w.withdrawn)
	if err != nil {
		return err
	}
	w.withdrawn = queue.Withdrawn{}
	if len(rows) == queue.PageSize {
		w.withdrawn = rows[len(rows)-1]
	}
	waiting := make(map[string][]int64)
	for _, row := range rows {
		if row.Status == queue.Waiting {
			waiting[row.AppID] = append(waiting[row.AppID], row.ID)
		}
	}
	for appid, ids := range waiting {
		order := queue.CancelOrder{From: queue.Waiting, AppID: appid, IDs: ids, SkipLocked: true}
		if err := r.cfg.Queue.Cancel(ctx, order); err != nil {
			return err
		}
	}
	return nil
}
