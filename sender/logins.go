package sender

import (
	"context"
	"slices"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// LoginReader reads who has used a mini program of late: bridge.Map.Logins.
type LoginReader func(
	ctx context.Context, last bridge.Login, until time.Time, limit int,
) ([]bridge.Login, error)

const (
	// loginEvery is how often logins are read while anybody waits for one.
	loginEvery = 4 * time.Second
	// A login's transaction may last: those of the last loginOverlap are read again, and now and
	// then those of loginMemory.
	loginOverlap = 2 * time.Second
	loginMemory  = time.Minute
	memoryTurns  = 8 // of loginEvery
)

// readLogins releases rows whose recipients have used a mini program of late, if any row waits for
// that. A login that is a minute old before it is committed is left to the walk.
func (r *releaser) readLogins(ctx context.Context) error {
	owner := func(a *account) bool { return a.owner.Load() }
	if !slices.ContainsFunc(r.accounts, owner) || r.Logins == nil || len(r.MiniAppIDs) == 0 {
		return nil
	}
	// Who waits from now on sets it again.
	if !r.waiting.logins.Swap(false) {
		return nil
	}
	now, waits, err := r.queue.AnyWait(ctx, string(bridge.KeyOpenID), r.MiniAppIDs)
	if err != nil || waits {
		r.waiting.logins.Store(true)
	}
	if err != nil || !waits {
		return err
	}
	overlap := loginOverlap
	if r.loginsTurn++; r.loginsTurn%memoryTurns == 1 {
		overlap = loginMemory
	}
	// After a while without anybody who waited, or if the database's clock was set back.
	if from := now.Add(-loginMemory); r.loginsRead.Before(from) || r.loginsRead.After(now) {
		r.loginsRead, overlap = now, loginMemory
	}
	last := bridge.Login{SeenAt: r.loginsRead.Add(-overlap)}
	for {
		logins, err := r.Logins(ctx, last, now, queue.PageSize)
		if err != nil {
			return err
		}
		keys := make([]queue.Wait, len(logins))
		for i, l := range logins {
			keys[i] = waitOf(l.Key())
		}
		if err := r.release(ctx, nil, keys); err != nil {
			return err
		}
		if len(logins) < queue.PageSize {
			break
		}
		last = logins[len(logins)-1]
	}
	r.loginsRead = now
	return nil
}
