package sender

import (
	"context"
	"fmt"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// reasonResolved is the reason of a sent row of which an operator says so.
const reasonResolved = "resolved_by_operator"

// ResolveSent ends a request whose outcome was unknown as sent. msgid is WeChat's, 0 if nobody knows it; a negative
// one is an error.
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
	if msgid < 0 {
		return Change{ID: id}, fmt.Errorf("msgid %d: WeChat's are above zero", msgid)
	}
	return q.resolve(ctx, id, func(lockedRow) step {
		return step{query: query, args: []any{database.Null(msgid)}, becomes: statusSent,
			check: func(ctx context.Context, tx *sqlx.Tx) (string, error) { return q.checkMsgID(ctx, tx, id, msgid) }}
	})
}

// ResolveResend sends a request again whose outcome was unknown. Of the options, Force is implied.
func (q Requests) ResolveResend(ctx context.Context, id int64, o RetryOptions) (Change, error) {
	o.Force = true
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

// checkMsgID refuses a msgid that cannot be the row's, a slip of the pen: one that another request of the same account
// has, which would show one message's receipt at two requests, or whose receipt is another person's.
func (q Requests) checkMsgID(ctx context.Context, tx *sqlx.Tx, id, msgid int64) (refused string, err error) {
	const query = `
		SELECT (SELECT COUNT(*)
		          FROM send_request other
		         WHERE other.msgid = ? AND other.id <> r.id AND COALESCE(other.appid, ?) = COALESCE(r.appid, ?)) AS taken,
		       (SELECT COUNT(*)
		          FROM send_receipt s
		         WHERE s.msgid = ? AND s.appid = COALESCE(r.appid, ?) AND s.openid <> COALESCE(r.sent_openid, r.openid)) AS strange
		  FROM send_request r
		 WHERE r.id = ?`
	if msgid == 0 {
		return "", nil
	}
	var n struct {
		Taken   int `db:"taken"`
		Strange int `db:"strange"`
	}
	err = tx.GetContext(ctx, &n, query, msgid, q.DefaultAppID, q.DefaultAppID, msgid, q.DefaultAppID, id)
	switch {
	case err != nil:
		return "", fmt.Errorf("looking for the msgid: %w", err)
	case n.Taken > 0:
		return refusedMsgID, nil
	case n.Strange > 0:
		return refusedReceipt, nil
	}
	return "", nil
}
