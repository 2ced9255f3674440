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
	return r.cfg.Queue.Forget(ctx, others)
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
