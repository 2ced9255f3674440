package queue

import (
	"context"
	"crypto/rand"
	"fmt"
	"slices"
	"time"
)

// Visibility is how long a claim keeps a row from falling due again. It is also how long the rows
// of a killed instance stay untouched.
const Visibility = 60 * time.Second

// ClaimOrder is what one claim is to take.
type ClaimOrder struct {
	AppID      string // becomes the rows' account
	Rows       []Request
	SkipLocked bool // some rows are known to be held by other transactions
}

// Claim takes rows for the account by compare-and-set and returns those it got, and the ids of
// those that another transaction holds. Withdrawn rows are ended instead.
func (q *Queue) Claim(ctx context.Context, o ClaimOrder) (ours []Request, locked []int64, err error) {
	// uncertain_at comes first: it reads the lease that the same statement overwrites. A lease that
	// is still there belongs to an attempt that nobody settled. By any other index the statement
	// would lock, and wait for, rows that are not among the ids.
	const query = `
		UPDATE send_request FORCE INDEX (PRIMARY)
		   SET uncertain_at = CASE WHEN lease IS NOT NULL THEN COALESCE(uncertain_at, attempted_at)
		                           ELSE uncertain_at END,
		       lease        = ?,
		       appid        = ?,
		       attempts     = attempts + 1,
		       attempted_at = CURRENT_TIMESTAMP(3),
		       due_at       = CURRENT_TIMESTAMP(3) + INTERVAL ? SECOND
		 WHERE id IN (?) AND status = 'pending' AND cancel = 0 AND due_at <= CURRENT_TIMESTAMP(3)`
	var ids, withdrawn []int64
	for _, r := range o.Rows {
		if r.Cancel {
			withdrawn = append(withdrawn, r.ID)
		} else {
			ids = append(ids, r.ID)
		}
	}
	locked, err = q.Cancel(ctx, CancelOrder{Pending, withdrawn, o.SkipLocked})
	if err != nil || len(ids) == 0 {
		return nil, locked, err
	}
	token := rand.Text()
	claim := func(ids []int64) (string, []any) {
		return query, []any{token, o.AppID, int(Visibility / time.Second), ids}
	}
	n, held, err := q.update(ctx, ids, o.SkipLocked || len(locked) > 0, claim)
	if err != nil {
		return nil, nil, fmt.Errorf("claiming %d requests: %w", len(ids), err)
	}
	if n < int64(len(ids)) {
		// Another claimer, or a producer's cancel or lock, came between the two statements.
		const ours = `SELECT id FROM send_request WHERE id IN (?) AND lease = ?`
		if ids, err = find[int64](ctx, q, lookup{"reading back a claim", ours}, ids, token); err != nil {
			return nil, nil, err
		}
	}
	slices.Sort(ids)
	ours = make([]Request, 0, len(ids))
	for _, r := range o.Rows {
		if _, got := slices.BinarySearch(ids, r.ID); got {
			r.Token = token
			ours = append(ours, r)
		}
	}
	return ours, append(locked, held...), nil
}

// CancelOrder is which withdrawn rows are to be ended.
type CancelOrder struct {
	From       Status
	IDs        []int64
	SkipLocked bool // some rows are known to be held by other transactions
}

// Cancel ends rows that their producer withdrew, but for those that another transaction holds. One
// whose last attempt is in doubt cannot be called cancelled.
func (q *Queue) Cancel(ctx context.Context, o CancelOrder) (locked []int64, err error) {
	if len(o.IDs) == 0 {
		return nil, nil
	}
	const query = `
		UPDATE send_request FORCE INDEX (PRIMARY)
		   SET reason      = CASE WHEN lease IS NOT NULL OR uncertain_at IS NOT NULL
		                          THEN 'cancelled_too_late' END,
		       status      = CASE WHEN lease IS NOT NULL OR uncertain_at IS NOT NULL THEN 'unknown'
		                          ELSE 'cancelled' END,
		       lease       = NULL,
		       finished_at = CURRENT_TIMESTAMP(3)
		 WHERE id IN (?) AND status = ? AND cancel <> 0
		   AND (lease IS NULL OR due_at <= CURRENT_TIMESTAMP(3))`
	end := func(ids []int64) (string, []any) { return query, []any{ids, o.From} }
	update := q.update
	if o.From == Waiting {
		update = q.leave
	}
	if _, locked, err = update(ctx, o.IDs, o.SkipLocked, end); err != nil {
		return nil, fmt.Errorf("cancelling %d requests: %w", len(o.IDs), err)
	}
	return locked, nil
}
