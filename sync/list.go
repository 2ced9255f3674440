package sync

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"
)

// list pages through WeChat's follower list into the spool, a sorted run a page. It ends on an empty
// page only: total moves while the list is read. The next page is asked for while the last one is
// sorted.
func (s *sweep) list(ctx context.Context, listed *spool) error {
	s.run.enter(phaseList, 0)
	pages := make(chan []string)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(pages)
		return s.pageThrough(ctx, pages)
	})
	group.Go(func() error {
		for page := range pages {
			slices.Sort(page)
			if err := listed.append(page); err != nil {
				return err
			}
			s.run.advance(int64(len(page)))
		}
		return nil
	})
	return group.Wait()
}

// maxStepBack bounds how often one list may go back because the cursor's user has left.
const maxStepBack = 100

func (s *sweep) pageThrough(ctx context.Context, pages chan<- []string) error {
	cursors := []string{""}
	for stepsBack := 0; ; {
		cursor := cursors[len(cursors)-1]
		page, err := s.followers(ctx, cursor)
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
		if page.End() {
			s.run.update(func(r *Run) { r.Total = page.Total })
			return nil
		}
		if page.NextOpenID == cursor {
			return fmt.Errorf("listing followers: WeChat answered the cursor %s with itself", cursor)
		}
		cursors = append(cursors, page.NextOpenID)
		s.run.update(func(r *Run) {
			r.Pages++
			r.Total, r.NextOpenID = page.Total, page.NextOpenID
			r.Listed += int64(len(page.OpenIDs))
		})
		s.run.setOf(page.Total)
		select {
		case pages <- page.OpenIDs:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
