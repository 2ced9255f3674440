package queue

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
)

// Move puts a claimed row into the queue of another account of its route, or makes it wait for
// both. Its statement names the claim, the account and that no attempt is in doubt: all three must
// be as they were read.
type Move struct {
	At      string // the account that has claimed the row
	To      string // the one in whose queue it stands then; At: it waits there for both
	Why     string // the reason of the move, for the metrics
	Refused Refusal
	// Origin is what fallback_from, fallback_reason and fallback_errcode say afterwards: what they
	// said before, or what the first account said now. Zero: the row was not moved yet.
	Origin Origin
}

// Origin is the first account of a moved row, and what that said.
type Origin struct {
	AppID   string
	Reason  string
	ErrCode int
}

// Refusal says which account of a row's route the person has refused with the attempt.
type Refusal int

// The refusals.
const (
	NotRefused     Refusal = iota
	RefusedByFirst         // at the first account
	RefusedByOther
)

// moveSQL writes moves. A moved row begins with no attempts; one that stays keeps its own.
func moveSQL(_ string, batch []Result) (query string, args []any) {
	for _, r := range batch {
		m := r.Move
		args = append(args, r.ID, r.Token, m.At, m.To, r.Status,
			database.Null(r.Reason), database.Null(r.ErrCode), database.Null(clip(r.ErrMsg)),
			database.Null(clip(r.Warning)), r.Refund, r.Delay.Microseconds(), m.Refused,
			database.Null(m.Origin.AppID), database.Null(m.Origin.Reason), database.Null(m.Origin.ErrCode))
	}
	const first = `SELECT ? AS id, ? AS token, ? AS at_appid, ? AS to_appid, ? AS status, ? AS reason,
		             ? AS errcode, ? AS errmsg, ? AS warning, ? AS refund, ? AS delay, ? AS refused,
		             ? AS origin, ? AS origin_reason, ? AS origin_errcode`
	const next = ` UNION ALL SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?`
	return `
		UPDATE (` + first + strings.Repeat(next, len(batch)-1) + `) s
		  STRAIGHT_JOIN send_request r FORCE INDEX (PRIMARY) ON r.id = s.id
		   SET r.appid            = CONVERT(s.to_appid USING ascii),
		       r.status           = s.status,
		       r.reason           = s.reason,
		       r.errcode          = s.errcode,
		       r.errmsg           = s.errmsg,
		       r.warning          = COALESCE(r.warning, s.warning),
		       r.attempts         = CASE WHEN s.at_appid = s.to_appid THEN r.attempts - s.refund ELSE 0 END,
		       r.due_at           = CASE s.status
		                            WHEN 'pending' THEN CURRENT_TIMESTAMP(3)
		                            WHEN 'waiting' THEN LEAST(
		                                CURRENT_TIMESTAMP(3) + INTERVAL s.delay MICROSECOND,
		                                COALESCE(r.wait_until, ` + database.SQLLastMoment + `),
		                                COALESCE(r.expires_at, ` + database.SQLLastMoment + `))
		                            ELSE r.due_at END,
		       r.finished_at      = CASE WHEN s.status IN ('pending', 'waiting') THEN NULL
		                                 ELSE CURRENT_TIMESTAMP(3) END,
		       r.fallback_from    = CONVERT(s.origin USING ascii),
		       r.fallback_reason  = CONVERT(s.origin_reason USING ascii),
		       r.fallback_errcode = s.origin_errcode,
		       r.first_refused_at = CASE s.refused WHEN 1 THEN r.attempted_at ELSE r.first_refused_at END,
		       r.other_refused_at = CASE s.refused WHEN 2 THEN r.attempted_at ELSE r.other_refused_at END,
		       r.lease            = NULL
		 WHERE r.status = 'pending' AND r.lease = CONVERT(s.token USING ascii)
		   AND r.appid = CONVERT(s.at_appid USING ascii) AND r.uncertain_at IS NULL`, args
}

// WaitingMove moves rows that wait in the queue of one account to another.
type WaitingMove struct {
	From, To string
	IDs      []int64
	Keep     string // as ReleaseOrder's, of To
}

