package queue

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"fmt"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
)

// Receipt is what WeChat said became of a message.
type Receipt struct {
	// MsgID is WeChat's. AddReceipt gives a receipt without one, 0, a negative number of its own:
	// such a receipt belongs to a message to this person, of this template and about this time.
	MsgID      int64     `db:"msgid"`
	OpenID     string    `db:"openid"`
	TemplateID string    `db:"template_id"` // of a subscribe message; "": not told
	Status     string    `db:"status"`      // as the push had it, such as "success" or "failed:user block"
	At         time.Time `db:"event_time"`
}

// key is the receipt's msgid in send_receipt. Each delivery of a push without one comes to the same
// number. WeChat's own are positive, so none of a request joins it.
func (r Receipt) key() int64 {
	if r.MsgID != 0 {
		return r.MsgID
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d\x00%s",
		r.OpenID, r.TemplateID, r.At.Unix(), r.Status))
	return -1 - int64(binary.BigEndian.Uint64(sum[:])>>1)
}

// AddReceipt stores a receipt and reports whether it was new. It may come before the outcome of its
// message is written, and of messages that other programs sent.
func (q *Queue) AddReceipt(ctx context.Context, appid string, r Receipt) (fresh bool, err error) {
	const query = `
		INSERT INTO send_receipt (appid, msgid, openid, template_id, status, event_at)
		VALUES (?, ?, ?, ?, ?, ?)`
	_, err = q.exec(ctx, query, appid, r.key(), r.OpenID, database.Null(r.TemplateID), r.Status,
		database.Storable(r.At))
	if database.IsDuplicate(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("storing a receipt: %w", database.Explain(err))
	}
	return true, nil
}

// UnknownRequest is a request with an unknown outcome.
type UnknownRequest struct {
	Request
	SentOpenID sql.NullString `db:"sent_openid"`
	First      time.Time      `db:"first_attempt"` // the first attempt in doubt
	Last       time.Time      `db:"last_attempt"`
}

// UnknownIn returns up to limit requests of a lane whose outcome has been unknown since yesterday
// at the longest; those older find no receipt any more.
func (q *Queue) UnknownIn(ctx context.Context, l Lane, limit int) ([]UnknownRequest, error) {
	// Of such a row due_at is a claim's visibility after its last attempt.
	const query = `
		SELECT id, appid, template, fallback_from, unionid, mini_appid, mini_openid, openid, sent_openid,
		       COALESCE(uncertain_at, attempted_at, created_at) AS first_attempt,
		       COALESCE(attempted_at, created_at) AS last_attempt
		  FROM send_request FORCE INDEX (send_request_due)
		 WHERE status = 'unknown' AND appid = ? AND priority = ? AND template = ?
		   AND due_at > CURRENT_TIMESTAMP(3) - INTERVAL 1 DAY
		 LIMIT ?`
	return find[UnknownRequest](ctx, q, lookup{"reading unknown outcomes", query},
		l.AppID, l.Priority, l.Template, limit)
}

// UnclaimedReceipts returns the receipts of the last day to these people that belong to no request
// and are at least minAge old. Those without an msgid of WeChat's have a negative one.
func (q *Queue) UnclaimedReceipts(
	ctx context.Context, appid string, openids []string, minAge time.Duration,
) ([]Receipt, error) {
	// The hint keeps MySQL from a hash join with all of send_request.
	const query = `
		SELECT /*+ NO_BNL(s, r) */ s.msgid, s.openid, COALESCE(s.template_id, '') AS template_id,
		       s.status, COALESCE(s.event_at, s.arrived_at) AS event_time
		  FROM send_receipt s FORCE INDEX (send_receipt_openid)
		  LEFT JOIN send_request r FORCE INDEX (send_request_msgid)
		         ON r.msgid = s.msgid AND r.appid = s.appid
		 WHERE s.appid = ? AND s.openid IN (?) AND r.id IS NULL
		   AND s.arrived_at > CURRENT_TIMESTAMP(3) - INTERVAL 1 DAY
		   AND s.arrived_at <= CURRENT_TIMESTAMP(3) - INTERVAL ? SECOND`
	return find[Receipt](ctx, q, lookup{"reading receipts", query}, appid, openids, int(minAge/time.Second))
}

// ResolveByReceipt makes a request sent through channel, unless its outcome is known by now, and
// reports whether it did.
func (q *Queue) ResolveByReceipt(
	ctx context.Context, u UnknownRequest, r Receipt, channel string,
) (bool, error) {
	const query = `
		UPDATE send_request FORCE INDEX (PRIMARY)
		   SET status = 'sent', reason = 'resolved_by_receipt', msgid = ?, sent_openid = ?, channel = ?
		 WHERE id = ? AND status = 'unknown' AND appid = ?`
	n, err := q.exec(ctx, query, r.MsgID, r.OpenID, channel, u.ID, u.AppID)
	if err != nil {
		return false, fmt.Errorf("settling request %d by its receipt: %w", u.ID, err)
	}
	return n == 1, nil
}

// exec runs a statement, repeats it while other transactions stand in its way, and returns the rows
// it matched.
func (q *Queue) exec(ctx context.Context, query string, args ...any) (n int64, err error) {
	err = database.Retry(ctx, func(ctx context.Context) error {
		res, err := q.db.ExecContext(ctx, query, args...)
		if err != nil {
			return err
		}
		n, err = res.RowsAffected()
		return err
	})
	return n, err
}
