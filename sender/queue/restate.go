package queue

import (
	"context"
	"fmt"
)

// Restatement is why rows wait by now.
type Restatement struct {
	AppID           string // in whose queue they stand
	From            string // the reason that they were read with
	Reason, Message string
	IDs             []int64
}

// Restate writes why rows wait that still wait as they were read. Those that another transaction
// holds are left to a later round.
func (q *Queue) Restate(ctx context.Context, o Restatement) error {
	const query = `
		UPDATE send_request FORCE INDEX (PRIMARY)
		   SET reason = ?,
		       errmsg = ?
		 WHERE id IN (?) AND status = 'waiting' AND appid = ? AND reason = ? AND errcode IS NULL`
	_, err := q.update(ctx, o.IDs, true, func(ids []int64) (string, []any) {
		return query, []any{o.Reason, clip(o.Message), ids, o.AppID, o.From}
	})
	if err != nil {
		return fmt.Errorf("writing why %d requests wait: %w", len(o.IDs), err)
	}
	return nil
}
