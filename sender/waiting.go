package sender

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// waiting is what is to be looked at soon: rows that wait, and what the map has learnt. Accounts
// add what they have just made to wait: the map may have learnt of a recipient after the row was
// claimed and before it waited, and what is learnt is told once.
type waiting struct {
	wake   chan struct{} // holds one token
	logins atomic.Bool   // somebody may wait for a login

	mu   sync.Mutex
	ids  map[int64]struct{}
	keys map[queue.Wait]struct{}
}

// maxWaiting bounds either list. What does not fit is found by the walk through all that waits.
const maxWaiting = 100_000

func newWaiting() *waiting {
	return &waiting{
		wake: make(chan struct{}, 1),
		ids:  make(map[int64]struct{}), keys: make(map[queue.Wait]struct{}),
	}
}

// add lists rows and keys.
func (w *waiting) add(ids []int64, keys []queue.Wait) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range ids {
		if len(w.ids) < maxWaiting {
			w.ids[id] = struct{}{}
		}
	}
	for _, key := range keys {
		if len(w.keys) < maxWaiting {
			w.keys[key] = struct{}{}
		}
	}
}

// take empties the lists.
func (w *waiting) take() (ids []int64, keys []queue.Wait) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ids, keys = slices.Sorted(maps.Keys(w.ids)), slices.Collect(maps.Keys(w.keys))
	clear(w.ids)
	clear(w.keys)
	return ids, keys
}

// releaser releases waiting rows when the map has learnt something about their recipients.
type releaser struct {
	*shared
	accounts []*account

	loginsRead time.Time // until when, by the database's clock
	loginsTurn int
	failures   int
}

// releaseRetry is how soon what could not be done is tried again, such as rows that a producer's
// transaction holds.
const releaseRetry = time.Second

// run looks at what is listed, and reads logins, until ctx ends. It asks the database nothing while
// nothing is listed and nobody waits for a login.
func (r *releaser) run(ctx context.Context) {
	retry, logins := time.NewTicker(releaseRetry), time.NewTicker(loginEvery)
	defer retry.Stop()
	defer logins.Stop()
	for {
		var err error
		select {
		case <-r.waiting.wake:
			err = r.work(ctx)
		case <-retry.C:
			err = r.work(ctx)
		case <-logins.C:
			err = r.readLogins(ctx)
		case <-ctx.Done():
			return
		}
		if err == nil {
			r.failures = 0
		} else if r.failures++; r.failures == 1 && ctx.Err() == nil {
			r.Logger.Error("releasing waiting requests, trying again until it works", "err", err)
		}
	}
}

// work looks at what is listed.
func (r *releaser) work(ctx context.Context) error {
	ids, keys := r.waiting.take()
	if len(ids)+len(keys) == 0 {
		return nil
	}
	err := r.release(ctx, ids, keys)
	if err != nil {
		r.waiting.add(ids, keys)
	}
	return err
}

// changed releases whom the map has made reachable. Where that fails it is done again later.
func (r *releaser) changed(ctx context.Context, keys []queue.Wait) {
	// The map's change is committed, and nothing tells of it again.
	err := database.Detached(ctx, func(ctx context.Context) error {
		return r.release(ctx, nil, keys)
	})
	if err != nil {
		r.Logger.Warn("releasing requests whose recipients have appeared", "err", err)
		r.waiting.add(nil, keys)
	}
}

