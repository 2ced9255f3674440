package sync

import (
	"context"

	"github.com/unionbridge/unionbridge/bridge"
)

// maxRefresh bounds one refresh; the rest is due at the next one.
const maxRefresh = 2000

// refresh rechecks everybody who is due, also follows that the events left over. If the events are
// at work too, the fence of SettleRecheck lets one of both answers count.
func (s *sweep) refresh(ctx context.Context) error {
	if err := s.plan(ctx); err != nil {
		return err
	}
	for asked := 0; asked < maxRefresh; {
		due, err := s.svc.identities.DueRechecks(ctx, s.account.AppID, bridge.Due{Limit: batchSize})
		if err != nil || len(due) == 0 {
			return err
		}
		asked += len(due)
		if err := s.recheckAll(ctx, due); err != nil {
			return err
		}
		s.run.update(func(r *Run) { r.Listed += int64(len(due)) })
	}
	return nil
}
