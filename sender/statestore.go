package sender

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
)

// scopeSend is account_state.scope of what concerns all sending of an account.
const scopeSend = "send"

// pauseRow is a row of account_state.
type pauseRow struct {
	Scope   string         `db:"scope"`
	Reason  string         `db:"reason"`
	ErrCode sql.NullInt64  `db:"errcode"`
	ErrMsg  sql.NullString `db:"errmsg"`
	// Remaining is how long the pause still lasts, in microseconds; NULL: until the cause is gone.
	Remaining sql.NullInt64 `db:"remaining"`
}

func (r pauseRow) remaining() time.Duration {
	return time.Duration(r.Remaining.Int64) * time.Microsecond
}

func (s store) loadPauses(ctx context.Context, appid string) ([]pauseRow, error) {
	const query = `
		SELECT scope, reason, errcode, errmsg, TIMESTAMPDIFF(MICROSECOND, CURRENT_TIMESTAMP(3), paused_until) AS remaining
		  FROM account_state
		 WHERE appid = ?`
	var rows []pauseRow
	if err := s.db.SelectContext(ctx, &rows, query, appid); err != nil {
		return nil, fmt.Errorf("reading the account's state: %w", database.Explain(err))
	}
	return rows, nil
}

func (s store) savePause(ctx context.Context, appid, scope string, row pauseRow) error {
	const query = `
		INSERT INTO account_state (appid, scope, reason, errcode, errmsg, paused_until)
		VALUES (?, ?, ?, ?, ?, CURRENT_TIMESTAMP(3) + INTERVAL ? MICROSECOND)
		ON DUPLICATE KEY UPDATE
		    since        = CASE WHEN reason = VALUES(reason) THEN since ELSE VALUES(since) END,
		    reason       = VALUES(reason),
		    errcode      = VALUES(errcode),
		    errmsg       = VALUES(errmsg),
		    paused_until = VALUES(paused_until)`
	_, err := s.exec(ctx, query, appid, scope, row.Reason, row.ErrCode, row.ErrMsg, row.Remaining)
	if err != nil {
		return fmt.Errorf("saving the account's state: %w", err)
	}
	return nil
}

func (s store) clearPause(ctx context.Context, appid, scope string) error {
	if _, err := s.exec(ctx, `DELETE FROM account_state WHERE appid = ? AND scope = ?`, appid, scope); err != nil {
		return fmt.Errorf("clearing the account's state: %w", err)
	}
	return nil
}

// dayFormat is send_day.day: the date on which the day of WeChat's quotas began in China.
const dayFormat = "2006-01-02"

// sentToday returns how many messages the account's instances have counted on a day.
func (s store) sentToday(ctx context.Context, appid string, day time.Time) (int64, error) {
	const query = `SELECT COALESCE(SUM(sent), 0) FROM send_day WHERE appid = ? AND day = ?`
	var sent int64
	if err := s.db.GetContext(ctx, &sent, query, appid, day.Format(dayFormat)); err != nil {
		return 0, fmt.Errorf("reading the day's count: %w", database.Explain(err))
	}
	return sent, nil
}

func (s store) countSent(ctx context.Context, appid string, day time.Time, n int) error {
	const query = `
		INSERT INTO send_day (appid, day, sent) VALUES (?, ?, ?)
		ON DUPLICATE KEY UPDATE sent = sent + VALUES(sent)`
	if _, err := s.exec(ctx, query, appid, day.Format(dayFormat), n); err != nil {
		return fmt.Errorf("counting the day's messages: %w", err)
	}
	return nil
}
