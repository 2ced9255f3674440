package sender

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// waiting returns the next rows of a waiting lane after the row last, in the order of their index: paging by
// id would sort all of the lane for each page.
func (s store) waiting(ctx context.Context, l lane, last request, limit int) ([]request, error) {
	// Two branches, as a campaign's rows may all have one due_at: its expires_at. A single condition with OR would
	// begin at the first of them for each page.
	const columns = `(
		    SELECT id, unionid, mini_appid, mini_openid, openid, cancel <> 0 AS cancel, due_at
		      FROM send_request
		     WHERE status = 'waiting' AND appid = ? AND priority = ? AND template = ?`
	const query = columns + ` AND due_at = ? AND id > ? ORDER BY id LIMIT ?)
		UNION ALL ` + columns + ` AND due_at > ? ORDER BY due_at, id LIMIT ?)
		ORDER BY due_at, id
		LIMIT ?`
	from := last.DueAt
	if from.IsZero() {
		from = time.Unix(1, 0).UTC() // the first moment of a TIMESTAMP
	}
	var rows []request
	err := s.db.SelectContext(ctx, &rows, query, l.AppID, l.Priority, l.Template, from, last.ID, limit,
		l.AppID, l.Priority, l.Template, from, limit, limit)
	if err != nil {
		return nil, fmt.Errorf("reading waiting requests: %w", database.Explain(err))
	}
	return rows, nil
}

// release makes waiting rows due now.
func (s store) releaseWaiting(ctx context.Context, ids []int64) error {
	const query = `
		UPDATE send_request FORCE INDEX (PRIMARY)
		   SET status = 'pending', reason = NULL, errmsg = NULL, errcode = NULL, due_at = CURRENT_TIMESTAMP(3)
		 WHERE id IN (?) AND status = 'waiting' AND cancel = 0`
	if len(ids) == 0 {
		return nil
	}
	// What another transaction holds is released in a later round.
	_, err := s.withoutLocked(ctx, ids, false, func(ctx context.Context, db sqlx.ExecerContext, ids []int64) error {
		_, err := s.execOnce(ctx, db, query, ids)
		return err
	})
	if err != nil {
		return fmt.Errorf("releasing %d waiting requests: %w", len(ids), err)
	}
	return nil
}

// ended is how an open row ends whose message will not be sent: withdrawn rows as such, and never as failed
// what may have been delivered. Its parameters are the reason and the text of the plain end.
const ended = `
		       reason      = CASE WHEN uncertain_at IS NOT NULL OR lease IS NOT NULL THEN 'outcome_unknown' WHEN cancel <> 0 THEN NULL
		                          WHEN expires_at <= CURRENT_TIMESTAMP(3) THEN 'expired' ELSE ? END,
		       status      = CASE WHEN uncertain_at IS NOT NULL OR lease IS NOT NULL THEN 'unknown' WHEN cancel <> 0 THEN 'cancelled'
		                          WHEN expires_at <= CURRENT_TIMESTAMP(3) THEN 'expired' ELSE 'failed' END,
		       errmsg      = COALESCE(?, errmsg),
		       lease       = NULL,
		       finished_at = CURRENT_TIMESTAMP(3)`

// endWaits ends the rows whose recipient did not appear in time. Of a waiting row, due_at is the end of
// the wait or expires_at, whichever comes first.
func (s store) endWaits(ctx context.Context, l lane) error {
	const over = `
		SELECT id
		  FROM send_request
		 WHERE status = 'waiting' AND appid = ? AND priority = ? AND template = ? AND due_at <= CURRENT_TIMESTAMP(3)
		 ORDER BY due_at
		 LIMIT ?`
	const query = `
		UPDATE send_request FORCE INDEX (PRIMARY)
		   SET` + ended + `
		 WHERE id IN (?) AND status = 'waiting' AND due_at <= CURRENT_TIMESTAMP(3)`
	_, err := s.endPages(ctx, endOrder{
		find: over, findArgs: []any{l.AppID, l.Priority, l.Template, pageSize},
		end: query, endArgs: []any{reasonNoFollower, nil},
	})
	if err != nil {
		return fmt.Errorf("ending waits: %w", err)
	}
	return nil
}

// endOrder is a query for ids, whose last parameter is the size of a page, and what ends the rows of a page: a
// statement whose parameters are endArgs, the ids, and rest.
type endOrder struct {
	find          string
	findArgs      []any
	end           string
	endArgs, rest []any
}

// endPages ends rows page by page and returns how many. It stops where another transaction holds some: a later
// round goes on.
func (s store) endPages(ctx context.Context, o endOrder) (total int64, err error) {
	for {
		var ids []int64
		if err := s.db.SelectContext(ctx, &ids, o.find, o.findArgs...); err != nil || len(ids) == 0 {
			return total, err
		}
		var n int64
		locked, err := s.withoutLocked(ctx, ids, false, func(ctx context.Context, db sqlx.ExecerContext, ids []int64) (err error) {
			n, err = s.execOnce(ctx, db, o.end, slices.Concat(o.endArgs, []any{ids}, o.rest)...)
			return err
		})
		total += n
		if err != nil || n == 0 || len(ids) < pageSize || len(locked) > 0 {
			return total, err
		}
	}
}

// lanes returns the lanes that have rows in one of the states.
func (s store) lanes(ctx context.Context, states ...status) ([]lane, error) {
	// A loose scan of send_request_due: two dives a lane, whatever the number of rows.
	const query = `
		SELECT status, appid, priority, template, MIN(due_at) <= CURRENT_TIMESTAMP(3) AS due
		  FROM send_request
		 WHERE status IN (?)
		 GROUP BY status, appid, priority, template`
	in, args, err := sqlx.In(query, states)
	if err != nil {
		return nil, err
	}
	var lanes []lane
	if err := s.db.SelectContext(ctx, &lanes, in, args...); err != nil {
		return nil, fmt.Errorf("looking for open requests: %w", database.Explain(err))
	}
	return lanes, nil
}

// unroutableGrace is how long ago the account of a unroutable lane must have been sent for at the latest: other instances
// may have a newer configuration, and be just restarting.
const unroutableGrace = 10 * time.Minute

// failLane fails the rows of one lane, but for those that an attempt may still hold, and unless an instance that
// knows the account has been seen of late.
func (s store) failLane(ctx context.Context, l lane, why rejection) (int64, error) {
	const free = `(lease IS NULL OR due_at <= CURRENT_TIMESTAMP(3))
		   AND (? OR NOT EXISTS (SELECT 1
		                           FROM lease
		                          WHERE name = ? AND expires_at > CURRENT_TIMESTAMP(3) - INTERVAL ? SECOND))`
	const find = `
		SELECT id
		  FROM send_request
		 WHERE status = ? AND appid <=> ? AND priority = ? AND template = ? AND ` + free + `
		 LIMIT ?`
	const query = `
		UPDATE send_request FORCE INDEX (PRIMARY)
		   SET` + ended + `
		 WHERE id IN (?) AND status = ? AND ` + free
	ours := why.reason != reasonUnknownAccount // a bad priority is bad everywhere
	known := []any{ours, queue.LeaseName(l.AppID.String), int(unroutableGrace / time.Second)}
	total, err := s.endPages(ctx, endOrder{
		find: find, findArgs: slices.Concat([]any{l.Status, l.AppID, l.Priority, l.Template}, known, []any{pageSize}),
		end: query, endArgs: []any{why.reason, why.text}, rest: slices.Concat([]any{l.Status}, known),
	})
	if err != nil {
		return total, fmt.Errorf("failing requests that nobody claims: %w", err)
	}
	return total, nil
}
