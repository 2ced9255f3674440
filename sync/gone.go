package sync

import (
	"context"
	"fmt"

	"github.com/unionbridge/unionbridge/sync/spool"
)

// settleMissing asks about everybody who is in the table but not in the list, and marks those as
// gone of whom WeChat says subscribe: 0 as well: the list and the answer agree then. A list much
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
