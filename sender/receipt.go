package sender

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/wechat"
)

// Receipt stores what WeChat says became of a message; a second one of the same message changes nothing. It may
// come before the message's own outcome is written, and of messages that other programs sent. That the person
// blocks the account's messages is noted in the map, so that later requests to him fail at once.
func (s *Service) Receipt(ctx context.Context, appid string, r wechat.Receipt) error {
	if r.At.IsZero() {
		r.At = s.cfg.Now()
	}
	fresh, err := s.store.addReceipt(ctx, appid, r)
	if err != nil {
		return err
	}
	if fresh {
		s.metrics.receipts.WithLabelValues(appid, receiptLabel(r.Status)).Inc()
	}
	if r.Status != wechat.ReceiptUserBlock {
		return nil
	}
	for _, w := range s.workers {
		if w.account.AppID == appid && w.account.BlockedFor > 0 {
			// For a repeated one too: the process may have died between the two statements.
			return s.cfg.People.Block(ctx, bridge.Refusal{AppID: appid, OpenID: r.OpenID, At: r.At}, w.account.BlockedFor)
		}
	}
	return nil
}

// receiptLabel keeps the metric's labels few whatever WeChat may say one day.
func receiptLabel(status string) string {
	switch status {
	case wechat.ReceiptSuccess, wechat.ReceiptUserBlock, wechat.ReceiptSystemFailed, wechat.ReceiptFreqLimit:
		return status
	}
	return "other"
}

// reasonByReceipt is the reason of a request whose outcome was unknown until a receipt told it.
const reasonByReceipt = "resolved_by_receipt"

const (
	// receiptEarly and receiptLate bound the time between an attempt, by the database's clock, and its receipt,
	// by WeChat's. Receipts of a large campaign are minutes late.
	receiptEarly = time.Minute
	receiptLate  = 30 * time.Minute
	// receiptsEvery is the pace of the search; unknownMost bounds the rows of one.
	receiptsEvery = time.Minute
	unknownMost   = 20_000
)

// ripe is how old a receipt must be before it may belong to an attempt whose outcome is unknown. By then every
// other attempt of its time has been repeated to its end: it has its own msgid, which claims its receipt, or has
// become unknown, and comes into question as well.
func (w *worker) ripe() time.Duration {
	return w.account.ResendWindow + visibility + 2*settleGrace
}

// settleByReceipts looks for the receipts of attempts whose outcome is unknown. A receipt carries no
// client_msg_id: it belongs to such a request if it went to the same person at that time, no request has its
// msgid, and no other request or receipt comes into question. What is ambiguous stays unknown.
func (w *worker) settleByReceipts(ctx context.Context, lanes []lane) error {
	now := w.svc.cfg.Now()
	// After a pause or a change of hands attempts are still repeated that are older than that.
	if begin := w.since.Load(); begin != nil && w.pause.since(now, *begin) < w.ripe() || now.Sub(w.settled) < receiptsEvery {
		return nil
	}
	w.settled = now
	var rows []unknownRow
	for _, l := range lanes {
		if l.Status != statusUnknown || l.AppID.String != w.account.AppID {
			continue
		}
		more, err := w.svc.store.unknown(ctx, l, unknownMost-len(rows))
		if err != nil {
			return err
		}
		rows = append(rows, more...)
	}
	if len(rows) == unknownMost {
		w.log.Warn("too many requests with an unknown outcome to find their receipts", "rows", len(rows))
		return nil
	}
	if err := w.addressees(ctx, rows); err != nil {
		return err
	}
	people := make(map[string][]*unknownRow)
	for i := range rows {
		if id := rows[i].SentOpenID.String; id != "" {
			people[id] = append(people[id], &rows[i])
		}
	}
	var receipts []receiptRow
	for openids := range slices.Chunk(slices.Collect(maps.Keys(people)), housePage) {
		more, err := w.svc.store.unclaimedReceipts(ctx, w.account.AppID, openids, w.ripe())
		if err != nil {
			return err
		}
		receipts = append(receipts, more...)
	}
	return w.assign(ctx, match(people, receipts))
}

