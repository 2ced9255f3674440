package sync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	gosync "sync"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/wechat"
)

// isInvalidOpenID reports whether WeChat does not know the openid of the call: the person, or the
// cursor of a list. 40003 is not the only code for it.
func isInvalidOpenID(err error) bool {
	we, ok := errors.AsType[*wechat.Error](err)
	return ok && (we.Reason == wechat.ReasonInvalidOpenID || we.Reason == wechat.ReasonInvalidCursor)
}

// aboutOnePerson reports whether user/info gave an answer without anything usable about this
// person: an errcode, or a body that is none of its answers. What may hold for every call is not
// about one person: the token and its endpoint, the quotas, the account's settings, the network.
func aboutOnePerson(err error) bool {
	we, ok := errors.AsType[*wechat.Error](err)
	if !ok || we.Endpoint != wechat.EndpointUserInfo {
		return false
	}
	switch we.Policy {
	case wechat.PolicyRecipient, wechat.PolicyRecipientLater, wechat.PolicyRequest:
		return true
	case wechat.PolicyRetry: // also that of errcodes which nobody has seen yet
		return we.Code != 0 || we.Reason == wechat.ReasonBadAnswer
	}
	return false
}

// minUnanswered is the number of people from which on, if none was answered about, the cause is
// hardly with them.
const minUnanswered = 10

// unanswered collects per-person errors of several lookups. It is safe for concurrent use.
type unanswered struct {
	mu     gosync.Mutex
	people int
	openid string // the first one's
	err    error
}

func (u *unanswered) add(openid string, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.people++; u.people == 1 {
		u.openid, u.err = openid, err
	}
}

// Call verdict after all lookups. It logs per-person errors once, and returns an error if they are
// not per-person.
func (u *unanswered) verdict(logger *slog.Logger, asked int) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.people == 0:
		return nil
	case u.people == asked && asked >= minUnanswered:
		return fmt.Errorf("looking up %d people, no usable answer: %w", asked, u.err)
	}
	logger.Warn("WeChat gives no usable answer about some people, a refresh asks again",
		"people", u.people, "of", asked, "one_of_them", u.openid, "err", u.err)
	return nil
}

// conflictsWithMap reports whether the map has other unionids for these people, or other people for
// these unionids. If the table was empty, only this very run can conflict with itself, which
// separateDuplicates checks. In a rebinding everybody conflicts: the sample was confirmed one by
// one.
func (s *sweep) conflictsWithMap(ctx context.Context, infos []wechat.UserInfo) (bool, error) {
	if s.empty || s.run.snapshot().Mode == modeRebind {
		return false, nil
	}
	openids, _, err := s.svc.identities.Conflicts(ctx, s.account.AppID, infos)
	return len(openids) > 0, err
}

// recheckHolders looks up those who hold a unionid in the map that single answers give to somebody
// else, so that it changes hands only if both answers agree. Otherwise both stay in doubt,
// and it reports a clash: a unionid that two followers have reaches neither.
func (s *sweep) recheckHolders(ctx context.Context, confirmed []wechat.UserInfo) (bool, error) {
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
		asked, err := identities.Now(ctx) // as in separateDuplicates
		if err != nil {
			return false, err
		}
		info, err := s.userInfo(ctx, holder)
		if err != nil && !isInvalidOpenID(err) && !aboutOnePerson(err) {
			return false, fmt.Errorf("looking up the holder of a unionid: %w", err)
		}
		if err != nil || info.OpenID != holder || !info.Subscribed || claims[info.UnionID] {
			s.logger().Warn("a unionid is claimed by two openids of the account", "openid", holder)
			clashing := []string{holder}
			err := identities.RequestRecheck(ctx, appid, clashing, bridge.RecheckUnionIDTwice)
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

// maxDuplicates bounds the calls about unionids that occur twice. More are not a matter of single
// answers.
const maxDuplicates = 1000

// separateDuplicates asks one by one about followers who share a unionid, after the table has been
// filled for the first time. A resumed run may be the rest of such a run, and so may the first one
// that gets this far.
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
	s.logger().Warn("followers share unionids, each is checked", "openids", len(twins))
	for openids := range slices.Chunk(twins, batchSize) {
		// This run has just written these rows: now, which lags a little, may be before that.
		asked, err := s.svc.identities.Now(ctx)
		if err != nil {
			return err
		}
		a, err := s.fetchEach(ctx, batch{openids: openids, known: set(openids)})
		if err != nil {
			return err
		}
		a.asked = asked
		if err := s.store(ctx, a); err != nil {
			return err
		}
	}
	return nil
}

func set(openids []string) map[string]bool {
	members := make(map[string]bool, len(openids))
	for _, id := range openids {
		members[id] = true
	}
	return members
}
