package sender

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// status is send_request.status. The machine is drawn in docs/states.md.
type status string

const (
	statusPending   status = "pending"
	statusWaiting   status = "waiting"
	statusSent      status = "sent"
	statusFailed    status = "failed"
	statusExpired   status = "expired"
	statusCancelled status = "cancelled"
	statusUnknown   status = "unknown"
)

// request is a row of send_request as the sender reads it.
type request struct {
	ID         int64          `db:"id"`
	UnionID    sql.NullString `db:"unionid"`
	MiniAppID  sql.NullString `db:"mini_appid"`
	MiniOpenID sql.NullString `db:"mini_openid"`
	OpenID     sql.NullString `db:"openid"`
	Template   string         `db:"template"`
	Data       sql.NullString `db:"data"` // NULL where it is longer than maxData
	DataBytes  int64          `db:"data_bytes"`
	URL        sql.NullString `db:"url"`
	MiniPath   sql.NullString `db:"mini_path"`
	Cancel     bool           `db:"cancel"`
	Priority   int            `db:"priority"`
	Attempts   int            `db:"attempts"` // before this claim
	Reason     sql.NullString `db:"reason"`   // why it is not final yet
	Lane       int            `db:"lane"`     // index of the quantum that it was claimed from
	Expired    bool           `db:"expired"`
	ExpiresIn  sql.NullInt64  `db:"expires_in"` // microseconds; NULL: never
	// InDoubtAge is how long ago the first attempt began whose outcome is not known, in microseconds;
	// NULL: every outcome is known.
	InDoubtAge sql.NullInt64 `db:"uncertain_age"`
	DueAt      time.Time     `db:"due_at"` // read of waiting rows only

	token string
}

// store holds the queries on send_request and account_state. All moments are the database's own: the
// producers' due_at is too, and instances' clocks may differ.
type store struct {
	db *sqlx.DB
}

func (s store) installation(ctx context.Context) (string, error) {
	var id string
	err := s.db.GetContext(ctx, &id, `SELECT id FROM installation WHERE singleton = 1`)
	if err != nil {
		return "", fmt.Errorf("reading the installation's id: %w", database.Explain(err))
	}
	return id, nil
}

// requestColumns are what a claim reads of a row. Overlong data never leaves the server.
const requestColumns = `
		SELECT r.id, r.unionid, r.mini_appid, r.mini_openid, r.openid, r.template, r.priority,
		       CASE WHEN LENGTH(r.data) <= ? THEN r.data END AS data, LENGTH(r.data) AS data_bytes,
		       r.url, r.mini_path, r.cancel <> 0 AS cancel, r.attempts, r.reason,
		       COALESCE(r.expires_at <= CURRENT_TIMESTAMP(3), 0) AS expired,
		       TIMESTAMPDIFF(MICROSECOND, CURRENT_TIMESTAMP(3), r.expires_at) AS expires_in,
		       TIMESTAMPDIFF(MICROSECOND,
		           CASE WHEN r.lease IS NOT NULL THEN COALESCE(r.uncertain_at, r.attempted_at) ELSE r.uncertain_at END,
		           CURRENT_TIMESTAMP(3)) AS uncertain_age`

// due returns rows that may be claimed, of each lane at most its quantum, urgent ones first and the longest due
// first, limit in all, and none of except.
func (s store) due(ctx context.Context, quanta []quantum, limit int, except []int64) ([]request, error) {
	// Each branch reads its quantum of a lane in the order of send_request_due; only the winners' rows are read.
	const branch = `(
		    SELECT id, priority, due_at, ? AS lane
		      FROM send_request
		     WHERE status = 'pending' AND appid <=> ? AND priority = ? AND template = ? AND due_at <= CURRENT_TIMESTAMP(3)
		       AND id NOT IN (?)
		     ORDER BY due_at
		     LIMIT ?)`
	if len(except) == 0 {
		except = []int64{0} // no id
	}
	args := []any{maxData}
	for i, l := range quanta {
		args = append(args, i, l.AppID, l.Priority, l.Template, except, l.maxRows)
	}
	query := requestColumns + `, d.lane
		  FROM (` + strings.Repeat(branch+" UNION ALL ", len(quanta)-1) + branch + ` ORDER BY priority, due_at LIMIT ?) d
		  JOIN send_request r ON r.id = d.id
		 ORDER BY d.priority, d.due_at`
	query, args, err := sqlx.In(query, append(args, limit)...)
	if err != nil {
		return nil, err
	}
	var rows []request
	if err := s.db.SelectContext(ctx, &rows, query, args...); err != nil {
		return nil, fmt.Errorf("reading due requests: %w", database.Explain(err))
	}
	return rows, nil
}

// claimOrder is what one claim is to take.
type claimOrder struct {
	appid      string
	rows       []request
	skipLocked bool // some rows are known to be held by other transactions
}

