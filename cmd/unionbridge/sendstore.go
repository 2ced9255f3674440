package main

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// intake writes and reads send_request as any app does: it INSERTs the producer's columns and reads the
// view, with a producer's rights. It is not part of the sender.
type intake struct {
	db *sqlx.DB
}

// newRequest holds the producer's columns of send_request; a null value is left to its default.
type newRequest struct {
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
}

// insert returns the row's id, and whether a row with the same dedup_key was there before: that one is
// meant then, and nothing is inserted.
func (s intake) insert(ctx context.Context, r newRequest) (id int64, existed bool, err error) {
	// Moments are the database's: the machine that types this may have another clock.
	const query = `
		INSERT INTO send_request
		       (appid, unionid, mini_appid, mini_openid, openid, template, data, url, mini_path,
		        priority, due_at, expires_at, dedup_key)
		VALUES (:appid, :unionid, :mini_appid, :mini_openid, :openid, :template, :data, :url, :mini_path,
		        :priority, COALESCE(:due_at, CURRENT_TIMESTAMP(3)),
		        CURRENT_TIMESTAMP(3) + INTERVAL :expires_in MICROSECOND, :dedup_key)`
	var res sql.Result
	err = database.Retry(ctx, func(ctx context.Context) (err error) {
		res, err = s.db.NamedExecContext(ctx, query, r)
		return err
	})
	if database.IsDuplicate(err) && r.DedupKey != nil {
		id, err = s.byDedupKey(ctx, *r.DedupKey)
		return id, true, err
	}
	if err != nil {
		return 0, false, fmt.Errorf("inserting the request: %w", err)
	}
	if id, err = res.LastInsertId(); err != nil {
		return 0, false, fmt.Errorf("inserting the request: %w", err)
	}
	return id, false, nil
}

func (s intake) byDedupKey(ctx context.Context, key string) (int64, error) {
	const query = `SELECT id FROM v_send_status WHERE dedup_key = ?`
	var id int64
	if err := s.db.GetContext(ctx, &id, query, key); err != nil {
		return 0, fmt.Errorf("reading the request with the same dedup key: %w", database.Explain(err))
	}
	return id, nil
}

// outcome is what v_send_status says of a request, and one line of --json.
type outcome struct {
	ID         int64   `db:"id" json:"id"`
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

func (s intake) status(ctx context.Context, id int64) (outcome, error) {
	const query = `
		SELECT id, status, reason, errcode, errmsg, attempts, channel, sent_openid, msgid
		  FROM v_send_status
		 WHERE id = ?`
	var o outcome
	if err := s.db.GetContext(ctx, &o, query, id); err != nil {
		return outcome{}, fmt.Errorf("reading the status of request %d: %w", id, database.Explain(err))
	}
	return o, nil
}

// final tells whether nothing will change any more.
func (o outcome) final() bool { return o.Status != "pending" && o.Status != "waiting" }

// news tells whether o says something that before did not.
func (o outcome) news(before outcome) bool {
	return o.Status != before.Status || o.Attempts != before.Attempts || text(o.Reason) != text(before.Reason)
}

// String is a line for people.
func (o outcome) String() string {
	line := fmt.Sprintf("request %d: %s", o.ID, o.Status)
	if o.Status == "sent" && o.MsgID != nil {
		return fmt.Sprintf("%s to %s, msgid %d", line, text(o.SentOpenID), *o.MsgID)
	}
	if o.Reason != nil {
		line += " (" + *o.Reason + ")"
	}
	if o.ErrCode != nil && *o.ErrCode != 0 {
		line += fmt.Sprintf(", errcode %d", *o.ErrCode)
	}
	if o.ErrMsg != nil {
		line += ": " + *o.ErrMsg
	}
	return line
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
