package sync

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/unionbridge/unionbridge/sync/spool"
)

// list pages through WeChat's follower list into the spool, a sorted run a page. It ends on an empty
// page only: total moves while the list is read. The next page is asked for while the last one is
// sorted.
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

// page is one page of the list and where the list goes on behind it.
type page struct {
	openids []string
	cursor  string
}

// maxStepBack bounds how often one list may go back because the cursor's user has left.
const maxStepBack = 100

// pageThrough reads the list from the last of the cursors on.
func (s *sweep) pageThrough(ctx context.Context, cursors []string, pages chan<- page) error {
	for stepsBack := 0; ; {
		cursor := cursors[len(cursors)-1]
		answer, err := s.followers(ctx, cursor)
		if isInvalidOpenID(err) && len(cursors) > 1 && stepsBack < maxStepBack {
			// The user whose openid is the cursor has left. The page before it is read again from the
			// cursor before; what comes twice falls together in the merge.
			cursors = cursors[:len(cursors)-1]
			stepsBack++
			continue
		}
		if err != nil {
			return fmt.Errorf("listing followers: %w", err)
		}
		s.run.update(func(r *Run) { r.Total = answer.Total })
		if answer.End() {
			return nil
		}
		if answer.NextOpenID == cursor {
			return fmt.Errorf("listing followers: WeChat answered the cursor %s with itself", cursor)
		}
		// A copy: the openids of a page share its memory, 300 kB that one kept openid would keep with it.
		next := strings.Clone(answer.NextOpenID)
		cursors = append(cursors, next)
		s.run.setOf(answer.Total)
		select {
		case pages <- page{answer.OpenIDs, next}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
