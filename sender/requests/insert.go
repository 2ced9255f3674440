package requests

import (
	"context"
	"fmt"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
)

// Request holds the producer's columns of send_request; a null value is left to its default.
type Request struct {
	AppID      *string    `db:"appid"`
	UnionID    *string    `db:"unionid"`
	MiniAppID  *string    `db:"mini_appid"`
	MiniOpenID *string    `db:"mini_openid"`
	OpenID     *string    `db:"openid"`
	Template   string     `db:"template"`
	Data       string     `db:"data"`
	URL        *string    `db:"url"`
	MiniPath   *string    `db:"mini_path"`
	Priority   int        `db:"priority"`
	DueAt      *time.Time `db:"due_at"`
	ExpiresIn  *int64     `db:"expires_in"` // microseconds
	DedupKey   *string    `db:"dedup_key"`
	Route      *string    `db:"route"`
	Options
}

// Options are of subscribe messages.
type Options struct {
	Page      *string `db:"page"`
	Lang      *string `db:"lang"`
	MiniState *string `db:"mini_state"`
}

// Insert inserts a request with a producer's rights, and returns its id. If a row has its dedup_key
// already, nothing is inserted: existed is true, and the id is that row's.
func (s Store) Insert(ctx context.Context, r Request) (id int64, existed bool, err error) {
	// Moments are the database's: the producer's machine may have another clock.
	columns, values := ``, ``
	if r.Options != (Options{}) { // a producer's role may not have them yet
		columns, values = `, page, lang, mini_state`, `, :page, :lang, :mini_state`
	}
	if r.Route != nil {
		columns, values = columns+`, route`, values+`, :route`
	}
	query := `
		INSERT INTO send_request
		       (appid, unionid, mini_appid, mini_openid, openid, template, data, url, mini_path,
		        priority, due_at, expires_at, dedup_key` + columns + `)
		VALUES (:appid, :unionid, :mini_appid, :mini_openid, :openid, :template, :data, :url, :mini_path,
		        :priority, COALESCE(:due_at, CURRENT_TIMESTAMP(3)),
		        LEAST(CURRENT_TIMESTAMP(3) + INTERVAL :expires_in MICROSECOND, ` +
		database.SQLLastMoment + `), :dedup_key` + values + `)`
	err = database.Retry(ctx, func(ctx context.Context) error {
		res, err := s.DB.NamedExecContext(ctx, query, r)
		if err == nil {
			id, err = res.LastInsertId()
		}
		return err
	})
	if database.IsDuplicate(err) && r.DedupKey != nil {
		const byKey = `SELECT id FROM v_send_status WHERE dedup_key = ?`
		if err := s.DB.GetContext(ctx, &id, byKey, *r.DedupKey); err != nil {
			return 0, true, fmt.Errorf("reading the request with the same dedup key: %w",
				database.Explain(err))
		}
		return id, true, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("inserting the request: %w", err)
	}
	return id, false, nil
}

// Outcome is what v_send_status says of a request. Its JSON is a line of "unionbridge send --json".
type Outcome struct {
	ID         int64   `db:"id" json:"id"`
	AppID      string  `db:"appid" json:"-"` // "": the default account's, and not claimed yet
	Status     string  `db:"status" json:"status"`
	Reason     *string `db:"reason" json:"reason"`
	ErrCode    *int    `db:"errcode" json:"errcode"`
	ErrMsg     *string `db:"errmsg" json:"errmsg"`
	Attempts   int     `db:"attempts" json:"attempts"`
	Channel    *string `db:"channel" json:"channel"`
	SentOpenID *string `db:"sent_openid" json:"sent_openid"`
	// MsgID is above 2^53 at times: a string, or JavaScript and jq would round it.
	MsgID *int64 `db:"msgid" json:"msgid,string"`
}

// Outcome reads what has become of a request so far, with a producer's rights.
func (s Store) Outcome(ctx context.Context, id int64) (Outcome, error) {
	const query = `
		SELECT id, COALESCE(appid, '') AS appid, status, reason, errcode, errmsg, attempts,
		       channel, sent_openid, msgid
		  FROM v_send_status
		 WHERE id = ?`
	var o Outcome
	if err := s.DB.GetContext(ctx, &o, query, id); err != nil {
		return Outcome{}, fmt.Errorf("reading the status of request %d: %w", id, database.Explain(err))
	}
	return o, nil
}
