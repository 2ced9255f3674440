package sync

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/wechat"
)

// recheckAll asks user/info about each person, with the account's concurrency, and stores what the
// answers mean. Events and the refresh both call it: the policy depends on the recheck, not on who
// asks.
//
// An error about one person delays that person only: they would come first again the next time, and
// block everybody else for ever. If none of many got an answer, the error is returned, so
// that the caller tries again less often.
func (s *sweep) recheckAll(ctx context.Context, due []bridge.Recheck) error {
	var failed unanswered
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(s.account.Concurrency)
	for _, r := range due {
		group.Go(func() error {
			err := s.recheck(ctx, r)
			if !aboutOnePerson(err) {
				return err
			}
			failed.add(r.OpenID, err)
			return s.settle(ctx, r, afterError(r))
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return failed.verdict(s.logger(), len(due))
}

// recheck looks up one person. Single answers have proved right where batches were not.
func (s *sweep) recheck(ctx context.Context, r bridge.Recheck) error {
	info, err := s.userInfo(ctx, r.OpenID)
	var means bridge.Settlement
	switch {
	case isInvalidOpenID(err) || (err == nil && info.OpenID != r.OpenID):
		means = afterUnknown(r)
	case err != nil:
		return fmt.Errorf("asking WeChat about one person: %w", err)
	case !info.Subscribed:
		means = afterNotSubscribed(r)
	default:
		if means, err = s.afterFollower(ctx, r, info); err != nil {
			return err
		}
	}
	return s.settle(ctx, r, means)
}

func (s *sweep) settle(ctx context.Context, r bridge.Recheck, means bridge.Settlement) error {
	wrote, err := s.svc.identities.SettleRecheck(ctx, s.account.AppID, r, means)
	s.run.update(func(run *Run) {
		if means.Gone {
			run.Gone += wrote
		} else {
			run.Changed += wrote
		}
	})
	return err
}

// afterFollower says what the answer means that a person follows.
func (s *sweep) afterFollower(
	ctx context.Context, r bridge.Recheck, info wechat.UserInfo,
) (means bridge.Settlement, err error) {
	if r.Reason == bridge.RecheckNoUnionID && info.UnionID == "" {
		return postponed(r, r.Reason), nil
	}
	clash, err := s.recheckHolders(ctx, []wechat.UserInfo{info})
	if err != nil {
		return means, err
	}
	switch {
	case r.Reason == bridge.RecheckFollowed && info.UnionID == "":
		// The unionid is only late if the account has unionids at all.
		bound, err := s.svc.identities.Sample(ctx, s.account.AppID, 1)
		if err != nil {
			return means, err
		}
		if len(bound) > 0 {
			means = confirmLater(r, bridge.RecheckNoUnionID)
		}
	case r.Reason == bridge.RecheckFollowed && clash:
		means.Next = bridge.RecheckUnionIDTwice
	case r.Reason == bridge.RecheckUnionIDTwice && clash:
		means = postponed(r, r.Reason)
	}
	means.Store = &info
	return means, nil
}

// afterNotSubscribed says what "does not follow" means. It is the second such answer, except about
// somebody who only lacked a unionid or has just followed.
func afterNotSubscribed(r bridge.Recheck) bridge.Settlement {
	switch r.Reason {
	case bridge.RecheckFollowed:
		return confirmLater(r, bridge.RecheckNotSubscribed)
	case bridge.RecheckNoUnionID:
		means := postponed(r, bridge.RecheckNotSubscribed)
		means.Attempts = 1
		return means
	}
	return bridge.Settlement{Gone: true}
}

// unknownTries is how many single answers of "invalid openid" mark a person as gone. Right after a
// follow WeChat has been seen to give it for a follower, so one is not enough.
const unknownTries = 3

// afterUnknown says what "invalid openid" means.
func afterUnknown(r bridge.Recheck) bridge.Settlement {
	switch r.Reason {
	case bridge.RecheckFollowed:
		return confirmLater(r, bridge.RecheckUnknownOpenID)
	case bridge.RecheckNoUnionID, bridge.RecheckUnionIDTwice:
		// The answers so far were others. They do not count here.
		return postponed(bridge.Recheck{}, bridge.RecheckUnknownOpenID)
	}
	if r.Attempts+1 < unknownTries {
		return postponed(r, r.Reason)
	}
	return bridge.Settlement{Gone: true}
}

// postponed asks again after a pause that grows with the answers that settled nothing: 5 minutes,
// doubled up to a week. A follower who really has no unionid costs nine calls on the first day and
// one a week from then on.
func postponed(r bridge.Recheck, reason bridge.RecheckReason) bridge.Settlement {
	const initial, longest = 5 * time.Minute, 7 * 24 * time.Hour
	wait := longest
	if r.Attempts < 11 {
		wait = min(initial<<r.Attempts, longest)
	}
	return bridge.Settlement{Next: reason, Attempts: r.Attempts + 1, Wait: wait}
}

// initialConfirmWait is the wait after the first of maxConfirmTries answers that did not confirm a
// follow. It doubles each time.
const (
	initialConfirmWait = 3 * time.Second
	maxConfirmTries    = 5
)

// confirmLater handles an answer that does not confirm a follow yet: for some seconds WeChat has
// been seen to say "not subscribed", "invalid openid", or no unionid. It is asked again after 3, 6,
// 12, 24 and 48 seconds. What the answers lack then becomes the reason of a slow recheck, which
// alone can mark the person as gone.
func confirmLater(r bridge.Recheck, lacks bridge.RecheckReason) bridge.Settlement {
	if r.Attempts >= maxConfirmTries {
		return bridge.Settlement{Next: lacks}
	}
	return bridge.Settlement{
		Next: r.Reason, Attempts: r.Attempts + 1, Wait: initialConfirmWait << r.Attempts,
	}
}

// maxErrorWait is how long a person waits about whom WeChat gives errors only: 96 of 5,000,000
// calls a day.
const maxErrorWait = 15 * time.Minute

// afterError delays a person about whom WeChat gave an error. No error changes the reason, and none
// counts as an answer about a doubt: by those a follower is marked as gone.
//
// A follow waits as after such an answer, and then from three minutes on: further than the events
// look ahead, so the refresh asks.
func afterError(r bridge.Recheck) bridge.Settlement {
	if r.Reason != bridge.RecheckFollowed {
		return bridge.Settlement{Next: r.Reason, Attempts: r.Attempts, Wait: maxErrorWait}
	}
	if r.Attempts < maxConfirmTries {
		return confirmLater(r, "")
	}
	wait := min(3*time.Minute<<min(r.Attempts-maxConfirmTries, 3), maxErrorWait)
	return bridge.Settlement{Next: r.Reason, Attempts: r.Attempts + 1, Wait: wait}
}

// maxRefresh bounds one refresh; the rest is due at the next one.
const maxRefresh = 2000

// refresh rechecks everybody who is due, also follows that the events left over. If the events are
// at work too, the fence of SettleRecheck lets one of both answers count.
func (s *sweep) refresh(ctx context.Context) error {
	if err := s.plan(ctx); err != nil {
		return err
	}
	for asked := 0; asked < maxRefresh; {
		due, err := s.svc.identities.DueRechecks(ctx, s.account.AppID, bridge.Due{Limit: batchSize})
		if err != nil || len(due) == 0 {
			return err
		}
		asked += len(due)
		if err := s.recheckAll(ctx, due); err != nil {
			return err
		}
		s.run.update(func(r *Run) { r.Listed += int64(len(due)) })
	}
	return nil
}
