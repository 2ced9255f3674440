package sync

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/unionbridge/unionbridge/sync/spool"
)

// list reads WeChat's follower list into the spool, one sorted run a page. Only an empty page ends
// it: total changes while the list is read. The next page is fetched while the last one is sorted.
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
			slices.Sort(p.openids)
			if err := listed.Append(p.openids, p.cursor); err != nil {
				return err
			}
			s.run.advance(int64(len(p.openids)))
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

type page struct {
	openids []string
	cursor  string
}

// maxStepBack bounds how often a list may step back because the cursor's user has left.
const maxStepBack = 100

func (s *sweep) pageThrough(ctx context.Context, cursors []string, pages chan<- page) error {
	for stepsBack := 0; ; {
		cursor := cursors[len(cursors)-1]
		answer, err := s.followers(ctx, cursor)
		if isInvalidOpenID(err) && len(cursors) > 1 && stepsBack < maxStepBack {
			// The user whose openid is the cursor has left. The page before is read again from the
			// previous cursor; the merge drops duplicates.
			cursors = cursors[:len(cursors)-1]
			stepsBack++
			continue
		}
		if err != nil {
			return fmt.Errorf("listing followers: %w", err)
		}
		s.run.update(func(r *Run) { r.Total, s.run.of = answer.Total, answer.Total })
		if answer.End() {
			return nil
		}
		if answer.NextOpenID == cursor {
			return fmt.Errorf("listing followers: WeChat repeated the cursor %s", cursor)
		}
		// A copy: the openids of a page share 300 kB of memory, which one kept openid would keep.
		next := strings.Clone(answer.NextOpenID)
		cursors = append(cursors, next)
		select {
		case pages <- page{answer.OpenIDs, next}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
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
