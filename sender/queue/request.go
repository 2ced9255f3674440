package queue

import (
	"context"
	"database/sql"
	"slices"
	"strings"
	"time"
)

// MaxData is the longest data in bytes. A template has at most a few dozen keywords of at most 32
// characters; longer data is a mistake, and 800 of them at a time would not fit into memory.
const MaxData = 16 << 10

// Request is a row as a claim reads it.
type Request struct {
	ID int64 `db:"id"`
	Recipient
	Message
	State
	Path

	Lane  int            `db:"lane"`   // index of the share that it was claimed from
	DueAt time.Time      `db:"due_at"` // read of waiting rows only
	AppID sql.NullString `db:"appid"`  // whose queue it stands in; NULL: the default account's

	Token string // of the claim
	// Attempted: an attempt is written down that nobody has settled, where attempts decide about
	// doubt.
	Attempted bool
}

// Recipient is how a row names a person.
type Recipient struct {
	UnionID    sql.NullString `db:"unionid"`
	MiniAppID  sql.NullString `db:"mini_appid"`
	MiniOpenID sql.NullString `db:"mini_openid"`
	OpenID     sql.NullString `db:"openid"`
}

// Message is what a row is to say.
type Message struct {
	Template  string         `db:"template"`
	Data      sql.NullString `db:"data"` // NULL where it is longer than MaxData
	DataBytes int64          `db:"data_bytes"`
	URL       sql.NullString `db:"url"`
	MiniPath  sql.NullString `db:"mini_path"`
	JumpAppID sql.NullString `db:"jump_appid"` // of MiniPath; NULL: the recipient's mini program
	Options
}

// Options are what a row says of a subscribe message; NULL: as its template's alias does.
type Options struct {
	Page  sql.NullString `db:"page"`
	Lang  sql.NullString `db:"lang"`
	State sql.NullString `db:"mini_state"`
}

// Path is by which channels a row may go, and which one it has left.
type Path struct {
	Route sql.NullString `db:"route"`
	// FallbackFrom is the account that the producer named, or the first of the route, where the row
	// was moved to another; the two behind it are what that account said.
	FallbackFrom    sql.NullString `db:"fallback_from"`
	FallbackReason  sql.NullString `db:"fallback_reason"`
	FallbackErrCode sql.NullInt64  `db:"fallback_errcode"`
	// When the person last refused the message at the first account of the route, and at the other.
	FirstRefusedAt sql.NullTime `db:"first_refused_at"`
	OtherRefusedAt sql.NullTime `db:"other_refused_at"`
}

// State is what decides whether a row may go.
type State struct {
	Cancel    bool           `db:"cancel"`
	Priority  int            `db:"priority"`
	Attempts  int            `db:"attempts"` // before this claim
	Reason    sql.NullString `db:"reason"`   // why it is not final yet
	Expired   bool           `db:"expired"`
	ExpiresIn sql.NullInt64  `db:"expires_in"` // microseconds; NULL: never
	// InDoubtFor is how long ago the first attempt began whose outcome is not known, in
	// microseconds; NULL: every outcome is known.
	InDoubtFor sql.NullInt64 `db:"uncertain_age"`
}

// requestColumns are what a claim reads of a row. Overlong data never leaves the server.
const requestColumns = `
		SELECT r.id, r.unionid, r.mini_appid, r.mini_openid, r.openid, r.template, r.priority,
		       CASE WHEN LENGTH(r.data) <= ? THEN r.data END AS data, LENGTH(r.data) AS data_bytes,
		       r.url, r.mini_path, r.jump_appid, r.page, r.lang, r.mini_state, r.appid, r.route,
		       r.fallback_from, r.fallback_reason, r.fallback_errcode, r.first_refused_at,
		       r.other_refused_at,
		       r.cancel <> 0 AS cancel, r.attempts, r.reason,` + ageColumns

