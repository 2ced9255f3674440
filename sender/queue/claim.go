package queue

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"maps"
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
	// Routes are written into rows that have neither an account nor a route yet, by template.
	Routes map[string]string
	// Attempts: send_attempt says what is in doubt, and not that a claim was not settled.
	Attempts bool
}

// route is the assignment of the order's routes, which reads appid before it is overwritten; "":
// none.
func (o ClaimOrder) route() (set string, args []any) {
	if len(o.Routes) == 0 {
		return "", nil
	}
	set = `
		       route        = CASE WHEN COALESCE(appid, '') = '' AND COALESCE(route, '') = ''
		                           THEN CASE template`
	for _, template := range slices.Sorted(maps.Keys(o.Routes)) {
		set, args = set+` WHEN ? THEN ?`, append(args, template, o.Routes[template])
	}
	return set + ` ELSE route END ELSE route END,`, args
}

// Claimed is what became of a claim.
type Claimed struct {
	Ours    []Request
	Locked  []int64 // another transaction holds them
	Refused []int64 // the server does not change them, because of what is in them
	Cause   error   // why it refused the last of those
}

// Claim takes rows for the account by compare-and-set. Withdrawn rows are ended instead.
func (q *Queue) Claim(ctx context.Context, o ClaimOrder) (got Claimed, err error) {
	// uncertain_at comes first: it reads the lease that the same statement overwrites. A lease that
	// is still there belongs to an attempt that nobody settled. wished_at comes before due_at for the
	// same reason, and leaves out the zero date, which strict mode does not store again. By any other
	// index the statement would lock, and wait for, rows that are not among the ids.
	route, routes := o.route()
	query := `
		UPDATE send_request FORCE INDEX (PRIMARY)
		   SET uncertain_at = CASE WHEN lease NOT LIKE '` + attemptsMark + `%'
		                           THEN COALESCE(uncertain_at, attempted_at)
		                           ELSE uncertain_at END,` + route + `
		       lease        = ?,
		       appid        = ?,
		       attempts     = attempts + 1,
		       attempted_at = CURRENT_TIMESTAMP(3),
		       wished_at    = CASE WHEN wished_at IS NULL AND due_at >= '1970-01-01 00:00:01' THEN due_at
		                           ELSE wished_at END,
		       due_at       = CURRENT_TIMESTAMP(3) + INTERVAL ? SECOND
		 WHERE id IN (?) AND status = 'pending' AND cancel = 0 AND due_at <= CURRENT_TIMESTAMP(3)` +
		ofAccount
	var ids, withdrawn []int64
	for _, r := range o.Rows {
		if r.Cancel {
			withdrawn = append(withdrawn, r.ID)
		} else {
			ids = append(ids, r.ID)
		}
	}
	ended, err := q.cancel(ctx, CancelOrder{Pending, o.AppID, withdrawn, o.SkipLocked})
	got.Locked, got.Refused, got.Cause = ended.locked, ended.refused, ended.cause
	if err != nil || len(ids) == 0 {
		return got, err
	}
	token := rand.Text()
	if o.Attempts {
		token = attemptsMark + token
	}
	claim := func(ids []int64) (string, []any) {
		args := append(slices.Clone(routes), token, o.AppID, int(Visibility/time.Second), ids, o.AppID)
		return query, args
	}
	done, err := q.update(ctx, ids, o.SkipLocked || len(ended.locked) > 0, claim)
	if err != nil {
		return Claimed{}, fmt.Errorf("claiming %d requests: %w", len(ids), err)
	}
	got.Locked, got.Refused = append(got.Locked, done.locked...), append(got.Refused, done.refused...)
	got.Cause = cmp.Or(done.cause, got.Cause)
	if done.n < int64(len(ids)) {
		// Another claimer, or a producer's cancel or lock, came between the two statements.
		const ours = `SELECT id FROM send_request WHERE id IN (?) AND lease = ?`
		if ids, err = find[int64](ctx, q, lookup{"reading back a claim", ours}, ids, token); err != nil {
			return Claimed{}, err
		}
	}
	slices.Sort(ids)
	got.Ours = make([]Request, 0, len(ids))
	for _, r := range o.Rows {
		if _, ours := slices.BinarySearch(ids, r.ID); ours {
			r.Token = token
			got.Ours = append(got.Ours, r)
		}
	}
	if o.Attempts {
		if err := q.attempted(ctx, got.Ours); err != nil {
			return Claimed{}, err
		}
	}
	return got, nil
}

// CancelOrder is which withdrawn rows are to be ended.
type CancelOrder struct {
	From       Status
	AppID      string // in whose queue they stand, or in none yet
	IDs        []int64
	SkipLocked bool // some rows are known to be held by other transactions
}

// Cancel ends rows that their producer withdrew, but for those that another transaction holds, or
// that the server refuses to change. One whose last attempt is in doubt cannot be called cancelled.
func (q *Queue) Cancel(ctx context.Context, o CancelOrder) error {
	_, err := q.cancel(ctx, o)
	return err
}

func (q *Queue) cancel(ctx context.Context, o CancelOrder) (done updated, err error) {
	if len(o.IDs) == 0 {
		return updated{}, nil
	}
	const query = `
		UPDATE send_request FORCE INDEX (PRIMARY)
		   SET reason      = CASE WHEN ` + SQLInDoubt + ` THEN 'cancelled_too_late' END,
		       status      = CASE WHEN ` + SQLInDoubt + ` THEN 'unknown' ELSE 'cancelled' END,
		       lease       = NULL,
		       finished_at = CURRENT_TIMESTAMP(3)
		 WHERE id IN (?) AND status = ? AND cancel <> 0
		   AND (lease IS NULL OR due_at <= CURRENT_TIMESTAMP(3))` + ofAccount
	end := func(ids []int64) (string, []any) { return query, []any{ids, o.From, o.AppID} }
	update := q.update
	if o.From == Waiting {
		update = q.leave
	}
	if done, err = update(ctx, o.IDs, o.SkipLocked, end); err != nil {
		return updated{}, fmt.Errorf("cancelling %d requests: %w", len(o.IDs), err)
	}
	return done, nil
}
