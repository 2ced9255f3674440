package queue

import (
	"context"
	"fmt"
	"time"
)

// DueAfter returns the next page of the due rows of a pending lane after the row last, in the order
// of their index, with what decides whether their time is over. After the zero Request it begins.
func (q *Queue) DueAfter(ctx context.Context, l Lane, last Request) ([]Request, error) {
	// Two branches, as in WaitingAfter.
	const lane = `(
		    SELECT id
		      FROM send_request FORCE INDEX (send_request_due)
		     WHERE status = 'pending' AND appid <=> ? AND priority = ? AND template = ?`
	const query = `
		SELECT r.id, r.template, r.due_at, r.cancel <> 0 AS cancel,` + ageColumns + `
		  FROM (SELECT id FROM ` + lane + ` AND due_at = ? AND id > ? ORDER BY id LIMIT ?) same
		        UNION ALL
		        SELECT id FROM ` + lane + ` AND due_at > ? AND due_at <= CURRENT_TIMESTAMP(3)
		                         ORDER BY due_at, id LIMIT ?) later) d
		  JOIN send_request r ON r.id = d.id
		 ORDER BY r.due_at, r.id
		 LIMIT ?`
	from := last.DueAt
	if from.IsZero() {
		from = time.Unix(1, 0).UTC() // the first moment of a TIMESTAMP
	}
	return find[Request](ctx, q, lookup{"reading requests that are held back", query},
		l.AppID, l.Priority, l.Template, from, last.ID, PageSize,
		l.AppID, l.Priority, l.Template, from, PageSize, PageSize)
}

// EndOverdue ends due rows of an account that are expired, or in doubt for too long.
func (q *Queue) EndOverdue(ctx context.Context, appid string, ids []int64) error {
	const query = `
		UPDATE send_request FORCE INDEX (PRIMARY)
		   SET` + endColumns + `
		 WHERE id IN (?) AND status = 'pending' AND due_at <= CURRENT_TIMESTAMP(3)
		   AND (expires_at <= CURRENT_TIMESTAMP(3) OR ` + SQLInDoubt + `)` + ofAccount
	if len(ids) == 0 {
		return nil
	}
	end := func(ids []int64) (string, []any) {
		return query, []any{outcomeUnknown, "expired", "the request's time was over before its account or template, " +
			"which was paused, sent again", ids, appid}
	}
	if _, err := q.update(ctx, ids, false, end); err != nil {
		return fmt.Errorf("ending %d requests whose time is over: %w", len(ids), err)
	}
	return nil
}
