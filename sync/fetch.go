package sync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	gosync "sync"
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

func (s *sweep) followers(ctx context.Context, cursor string) (page wechat.FollowerPage, err error) {
	err = s.call(ctx, endpointFollowers, func() error {
		page, err = s.account.API.Followers(ctx, cursor)
		return err
	})
	return page, err
}

func (s *sweep) userInfo(ctx context.Context, openid string) (info wechat.UserInfo, err error) {
	err = s.call(ctx, endpointUserInfo, func() error {
		info, err = s.account.API.UserInfo(ctx, openid)
		return err
	})
	return info, err
}

func (s *sweep) batchUserInfo(ctx context.Context, openids []string) (infos []wechat.UserInfo, err error) {
	err = s.call(ctx, endpointBatch, func() error {
		infos, err = s.account.API.BatchUserInfo(ctx, openids)
		return err
	})
	return infos, err
}

// newSweep returns a run that can date its questions.
func (s *Service) newSweep(ctx context.Context, account Account, run *tracker) (*sweep, error) {
	now, err := s.identities.Now(ctx)
	if err != nil {
		return nil, err
	}
	// A millisecond back: that clock is read in whole ones.
	return &sweep{svc: s, account: account, run: run, dbNow: now.Add(-time.Millisecond), dbRead: s.cfg.Now()}, nil
}

// now dates a question by the database's clock, without a statement for each. It is early rather than
// late: what the map learnt after this moment is not older than the answer.
func (s *sweep) now() time.Time { return s.dbNow.Add(s.svc.cfg.Now().Sub(s.dbRead)) }

// maxMinuteWaits bounds how often one call waits for the quota of the minute.
const maxMinuteWaits = 5

// call counts one call and repeats it after a minute where the quota of the minute is used up. Other
// transient errors have been retried by the client.
func (s *sweep) call(ctx context.Context, endpoint string, do func() error) error {
	for waits := 0; ; waits++ {
		if err := s.run.spend(endpoint); err != nil {
			return err
		}
		err := do()
		var we *wechat.Error
		if !errors.As(err, &we) || we.Policy != wechat.PolicyQuotaMinute || waits == maxMinuteWaits {
			return err
		}
		s.logger().Warn("waiting for the next minute's quota", "endpoint", endpoint, "err", err)
		select {
		case <-time.After(time.Minute):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// isInvalidOpenID tells that WeChat does not know the openid of the call: that of the person asked about, or the one that a
// list should go on from. 40003 is not the only code for it.
func isInvalidOpenID(err error) bool {
	we, ok := errors.AsType[*wechat.Error](err)
	return ok && (we.Reason == wechat.ReasonInvalidOpenID || we.Reason == wechat.ReasonInvalidCursor)
}

// aboutOnePerson tells that user/info was answered, and with nothing that can be used about this person: an errcode, or a
// body that is none of its answers. What may hold for every call is not about him: the token and its endpoint, the quotas,
// the account's settings, the network.
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

// minUnanswered is from how many people on, of whom not one could be asked about, the reason is hardly with them.
const minUnanswered = 10

// unanswered collects the errors about single people among several who are asked about. It is safe for concurrent use.
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

// verdict is to be asked for when all of the given number of people have been asked about. It logs the errors in one
// line, and is an error where they cannot be about single people.
func (u *unanswered) verdict(logger *slog.Logger, asked int) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.people == 0:
		return nil
	case u.people == asked && asked >= minUnanswered:
		return fmt.Errorf("asking about %d people, none of whom was answered about: %w", asked, u.err)
	}
	logger.Warn("WeChat does not answer about some people, they are asked about again later",
		"people", u.people, "of", asked, "one_of_them", u.openid, "err", u.err)
	return nil
}

// answers is what became of one batch of questions.
type answers struct {
	followers []wechat.UserInfo // subscribed, in the order of the questions
	known     int64             // how many of the followers had a row already
	doubts    map[bridge.RecheckReason][]string
	asked     time.Time // when the first question began: see now
}

// storeBatch is how many followers go into one write; storeWriters how many writes may be under way:
// on the measured servers more do not make it faster.
const (
	storeBatch   = 1000
	storeWriters = 2
)

// fetchAndStore asks about each batch with the account's concurrency and stores the followers in the
// order of the batches, which is the order of the primary key: pages of the table then fill up one
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

// fetchAll puts a promise of each batch's answers on the queue, in the order of the batches. After a failure no
// new batch is asked about, but those under way are waited for: their calls have been paid for. A batch that
// failed keeps its promise with nothing.
func (s *sweep) fetchAll(ctx context.Context, batches <-chan batch, queue chan<- chan answers) error {
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
		queue <- promise
		if s.broken.Load() || ctx.Err() != nil {
			return cmp.Or(workers.Wait(), ctx.Err())
		}
	}
	return workers.Wait()
}

