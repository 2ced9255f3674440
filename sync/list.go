package sync

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/sync/spool"
)

// list reads WeChat's follower list into the spool, one sorted run a page. An empty page ends it:
// total changes while the list is read. The next page is fetched while the last one is sorted.
func (s *sweep) list(ctx context.Context, listed *spool.File) error {
	s.run.enter(phaseList, 0)
	s.run.advance(listed.Entries())
	pages := make(chan page)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(pages)
		return s.pageThrough(ctx, listed.Cursors(), pages)
	})
	group.Go(func() error {
		for p := range pages {
			before := listed.Entries()
			if err := s.spoolPage(listed, p); err != nil {
				return err
			}
			s.run.advance(listed.Entries() - before)
			s.run.update(func(r *Run) {
				r.Pages, r.Listed, r.NextOpenID = listed.Runs(), listed.Entries(), p.cursor
			})
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return err
	}
	return listed.End()
}

// page is a page of the list, or a step back: the page before it is read again.
type page struct {
	openids []string
	cursor  string // behind it
	back    bool
	total   int64 // of all followers, by WeChat's highest count so far
}

func (s *sweep) spoolPage(listed *spool.File, p page) error {
	if p.back {
		return listed.DropLast()
	}
	if endless(listed, p) {
		return fmt.Errorf("%w: %d followers on %d pages so far, and WeChat counts %d",
			errEndless, listed.Entries(), listed.Runs(), p.total)
	}
	// An openid that no table holds costs only itself.
	openids := slices.DeleteFunc(p.openids, func(id string) bool { return !spool.Fits(id) })
	if odd := len(p.openids) - len(openids); odd > 0 {
		s.logger().Warn("the follower list has openids that are none", "openids", odd)
	}
	slices.Sort(openids)
	return listed.Append(openids, p.cursor)
}

// errEndless ends a list that would not end. Its spool is not resumed: it would lead there again.
var errEndless = errors.New("listing followers: WeChat's list does not end; the map is unchanged, " +
	"and the next sweep reads the list from its beginning")

// endless reports whether the list has far more followers, or pages, than there can be.
func endless(listed *spool.File, p page) bool {
	const fewPeople, fewPages, smallPage = 100_000, 100, 1000 // a page of WeChat's has 10,000
	most := 2 * p.total
	return listed.Entries()+int64(len(p.openids)) > most+fewPeople ||
		listed.Runs() >= most/smallPage+fewPages
}

// maxStepBack bounds how often a list may step back because the cursor's user has left.
const maxStepBack = 100

func (s *sweep) pageThrough(ctx context.Context, cursors []string, pages chan<- page) error {
	seen, total := set(cursors), s.run.snapshot().Total
	for stepsBack := 0; ; {
		cursor := cursors[len(cursors)-1]
		answer, err := s.followers(ctx, cursor)
		total = max(total, answer.Total)
		next := page{openids: answer.OpenIDs, total: total}
		switch {
		case isInvalidOpenID(err) && len(cursors) > 1 && stepsBack < maxStepBack:
			// The user whose openid is the cursor has left. The page before is read again from the
			// previous cursor.
			cursors = cursors[:len(cursors)-1]
			delete(seen, cursor)
			stepsBack++
			next = page{cursor: cursors[len(cursors)-1], back: true}
		case err != nil:
			return fmt.Errorf("listing followers: %w", err)
		case answer.End():
			s.countTotal(answer)
			return nil
		case seen[answer.NextOpenID]:
			return fmt.Errorf("%w: it has led to the cursor %s twice", errEndless, answer.NextOpenID)
		default:
			s.countTotal(answer)
			// A copy: the openids of a page share 300 kB of memory, which one kept openid would keep.
			next.cursor = strings.Clone(answer.NextOpenID)
			cursors, seen[next.cursor] = append(cursors, next.cursor), true
		}
		select {
		case pages <- next:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *sweep) countTotal(answer wechat.FollowerPage) {
	s.run.update(func(r *Run) { r.Total, s.run.of = answer.Total, answer.Total })
}

// settleMissing looks up everybody who is in the table but not in the list, and marks those as gone
// of whom WeChat says subscribe: 0 as well: the list and the answer agree then. A list much
// shorter than the table is not believed at all.
func (s *sweep) settleMissing(ctx context.Context, missing *spool.File, subscribed int64) error {
	if missing.Entries() == 0 {
		return nil
	}
	s.run.update(func(r *Run) { r.Missing = missing.Entries() })
	if allowed := max(s.account.allowedGone(subscribed), s.accept); missing.Entries() > allowed {
		return fmt.Errorf("%w: %d of %d followers are not in WeChat's list, "+
			"and at most %d may vanish in one sweep (official_accounts[].sync.max_gone); "+
			"if they really left, confirm it: unionbridge sync --accept-gone %d",
			ErrTooManyGone, missing.Entries(), subscribed, allowed, s.run.ID)
	}
	s.run.enter(phaseGone, missing.Entries())
	list, err := missing.Merge()
	if err != nil {
		return err
	}
	for {
		batch, err := nextBatch(list)
		if err != nil || len(batch) == 0 {
			return err
		}
		asked := s.now()
		gone, err := s.confirmGone(ctx, batch)
		if err != nil {
			return err
		}
		n, err := s.svc.identities.MarkGone(ctx, s.account.AppID, gone, asked)
		if err != nil {
			return err
		}
		s.run.update(func(r *Run) { r.Gone += n })
		s.run.advance(int64(len(batch)))
	}
}

// confirmGone returns those of the openids that do not follow, according to WeChat.
func (s *sweep) confirmGone(ctx context.Context, openids []string) ([]string, error) {
	infos, err := s.batchUserInfo(ctx, openids)
	if err != nil && !isInvalidOpenID(err) { // such a batch has no answers: the refresh asks singly
		return nil, fmt.Errorf("checking %d people missing from the list: %w", len(openids), err)
	}
	asked := set(openids)
	var gone []string
	for _, info := range infos {
		if info.Unreadable {
			continue
		}
		if asked[info.OpenID] && !info.Subscribed {
			gone = append(gone, info.OpenID)
		}
		delete(asked, info.OpenID)
	}
	unanswered := slices.Collect(maps.Keys(asked))
	const reason = bridge.RecheckUnknownOpenID
	return gone, s.svc.identities.RequestRecheck(ctx, s.account.AppID, unanswered, reason)
}

// freeGone is how many people may always leave: 5 % of an account with 40 followers would be two.
const freeGone = 100

func (a Account) allowedGone(subscribed int64) int64 {
	return max(int64(a.MaxGone*float64(subscribed)), freeGone)
}

func nextBatch(list *spool.Reader) ([]string, error) {
	batch := make([]string, 0, batchSize)
	for len(batch) < batchSize {
		id, err := list.Next()
		if err != nil {
			return nil, err
		}
		if id == nil {
			break
		}
		batch = append(batch, string(id))
	}
	return batch, nil
}
