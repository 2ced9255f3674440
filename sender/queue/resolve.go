package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// OpenAttempt is an attempt that nobody has settled: of a pending row it is under way.
type OpenAttempt struct {
	RequestID  int64     `db:"request_id"`
	AppID      string    `db:"appid"` // of the account that made it
	OpenID     string    `db:"openid"`
	TemplateID string    `db:"template_id"`
	BegunAt    time.Time `db:"begun_at"`
	Status     Status    `db:"status"`
	Attempts   int       `db:"attempts"` // of the row
}

// InDoubtAfter returns the next PageSize people after one whose messages of the last day are in doubt,
// by openid; those older find no receipt any more.
func (q *Queue) InDoubtAfter(ctx context.Context, appid, openid string) ([]string, error) {
	const query = `
		SELECT DISTINCT a.openid
		  FROM send_attempt a FORCE INDEX (send_attempt_grant)
		  JOIN send_request r FORCE INDEX (PRIMARY) ON r.id = a.request_id
		 WHERE a.appid = ? AND a.openid > ? AND a.begun_at > CURRENT_TIMESTAMP(3) - INTERVAL 1 DAY
		   AND r.status = 'unknown'
		 ORDER BY a.openid
		 LIMIT ?`
	return find[string](ctx, q, lookup{"looking for messages in doubt", query}, appid, openid, PageSize)
}

// OpenAttempts returns the attempts to some people that were begun since yesterday, by person, template
// and time.
func (q *Queue) OpenAttempts(
	ctx context.Context, appid string, openids []string,
) ([]OpenAttempt, error) {
	const query = `
		SELECT a.request_id, a.appid, a.openid, a.template_id, a.begun_at, r.status, r.attempts
		  FROM send_attempt a FORCE INDEX (send_attempt_grant)
		  JOIN send_request r FORCE INDEX (PRIMARY) ON r.id = a.request_id
		 WHERE a.appid = ? AND a.openid IN (?) AND a.begun_at > CURRENT_TIMESTAMP(3) - INTERVAL 1 DAY
		 ORDER BY a.openid, a.template_id, a.begun_at`
	return find[OpenAttempt](ctx, q, lookup{"reading open attempts", query}, appid, openids)
}

// SentUnnamed returns the attempts of the last day by which messages were sent to people of which
// WeChat gave no msgid: a receipt may be of one of those. The ledger of grants says it.
func (q *Queue) SentUnnamed(
	ctx context.Context, appid string, openids []string,
) ([]OpenAttempt, error) {
	const query = `
		SELECT e.request_id, e.appid, e.openid, e.template_id, e.happened_at AS begun_at, r.status, r.attempts
		  FROM grant_event e FORCE INDEX (PRIMARY)
		  JOIN send_request r FORCE INDEX (PRIMARY) ON r.id = e.request_id
		 WHERE e.appid = ? AND e.openid IN (?) AND e.kind = 'sent' AND r.msgid IS NULL
		   AND e.happened_at > CURRENT_TIMESTAMP(3) - INTERVAL 1 DAY`
	return find[OpenAttempt](ctx, q, lookup{"reading messages without an msgid", query}, appid, openids)
}

// SentWithoutMsgID returns to whom of some people messages were sent since a moment of which WeChat gave
// no msgid. It reads all of the account's messages since then: no index finds a person's.
func (q *Queue) SentWithoutMsgID(
	ctx context.Context, appid string, openids []string, since time.Time,
) ([]string, error) {
	// Of a sent row due_at is the end of its last claim, which comes after the attempt.
	const query = `
		SELECT DISTINCT sent_openid
		  FROM send_request FORCE INDEX (send_request_due)
		 WHERE status = 'sent' AND appid = ? AND due_at > ? AND msgid IS NULL AND sent_openid IN (?)`
	return find[string](ctx, q, lookup{"reading messages without an msgid", query}, appid, since, openids)
}

// Resolution is what became of an attempt whose outcome was not known.
type Resolution struct {
	OpenAttempt
	Receipt
	Sent    bool // else WeChat says that the person did not get it
	Channel string
}

// NotDelivered is the reason of a row whose message WeChat had taken, and says it could not deliver.
const NotDelivered = "not_delivered"

// Resolve ends an unknown row by what a receipt says, with what belongs to that, and reports whether
// it did: somebody else may know its outcome by now, or the receipt may be another row's. The row takes the receipt's msgid, also where
// that is none of WeChat's, so that the receipt is no other row's.
func (q *Queue) Resolve(
	ctx context.Context, r Resolution, hook func(ctx context.Context, tx *sqlx.Tx) error,
) (done bool, err error) {
	// That it was sent is true wherever the row stands by now: it becomes the sender's.
	const claimed = `
		SELECT COUNT(*)
		  FROM send_request FORCE INDEX (send_request_msgid)
		 WHERE msgid = ? AND appid = ? AND id <> ?`
	const query = `
		UPDATE send_request FORCE INDEX (PRIMARY)
		   SET status = ?, reason = ?, errmsg = ?, errcode = NULL, msgid = ?, sent_openid = ?, channel = ?,
		       appid = ?
		 WHERE id = ? AND status = 'unknown' AND (appid = ? OR ?)`
	status, reason, message := Sent, "resolved_by_receipt", ""
	if !r.Sent {
		status, reason, message = Failed, NotDelivered, "WeChat took the message, and then: "+r.Receipt.Status
	}
	channel := r.Channel
	if !r.Sent {
		channel = ""
	}
	err = database.InTx(ctx, q.db, func(ctx context.Context, tx *sqlx.Tx) error {
		done = false
		var others int
		err := tx.GetContext(ctx, &others, claimed, r.MsgID, r.AppID, r.RequestID)
		if err != nil || others > 0 {
			return err
		}
		res, err := tx.ExecContext(ctx, query, status, reason, database.Null(clip(message)),
			database.Null(r.MsgID), r.OpenAttempt.OpenID, database.Null(channel), r.AppID,
			r.RequestID, r.AppID, r.Sent)
		if err != nil {
			return err
		}
		n, err := res.RowsAffected()
		if err != nil || n == 0 {
			return err
		}
		if err := hook(ctx, tx); err != nil {
			return err
		}
		done = true
		return EndAttempts(ctx, tx, []int64{r.RequestID})
	})
	if err != nil {
		return false, fmt.Errorf("settling request %d by its receipt: %w", r.RequestID, err)
	}
	return done, nil
}
