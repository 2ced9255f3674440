package sender

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/unionbridge/unionbridge/sender/channel"
)

// pausePoll is how often an account that is busy, or has something paused, looks for what
// operators have changed. An idle one looks with its next claim.
const pausePoll = 2 * time.Second

// followPauses takes up what operators pause and resume, and finds out whether the account's
// credentials work where that matters, until ctx ends. The claim loop does not: it may wait long for
// a slow WeChat.
func (a *account) followPauses(ctx context.Context) {
	var checks sync.WaitGroup
	defer checks.Wait()
	var checking atomic.Bool
	for failing := false; ; {
		select {
		case <-time.After(pausePoll):
		case <-a.loaded:
		case <-a.tokenTaken:
			a.throttle.Checked(channel.Outcome{Confirms: channel.ScopeToken})
			continue
		case <-ctx.Done():
			return
		}
		if !a.idle.Load() || a.throttle.Held() {
			err := a.throttle.Refresh(ctx)
			if err != nil && !failing && ctx.Err() == nil {
				a.log.Error("looking for pauses", "err", err)
			}
			failing = err != nil
		}
		if a.Check == nil || checking.Load() || !a.throttle.CheckDue() {
			continue
		}
		checking.Store(true)
		checks.Go(func() {
			defer checking.Store(false)
			if o := a.Check(ctx); ctx.Err() == nil {
				a.throttle.Checked(o)
			}
		})
	}
}