// MoveWaiting makes waiting rows pending in the queue of another account. What they waited with
// becomes what the first account said. It returns how many, and those that another transaction holds.
func (q *Queue) MoveWaiting(
	ctx context.Context, m WaitingMove,
) (n int64, locked []int64, err error) {
	// Each column is read before the same statement overwrites it.
	const query = `
		UPDATE send_request FORCE INDEX (PRIMARY)
		   SET first_refused_at = CASE WHEN errcode IS NOT NULL OR reason = 'blocked_by_user'
		                               THEN attempted_at ELSE first_refused_at END,
		       fallback_reason  = CASE WHEN fallback_from IS NULL THEN reason ELSE fallback_reason END,
		       fallback_errcode = CASE WHEN fallback_from IS NULL THEN errcode ELSE fallback_errcode END,
		       fallback_from    = COALESCE(fallback_from, appid),
		       appid            = ?,
		       status           = 'pending',
		       reason           = NULL,
		       errcode          = NULL,
		       errmsg           = NULL,
		       attempts         = 0,
		       wait_until       = COALESCE(wait_until, due_at),
		       due_at           = CURRENT_TIMESTAMP(3),
		       wished_at        = CURRENT_TIMESTAMP(3)
		 WHERE id IN (?) AND status = 'waiting' AND cancel = 0 AND appid = ? AND uncertain_at IS NULL
		   AND lease IS NULL`
	move := func(ids []int64) (string, []any) { return query, []any{m.To, ids, m.From} }
	done, err := q.leaveBut(ctx, m.IDs, true, leaving{move, Kept{m.Keep, m.To}.unwait})
	if err != nil {
		return 0, nil, fmt.Errorf("moving %d waiting requests: %w", len(m.IDs), err)
	}
	return done.n, done.locked, nil
}

// PlaceOrder puts due rows that name no account into the queue of one.
type PlaceOrder struct {
	To         string
	Route      string // written where the row has none of its own
	IDs        []int64
	SkipLocked bool // some rows are known to be held by other transactions
}

// Place puts rows into the queue of an account before their first claim. It returns how many, and
// which are left: another transaction holds them, or the server does not change them.
func (q *Queue) Place(ctx context.Context, o PlaceOrder) (n int64, left []int64, err error) {
	const query = `
		UPDATE send_request FORCE INDEX (PRIMARY)
		   SET route = CASE WHEN COALESCE(route, '') = '' THEN ? ELSE route END,
		       appid = ?
		 WHERE id IN (?) AND status = 'pending' AND COALESCE(appid, '') = '' AND cancel = 0
		   AND lease IS NULL AND uncertain_at IS NULL`
	done, err := q.update(ctx, o.IDs, o.SkipLocked, func(ids []int64) (string, []any) {
		return query, []any{database.Null(o.Route), o.To, ids}
	})
	if err != nil {
		return 0, nil, fmt.Errorf("placing %d requests: %w", len(o.IDs), err)
	}
	return done.n, done.left(), nil
}

// Hold is why due rows are left alone for a while.
type Hold struct {
	AppID           string // whose claim holds them back
	Reason, Message string
	For             time.Duration
	IDs             []int64
	SkipLocked      bool // some rows are known to be held by other transactions
}

// HoldBack makes rows that no attempt holds due later, with the reason, and claims none. What it
// returns is as Place's.
func (q *Queue) HoldBack(ctx context.Context, h Hold) (n int64, left []int64, err error) {
	const query = `
		UPDATE send_request FORCE INDEX (PRIMARY)
		   SET reason    = ?,
		       errmsg    = ?,
		       errcode   = NULL,
		       wished_at = CASE WHEN wished_at IS NULL AND due_at >= '1970-01-01 00:00:01' THEN due_at
		                        ELSE wished_at END,
		       due_at    = CURRENT_TIMESTAMP(3) + INTERVAL ? SECOND
		 WHERE id IN (?) AND status = 'pending' AND cancel = 0 AND lease IS NULL` + ofAccount
	done, err := q.update(ctx, h.IDs, h.SkipLocked, func(ids []int64) (string, []any) {
		return query, []any{h.Reason, clip(h.Message), int(h.For / time.Second), ids, h.AppID}
	})
	if err != nil {
		return 0, nil, fmt.Errorf("holding %d requests back: %w", len(h.IDs), err)
	}
	return done.n, done.left(), nil
}

// ofAccount is the condition that a row stands where it was read: in the account's queue, or in none
// yet.
const ofAccount = ` AND COALESCE(appid, '') IN (?, '')`
