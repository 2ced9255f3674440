package requests

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// Overview is the state of the queue, for people and pages.
type Overview struct {
	Open []OpenCount // what is not final yet, in the order of status and account
	// Recent counts the newest Sampled requests by status and reason, the most frequent first.
	Recent []OutcomeCount
	// Sampled is how many requests Recent counts: all of them, or maxSample if there are more.
	Sampled int64
	Pauses  []Pause // paused accounts, and paused templates of accounts
	// Unsettled are the accounts whose outcomes cannot be stored; ErrMsg says why.
	Unsettled []Pause
}

// OpenCount counts the requests of one account in one open status.
type OpenCount struct {
	// AppID is "" for rows of the default account that no instance has claimed yet.
	AppID    string `db:"appid"`
	Status   string `db:"status"` // "pending" or "waiting"
	Requests int64  `db:"requests"`
	Late     int64  `db:"late"` // of these, pending ones whose due_at has passed
	// Oldest is the smallest due_at; of a waiting request that is the end of its wait.
	Oldest time.Time `db:"oldest"`
}

// OutcomeCount counts requests of one status and reason.
type OutcomeCount struct {
	Status   string `db:"status"`
	Reason   string `db:"reason"` // "": none
	Requests int64  `db:"requests"`
}

// Pause is why an account, or one template of it, is paused: a row of account_state.
type Pause struct {
	AppID   string    `db:"appid"`
	Scope   string    `db:"scope"`   // what is paused: "send", or "template:" and the template's id
	Reason  string    `db:"reason"`  // one of docs/states.md
	ErrCode int       `db:"errcode"` // WeChat's; 0: none
	ErrMsg  string    `db:"errmsg"`
	Since   time.Time `db:"since"`
	Until   time.Time // when it is tried again; zero: when the cause has been fixed
	// Over: Until has passed, and no message has shown yet whether the cause is gone.
	Over bool `db:"over_by_now"`
}

// maxSample bounds the rows that an overview looks at. The reason is in the row, not in an index,
// and final rows are many: counting all of them would read the whole table.
const maxSample = 10_000

// Overview reads the state of the queue. Its cost grows with the open requests only, through the
// index send_request_due alone; it needs SELECT on send_request and account_state.
func (s Store) Overview(ctx context.Context) (Overview, error) {
	var o Overview
	const open = `
		SELECT appid, status, SUM(requests) AS requests, MIN(oldest) AS oldest, SUM(late) AS late
		  FROM (SELECT COALESCE(appid, '') AS appid, status, COUNT(*) AS requests,
		               MIN(due_at) AS oldest,
		               SUM(CASE WHEN status = 'pending' AND due_at <= CURRENT_TIMESTAMP(3)
		                        THEN 1 ELSE 0 END) AS late
		          FROM send_request r
		         WHERE status IN ('pending', 'waiting')
		         GROUP BY status, r.appid) accounts
		 GROUP BY status, appid
		 ORDER BY status, appid`
	if err := s.DB.SelectContext(ctx, &o.Open, open); err != nil {
		return Overview{}, fmt.Errorf("counting open requests: %w", database.Explain(err))
	}
	const recent = `
		SELECT status, COALESCE(reason, '') AS reason, COUNT(*) AS requests
		  FROM (SELECT status, reason FROM send_request ORDER BY id DESC LIMIT ?) newest
		 GROUP BY status, reason
		 ORDER BY requests DESC, status, reason`
	if err := s.DB.SelectContext(ctx, &o.Recent, recent, maxSample); err != nil {
		return Overview{}, fmt.Errorf("counting outcomes: %w", database.Explain(err))
	}
	for _, r := range o.Recent {
		o.Sampled += r.Requests
	}
	var err error
	if o.Pauses, err = s.pauses(ctx, "<>"); err != nil {
		return o, err
	}
	o.Unsettled, err = s.pauses(ctx, "=")
	return o, err
}

// pauses reads the rows of account_state whose scope is, or is not, queue.ScopeSettle.
func (s Store) pauses(ctx context.Context, operator string) ([]Pause, error) {
	query := `
		SELECT appid, scope, reason, COALESCE(errcode, 0) AS errcode,
		       COALESCE(errmsg, '') AS errmsg, since, paused_until,
		       COALESCE(paused_until <= CURRENT_TIMESTAMP(3), 0) AS over_by_now
		  FROM account_state
		 WHERE scope ` + operator + ` ?
		 ORDER BY appid, scope`
	var rows []struct {
		Pause
		PausedUntil sql.NullTime `db:"paused_until"`
	}
	if err := s.DB.SelectContext(ctx, &rows, query, queue.ScopeSettle); err != nil {
		return nil, fmt.Errorf("reading which accounts are paused: %w", database.Explain(err))
	}
	pauses := make([]Pause, len(rows))
	for i, r := range rows {
		pauses[i] = r.Pause
		pauses[i].AppID = strings.TrimRight(r.AppID, " ") // as SQL compares it, and so the daemon
		pauses[i].Until = r.PausedUntil.Time
	}
	return pauses, nil
}