// assign makes requests sent by their receipts.
func (w *worker) assign(ctx context.Context, pairs map[*unknownRow]receiptRow) error {
	var errs []error
	for row, receipt := range pairs {
		found, err := w.svc.store.resolveByReceipt(ctx, *row, receipt)
		if found {
			w.log.Info("a receipt told an unknown outcome", "request", row.ID, "msgid", receipt.MsgID, "status", receipt.Status)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// match pairs rows and receipts where there is no other choice on either side.
func match(people map[string][]*unknownRow, receipts []receiptRow) map[*unknownRow]receiptRow {
	choices := make(map[*unknownRow][]receiptRow)
	claims := make(map[int64]int)
	for _, r := range receipts {
		for _, row := range people[r.OpenID] {
			if r.fits(row) {
				choices[row] = append(choices[row], r)
				claims[r.MsgID]++
			}
		}
	}
	pairs := make(map[*unknownRow]receiptRow)
	for row, possible := range choices {
		if len(possible) == 1 && claims[possible[0].MsgID] == 1 {
			pairs[row] = possible[0]
		}
	}
	return pairs
}

// addressees fills in whom rows were sent to whose instance died before it could write that.
func (w *worker) addressees(ctx context.Context, rows []unknownRow) error {
	var lost []*unknownRow
	var recipients []bridge.Recipient
	for i := range rows {
		if rows[i].SentOpenID.Valid {
			continue
		}
		if recipient, wrong := w.svc.recipient(rows[i].request); wrong == nil {
			lost, recipients = append(lost, &rows[i]), append(recipients, recipient)
		}
	}
	for len(lost) > 0 {
		n := min(len(lost), housePage)
		found, err := w.resolve(ctx, recipients[:n])
		if err != nil {
			return err
		}
		for i, row := range lost[:n] {
			row.SentOpenID = sql.NullString{String: found[i].OpenID, Valid: found[i].OpenID != ""}
		}
		lost, recipients = lost[n:], recipients[n:]
	}
	return nil
}

// unknownRow is a request with an unknown outcome.
type unknownRow struct {
	request
	SentOpenID sql.NullString `db:"sent_openid"`
	First      time.Time      `db:"first_attempt"` // the first attempt whose outcome is not known
	Last       time.Time      `db:"last_attempt"`
}

// receiptRow is a receipt whose msgid no request has.
type receiptRow struct {
	MsgID  int64     `db:"msgid"`
	OpenID string    `db:"openid"`
	Status string    `db:"status"`
	At     time.Time `db:"event_time"`
}

func (r receiptRow) fits(row *unknownRow) bool {
	return !r.At.Before(row.First.Add(-receiptEarly)) && !r.At.After(row.Last.Add(receiptLate))
}

// addReceipt tells whether the receipt was new.
func (s store) addReceipt(ctx context.Context, appid string, r wechat.Receipt) (fresh bool, err error) {
	const query = `INSERT INTO send_receipt (appid, msgid, openid, status, event_at) VALUES (?, ?, ?, ?, ?)`
	err = database.Retry(ctx, func(ctx context.Context) error {
		_, err := s.db.ExecContext(ctx, query, appid, r.MsgID, r.OpenID, r.Status, r.At.UTC())
		return err
	})
	if database.IsDuplicate(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("storing a receipt: %w", database.Explain(err))
	}
	return true, nil
}

// unknown returns the requests of a lane whose outcome has been unknown since yesterday at the longest; those
// older find no receipt any more.
func (s store) unknown(ctx context.Context, l lane, limit int) ([]unknownRow, error) {
	// Of such a row due_at is a claim's visibility after its last attempt.
	const query = `
		SELECT id, unionid, mini_appid, mini_openid, openid, sent_openid,
		       COALESCE(uncertain_at, attempted_at, created_at) AS first_attempt,
		       COALESCE(attempted_at, created_at) AS last_attempt
		  FROM send_request
		 WHERE status = 'unknown' AND appid = ? AND priority = ? AND template = ?
		   AND due_at > CURRENT_TIMESTAMP(3) - INTERVAL 1 DAY
		 LIMIT ?`
	var rows []unknownRow
	if err := s.db.SelectContext(ctx, &rows, query, l.AppID, l.Priority, l.Template, limit); err != nil {
		return nil, fmt.Errorf("reading unknown outcomes: %w", database.Explain(err))
	}
	return rows, nil
}

// unclaimedReceipts returns the receipts of the last day to these people that belong to no request.
func (s store) unclaimedReceipts(ctx context.Context, appid string, openids []string, ripe time.Duration) ([]receiptRow, error) {
	const query = `
		SELECT s.msgid, s.openid, s.status, COALESCE(s.event_at, s.arrived_at) AS event_time
		  FROM send_receipt s
		  LEFT JOIN send_request r ON r.msgid = s.msgid AND r.appid = s.appid
		 WHERE s.appid = ? AND s.openid IN (?) AND r.id IS NULL
		   AND s.arrived_at > CURRENT_TIMESTAMP(3) - INTERVAL 1 DAY
		   AND s.arrived_at < CURRENT_TIMESTAMP(3) - INTERVAL ? SECOND`
	in, args, err := sqlx.In(query, appid, openids, int(ripe/time.Second))
	if err != nil {
		return nil, err
	}
	var rows []receiptRow
	if err := s.db.SelectContext(ctx, &rows, in, args...); err != nil {
		return nil, fmt.Errorf("reading receipts: %w", database.Explain(err))
	}
	return rows, nil
}

// resolveByReceipt makes a request sent whose outcome is still unknown.
func (s store) resolveByReceipt(ctx context.Context, row unknownRow, r receiptRow) (bool, error) {
	const query = `
		UPDATE send_request FORCE INDEX (PRIMARY)
		   SET status = 'sent', reason = ?, msgid = ?, sent_openid = ?, channel = ?
		 WHERE id = ? AND status = 'unknown'`
	n, err := s.exec(ctx, query, reasonByReceipt, r.MsgID, r.OpenID, channelTemplate, row.ID)
	if err != nil {
		return false, fmt.Errorf("settling request %d by its receipt: %w", row.ID, err)
	}
	return n == 1, nil
}
