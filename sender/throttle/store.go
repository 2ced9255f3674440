package throttle

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/channel"
)

const (
	// scopeSend is account_state.scope of what concerns all sending of an account.
	scopeSend = "send"
	// scopeTemplate is followed by a template's id in account_state.scope.
	scopeTemplate = "template:"
)

// stateRow is a row of account_state.
type stateRow struct {
	Scope   string `db:"scope"`
	Reason  string `db:"reason"`
	ErrCode int    // not read back; 0: none
	ErrMsg  string `db:"errmsg"`
	// Remaining is how long the pause still lasts, in microseconds; NULL: until the cause is gone.
	Remaining sql.NullInt64 `db:"remaining"`
}

func newStateRow(o channel.Outcome) *stateRow {
	const maxErrMsg = 1000 // runes, and one more: the column's size
	return &stateRow{Reason: o.Reason, ErrCode: o.Code, ErrMsg: channel.Clip(o.Message, maxErrMsg)}
}

func (r stateRow) remaining() time.Duration {
	return time.Duration(r.Remaining.Int64) * time.Microsecond
}

// stateStore is what an Account needs of the database. What changes it takes no context: an
// answer of WeChat's is noted even if it comes after the stop.
type stateStore interface {
	load(ctx context.Context) ([]stateRow, error)
	save(scope string, row stateRow, remaining time.Duration) error
	clear(scope string) error
	sentOn(ctx context.Context, day time.Time) (int64, error)
	addSent(day time.Time, n int) error
}

// sqlStore holds an account's rows of account_state and send_day. All moments are the database's
// own, since the instances' clocks differ.
type sqlStore struct {
	db    *sqlx.DB
	appid string
}

func (s sqlStore) load(ctx context.Context) ([]stateRow, error) {
	const query = `
		SELECT scope, reason, COALESCE(errmsg, '') AS errmsg,
		       TIMESTAMPDIFF(MICROSECOND, CURRENT_TIMESTAMP(3), paused_until) AS remaining
		  FROM account_state
		 WHERE appid = ?`
	var rows []stateRow
	if err := s.db.SelectContext(ctx, &rows, query, s.appid); err != nil {
		return nil, fmt.Errorf("reading the account's state: %w", database.Explain(err))
	}
	return rows, nil
}

func (s sqlStore) save(scope string, row stateRow, remaining time.Duration) error {
	const query = `
		INSERT INTO account_state (appid, scope, reason, errcode, errmsg, paused_until)
		VALUES (?, ?, ?, ?, ?, LEAST(CURRENT_TIMESTAMP(3) + INTERVAL ? MICROSECOND, ` +
		database.SQLLastMoment + `))
		ON DUPLICATE KEY UPDATE
		    since        = CASE WHEN reason = VALUES(reason) THEN since ELSE VALUES(since) END,
		    reason       = VALUES(reason),
		    errcode      = VALUES(errcode),
		    errmsg       = VALUES(errmsg),
		    paused_until = VALUES(paused_until)`
	return s.exec("saving the account's state", query, s.appid, scope, row.Reason,
		database.Null(row.ErrCode), database.Null(row.ErrMsg), remaining.Microseconds())
}

func (s sqlStore) clear(scope string) error {
	return s.exec("clearing the account's state",
		`DELETE FROM account_state WHERE appid = ? AND scope = ?`, s.appid, scope)
}

// dayFormat is send_day.day: the date on which the day of WeChat's quotas began in China.
const dayFormat = "2006-01-02"

// sentOn returns how many messages the account's instances have counted on a day.
func (s sqlStore) sentOn(ctx context.Context, day time.Time) (int64, error) {
	const query = `SELECT COALESCE(SUM(sent), 0) FROM send_day WHERE appid = ? AND day = ?`
	var sent int64
	if err := s.db.GetContext(ctx, &sent, query, s.appid, day.Format(dayFormat)); err != nil {
		return 0, fmt.Errorf("reading the day's count: %w", database.Explain(err))
	}
	return sent, nil
}

func (s sqlStore) addSent(day time.Time, n int) error {
	const query = `
		INSERT INTO send_day (appid, day, sent) VALUES (?, ?, ?)
		ON DUPLICATE KEY UPDATE sent = sent + VALUES(sent)`
	return s.exec("counting the day's messages", query, s.appid, day.Format(dayFormat), n)
}

// exec runs a statement; what begins the error's text.
func (s sqlStore) exec(what, query string, args ...any) error {
	err := database.Detached(context.Background(), func(ctx context.Context) error {
		return database.Retry(ctx, func(ctx context.Context) error {
			_, err := s.db.ExecContext(ctx, query, args...)
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}
