// Package waiting releases requests that wait for their recipient, when the map has learnt something
// about them: at once where it is told, and by a slow walk through all that waits where nobody was.
//
// It works on the tables alone, so it does not matter which instance sends for an account. It must
// not claim, send or settle.
package waiting

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/move"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// Account is one whose rows may wait.
type Account struct {
	AppID string
	// Since is when this instance began to send for the account; false: it does not.
	Since func() (time.Time, bool)
}

// Config is what a Releaser needs; every field is required but Logins.
type Config struct {
	Queue      *queue.Queue
	Mover      *move.Mover // asks the accounts' channels
	Accounts   []Account
	MiniAppIDs []string    // of those whose logins may release a row
	Logins     LoginReader // nil: nobody's login is noticed but by the walk
	// Explain says to a producer why their row waits.
	Explain func(bridge.Reachability) string
	// Moved is told how many rows went from one account to another.
	Moved  func(from, to, reason string, n int)
	Logger *slog.Logger
	Now    func() time.Time
}

// Releaser releases waiting rows when the map has learnt something about their recipients. Run
// belongs to one goroutine, and so does Walk; all else is safe for concurrent use.
type Releaser struct {
	cfg Config
	list
	wake          chan struct{} // holds one token
	awaitingLogin atomic.Bool   // somebody may wait for a login

	loginsRead time.Time // until when, by the database's clock
	loginsTurn int
	failures   int
	walk       walk
}

// New returns a Releaser that does nothing until Run.
func New(cfg Config) *Releaser {
	return &Releaser{
		cfg: cfg, list: newList(), wake: make(chan struct{}, 1),
		walk: walk{since: make(map[string]time.Time)},
	}
}

// releaseRetry is how soon what could not be done is tried again, such as rows that a producer's
// transaction holds.
const releaseRetry = time.Second

// Run looks at what is listed, and reads logins, until ctx ends. It asks the database nothing while
// nothing is listed and nobody waits for a login.
func (r *Releaser) Run(ctx context.Context) {
	retry, logins := time.NewTicker(releaseRetry), time.NewTicker(loginEvery)
	defer retry.Stop()
	defer logins.Stop()
	for {
		var err error
		select {
		case <-r.wake:
			err = r.Work(ctx)
		case <-retry.C:
			err = r.Work(ctx)
		case <-logins.C:
			err = r.ReadLogins(ctx)
		case <-ctx.Done():
			return
		}
		if err == nil {
			r.failures = 0
		} else if r.failures++; r.failures == 1 && ctx.Err() == nil {
			r.cfg.Logger.Error("releasing waiting requests, trying again until it works", "err", err)
		}
	}
}

// Work looks at what is listed.
func (r *Releaser) Work(ctx context.Context) error {
	ids, keys := r.take()
	if len(ids)+len(keys) == 0 {
		return nil
	}
	err := r.release(ctx, ids, keys)
	if err != nil {
		r.add(ids, keys)
	}
	return err
}

// Changed releases whom the map has made reachable. Where that fails it is done again later.
func (r *Releaser) Changed(ctx context.Context, keys []bridge.Key) {
	waits := make([]queue.Wait, len(keys))
	for i, key := range keys {
		waits[i] = waitOf(key)
	}
	// The map's change is committed, and nothing tells of it again.
	err := database.Detached(ctx, func(ctx context.Context) error {
		return r.release(ctx, nil, waits)
	})
	if err != nil {
		r.cfg.Logger.Warn("releasing requests whose recipients have appeared", "err", err)
		r.add(nil, waits)
	}
}

