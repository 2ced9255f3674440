package queue

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
)

// PageSize is how many rows maintenance reads or changes in one statement.
const PageSize = 1000

const waitingColumns = `
		SELECT id, appid, unionid, mini_appid, mini_openid, openid, template, priority, reason, route,
		       fallback_from, fallback_reason, fallback_errcode, first_refused_at, other_refused_at,
		       cancel <> 0 AS cancel, due_at`

// WaitingAfter returns the next rows of a waiting lane after the row last, up to limit, in the
// order of their index: paging by id would sort all of the lane for each page. After the zero
// Request it begins.
func (q *Queue) WaitingAfter(
	ctx context.Context, l Lane, last Request, limit int,
) ([]Request, error) {
	// Two queries, as a campaign's rows may all have one due_at: its expires_at. A single condition
	// with OR would begin at the first of them for each page, and a UNION would copy all rows.
	const lane = waitingColumns + `
		  FROM send_request FORCE INDEX (send_request_due)
		 WHERE status = 'waiting' AND appid = ? AND priority = ? AND template = ?`
	const same = lane + ` AND due_at = ? AND id > ? ORDER BY id LIMIT ?`
	const later = lane + ` AND due_at > ? ORDER BY due_at, id LIMIT ?`
	const what = "reading waiting requests"
	from := last.DueAt
	if from.IsZero() {
		from = time.Unix(1, 0).UTC() // the first moment of a TIMESTAMP
	}
	page, err := find[Request](ctx, q, lookup{what, same},
		l.AppID, l.Priority, l.Template, from, last.ID, limit)
	if err != nil || len(page) == limit {
		return page, err
	}
	more, err := find[Request](ctx, q, lookup{what, later},
		l.AppID, l.Priority, l.Template, from, limit-len(page))
	return append(page, more...), err
}

// ReleaseOrder is which waiting rows are to go, from the account in whose queue they stand.
type ReleaseOrder struct {
	AppID string
	IDs   []int64
	Keep  string // the kind of what they waited for at the account that stays stored; "": none
}

// Release makes waiting rows due now. They are wished from now on: before, they could not have gone.
// It returns those that another transaction holds; those that the server refuses to change are left
// to a later round.
func (q *Queue) Release(ctx context.Context, o ReleaseOrder) (locked []int64, err error) {
	const query = `
		UPDATE send_request FORCE INDEX (PRIMARY)
		   SET status = 'pending', reason = NULL, errmsg = NULL, errcode = NULL,
		       wait_until = CASE WHEN route LIKE '%,%' OR fallback_from IS NOT NULL
		                         THEN COALESCE(wait_until, due_at) ELSE wait_until END,
		       due_at = CURRENT_TIMESTAMP(3), wished_at = CURRENT_TIMESTAMP(3)
		 WHERE id IN (?) AND status = 'waiting' AND cancel = 0 AND appid = ?`
	if len(o.IDs) == 0 {
		return nil, nil
	}
	release := func(ids []int64) (string, []any) { return query, []any{ids, o.AppID} }
	done, err := q.leaveBut(ctx, o.IDs, true, leaving{release, Kept{o.Keep, o.AppID}.unwait})
	if err != nil {
		return nil, fmt.Errorf("releasing %d waiting requests: %w", len(o.IDs), err)
	}
	return done.locked, nil
}

// outcomeUnknown is the reason of rows that end in doubt.
const outcomeUnknown = "outcome_unknown"

// endColumns is how an open row ends whose message will not be sent: withdrawn rows as such, and
// never as failed what may have been delivered. Its parameters are the reason of a row in doubt,
// and the reason and the text of the plain end, in which TemplateMark stands for the template. A row
// that waits for two accounts keeps its reason: it is no follow alone that did not come.
const endColumns = `
		       reason      = CASE WHEN ` + SQLInDoubt + ` THEN ?
		                          WHEN cancel <> 0 THEN NULL
		                          WHEN expires_at <= CURRENT_TIMESTAMP(3) THEN 'expired'
		                          WHEN fallback_from IS NOT NULL AND status = 'waiting' THEN reason
		                          ELSE COALESCE(?, reason) END,
		       status      = CASE WHEN ` + SQLInDoubt + ` THEN 'unknown'
		                          WHEN cancel <> 0 THEN 'cancelled'
		                          WHEN expires_at <= CURRENT_TIMESTAMP(3) THEN 'expired'
		                          ELSE 'failed' END,
		       errmsg      = COALESCE(REPLACE(?, '` + TemplateMark + `', LEFT(template, 60)), errmsg),
		       lease       = NULL,
		       finished_at = CURRENT_TIMESTAMP(3)`