// claim takes rows for the account by compare-and-set and returns those it got, and the ids of those that another
// transaction holds. Withdrawn rows are ended instead.
func (s store) claim(ctx context.Context, o claimOrder) (mine []request, locked []int64, err error) {
	// uncertain_at comes first: it reads the lease that the same statement overwrites. A lease that is
	// still there belongs to an attempt that nobody settled. By any other index the statement would lock, and
	// wait for, rows that are not among the ids.
	const query = `
		UPDATE send_request FORCE INDEX (PRIMARY)
		   SET uncertain_at = CASE WHEN lease IS NOT NULL THEN COALESCE(uncertain_at, attempted_at) ELSE uncertain_at END,
		       lease        = ?,
		       appid        = ?,
		       attempts     = attempts + 1,
		       attempted_at = CURRENT_TIMESTAMP(3),
		       due_at       = CURRENT_TIMESTAMP(3) + INTERVAL ? SECOND
		 WHERE id IN (?) AND status = 'pending' AND cancel = 0 AND due_at <= CURRENT_TIMESTAMP(3)`
	var ids, withdrawn []int64
	for _, r := range o.rows {
		if r.Cancel {
			withdrawn = append(withdrawn, r.ID)
		} else {
			ids = append(ids, r.ID)
		}
	}
	if locked, err = s.cancel(ctx, cancelOrder{statusPending, withdrawn, o.skipLocked}); err != nil || len(ids) == 0 {
		return nil, locked, err
	}
	token := rand.Text()
	var n int64
	held, err := s.withoutLocked(ctx, ids, o.skipLocked || len(locked) > 0, func(ctx context.Context, db sqlx.ExecerContext, ids []int64) (err error) {
		n, err = s.execOnce(ctx, db, query, token, o.appid, int(visibility/time.Second), ids)
		return err
	})
	if err != nil {
		return nil, nil, fmt.Errorf("claiming %d requests: %w", len(ids), err)
	}
	if n < int64(len(ids)) {
		// Another claimer, a producer's cancel or his lock came between the two statements.
		if ids, err = s.claimed(ctx, token, ids); err != nil {
			return nil, nil, err
		}
	}
	got := make(map[int64]bool, len(ids))
	for _, id := range ids {
		got[id] = true
	}
	mine = make([]request, 0, len(ids))
	for _, r := range o.rows {
		if got[r.ID] {
			r.token = token
			mine = append(mine, r)
		}
	}
	return mine, append(locked, held...), nil
}

func (s store) claimed(ctx context.Context, token string, ids []int64) ([]int64, error) {
	query, args, err := sqlx.In(`SELECT id FROM send_request WHERE id IN (?) AND lease = ?`, ids, token)
	if err != nil {
		return nil, err
	}
	var mine []int64
	if err := s.db.SelectContext(ctx, &mine, query, args...); err != nil {
		return nil, fmt.Errorf("reading back a claim: %w", database.Explain(err))
	}
	return mine, nil
}

// cancelOrder is which withdrawn rows are to be ended.
type cancelOrder struct {
	from       status
	ids        []int64
	skipLocked bool // some rows are known to be held by other transactions
}

// cancel ends rows that their producer withdrew, but for those that another transaction holds. One whose last
// attempt has no known outcome cannot be called cancelled.
func (s store) cancel(ctx context.Context, o cancelOrder) (locked []int64, err error) {
	if len(o.ids) == 0 {
		return nil, nil
	}
	const query = `
		UPDATE send_request FORCE INDEX (PRIMARY)
		   SET reason      = CASE WHEN lease IS NOT NULL OR uncertain_at IS NOT NULL THEN 'cancelled_too_late' END,
		       status      = CASE WHEN lease IS NOT NULL OR uncertain_at IS NOT NULL THEN 'unknown' ELSE 'cancelled' END,
		       lease       = NULL,
		       finished_at = CURRENT_TIMESTAMP(3)
		 WHERE id IN (?) AND status = ? AND cancel <> 0 AND (lease IS NULL OR due_at <= CURRENT_TIMESTAMP(3))`
	locked, err = s.withoutLocked(ctx, o.ids, o.skipLocked, func(ctx context.Context, db sqlx.ExecerContext, ids []int64) error {
		_, err := s.execOnce(ctx, db, query, ids, o.from)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("cancelling %d requests: %w", len(o.ids), err)
	}
	return locked, nil
}

// exec runs a statement with IN lists and returns the rows it matched.
func (s store) exec(ctx context.Context, query string, args ...any) (int64, error) {
	query, args, err := sqlx.In(query, args...)
	if err != nil {
		return 0, err
	}
	var n int64
	err = database.Retry(ctx, func(ctx context.Context) error {
		res, err := s.db.ExecContext(ctx, query, args...)
		if err != nil {
			return err
		}
		n, err = res.RowsAffected()
		return err
	})
	return n, err
}
