package sync

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/wechat"
)

// maxRefresh bounds one refresh; what is left is due at the next one.
const maxRefresh = 2000

// refresh asks user/info, one by one, about everybody who is due: single answers have been seen to be
// right where batch answers were not.
func (s *sweep) refresh(ctx context.Context) error {
	if err := s.plan(ctx); err != nil {
		return err
	}
	for asked := 0; asked < maxRefresh; {
		due, err := s.svc.identities.DueRechecks(ctx, s.account.AppID, batchSize)
		if err != nil || len(due) == 0 {
			return err
		}
		asked += len(due)
		questions := make([]question, len(due))
		for i, r := range due {
			questions[i] = question{
				openid: r.OpenID,
				ask:    func(ctx context.Context) error { return s.recheck(ctx, r) },
				putOff: func(ctx context.Context) error {
					return s.svc.identities.DeferRecheck(ctx, s.account.AppID, r, unansweredWait)
				},
			}
		}
		if err := s.askEach(ctx, questions); err != nil {
			return err
		}
		s.run.update(func(r *Run) { r.Listed += int64(len(due)) })
	}
	return nil
}

// unansweredWait is how long somebody is left alone about whom WeChat gives no answer: 96 of 5,000,000 calls a day are
// spent on him if it never does. It does not grow: the count of his questions is also the count of answers by which a
// follower is marked as gone, and an error is no answer.
const unansweredWait = 15 * time.Minute

// question is one person to be asked about.
type question struct {
	openid string
	ask    func(ctx context.Context) error // asks, and stores the answer or puts it off
	putOff func(ctx context.Context) error // lets him wait after an error that is about him alone
}

// askEach asks about people with the account's concurrency. An error about one person puts him off and keeps nobody else
// waiting: he would come first again the next time, and for ever. If none of many could be asked about, it returns the
// error, so that whoever runs this tries again less often.
func (s *sweep) askEach(ctx context.Context, questions []question) error {
	var failed unanswered
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(s.account.Concurrency)
	for _, q := range questions {
		group.Go(func() error {
			err := q.ask(ctx)
			if !aboutOnePerson(err) {
				return err
			}
			failed.add(q.openid, err)
			return q.putOff(ctx)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return failed.verdict(s.logger(), len(questions))
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
	if r.Reason == bridge.RecheckNoUnionID && info.UnionID == "" {
		return s.svc.identities.PostponeRecheck(ctx, appid, r)
	}
	confirmed := []wechat.UserInfo{info}
	if err := s.recheckHolders(ctx, confirmed); err != nil {
		return err
	}
	if _, err := s.svc.identities.Store(ctx, appid, confirmed, 1); err != nil {
		return err
	}
	s.run.update(func(run *Run) { run.Changed++ })
	if r.Reason == bridge.RecheckUnionIDTwice {
		_, holders, err := s.svc.identities.Conflicts(ctx, appid, confirmed)
		if err != nil {
			return err
		}
		if len(holders) > 0 {
			return s.svc.identities.PostponeRecheck(ctx, appid, r)
		}
	}
	return s.svc.identities.SettleRecheck(ctx, appid, r.OpenID)
}

// recheckNotSubscribed handles "does not follow". It is the second such answer, except for somebody who
// only lacked a unionid or has just followed: he gets another question.
func (s *sweep) recheckNotSubscribed(ctx context.Context, r bridge.Recheck) error {
	if r.Reason == bridge.RecheckNoUnionID || r.Reason == bridge.RecheckFollowed {
		err := s.svc.identities.RequestRecheck(ctx, s.account.AppID, []string{r.OpenID}, bridge.RecheckNotSubscribed)
		if err != nil {
			return err
		}
		return s.svc.identities.PostponeRecheck(ctx, s.account.AppID, r)
	}
	return s.settleGone(ctx, r)
}

// unknownTries is how many single answers of "invalid openid" end a doubt. Right after a follow WeChat
// has been seen to give it for a follower, so one is not enough.
const unknownTries = 3

func (s *sweep) recheckUnknown(ctx context.Context, r bridge.Recheck) error {
	switch r.Reason {
	case bridge.RecheckNoUnionID, bridge.RecheckFollowed, bridge.RecheckUnionIDTwice:
		// The questions so far were answered otherwise or not at all. They do not count here.
		err := s.svc.identities.RequestRecheck(ctx, s.account.AppID, []string{r.OpenID}, bridge.RecheckUnknownOpenID)
		if err != nil {
			return err
		}
		r.Attempts = 0
	}
	if r.Attempts+1 < unknownTries {
		return s.svc.identities.PostponeRecheck(ctx, s.account.AppID, r)
	}
	return s.settleGone(ctx, r)
}

func (s *sweep) settleGone(ctx context.Context, r bridge.Recheck) error {
	n, err := s.svc.identities.MarkGone(ctx, s.account.AppID, []string{r.OpenID})
	if err != nil {
		return err
	}
	s.run.update(func(run *Run) { run.Gone += n })
	return s.svc.identities.SettleRecheck(ctx, s.account.AppID, r.OpenID)
}
