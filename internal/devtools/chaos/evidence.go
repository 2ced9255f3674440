package main

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// row is a request as the table has it in the end.
type row struct {
	id          int64
	order       string
	status      string
	reason      string
	errcode     int64
	errmsg      string
	cancel      bool
	attempts    int
	lease       string
	msgid       int64
	sentOpenID  string
	createdAt   time.Time
	expiresAt   sql.NullTime
	attemptedAt sql.NullTime
	uncertainAt sql.NullTime
	finishedAt  sql.NullTime
	dueAt       time.Time
}

// receipt is what the daemon stored of a delivery receipt.
type receipt struct {
	msgid  int64
	openid string
	status string
}

// evidence is all that is known of a round in the end.
type evidence struct {
	records  map[string]record
	rows     []row
	messages []wechatsim.Message
	posts    []post
	// people says who an openid of the official account is; ok is false for one that does not exist.
	people func(openid string) (person int, ok bool)

	window   time.Duration // within which a message may be repeated
	slack    time.Duration // after its end a claim that was made within it may still post
	overdue  time.Duration // how late after expires_at a message may still arrive
	timeless bool          // the server's clock was wrong
	newIDs   bool          // WeChat answers a repetition with a msgid that no message has

	receipts    []receipt
	allReceipts bool // each message must have one
}

// collect reads everything back.
func (w *world) collect(ctx context.Context) (evidence, error) {
	e := evidence{
		records: w.ledger.snapshot(), messages: w.platform.Messages(stage.AppID), posts: w.platform.allPosts(),
		people: func(openid string) (int, bool) {
			identity, ok := w.platform.Identify(stage.AppID, openid)
			return identity.Person, ok
		},
		window: w.window, slack: claimLasts + w.outcome.frozen, overdue: 15*time.Second + w.outcome.frozen,
		timeless: w.round.jumps, newIDs: w.repeat == wechatsim.RepeatNewID,
	}
	if w.round.quick {
		e.slack, e.overdue = 10*time.Second, 5*time.Second
	}
	var err error
	if e.rows, err = w.readRows(ctx); err != nil {
		return e, err
	}
	if w.callbacks {
		_, givenUp := w.platform.Pushes()
		e.allReceipts = givenUp == 0
		e.receipts, err = w.readReceipts(ctx)
	}
	return e, err
}

func (w *world) readRows(ctx context.Context) ([]row, error) {
	found, err := w.db.QueryContext(ctx, `
		SELECT id, data, status, COALESCE(reason, ''), COALESCE(errcode, 0), COALESCE(errmsg, ''), cancel <> 0,
		       attempts, COALESCE(lease, ''), COALESCE(msgid, 0), COALESCE(sent_openid, ''),
		       created_at, due_at, expires_at, attempted_at, uncertain_at, finished_at
		  FROM send_request
		 ORDER BY id`)
	if err != nil {
		return nil, fmt.Errorf("reading the requests back: %w", err)
	}
	defer func() { _ = found.Close() }()
	var rows []row
	for found.Next() {
		var r row
		var data []byte
		err := found.Scan(&r.id, &data, &r.status, &r.reason, &r.errcode, &r.errmsg, &r.cancel,
			&r.attempts, &r.lease, &r.msgid, &r.sentOpenID,
			&r.createdAt, &r.dueAt, &r.expiresAt, &r.attemptedAt, &r.uncertainAt, &r.finishedAt)
		if err != nil {
			return nil, fmt.Errorf("reading the requests back: %w", err)
		}
		r.order = texts(data)[keyOrder]
		rows = append(rows, r)
	}
	if err := found.Err(); err != nil {
		return nil, fmt.Errorf("reading the requests back: %w", err)
	}
	return rows, nil
}

func (w *world) readReceipts(ctx context.Context) ([]receipt, error) {
	found, err := w.db.QueryContext(ctx, `SELECT msgid, openid, status FROM send_receipt WHERE appid = ?`, stage.AppID)
	if err != nil {
		return nil, fmt.Errorf("reading the receipts back: %w", err)
	}
	defer func() { _ = found.Close() }()
	var receipts []receipt
	for found.Next() {
		var r receipt
		if err := found.Scan(&r.msgid, &r.openid, &r.status); err != nil {
			return nil, fmt.Errorf("reading the receipts back: %w", err)
		}
		receipts = append(receipts, r)
	}
	if err := found.Err(); err != nil {
		return nil, fmt.Errorf("reading the receipts back: %w", err)
	}
	return receipts, nil
}

// wrongMap counts the people whom the map has under a wrong unionid.
func (w *world) wrongMap(ctx context.Context) (wrong int, err error) {
	found, err := w.db.QueryContext(ctx, `SELECT openid, COALESCE(unionid, '') FROM follower WHERE appid = ?`, stage.AppID)
	if err != nil {
		return 0, fmt.Errorf("reading the map back: %w", err)
	}
	defer func() { _ = found.Close() }()
	for found.Next() {
		var openid, unionid string
		if err := found.Scan(&openid, &unionid); err != nil {
			return 0, fmt.Errorf("reading the map back: %w", err)
		}
		// A missing unionid is allowed: it is asked for later.
		if identity, ok := w.platform.Identify(stage.AppID, openid); !ok || unionid != "" && identity.UnionID != unionid {
			wrong++
		}
	}
	if err := found.Err(); err != nil {
		return 0, fmt.Errorf("reading the map back: %w", err)
	}
	return wrong, nil
}
