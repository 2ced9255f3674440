package requests

import (
	"cmp"
	"context"

	"github.com/unionbridge/unionbridge/sender/queue"
)

// RetryOptions are what Retry does only if it is told to.
type RetryOptions struct {
	// Force repeats also what was sent or may have been. WeChat drops the second message within
	// 10 minutes of the first one; after that the person gets both.
	Force bool
	// Withdrawn sends also what its producer has withdrawn, who may have read already that it never
	// will be.
	Withdrawn bool
	// IgnoreExpiry takes expires_at away where it has passed.
	IgnoreExpiry bool
	// Now makes open requests due at once. A waiting one still waits if its recipient cannot be
	// reached.
	Now bool
}

// Retry gives finished requests back to the daemon: pending, due now, with all their attempts. It
// refuses what was sent or may have been, and what was withdrawn, unless it is told to, and what is
// under way always. The answers are in the order of ids.
func (s Store) Retry(ctx context.Context, ids []int64, o RetryOptions) ([]Change, error) {
	return s.change(ctx, ids, func(r lockedRow) step {
		if final(r.Status) {
			return o.restart(r)
		}
		return o.hasten(r)
	})
}

// RetryMatching retries all requests that match, the newest first, and hands over the answers page
// by page.
func (s Store) RetryMatching(
	ctx context.Context, f Filter, o RetryOptions, each func([]Change),
) error {
	var failed error
	_, err := s.search(ctx, f, func(found []Record) bool {
		ids := make([]int64, 0, len(found))
		for _, r := range found {
			if !r.Archived {
				ids = append(ids, r.ID)
			}
		}
		var changes []Change
		changes, failed = s.Retry(ctx, ids, o)
		each(changes)
		return failed == nil
	})
	return cmp.Or(failed, err)
}

// restart makes a final row pending, in the queue of the account that it was tried at first, as if
// nothing had been tried. The doubt about earlier attempts goes with it: otherwise the claim would end
// the row as unknown before it is tried, and whoever forces it has decided about that. So the row may
// end as failed although the person got the message. Its warning says so, also after further retries,
// to which it is an ordinary row.
func (o RetryOptions) restart(r lockedRow) step {
	// warning comes first, and appid before fallback_from: they read what the same statement overwrites.
	const (
		before = `; before, it was ', status, COALESCE(CONCAT(' (', reason, ')'), ''), ` +
			`COALESCE(CONCAT(', msgid ', msgid), '')`
		again     = queue.SQLSentAgain
		withdrawn = queue.SQLSentWithdrawn
	)
	query := `
		UPDATE send_request FORCE INDEX (PRIMARY)
		   SET warning      = CASE WHEN status IN ('sent', 'unknown') OR lease IS NOT NULL
		                                OR uncertain_at IS NOT NULL
		                           THEN CONCAT('` + again + before + `)
		                           WHEN warning LIKE '` + again + `%' THEN warning
		                           WHEN cancel <> 0 OR status = 'cancelled'
		                           THEN CONCAT('` + withdrawn + before + `)
		                           WHEN warning LIKE '` + withdrawn + `%' THEN warning END,
		       expires_at   = CASE WHEN expires_at <= CURRENT_TIMESTAMP(3) THEN NULL ELSE expires_at END,
		       status       = 'pending',
		       reason       = NULL,
		       errcode      = NULL,
		       errmsg       = NULL,
		       attempts     = 0,
		       appid            = COALESCE(fallback_from, appid),
		       fallback_from    = NULL,
		       fallback_reason  = NULL,
		       fallback_errcode = NULL,
		       first_refused_at = NULL,
		       other_refused_at = NULL,
		       wait_until       = NULL,
		       uncertain_at = NULL,
		       lease        = NULL,
		       cancel       = 0,
		       due_at       = CURRENT_TIMESTAMP(3),
		       wished_at    = CURRENT_TIMESTAMP(3),
		       channel      = NULL,
		       sent_openid  = NULL,
		       msgid        = NULL,
		       finished_at  = NULL
		 WHERE id IN (?) AND status = ? AND appid <=> ?`
	if !o.Force {
		query += ` AND lease IS NULL AND uncertain_at IS NULL`
	}
	if !o.Withdrawn {
		query += ` AND cancel = 0`
	}
	switch {
	case r.Erased:
		return step{refused: refusedErased}
	case r.Status == queue.Sent && !o.Force:
		return step{refused: refusedSent}
	case (r.Status == queue.Unknown || r.InDoubt || r.Leased) && !o.Force:
		return step{refused: refusedUnknown}
	case (r.Cancel || r.Status == queue.Cancelled) && !o.Withdrawn:
		return step{refused: refusedCancelled}
	case r.Overdue && !o.IgnoreExpiry:
		return step{refused: refusedExpiry}
	}
	return step{query: query, becomes: queue.Pending, ends: true}
}

