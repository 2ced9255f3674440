package sync

import (
	"context"
	"errors"
	"fmt"

	"github.com/unionbridge/unionbridge/internal/wechat"
)

// errBudget suspends a run: the rest of the day's quota is reserved for others.
var errBudget = errors.New("the day's quota is used up but for the reserve " +
	"(official_accounts[].sync.quota_reserve)")

// plan sets the run's budget: what is left of the day's quotas, less the account's reserve. A list
// that fits into a whole day's quota, but not into the rest of today's, waits for tomorrow. A
// larger one, and calls about people, are spread over several days: the run is suspended and
// resumed.
func (s *sweep) plan(ctx context.Context) error {
	budget, day := map[string]int64{}, map[string]int64{}
	for path, endpoint := range map[string]string{
		wechat.EndpointFollowers: endpointFollowers,
		wechat.EndpointUserInfo:  endpointUserInfo,
		wechat.EndpointBatchInfo: endpointBatch,
	} {
		quota, err := s.account.API.Quota(ctx, path)
		if err != nil {
			// Not every account may ask, and WeChat does not know every path. Its own refusal is
			// the limit then.
			if ctx.Err() != nil {
				return ctx.Err()
			}
			s.logger().Debug("asking for a quota", "path", path, "err", err)
			continue
		}
		if quota.DailyLimit <= 0 {
			continue // no limit that anybody has documented; it says nothing
		}
		reserve := int64(s.account.QuotaReserve * float64(quota.DailyLimit))
		budget[endpoint], day[endpoint] = quota.Remain-reserve, quota.DailyLimit-reserve
	}
	s.run.update(func(*Run) { s.run.budget = budget })
	if s.run.snapshot().Kind != kindSweep {
		return nil
	}
	need, err := s.pagesToCome(ctx)
	if err != nil {
		return err
	}
	left, known := budget[endpointFollowers]
	if known && left < need && need <= day[endpointFollowers] {
		return fmt.Errorf("%w: the list needs about %d calls of user/get, and %d are left",
			errBudget, need, max(left, 0))
	}
	return nil
}

// pagesToCome estimates how many calls the rest of the list takes, by the size of the last list.
func (s *sweep) pagesToCome(ctx context.Context) (int64, error) {
	r := s.run.snapshot()
	size := r.Total
	if size == 0 {
		done, err := s.svc.ledger.lastDone(ctx, kindSweep, r.AppID)
		if err != nil {
			return 0, err
		}
		if done != nil {
			size = done.Listed
		}
	}
	const page, emptyPage = 10_000, 1
	return max(1, (size+page-1)/page+emptyPage-r.Pages), nil
}
