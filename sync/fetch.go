package sync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/wechat"
)

// The endpoints as the ledger counts them.
const (
	endpointFollowers = "user/get"
	endpointUserInfo  = "user/info"
	endpointBatch     = "user/info/batchget"
)

func (s *sweep) followers(ctx context.Context, cursor string) (wechat.FollowerPage, error) {
	return call(ctx, s, endpointFollowers, func() (wechat.FollowerPage, error) {
		return s.account.API.Followers(ctx, cursor)
	})
}

func (s *sweep) userInfo(ctx context.Context, openid string) (wechat.UserInfo, error) {
	return call(ctx, s, endpointUserInfo, func() (wechat.UserInfo, error) {
		return s.account.API.UserInfo(ctx, openid)
	})
}

func (s *sweep) batchUserInfo(ctx context.Context, openids []string) ([]wechat.UserInfo, error) {
	return call(ctx, s, endpointBatch, func() ([]wechat.UserInfo, error) {
		return s.account.API.BatchUserInfo(ctx, openids)
	})
}

// maxMinuteWaits bounds how often one call waits for the quota of the minute.
const maxMinuteWaits = 5

// call counts one call, and repeats it after a minute if the quota of the minute is used up. The
// client has already retried other transient errors.
func call[T any](
	ctx context.Context, s *sweep, endpoint string, do func() (T, error),
) (answer T, err error) {
	for waits := 0; ; waits++ {
		if err := s.run.spend(endpoint); err != nil {
			return answer, err
		}
		answer, err = do()
		we, ok := errors.AsType[*wechat.Error](err)
		if !ok || we.Policy != wechat.PolicyQuotaMinute || waits == maxMinuteWaits {
			return answer, err
		}
		s.logger().Warn("waiting for the next minute's quota", "endpoint", endpoint, "err", err)
		if !sleep(ctx, time.Minute) {
			return answer, ctx.Err()
		}
	}
}

type answers struct {
	followers []wechat.UserInfo // subscribed, in the order of the questions
	known     int64             // how many of the followers had a row already
	doubts    map[bridge.RecheckReason][]string
	asked     time.Time // when the first question began: see now
}

// storeBatch is how many followers go into one write, storeWriters how many writes may run at once:
// on the measured servers more are no faster.
const (
	storeBatch   = 1000
	storeWriters = 2
)

// fetchAndStore fetches each batch with the account's concurrency and stores the followers in the
// order of the batches. That is the order of the primary key, so the table's pages fill up one
// after the other.
func (s *sweep) fetchAndStore(ctx context.Context, batches <-chan batch) error {
	s.broken.Store(false)
	group, ctx := errgroup.WithContext(ctx)
	queue := make(chan chan answers, s.account.Concurrency)
	group.Go(func() error {
		defer close(queue)
		return s.fetchAll(ctx, batches, queue)
	})
	group.Go(func() error { return s.storeAll(ctx, queue) })
	return group.Wait()
}

// fetchAll queues a promise of each batch's answers, in the order of the batches. After a failure
// it starts no new batch, but waits for those under way: their calls are already paid for. A failed
// batch delivers an empty result, so that storeAll never blocks.
func (s *sweep) fetchAll(ctx context.Context, batches <-chan batch, out chan<- chan answers) error {
	var workers errgroup.Group
	workers.SetLimit(s.account.Concurrency)
	for batch := range batches {
		promise := make(chan answers, 1)
		workers.Go(func() error {
			a, err := s.fetch(ctx, batch)
			if err != nil {
				s.broken.Store(true)
			}
			promise <- a
			return err
		})
		out <- promise
		if s.broken.Load() || ctx.Err() != nil {
			return cmp.Or(workers.Wait(), ctx.Err())
		}
	}
	return workers.Wait()
}

// storeAll stores the answers as they arrive, also those that arrive after the run was stopped:
// otherwise their calls would be repeated. It always drains the queue.
func (s *sweep) storeAll(ctx context.Context, queue <-chan chan answers) error {
	writers, ctx := errgroup.WithContext(context.WithoutCancel(ctx))
	writers.SetLimit(storeWriters)
	var pending answers
	for promise := range queue {
		pending.add(<-promise)
		if len(pending.followers) < storeBatch {
			continue
		}
		full := pending
		pending = answers{}
		writers.Go(func() error {
			err := s.store(ctx, full)
			if err != nil {
				s.broken.Store(true) // no more calls whose answers cannot be stored
			}
			return err
		})
	}
	writers.Go(func() error { return s.store(ctx, pending) })
	return writers.Wait()
}

func (a *answers) add(b answers) {
	a.followers = append(a.followers, b.followers...)
	a.known += b.known
	if a.asked.IsZero() || b.asked.Before(a.asked) {
		a.asked = b.asked
	}
	for doubt, openids := range b.doubts {
		a.doubt(doubt, openids...)
	}
}

func (a *answers) doubt(d bridge.RecheckReason, openids ...string) {
	if a.doubts == nil {
		a.doubts = map[bridge.RecheckReason][]string{}
	}
	a.doubts[d] = append(a.doubts[d], openids...)
}

