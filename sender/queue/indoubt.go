package queue

import (
	"context"
	"fmt"

	"github.com/unionbridge/unionbridge/internal/database"
)

// InDoubt is a pending row whose last attempt is in doubt.
type InDoubt struct {
	ID    int64 `db:"id"`
	DueIn int64 `db:"due_in"` // microseconds
}

// InDoubtSoon returns those rows of an account that are due within the next minutes, at most limit
// of each lane: a claim's visibility, or the pause before a redelivery, lies ahead of them. Those
// whose time came before are in the queue.
func (q *Queue) InDoubtSoon(ctx context.Context, appid string, limit int) ([]InDoubt, error) {
	lanes, err := q.Lanes(ctx, Pending)
	if err != nil {
		return nil, err
	}
	const query = `
		SELECT id, TIMESTAMPDIFF(MICROSECOND, CURRENT_TIMESTAMP(3), due_at) AS due_in
		  FROM send_request
		 WHERE status = 'pending' AND appid = ? AND priority = ? AND template = ?
		   AND due_at > CURRENT_TIMESTAMP(3) AND due_at < CURRENT_TIMESTAMP(3) + INTERVAL 3 MINUTE
		   AND (lease IS NOT NULL OR uncertain_at IS NOT NULL)
		 LIMIT ?`
	var found []InDoubt
	for _, l := range lanes {
		if l.AppID.String != appid {
			continue
		}
		var rows []InDoubt
		err := q.db.SelectContext(ctx, &rows, query, appid, l.Priority, l.Template, limit)
		if err != nil {
			return nil, fmt.Errorf("reading attempts in doubt: %w", database.Explain(err))
		}
		found = append(found, rows...)
	}
	return found, nil
}
