package sender

import (
	"context"
	"fmt"

	"github.com/unionbridge/unionbridge/internal/database"
)

// reasonResolved is the reason of a sent row of which an operator says so.
const reasonResolved = "resolved_by_operator"

// ResolveSent ends a request whose outcome was unknown as sent. msgid is WeChat's, 0 if nobody knows it.
func (q Requests) ResolveSent(ctx context.Context, id, msgid int64) (Change, error) {
	// errmsg comes first: it reads the reason that the same statement overwrites.
	const query = `
		UPDATE send_request FORCE INDEX (PRIMARY)
		   SET errmsg      = CONCAT('an operator says that it was sent; before, it was unknown', COALESCE(CONCAT(' (', reason, ')'), '')),
		       errcode     = NULL,
		       status      = 'sent',
		       reason      = '` + reasonResolved + `',
		       channel     = COALESCE(channel, '` + channelTemplate + `'),
		       lease       = NULL,
		       msgid       = COALESCE(?, msgid),
		       finished_at = COALESCE(finished_at, CURRENT_TIMESTAMP(3))
		 WHERE id IN (?) AND status = ?`
	if taken, err := q.msgidTaken(ctx, id, msgid); err != nil || taken {
		return Change{ID: id, Status: string(statusUnknown), Refused: refusedMsgID}, err
	}
	return q.resolve(ctx, id, func(lockedRow) step {
		return step{query: query, args: []any{orNull(msgid)}, becomes: statusSent}
	})
}

// ResolveResend sends a request again whose outcome was unknown.
func (q Requests) ResolveResend(ctx context.Context, id int64, ignoreExpiry bool) (Change, error) {
	o := RetryOptions{Force: true, IgnoreExpiry: ignoreExpiry}
	return q.resolve(ctx, id, o.restart)
}

func (q Requests) resolve(ctx context.Context, id int64, plan func(lockedRow) step) (Change, error) {
	changes, err := q.change(ctx, []int64{id}, func(r lockedRow) step {
		if r.Status != statusUnknown {
			return step{refused: refusedKnown}
		}
		return plan(r)
	})
	if err != nil {
		return Change{ID: id}, err
	}
	return changes[0], nil
}

// msgidTaken tells whether another request of the same account has this msgid: a slip of the pen, which would show
// one message's receipt at two requests.
func (q Requests) msgidTaken(ctx context.Context, id, msgid int64) (bool, error) {
	const query = `
		SELECT COUNT(*)
		  FROM send_request r
		  JOIN send_request other ON other.appid <=> r.appid AND other.id <> r.id
		 WHERE r.id = ? AND other.msgid = ?`
	var n int
	if err := q.DB.GetContext(ctx, &n, query, id, msgid); err != nil {
		return false, fmt.Errorf("looking for the msgid: %w", database.Explain(err))
	}
	return n > 0, nil
}