// storeAll stores the answers as they come in, also those that are on their way when the run is stopped: they
// would have to be asked for again. It takes everything off the queue, whatever happens, and fetchAll keeps
// every promise.
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
				s.broken.Store(true) // answers that cannot be stored are not worth a call
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
		if err := s.svc.identities.RequestRecheck(ctx, s.account.AppID, openids, doubt); err != nil {
			return err
		}
	}
	return nil
}

// fetch asks about one batch of listed followers. WeChat's batch answers are not believed where they look
// odd: such a batch is asked again one by one.
func (s *sweep) fetch(ctx context.Context, q batch) (answers, error) {
	if err := s.stillBound(ctx); err != nil {
		return answers{}, err
	}
	a := answers{asked: s.now()}
	infos, err := s.batchUserInfo(ctx, q.openids)
	if err != nil && !isInvalidOpenID(err) {
		return answers{}, fmt.Errorf("asking about %d followers: %w", len(q.openids), err)
	}
	if err != nil || suspicious(q.openids, infos) {
		return s.fetchEach(ctx, q)
	}
	if contradiction, err := s.conflictsWithMap(ctx, infos); err != nil {
		return answers{}, err
	} else if contradiction {
		return s.fetchEach(ctx, q)
	}
	bound := infos[0].UnionID != "" // odd has seen that all have one, or none
	for _, info := range infos {
		a.take(info, q.known[info.OpenID], bound)
	}
	return a, nil
}

// take sorts one answer about a listed person. bound: the account gives unionids.
func (a *answers) take(info wechat.UserInfo, known, bound bool) {
	if !info.Subscribed {
		// Listed, and yet no follower: he left meanwhile, or the answer lags behind. Nothing is
		// written; the next refresh asks again.
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

// fetchEach asks about each person of a batch with a call of his own. What it returns is confirmed, also
// where it contradicts the map.
func (s *sweep) fetchEach(ctx context.Context, q batch) (answers, error) {
	infos := make([]wechat.UserInfo, 0, len(q.openids))
	a := answers{asked: s.now()}
	var failed unanswered
	bound := false
	for _, openid := range q.openids {
		info, err := s.userInfo(ctx, openid)
		switch {
		case isInvalidOpenID(err):
			a.doubt(bridge.RecheckUnknownOpenID, openid)
			continue
		case aboutOnePerson(err): // the refresh goes on asking
			failed.add(openid, err)
			a.doubt(bridge.RecheckUnknownOpenID, openid)
			continue
		case err != nil:
			return answers{}, fmt.Errorf("asking about one follower: %w", err)
		case info.OpenID != openid:
			a.doubt(bridge.RecheckUnknownOpenID, openid)
			s.logger().Warn("user/info answered with another openid", "asked", openid, "answered", info.OpenID)
			continue
		}
		bound = bound || info.UnionID != ""
		infos = append(infos, info)
	}
	if err := failed.verdict(s.logger(), len(q.openids)); err != nil {
		return answers{}, err
	}
	for _, info := range infos {
		a.take(info, q.known[info.OpenID], bound)
	}
	_, err := s.recheckHolders(ctx, a.followers)
	return a, err
}

// confirmGone returns those of the openids of whom WeChat says that they do not follow.
func (s *sweep) confirmGone(ctx context.Context, openids []string) ([]string, error) {
	infos, err := s.batchUserInfo(ctx, openids)
	if isInvalidOpenID(err) {
		infos, err = nil, nil // everybody is asked singly below, by the refresh
	}
	if err != nil {
		return nil, fmt.Errorf("asking about %d people who are not in the list: %w", len(openids), err)
	}
	asked := make(map[string]bool, len(openids))
	for _, id := range openids {
		asked[id] = true
	}
	var gone []string
	for _, info := range infos {
		if asked[info.OpenID] && !info.Subscribed {
			gone = append(gone, info.OpenID)
		}
		delete(asked, info.OpenID)
	}
	unanswered := make([]string, 0, len(asked))
	for id := range asked {
		unanswered = append(unanswered, id)
	}
	return gone, s.svc.identities.RequestRecheck(ctx, s.account.AppID, unanswered, bridge.RecheckUnknownOpenID)
}