func (s *sweep) store(ctx context.Context, a answers) error {
	if s.run.snapshot().Mode == modeRebind {
		// The answers without a unionid, whose old ones Store would keep.
		for slice := range slices.Chunk(a.doubts[bridge.RecheckNoUnionID], storeBatch) {
			err := s.svc.identities.ForgetUnionIDs(ctx, s.account.AppID, slice, a.asked)
			if err != nil {
				return err
			}
		}
	}
	if len(a.followers) > 0 {
		if err := s.svc.identities.Store(ctx, s.account.AppID, a.followers, a.asked); err != nil {
			return err
		}
		s.run.update(func(r *Run) {
			r.Added += int64(len(a.followers)) - a.known
			r.Changed += a.known
		})
		s.run.advance(int64(len(a.followers)))
	}
	for doubt, openids := range a.doubts {
		err := s.svc.identities.RequestRecheck(ctx, s.account.AppID, openids, doubt)
		if err != nil {
			return err
		}
	}
	return nil
}

// fetch looks up one batch of listed followers. If the answers may belong to others, it looks up
// each of them; where only some are odd, those people.
func (s *sweep) fetch(ctx context.Context, q batch) (answers, error) {
	a := answers{asked: s.now()}
	infos, err := s.batchUserInfo(ctx, q.openids)
	if isInvalidOpenID(err) {
		return s.fetchEach(ctx, q)
	}
	if err == nil && len(infos) >= minUnanswered && !slices.ContainsFunc(infos, readable) {
		err = errUnreadable
	}
	if err != nil {
		return answers{}, fmt.Errorf("looking up %d followers: %w", len(q.openids), err)
	}
	j := judge(q.openids, infos)
	if trusted, err := s.trusted(ctx, j, infos); err != nil {
		return answers{}, err
	} else if !trusted {
		return s.fetchEach(ctx, q)
	}
	again := batch{known: q.known}
	single := len(j.odd) > 0 && s.affordable(len(j.odd))
	bound := slices.ContainsFunc(infos, func(u wechat.UserInfo) bool { return u.UnionID != "" })
	for i, info := range infos {
		switch openid := q.openids[i]; {
		case single && j.odd[openid]:
			again.openids = append(again.openids, openid)
		case info.Unreadable:
			a.doubt(bridge.RecheckUnknownOpenID, openid)
		default:
			a.take(info, q.known[info.OpenID], bound)
		}
	}
	if !single {
		return a, nil
	}
	each, err := s.askEach(ctx, again, len(q.openids), bound)
	a.add(each)
	return a, err
}

// trusted reports whether the records of a batch belong to the people whom they name.
func (s *sweep) trusted(ctx context.Context, j judgement, infos []wechat.UserInfo) (bool, error) {
	if j.refused {
		return false, nil
	}
	if contradiction, err := s.conflictsWithMap(ctx, infos); err != nil || contradiction {
		return false, err
	}
	return s.confirmed(ctx, j.witness)
}

// affordable reports whether a run may look n people up singly whom a batch left in doubt: a tenth
// of its batches, and some more. Of a million followers 10,000 may have left since they were
// listed, and would double the calls. The refresh checks the rest.
func (s *sweep) affordable(n int) bool {
	const few, share = 10, 10
	calls := s.run.snapshot().Calls
	return calls[endpointUserInfo]+int64(n) <= few+calls[endpointBatch]/share
}

// take files one answer about a listed person. bound: the account has unionids.
func (a *answers) take(info wechat.UserInfo, known, bound bool) {
	if !info.Subscribed {
		// Listed, and yet no follower: they left meanwhile, or the answer lags. The recheck
		// decides.
		a.doubt(bridge.RecheckNotSubscribed, info.OpenID)
		return
	}
	if info.UnionID == "" && bound {
		a.doubt(bridge.RecheckNoUnionID, info.OpenID)
	}
	a.followers = append(a.followers, info)
	if known {
		a.known++
	}
}

// fetchEach looks up each person of a batch with a call of their own.
func (s *sweep) fetchEach(ctx context.Context, q batch) (answers, error) {
	return s.askEach(ctx, q, len(q.openids), false)
}

// askEach looks up people of a batch of the size of, each with a call of their own. Its result is
// confirmed, even where it conflicts with the map. bound: the account is known to have unionids.
func (s *sweep) askEach(ctx context.Context, q batch, of int, bound bool) (answers, error) {
	infos := make([]wechat.UserInfo, 0, len(q.openids))
	a := answers{asked: s.now()}
	var failed unanswered
	for _, openid := range q.openids {
		info, err := s.userInfo(ctx, openid)
		switch {
		case isInvalidOpenID(err):
			a.doubt(bridge.RecheckUnknownOpenID, openid)
			continue
		case aboutOnePerson(err): // the refresh asks again
			failed.add(openid, err)
			a.doubt(bridge.RecheckUnknownOpenID, openid)
			continue
		case err != nil:
			return answers{}, fmt.Errorf("looking up one follower: %w", err)
		case info.OpenID != openid:
			a.doubt(bridge.RecheckUnknownOpenID, openid)
			s.logger().Warn("user/info answered with another openid",
				"asked", openid, "answered", info.OpenID)
			continue
		}
		bound = bound || info.UnionID != ""
		infos = append(infos, info)
	}
	if err := failed.verdict(s.logger(), of); err != nil {
		return answers{}, err
	}
	for _, info := range infos {
		a.take(info, q.known[info.OpenID], bound)
	}
	_, err := s.recheckHolders(ctx, a.followers)
	return a, err
}
