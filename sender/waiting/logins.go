package waiting

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

// ReadLogins releases rows whose recipients have used a mini program of late, if any row waits for
// that. A login that is a minute old before it is committed is left to the walk.
func (r *Releaser) ReadLogins(ctx context.Context) error {
	sends := func(a Account) bool {
		_, sends := a.Since()
		return sends
	}
	if !slices.ContainsFunc(r.cfg.Accounts, sends) || r.cfg.Logins == nil || len(r.cfg.MiniAppIDs) == 0 {
		return nil
	}
	// Who waits from now on sets it again.
	if !r.awaitingLogin.Swap(false) {
		return nil
	}
	now, waits, err := r.cfg.Queue.AnyWait(ctx, loginKinds(), r.cfg.MiniAppIDs)
	if err != nil || waits {
		r.awaitingLogin.Store(true)
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
		logins, err := r.cfg.Logins(ctx, last, now, queue.PageSize)
		if err != nil {
			return err
		}
		keys := make([]queue.Wait, 0, 2*len(logins))
		for _, l := range logins {
			for _, key := range l.Keys() {
				keys = append(keys, waitOf(key))
			}
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

// loginKinds are the kinds of what a login at a mini program may release: a row that names the
// person by their openid there, and one that names them by their unionid and goes by the mini program.
func loginKinds() []string {
	return []string{string(bridge.KeyOpenID), string(bridge.KeyUnionID)}
}

// AwaitingLogin reports whether logins are read, as somebody may wait for one.
func (r *Releaser) AwaitingLogin() bool { return r.awaitingLogin.Load() }
