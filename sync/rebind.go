package sync

import (
	"context"
	"errors"
	"fmt"

	"github.com/unionbridge/unionbridge/internal/wechat"
)

const (
	// sampleSize followers show whether the account was bound to another Open Platform account: it
	// was if minSample of them have another unionid now, before one has still that of the map.
	sampleSize = 5
	minSample  = 3
)

// errRebound ends a comparison that began under the old unionids.
var errRebound = errors.New("all unionids have changed")

// stillBound checks the sample once a sweep, also of one that has nobody to look up: nothing else
// shows a rebinding. It costs one call.
func (s *sweep) stillBound(ctx context.Context) error {
	if s.empty || s.run.snapshot().Mode == modeRebind {
		return nil
	}
	rebound, err := s.svc.rebound(ctx, s.account.AppID, s.userInfo)
	if err == nil && rebound {
		err = errRebound
	}
	return err
}

// rebound reports whether an account was bound to another Open Platform account: all unionids
// change then, and nothing announces it. ask is user/info, whose single answers are believed.
func (s *Service) rebound(ctx context.Context, appid string,
	ask func(context.Context, string) (wechat.UserInfo, error)) (bool, error) {
	sample, err := s.identities.Sample(ctx, appid, sampleSize)
	if err != nil || len(sample) < minSample {
		return false, err
	}
	other := 0
	for _, known := range sample {
		info, err := ask(ctx, known.OpenID)
		if isInvalidOpenID(err) || aboutOnePerson(err) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("looking up a sample of the map: %w", err)
		}
		if info.UnionID == known.UnionID {
			return false, nil
		}
		if info.UnionID != "" && info.OpenID == known.OpenID {
			other++
		}
		if other == minSample {
			return true, nil
		}
	}
	return false, nil
}

// rebind turns the run into one that fetches everybody.
func (s *sweep) rebind(ctx context.Context) error {
	s.logger().Error("the official account was bound to another Open Platform account: "+
		"all unionids have changed", "cure", "all followers are fetched again; "+
		"if the mini program was rebound too, its users need their new unionids")
	return s.svc.ledger.rebind(ctx, s.run)
}

// forgetOld removes the unionids of the former binding that no answer has replaced: of people who
// have left, and of followers about whom WeChat gave no answer. Those are asked again.
func (s *sweep) forgetOld(ctx context.Context) error {
	r := s.run.snapshot()
	if r.Mode != modeRebind {
		return nil
	}
	return s.svc.identities.ForgetOldUnionIDs(ctx, r.AppID, r.Started)
}

// checkBinding checks the sample between the sweeps, and sweeps at once if the account was rebound.
func (s *Service) checkBinding(ctx context.Context, appid string) {
	rebound, err := s.rebound(ctx, appid, s.accounts[appid].API.UserInfo)
	if err == nil && rebound {
		do := func(sw *sweep, ctx context.Context) error {
			if err := sw.rebind(ctx); err != nil {
				return err
			}
			return sw.do(ctx)
		}
		_, err = s.perform(ctx, job{kind: kindSweep, appid: appid, do: do})
	}
	s.report(ctx, "checking the binding", appid, err)
}
