package sync

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/wechat"
)

// suspicious tells an answer that must not be used as it is: other people than asked for, somebody who is
// listed but "not subscribed" (seen of real followers), unionids for some only (an unknown openid
// shifts all unionids behind it by one place), or one unionid twice.
func suspicious(asked []string, infos []wechat.UserInfo) bool {
	if len(infos) != len(asked) {
		return true
	}
	left := make(map[string]struct{}, len(asked))
	for _, id := range asked {
		left[id] = struct{}{}
	}
	unionids := make(map[string]struct{}, len(asked))
	without := 0
	for _, info := range infos {
		if _, ok := left[info.OpenID]; !ok || !info.Subscribed {
			return true
		}
		delete(left, info.OpenID)
		if info.UnionID == "" {
			without++
			continue
		}
		unionids[info.UnionID] = struct{}{}
	}
	return without > 0 && without < len(infos) || len(unionids) != len(infos)-without
}

// conflictsWithMap tells whether the map knows any of the unionids, or of the people, otherwise. In a table
// that was empty nobody can be known otherwise but by this very run, which separateTwins looks at. In a
// rebinding everybody is known otherwise: the sample has been confirmed one by one.
func (s *sweep) conflictsWithMap(ctx context.Context, infos []wechat.UserInfo) (bool, error) {
	if s.empty || s.run.snapshot().Mode == modeRebind {
		return false, nil
	}
	openids, _, err := s.svc.identities.Conflicts(ctx, s.account.AppID, infos)
	return len(openids) > 0, err
}

// recheckHolders asks about those who hold a unionid in the map that single answers give to somebody
// else, so that it changes hands only if both answers agree. Otherwise both stay in doubt, and it
// reports a clash: a unionid that two followers carry reaches neither.
func (s *sweep) recheckHolders(ctx context.Context, confirmed []wechat.UserInfo) (clash bool, err error) {
	if s.run.snapshot().Mode == modeRebind {
		return false, nil
	}
	appid, identities := s.account.AppID, s.svc.identities
	_, holders, err := identities.Conflicts(ctx, appid, confirmed)
	if err != nil || len(holders) == 0 {
		return false, err
	}
	claims := make(map[string]bool, len(confirmed))
	for _, u := range confirmed {
		claims[u.UnionID] = true
	}
	for _, holder := range slices.Compact(slices.Sorted(slices.Values(holders))) {
		asked := s.now()
		info, err := s.userInfo(ctx, holder)
		if err != nil && !isInvalidOpenID(err) && !aboutOnePerson(err) {
			return false, fmt.Errorf("asking about the holder of a unionid: %w", err)
		}
		if err != nil || info.OpenID != holder || !info.Subscribed || claims[info.UnionID] {
			s.logger().Warn("a unionid is claimed by two openids of the account", "openid", holder)
			err := identities.RequestRecheck(ctx, appid, []string{holder}, bridge.RecheckUnionIDTwice)
			if err != nil {
				return false, err
			}
			continue
		}
		if err := identities.Store(ctx, appid, []wechat.UserInfo{info}, asked); err != nil {
			return false, err
		}
		s.run.update(func(r *Run) { r.Changed++ })
	}
	_, holders, err = identities.Conflicts(ctx, appid, confirmed)
	return len(holders) > 0, err
}

// maxDuplicates bounds the questions about unionids that occur twice; more than this is not an oddity of a few
// answers.
const maxDuplicates = 1000

// separateDuplicates asks one by one about followers who share a unionid, after the table has been filled for the
// first time; a run that is gone on with may be the rest of such a one, and so may the first that gets this far.
func (s *sweep) separateDuplicates(ctx context.Context) error {
	if !s.empty && !s.run.resumed {
		done, err := s.svc.ledger.lastDone(ctx, kindSweep, s.account.AppID)
		if err != nil || done != nil {
			return err
		}
	}
	twins, err := s.svc.identities.DuplicateUnionIDs(ctx, s.account.AppID, maxDuplicates)
	if err != nil || len(twins) == 0 {
		return err
	}
	s.logger().Warn("followers share unionids, each is asked about", "openids", len(twins))
	for openids := range slices.Chunk(twins, batchSize) {
		known := make(map[string]bool, len(openids))
		for _, id := range openids {
			known[id] = true
		}
		a, err := s.fetchEach(ctx, batch{openids: openids, known: known})
		if err != nil {
			return err
		}
		if err := s.store(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

const (
	// sampleSize followers are asked about to find out whether the account has been bound anew: it has
	// if at least minSample answer with a unionid, and all of them with another one.
	sampleSize = 5
	minSample  = 3
)

// errRebound ends a comparison that has begun under the old unionids.
var errRebound = errors.New("all unionids have changed")

// stillBound takes the sample once a sweep, when it is about to ask about anybody: a sweep that has no
// question writes no unionid, and costs no call for this either.
func (s *sweep) stillBound(ctx context.Context) error {
	if s.empty || s.run.snapshot().Mode == modeRebind {
		return nil
	}
	s.sampled.Do(func() {
		rebound, err := s.svc.rebound(ctx, s.account.AppID, s.userInfo)
		if err == nil && rebound {
			err = errRebound
		}
		s.bound = err
	})
	return s.bound
}

// rebound recognises by a sample that an account was bound to another Open Platform account: every unionid
// is another one then, and nothing announces it. ask is user/info: its single answers are believed.
func (s *Service) rebound(ctx context.Context, appid string,
	ask func(context.Context, string) (wechat.UserInfo, error)) (bool, error) {
	sample, err := s.identities.Sample(ctx, appid, sampleSize)
	if err != nil || len(sample) < minSample {
		return false, err
	}
	other := 0
	for openid, unionid := range sample {
		info, err := ask(ctx, openid)
		if isInvalidOpenID(err) || aboutOnePerson(err) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("asking about a sample of the map: %w", err)
		}
		if info.UnionID == unionid {
			return false, nil
		}
		if info.UnionID != "" && info.OpenID == openid {
			other++
		}
	}
	return other >= minSample, nil
}

// rebind turns the run into one that asks about everybody.
func (s *sweep) rebind(ctx context.Context) error {
	s.logger().Error("the official account was bound to another Open Platform account: all unionids have changed",
		"cure", "everybody is asked about again; mini-program users need their new unionids too, if that account was bound anew")
	return s.svc.ledger.rebind(ctx, s.run)
}

// checkBinding looks at the sample between the sweeps, and sweeps at once if the account was bound anew.
func (s *Service) checkBinding(ctx context.Context, appid string) {
	rebound, err := s.rebound(ctx, appid, s.accounts[appid].API.UserInfo)
	if err == nil && rebound {
		_, err = s.perform(ctx, job{kind: kindSweep, appid: appid, do: func(sw *sweep, ctx context.Context) error {
			if err := sw.rebind(ctx); err != nil {
				return err
			}
			return sw.do(ctx)
		}})
	}
	s.report(ctx, "checking the binding", appid, err)
}
