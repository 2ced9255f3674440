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
