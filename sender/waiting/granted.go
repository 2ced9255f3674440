package waiting

import (
	"cmp"
	"context"
	"slices"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// grantPage is how many rows that wait for a grant are looked at together: an acceptance releases
// one, or all of them.
const grantPage = 100

// releaseGranted releases rows that wait for what a person has accepted, the most urgent and then the
// oldest first, until the first that cannot go.
func (r *Releaser) releaseGranted(ctx context.Context, key queue.Wait) error {
	ids, err := r.cfg.Queue.Waiters(ctx, []queue.Wait{key})
	if err != nil || len(ids) == 0 {
		return err
	}
	rows, others, err := r.cfg.Queue.WaitingByID(ctx, ids)
	if err != nil {
		return err
	}
	slices.SortFunc(rows, byTurn)
	for page := range slices.Chunk(rows, grantPage) {
		left, err := r.review(ctx, page)
		if err != nil {
			return err
		}
		if left > 0 {
			break
		}
	}
	if len(others) == 0 {
		return nil
	}
	return r.cfg.Queue.Forget(ctx, others, string(bridge.KeyGrant))
}

// ahead returns the rows that were released for what others wait for, as hints says, and are not
// posted yet: they take their grants first. However often an acceptance is told, it lets go
// one row. The waiting rows must have been read before: one that is released meanwhile is then in
// both lists, and takes two.
func (r *Releaser) ahead(
	ctx context.Context, hints map[int64]queue.Waits,
) ([]queue.Request, error) {
	var keys []queue.Wait
	for _, waits := range hints {
		grants, _ := grantKeys(waits)
		keys = append(keys, grants...)
	}
	if len(keys) == 0 {
		return nil, nil
	}
	slices.SortFunc(keys, queue.Wait.Compare)
	takers, err := r.cfg.Queue.Waiters(ctx, slices.Compact(keys))
	if err != nil {
		return nil, err
	}
	return r.cfg.Queue.Released(ctx, takers)
}

// byTurn orders rows that want the same: urgent ones first, then the oldest.
func byTurn(x, y queue.Request) int {
	return cmp.Or(cmp.Compare(x.Priority, y.Priority), cmp.Compare(x.ID, y.ID))
}

// grantKeys divides keys into those of grants and the others.
func grantKeys(keys []queue.Wait) (grants, others []queue.Wait) {
	for _, k := range keys {
		if k.Kind == string(bridge.KeyGrant) {
			grants = append(grants, k)
		} else {
			others = append(others, k)
		}
	}
	return grants, others
}

func idsOf(rows []queue.Request) []int64 {
	ids := make([]int64, len(rows))
	for i, row := range rows {
		ids[i] = row.ID
	}
	return ids
}