// EndWaits ends the rows of a waiting lane whose recipient did not appear in time, with the reason;
// "": with that of their waiting.
// Of a waiting row, due_at is the end of the wait or expires_at, whichever comes first.
func (q *Queue) EndWaits(ctx context.Context, l Lane, reason string) error {
	const over = `
		SELECT id
		  FROM send_request FORCE INDEX (send_request_due)
		 WHERE status = 'waiting' AND appid = ? AND priority = ? AND template = ?
		   AND due_at <= CURRENT_TIMESTAMP(3)
		 ORDER BY due_at
		 LIMIT ?`
	const query = `
		UPDATE send_request FORCE INDEX (PRIMARY)
		   SET` + endColumns + `
		 WHERE id IN (?) AND status = 'waiting' AND due_at <= CURRENT_TIMESTAMP(3) AND appid = ?`
	_, err := q.endPages(ctx, endOrder{
		find: lookup{"ending waits", over}, findArgs: []any{l.AppID, l.Priority, l.Template, PageSize},
		end: query, endArgs: []any{outcomeUnknown, database.Null(reason), nil}, waiting: true,
		rest: []any{l.AppID},
	})
	return err
}

// TemplateMark stands for the row's template in an Unroutable's message.
const TemplateMark = "{template}"

// Unroutable are lanes whose rows cannot be sent, and why.
type Unroutable struct {
	Lanes
	Reason, Message string
	// Everywhere: no other instance can claim them either, whatever its configuration.
	Everywhere bool
	// DueOf is the account whose claim fails them, "" if it is none. It becomes theirs, only rows
	// that are due end, at most PageSize of them, with the reason also where they are in doubt, and
	// what another transaction holds is left.
	DueOf string
}

// unroutableGrace is how long ago the account of an unroutable lane must have been sent for at the
// latest: other instances may have a newer configuration, and be just restarting.
const unroutableGrace = 10 * time.Minute

// FailUnroutable fails the rows of lanes, but for those that an attempt may still hold, and unless
// an instance that knows the account has been seen of late. It returns how many.
func (q *Queue) FailUnroutable(ctx context.Context, u Unroutable) (int64, error) {
	const known = `
		   AND (? OR NOT EXISTS (
		           SELECT 1
		             FROM lease
		            WHERE name = ? AND expires_at > CURRENT_TIMESTAMP(3) - INTERVAL ? SECOND))`
	const stuck = `
		SELECT id
		  FROM send_request FORCE INDEX (send_request_due)
		 WHERE status = ? AND appid <=> ? AND priority = ? AND template IN (?)`
	set, free := "", `
		   AND (lease IS NULL OR due_at <= CURRENT_TIMESTAMP(3))`
	end := []any{outcomeUnknown, u.Reason, u.Message}
	if u.DueOf != "" {
		set, free = ` appid = ?,`, `
		   AND due_at <= CURRENT_TIMESTAMP(3)`
		end = []any{u.DueOf, u.Reason, u.Reason, u.Message}
	}
	query := `
		UPDATE send_request FORCE INDEX (PRIMARY)
		   SET` + set + endColumns + `
		 WHERE id IN (?) AND status = ? AND appid <=> ?`
	elsewhere := []any{u.Everywhere, LeaseName(u.AppID.String), int(unroutableGrace / time.Second)}
	lanes := []any{u.Status, u.AppID, u.Priority, u.Templates}
	return q.endPages(ctx, endOrder{
		find:     lookup{"failing requests that cannot be sent", stuck + free + known + ` LIMIT ?`},
		findArgs: slices.Concat(lanes, elsewhere, []any{PageSize}),
		end:      query + free + known, endArgs: end,
		rest: slices.Concat([]any{u.Status, u.AppID}, elsewhere), onePage: u.DueOf != "",
		waiting: u.Status == Waiting,
	})
}

// endOrder is a query for ids, whose last parameter is the size of a page, and what ends the rows
// of a page: a statement whose parameters are endArgs, the ids, and rest.
type endOrder struct {
	find          lookup
	findArgs      []any
	end           string
	endArgs, rest []any
	onePage       bool // ends one page, and waits for no other transaction
	waiting       bool // the rows wait
}

// endPages ends rows page by page and returns how many. It stops where some are left: a later round
// does the rest.
func (q *Queue) endPages(ctx context.Context, o endOrder) (total int64, err error) {
	update := q.update
	if o.waiting {
		update = q.leave
	}
	for {
		ids, err := find[int64](ctx, q, o.find, o.findArgs...)
		if err != nil || len(ids) == 0 {
			return total, err
		}
		done, err := update(ctx, ids, o.onePage, func(ids []int64) (string, []any) {
			return o.end, slices.Concat(o.endArgs, []any{ids}, o.rest)
		})
		total += done.n
		if err != nil {
			return total, fmt.Errorf("%s: %w", o.find.what, err)
		}
		if o.onePage || done.n == 0 || len(ids) < PageSize || len(done.left()) > 0 {
			return total, nil
		}
	}
}
