package requests

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// reasonResolved is the reason of a sent row of which an operator says so.
const reasonResolved = "resolved_by_operator"

// ResolveSent ends a request whose outcome was unknown as sent. msgid is WeChat's, 0 if nobody
// knows it; a negative one is an error.
func (s Store) ResolveSent(ctx context.Context, id, msgid int64) (Change, error) {
	const attempt = `SELECT a.openid FROM send_attempt a WHERE a.request_id = send_request.id`
	// errmsg comes first: it reads the reason that the same statement overwrites.
	const query = `
		UPDATE send_request FORCE INDEX (PRIMARY)
		   SET errmsg      = CONCAT('an operator says that it was sent; before, it was unknown',
		                            COALESCE(CONCAT(' (', reason, ')'), '')),
		       errcode     = NULL,
		       status      = 'sent',
		       reason      = '` + reasonResolved + `',
		       channel     = COALESCE(channel, CASE WHEN EXISTS (` + attempt + `)
		                              THEN '` + queue.AttemptChannel + `' ELSE '` + queue.DefaultChannel + `' END),
		       sent_openid = COALESCE(sent_openid, (` + attempt + `)),
		       lease       = NULL,
		       msgid       = COALESCE(?, msgid),
		       finished_at = COALESCE(finished_at, CURRENT_TIMESTAMP(3))
		 WHERE id IN (?) AND status = ? AND appid <=> ?`
	if msgid < 0 {
		return Change{ID: id}, fmt.Errorf("msgid %d: WeChat's are above zero", msgid)
	}
	return s.resolve(ctx, id, func(lockedRow) step {
		return step{
			query: query, args: []any{database.Null(msgid)}, becomes: queue.Sent, ends: true,
			check: func(ctx context.Context, tx *sqlx.Tx) (string, error) {
				return s.checkMsgID(ctx, tx, id, msgid)
			},
			then: s.spend,
		}
	})
}

// Attempt is one whose outcome an operator knows.
type Attempt struct {
	RequestID  int64     `db:"request_id"`
	AppID      string    `db:"appid"`
	OpenID     string    `db:"openid"`
	TemplateID string    `db:"template_id"`
	BegunAt    time.Time `db:"begun_at"`
}

// spend writes down what attempts have used up of which an operator says that they were successful.
func (s Store) spend(ctx context.Context, tx *sqlx.Tx, ids []int64) error {
	const query = `
		SELECT request_id, appid, openid, template_id, begun_at FROM send_attempt WHERE request_id IN (?)`
	attempts, err := database.SelectIn[Attempt](ctx, tx, query, ids)
	if err != nil {
		return fmt.Errorf("reading attempts: %w", err)
	}
	for _, a := range attempts {
		if s.Spend == nil {
			break
		}
		if err := s.Spend(ctx, tx, a); err != nil {
			return err
		}
	}
	return nil
}

// ResolveResend sends a request again whose outcome was unknown. Of the options, Force is implied.
func (s Store) ResolveResend(ctx context.Context, id int64, o RetryOptions) (Change, error) {
	o.Force = true
	return s.resolve(ctx, id, o.restart)
}

func (s Store) resolve(ctx context.Context, id int64, plan func(lockedRow) step) (Change, error) {
	changes, err := s.change(ctx, []int64{id}, func(r lockedRow) step {
		if r.Status != queue.Unknown {
			return step{refused: refusedKnown}
		}
		return plan(r)
	})
	if err != nil {
		return Change{ID: id}, err
	}
	return changes[0], nil
}

// checkMsgID refuses a msgid that cannot be the row's, a typing mistake: one that another request
// of the same account has, which would show one message's receipt at two requests, or whose receipt
// is another person's.
func (s Store) checkMsgID(ctx context.Context, tx *sqlx.Tx, id, msgid int64) (string, error) {
	const query = `
		SELECT (SELECT COUNT(*)
		          FROM send_request other
		         WHERE other.msgid = ? AND other.id <> r.id
		           AND COALESCE(other.appid, ?) = COALESCE(r.appid, ?)) AS taken,
		       (SELECT COUNT(*)
		          FROM send_receipt s
		         WHERE s.msgid = ? AND s.appid = COALESCE(r.appid, ?)
		           AND s.openid <> COALESCE(r.sent_openid, r.openid)) AS foreign_receipts
		  FROM send_request r
		 WHERE r.id = ?`
	if msgid == 0 {
		return "", nil
	}
	var taken, foreign int
	own := s.DefaultAppID
	err := tx.QueryRowxContext(ctx, query, msgid, own, own, msgid, own, id).Scan(&taken, &foreign)
	switch {
	case err != nil:
		return "", fmt.Errorf("looking for the msgid: %w", err)
	case taken > 0:
		return refusedMsgID, nil
	case foreign > 0:
		return refusedReceipt, nil
	}
	return "", nil
}