// hasten makes an open row due now.
func (o RetryOptions) hasten(r lockedRow) step {
	const query = `
		UPDATE send_request FORCE INDEX (PRIMARY)
		   SET wait_until = CASE WHEN status = 'waiting'
		                          AND (route LIKE '%,%' OR fallback_from IS NOT NULL)
		                         THEN COALESCE(wait_until, due_at) ELSE wait_until END,
		       reason  = CASE WHEN status = 'waiting' THEN NULL ELSE reason END,
		       errcode = CASE WHEN status = 'waiting' THEN NULL ELSE errcode END,
		       errmsg  = CASE WHEN status = 'waiting' THEN NULL ELSE errmsg END,
		       status  = 'pending',
		       due_at  = CURRENT_TIMESTAMP(3),
		       wished_at = CURRENT_TIMESTAMP(3)
		 WHERE id IN (?) AND status = ? AND appid <=> ? AND cancel = 0 AND lease IS NULL`
	switch {
	case r.Cancel:
		return step{refused: refusedWithdrawn}
	case r.underWay():
		return step{refused: refusedUnderWay}
	case r.Leased:
		return step{refused: refusedLeft}
	case !o.Now:
		return step{refused: refusedOpen}
	case r.Due && r.Status == queue.Pending:
		return step{refused: refusedDue}
	}
	return step{query: query, becomes: queue.Pending}
}

// Cancel withdraws requests as their producer would, and ends those at once that no attempt holds.
// A request is either cancelled or sent, never both: one that is under way is marked only, and its
// result decides.
func (s Store) Cancel(ctx context.Context, ids []int64) ([]Change, error) {
	const end = `
		UPDATE send_request FORCE INDEX (PRIMARY)
		   SET reason      = CASE WHEN ` + queue.SQLInDoubt + ` THEN 'cancelled_too_late' END,
		       status      = CASE WHEN ` + queue.SQLInDoubt + ` THEN 'unknown' ELSE 'cancelled' END,
		       cancel      = 1,
		       lease       = NULL,
		       finished_at = CURRENT_TIMESTAMP(3)
		 WHERE id IN (?) AND status = ? AND appid <=> ? AND (lease IS NULL OR due_at <= CURRENT_TIMESTAMP(3))`
	const mark = `
		UPDATE send_request FORCE INDEX (PRIMARY)
		   SET cancel = 1
		 WHERE id IN (?) AND status = ? AND appid <=> ?`
	return s.change(ctx, ids, func(r lockedRow) step {
		switch {
		case r.Status == queue.Cancelled:
			return step{}
		case final(r.Status):
			return step{refused: refusedFinal}
		case r.underWay():
			return step{query: mark, becomes: r.Status, refused: refusedMarked}
		case r.InDoubt:
			return step{query: end, becomes: queue.Unknown, refused: refusedLate}
		}
		return step{query: end, becomes: queue.Cancelled}
	})
}