// release looks at rows, and at those that wait for one of the keys.
func (r *releaser) release(ctx context.Context, ids []int64, keys []queue.Wait) error {
	grants, keys := grantKeys(keys)
	for _, key := range grants {
		if err := r.releaseGranted(ctx, key); err != nil {
			return err
		}
	}
	found, err := r.queue.Waiters(ctx, keys)
	if err != nil {
		return err
	}
	ids = append(slices.Clone(ids), found...)
	slices.Sort(ids)
	for page := range slices.Chunk(slices.Compact(ids), queue.PageSize) {
		rows, others, err := r.queue.WaitingByID(ctx, page)
		if err == nil {
			_, err = r.review(ctx, rows)
		}
		if err == nil && len(others) > 0 {
			err = r.queue.Forget(ctx, others)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// review releases those of waiting rows whose recipients can be reached, of whichever account, and
// returns how many go on waiting.
func (r *releaser) review(ctx context.Context, rows []queue.Request) (left int, err error) {
	byAccount := map[string][]queue.Request{}
	for _, row := range rows {
		appid := bridge.ID(row.AppID.String)
		byAccount[appid] = append(byAccount[appid], row)
	}
	for _, a := range r.accounts {
		if rows := byAccount[a.AppID]; len(rows) > 0 {
			n, err := a.review(ctx, rows)
			if left += n; err != nil {
				return left, err
			}
		}
	}
	return left, nil
}

// review releases those of the account's waiting rows whose recipients can be reached, and sees to
// it that the others are found when the map learns of theirs. It returns how many those are.
func (a *account) review(ctx context.Context, rows []queue.Request) (left int, err error) {
	// What a row waits for changes with a login, and rows of an older program wait for nothing yet.
	// The map may learn of those just before they are stored, and then tells in vain: they are
	// looked at once more.
	const maxTries = 3
	for range maxTries {
		waits, err := a.releaseReachable(ctx, rows)
		if err != nil || len(waits) == 0 {
			return left, err
		}
		left = max(left, len(waits))
		known, err := a.queue.Waits(ctx, slices.Collect(maps.Keys(waits)))
		if err != nil {
			return left, err
		}
		maps.DeleteFunc(waits, func(id int64, w queue.Waits) bool {
			return slices.Equal(w, known[id])
		})
		if len(waits) == 0 {
			return left, nil
		}
		if err := a.queue.Await(ctx, waits); err != nil {
			return left, err
		}
		rows = slices.DeleteFunc(slices.Clone(rows), func(r queue.Request) bool {
			_, again := waits[r.ID]
			return !again
		})
	}
	return left, nil
}

// releaseReachable releases those of waiting rows whose recipients can be reached, ends those that
// are withdrawn, and returns what the others wait for.
func (a *account) releaseReachable(
	ctx context.Context, rows []queue.Request,
) (map[int64]queue.Waits, error) {
	var withdrawn, released []int64
	var candidates []queue.Request
	var targets []channel.Target
	// Where not all can go, the order decides who does.
	for _, row := range slices.SortedFunc(slices.Values(rows), byTurn) {
		recipient, rejection := a.recipient(row)
		switch {
		case row.Cancel:
			withdrawn = append(withdrawn, row.ID)
		case rejection != nil:
			// The configuration has changed: the claim says what is wrong.
			released = append(released, row.ID)
		default:
			candidates = append(candidates, row)
			targets = append(targets, channel.Target{
				Recipient: recipient, TemplateID: a.Templates.Known(row.Template, a.AppID),
			})
		}
	}
	waits := make(map[int64]queue.Waits, len(candidates))
	if len(targets) > 0 {
		found, err := a.channel.Resolve(ctx, targets)
		if err != nil {
			return nil, err
		}
		for i, row := range candidates {
			// A person whom WeChat has refused and the map does not have must appear there first.
			if found[i].Reachability == bridge.Reachable && !found[i].Unlisted {
				released = append(released, row.ID)
			} else {
				waits[row.ID] = a.waitsFor(found[i])
			}
		}
	}
	cancel := queue.CancelOrder{From: queue.Waiting, IDs: withdrawn}
	if err := a.queue.Cancel(ctx, cancel); err != nil {
		return nil, err
	}
	locked, err := a.queue.Release(ctx, released)
	a.waiting.add(locked, nil)
	return waits, err
}

// waitsFor is what may release a row that cannot reach its recipient, in the order of send_wait.
func (s *shared) waitsFor(to channel.Address) queue.Waits {
	waits := make(queue.Waits, len(to.Awaits))
	for i, key := range to.Awaits {
		waits[i] = waitOf(key)
		if key.Kind == bridge.KeyOpenID && slices.Contains(s.MiniAppIDs, key.AppID) {
			s.waiting.logins.Store(true)
		}
	}
	slices.SortFunc(waits, queue.Wait.Compare)
	return slices.Compact(waits)
}

func waitOf(key bridge.Key) queue.Wait {
	return queue.Wait{Kind: string(key.Kind), AppID: key.AppID, Value: key.Value}
}