// Added lists rows that have just been made to wait: the map may have learnt of a recipient after
// the row was claimed and before it waited, and what is learnt is told once.
func (r *Releaser) Added(ids []int64) {
	if len(ids) == 0 {
		return
	}
	r.add(ids, nil)
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// release looks at rows, and at those that wait for one of the keys.
func (r *Releaser) release(ctx context.Context, ids []int64, keys []queue.Wait) error {
	grants, keys := grantKeys(keys)
	for _, key := range grants {
		if err := r.releaseGranted(ctx, key); err != nil {
			return err
		}
	}
	found, err := r.cfg.Queue.Waiters(ctx, keys)
	if err != nil {
		return err
	}
	ids = append(slices.Clone(ids), found...)
	slices.Sort(ids)
	for page := range slices.Chunk(slices.Compact(ids), queue.PageSize) {
		rows, others, err := r.cfg.Queue.WaitingByID(ctx, page)
		if err == nil {
			_, err = r.review(ctx, rows)
		}
		if err == nil && len(others) > 0 {
			err = r.cfg.Queue.Forget(ctx, others, string(bridge.KeyGrant))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// review releases those of waiting rows whose recipients can be reached, and returns how many go on
// waiting. It sees to it that those are found when the map learns of their recipients.
func (r *Releaser) review(ctx context.Context, rows []queue.Request) (left int, err error) {
	rows = slices.DeleteFunc(slices.Clone(rows), func(row queue.Request) bool {
		return !slices.ContainsFunc(r.cfg.Accounts, func(a Account) bool {
			return a.AppID == bridge.ID(row.AppID.String)
		})
	})
	// What a row waits for changes with a login, and rows of an older program wait for nothing yet.
	// The map may learn of those just before they are stored, and then tells in vain: they are
	// looked at once more.
	const maxTries = 3
	for range maxTries {
		known, err := r.cfg.Queue.Waits(ctx, idsOf(rows))
		if err != nil {
			return left, err
		}
		waits, err := r.releaseReachable(ctx, rows, known)
		if err != nil || len(waits) == 0 {
			return left, err
		}
		left = max(left, len(waits))
		maps.DeleteFunc(waits, func(id int64, w queue.Waits) bool {
			return slices.Equal(w, known[id])
		})
		if len(waits) == 0 {
			return left, nil
		}
		if err := r.cfg.Queue.Await(ctx, waits); err != nil {
			return left, err
		}
		rows = slices.DeleteFunc(slices.Clone(rows), func(row queue.Request) bool {
			_, again := waits[row.ID]
			return !again
		})
	}
	return left, nil
}

// releaseReachable releases those of waiting rows whose recipients can be reached, from the account
// in whose queue they stand or else from the other one of their route, ends those that are
// withdrawn, and returns what the others wait for. known is what send_wait says of them.
func (r *Releaser) releaseReachable(
	ctx context.Context, rows []queue.Request, known map[int64]queue.Waits,
) (map[int64]queue.Waits, error) {
	open, withdrawn := make([]queue.Request, 0, len(rows)), newGroups()
	// Where not all can go, the order decides who does.
	for _, row := range slices.SortedFunc(slices.Values(rows), byTurn) {
		if row.Cancel {
			withdrawn.add(row, "")
		} else {
			open = append(open, row)
		}
	}
	ahead, err := r.ahead(ctx, known)
	if err != nil {
		return nil, err
	}
	looks, err := r.cfg.Mover.Look(ctx, slices.Concat(ahead, open))
	if err != nil {
		return nil, err
	}
	looks = looks[len(ahead):]
	older, err := r.cfg.Mover.Older(ctx)
	if err != nil {
		return nil, err
	}
	waits, released, moved := make(map[int64]queue.Waits, len(open)), newGroups(), newGroups()
	changed := make(restatements)
	for i, row := range open {
		look := looks[i]
		switch {
		case look.Rejection != nil:
			// The configuration has changed: the claim says what is wrong.
			released.add(row, "")
		// A person whom WeChat has refused and the map does not have must appear there first.
		case look.Own.Reachability == bridge.Reachable && !look.Own.Unlisted:
			released.add(row, "")
		case older == nil && look.Goes(row):
			moved.add(row, look.Other)
		default:
			w := slices.Concat(r.WaitsFor(look.Own), r.WaitsFor(look.Address))
			slices.SortFunc(w, queue.Wait.Compare)
			waits[row.ID] = slices.Compact(w)
			changed.add(row, look)
		}
	}
	for g, ids := range withdrawn.ids {
		order := queue.CancelOrder{From: queue.Waiting, AppID: g.at, IDs: ids}
		if err := r.cfg.Queue.Cancel(ctx, order); err != nil {
			return nil, err
		}
	}
	if err := r.restate(ctx, changed); err != nil {
		return nil, err
	}
	return waits, r.let(ctx, released, moved)
}

// let writes which rows go, and where.
func (r *Releaser) let(ctx context.Context, released, moved groups) error {
	for g, ids := range released.ids {
		locked, err := r.cfg.Queue.Release(ctx,
			queue.ReleaseOrder{AppID: g.at, IDs: ids, Keep: string(bridge.KeyGrant)})
		if r.add(locked, nil); err != nil {
			return err
		}
	}
	for g, ids := range moved.ids {
		n, locked, err := r.cfg.Queue.MoveWaiting(ctx, queue.WaitingMove{
			From: g.at, To: g.to, IDs: ids, Keep: string(bridge.KeyGrant)})
		if r.add(locked, nil); err != nil {
			return err
		}
		if n > 0 {
			r.cfg.Moved(g.at, g.to, g.reason, int(n))
		}
	}
	return nil
}

// WaitsFor is what may release a row that cannot reach its recipient, in the order of send_wait.
func (r *Releaser) WaitsFor(to channel.Address) queue.Waits {
	waits := make(queue.Waits, len(to.Awaits))
	for i, key := range to.Awaits {
		waits[i] = waitOf(key)
		if slices.Contains(loginKinds(), string(key.Kind)) &&
			slices.Contains(r.cfg.MiniAppIDs, key.AppID) {
			r.awaitingLogin.Store(true)
		}
	}
	slices.SortFunc(waits, queue.Wait.Compare)
	return slices.Compact(waits)
}

func waitOf(key bridge.Key) queue.Wait {
	return queue.Wait{Kind: string(key.Kind), AppID: key.AppID, Value: key.Value}
}
