package sync

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/wechat"
)

// refreshMax bounds one refresh; what is left is due at the next one.
const refreshMax = 2000

// refresh asks user/info, one by one, about everybody who is due: single answers have been seen to be
// right where batch answers were not.
func (s *sweep) refresh(ctx context.Context) error {
	if err := s.plan(ctx); err != nil {
		return err
	}
	for asked := 0; asked < refreshMax; {
		due, err := s.svc.people.DueRechecks(ctx, s.account.AppID, askBatch)
		if err != nil || len(due) == 0 {
			return err
		}
		asked += len(due)
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(s.account.Concurrency)
		for _, r := range due {
			group.Go(func() error { return s.recheck(ctx, r) })
		}
		if err := group.Wait(); err != nil {
			return err
		}
		s.run.update(func(r *Run) { r.Listed += int64(len(due)) })
	}
	return nil
}

// recheck asks about one person and settles or postpones the doubt.
func (s *sweep) recheck(ctx context.Context, r bridge.Recheck) error {
	info, err := s.userInfo(ctx, r.OpenID)
	switch {
	case isInvalidOpenID(err) || (err == nil && info.OpenID != r.OpenID):
		return s.recheckUnknown(ctx, r)
	case err != nil:
		return fmt.Errorf("asking about one person again: %w", err)
	case !info.Subscribed:
		return s.recheckNotSubscribed(ctx, r)
	}
	return s.recheckFollower(ctx, r, info)
}

func (s *sweep) recheckFollower(ctx context.Context, r bridge.Recheck, info wechat.UserInfo) error {
	appid := s.account.AppID
	if r.Doubt == bridge.DoubtNoUnionID && info.UnionID == "" {
		return s.svc.people.PostponeRecheck(ctx, appid, r)
	}
	confirmed := []wechat.UserInfo{info}
	if err := s.clearHolders(ctx, confirmed); err != nil {
		return err
	}
	if _, err := s.svc.people.Store(ctx, appid, confirmed, 1); err != nil {
		return err
	}
	s.run.update(func(run *Run) { run.Changed++ })
	if r.Doubt == bridge.DoubtUnionIDTwice {
		_, holders, err := s.svc.people.Conflicts(ctx, appid, confirmed)
		if err != nil {
			return err
		}
		if len(holders) > 0 {
			return s.svc.people.PostponeRecheck(ctx, appid, r)
		}
	}
	return s.svc.people.SettleRecheck(ctx, appid, r.OpenID)
}

// recheckNotSubscribed handles "does not follow". It is the second such answer, except for somebody who
// only lacked a unionid or has just followed: he gets another question.
func (s *sweep) recheckNotSubscribed(ctx context.Context, r bridge.Recheck) error {
	if r.Doubt == bridge.DoubtNoUnionID || r.Doubt == bridge.DoubtFollowed {
		err := s.svc.people.Ask(ctx, s.account.AppID, []string{r.OpenID}, bridge.DoubtNotSubscribed)
		if err != nil {
			return err
		}
		return s.svc.people.PostponeRecheck(ctx, s.account.AppID, r)
	}
	return s.settleGone(ctx, r)
}

// unknownTries is how many single answers of "invalid openid" end a doubt. Right after a follow WeChat
// has been seen to give it for a follower, so one is not enough.
const unknownTries = 3

func (s *sweep) recheckUnknown(ctx context.Context, r bridge.Recheck) error {
	if r.Attempts+1 < unknownTries {
		return s.svc.people.PostponeRecheck(ctx, s.account.AppID, r)
	}
	return s.settleGone(ctx, r)
}

func (s *sweep) settleGone(ctx context.Context, r bridge.Recheck) error {
	n, err := s.svc.people.MarkGone(ctx, s.account.AppID, []string{r.OpenID})
	if err != nil {
		return err
	}
	s.run.update(func(run *Run) { run.Gone += n })
	return s.svc.people.SettleRecheck(ctx, s.account.AppID, r.OpenID)
}
