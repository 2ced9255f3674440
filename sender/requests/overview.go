package requests

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
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
	// Ends are of these, by account.
	Ends   []RecentEnds
	Pauses []Pause // paused accounts, and paused templates of accounts
	// Unsettled are the accounts whose outcomes cannot be stored; ErrMsg says why.
	Unsettled []Pause
}

// RecentEnds counts the requests of one account that ended in the last EndedWithin, among the newest
// ones.
type RecentEnds struct {
	AppID         string
	Ended, Failed int64 // Ended without cancelled ones
}

// EndedWithin is how far RecentEnds look back.
const EndedWithin = 15 * time.Minute

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

// Overview reads the state of the queue. Its cost is bounded, whatever the queue's length. appids
// are the accounts of the configuration. It needs SELECT on send_request and account_state.
func (s Store) Overview(ctx context.Context, appids []string) (o Overview, err error) {
	if o.Open, err = s.open(ctx, appids); err != nil {
		return Overview{}, err
	}
	if err := s.recent(ctx, &o); err != nil {
		return Overview{}, err
	}
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

// recent reads the newest requests.
func (s Store) recent(ctx context.Context, o *Overview) error {
	const query = `
		SELECT COALESCE(appid, '') AS appid, status, COALESCE(reason, '') AS reason,
		       COUNT(*) AS requests,
		       SUM(CASE WHEN finished_at > CURRENT_TIMESTAMP(3) - INTERVAL ? SECOND
		                THEN 1 ELSE 0 END) AS ended
		  FROM (SELECT appid, status, reason, finished_at
		          FROM send_request ORDER BY id DESC LIMIT ?) newest
		 GROUP BY newest.appid, newest.status, newest.reason
		 ORDER BY appid, status, reason`
	var rows []struct {
		OutcomeCount
		AppID string `db:"appid"`
		Ended int64  `db:"ended"`
	}
	err := s.DB.SelectContext(ctx, &rows, query, int(EndedWithin/time.Second), maxSample)
	if err != nil {
		return fmt.Errorf("counting outcomes: %w", database.Explain(err))
	}
	for _, r := range rows {
		o.Sampled += r.Requests
		o.addOutcome(r.OutcomeCount)
		if r.Ended > 0 && r.Status != "cancelled" {
			o.addEnds(strings.TrimRight(r.AppID, " "), r.Status, r.Ended)
		}
	}
	slices.SortStableFunc(o.Recent, func(a, b OutcomeCount) int {
		return cmp.Or(cmp.Compare(b.Requests, a.Requests), cmp.Compare(a.Status, b.Status),
			cmp.Compare(a.Reason, b.Reason))
	})
	return nil
}

func (o *Overview) addOutcome(c OutcomeCount) {
	for i := range o.Recent {
		if o.Recent[i].Status == c.Status && o.Recent[i].Reason == c.Reason {
			o.Recent[i].Requests += c.Requests
			return
		}
	}
	o.Recent = append(o.Recent, c)
}

func (o *Overview) addEnds(appid, status string, n int64) {
	at := slices.IndexFunc(o.Ends, func(e RecentEnds) bool { return e.AppID == appid })
	if at < 0 {
		at = len(o.Ends)
		o.Ends = append(o.Ends, RecentEnds{AppID: appid})
	}
	o.Ends[at].Ended += n
	if status == "failed" {
		o.Ends[at].Failed += n
	}
}