// ageColumns are what decides whether a row's time is over.
const ageColumns = `
		       COALESCE(r.expires_at <= CURRENT_TIMESTAMP(3), 0) AS expired,
		       TIMESTAMPDIFF(MICROSECOND, CURRENT_TIMESTAMP(3), r.expires_at) AS expires_in,
		       TIMESTAMPDIFF(MICROSECOND,
		           CASE WHEN r.lease NOT LIKE '` + attemptsMark + `%'
		                THEN COALESCE(r.uncertain_at, r.attempted_at)
		                ELSE r.uncertain_at END,
		           CURRENT_TIMESTAMP(3)) AS uncertain_age`

// Due returns rows that may be claimed: of each lane at most its share, urgent ones first and the
// longest due first, limit in all, and none of except.
func (q *Queue) Due(
	ctx context.Context, shares []Share, limit int, except []int64,
) ([]Request, error) {
	// Each branch reads its share of a lane in the order of send_request_due; only the winners'
	// rows are read.
	const branch = `(
		    SELECT id, priority, due_at, ? AS lane
		      FROM send_request FORCE INDEX (send_request_due)
		     WHERE status = 'pending' AND appid <=> ? AND priority = ? AND template = ?
		       AND due_at <= CURRENT_TIMESTAMP(3)
		       AND id NOT IN (?)
		     ORDER BY due_at
		     LIMIT ?)`
	if len(shares) == 0 {
		return nil, nil
	}
	if len(except) == 0 {
		except = []int64{0} // no id
	}
	args := []any{MaxData}
	for i, l := range shares {
		args = append(args, i, l.AppID, l.Priority, l.Template, except, l.Quantum)
	}
	query := requestColumns + `, d.lane
		  FROM (` + strings.Repeat(branch+" UNION ALL ", len(shares)-1) + branch + `
		        ORDER BY priority, due_at LIMIT ?) d
		  JOIN send_request r ON r.id = d.id
		 ORDER BY d.priority, d.due_at`
	return find[Request](ctx, q, lookup{"reading due requests", query}, append(args, limit)...)
}

// DueByID returns those of the rows that may be claimed, the longest due first.
func (q *Queue) DueByID(ctx context.Context, appid string, ids []int64) ([]Request, error) {
	const query = requestColumns + `
		  FROM send_request r FORCE INDEX (PRIMARY)
		 WHERE r.id IN (?) AND r.status = 'pending' AND r.appid = ? AND r.due_at <= CURRENT_TIMESTAMP(3)
		 ORDER BY r.due_at`
	return find[Request](ctx, q, lookup{"reading requests to repeat", query}, MaxData, ids, appid)
}

// InDoubt is a pending row whose last attempt is in doubt.
type InDoubt struct {
	ID    int64 `db:"id"`
	DueIn int64 `db:"due_in"` // microseconds
}

// InDoubtSoon returns those rows of some lanes that are due within the next minutes, at most limit
// of each lane: a claim's visibility, or the pause before a redelivery, lies ahead of them. Those
// whose time came before are in the queue.
func (q *Queue) InDoubtSoon(
	ctx context.Context, lanes []Lane, limit int,
) (found []InDoubt, err error) {
	const branch = `(
		    SELECT id, TIMESTAMPDIFF(MICROSECOND, CURRENT_TIMESTAMP(3), due_at) AS due_in
		      FROM send_request FORCE INDEX (send_request_due)
		     WHERE status = ? AND appid <=> ? AND priority = ? AND template = ?
		       AND due_at > CURRENT_TIMESTAMP(3)
		       AND due_at < CURRENT_TIMESTAMP(3) + INTERVAL 3 MINUTE
		       AND (lease NOT LIKE '` + attemptsMark + `%' OR uncertain_at IS NOT NULL)
		     LIMIT ?)`
	for part := range slices.Chunk(lanes, maxDives) {
		query := branch + strings.Repeat(" UNION ALL "+branch, len(part)-1)
		var args []any
		for _, l := range part {
			args = append(args, l.Status, l.AppID, l.Priority, l.Template, limit)
		}
		rows, err := find[InDoubt](ctx, q, lookup{"reading attempts in doubt", query}, args...)
		if err != nil {
			return nil, err
		}
		found = append(found, rows...)
	}
	return found, nil
}
