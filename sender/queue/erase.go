package queue

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// ReasonErased is the reason of a request that ended because its recipient was erased.
const ReasonErased = "erased"

// Trace is an id of a person who is being erased: an openid at an account, or a unionid, whose AppID
// is "".
type Trace struct{ AppID, Value string }

// Traces are ids of people who are being erased.
type Traces map[Trace]bool

// values returns the ids alone.
func (t Traces) values() []string {
	var values []string
	for trace := range t {
		if !slices.Contains(values, trace.Value) {
			values = append(values, trace.Value)
		}
	}
	return values
}

// erasePage is how many rows one query of the walk looks at.
const erasePage = 10_000

// traceRow is what a row may name a person by.
type traceRow struct {
	ID int64 `db:"id"`
	Recipient
	AppID        sql.NullString `db:"appid"`
	FallbackFrom sql.NullString `db:"fallback_from"`
	SentOpenID   sql.NullString `db:"sent_openid"`
	DedupKey     sql.NullString `db:"dedup_key"`
}

// of reports whether the row is about one of the people.
func (r traceRow) of(traces Traces) bool {
	for t := range traces {
		switch {
		case t.AppID == "":
			if trim(r.UnionID) == t.Value {
				return true
			}
		case t.names(r.OpenID, r.AppID, r.FallbackFrom),
			t.names(r.SentOpenID, r.AppID, r.FallbackFrom), t.names(r.MiniOpenID, r.MiniAppID):
			return true
		}
	}
	return false
}

// names reports whether an openid of one of the accounts is the person's. Where a row does not say
// which account, as before its first claim, any is.
func (t Trace) names(openid sql.NullString, accounts ...sql.NullString) bool {
	if trim(openid) != t.Value {
		return false
	}
	other := false
	for _, a := range accounts {
		switch trim(a) {
		case t.AppID:
			return true
		case "":
		default:
			other = true
		}
	}
	return !other
}

// trim takes the blanks away that SQL does not compare.
func trim(s sql.NullString) string { return strings.TrimRight(s.String, " ") }

// keyNames reports whether the row's dedup_key has one of the ids in it.
func (r traceRow) keyNames(values []string) bool {
	return slices.ContainsFunc(values, func(v string) bool {
		return strings.Contains(r.DedupKey.String, v)
	})
}

// EraseOrder is a piece of the walk through all requests that takes people out of them. No index
// finds a person's rows: one for each way to name a person would cost every INSERT more than the
// rare walk costs.
type EraseOrder struct {
	Archive bool  // of send_request_archive
	Before  int64 // rows with smaller ids; the walk goes from the newest to the oldest
	Of      Traces
}

func (o EraseOrder) table() string {
	if o.Archive {
		return "send_request_archive"
	}
	return "send_request"
}

// matchTraces is the condition for the rows that may name one of some ids, each of which stands in
// four lists.
const matchTraces = `
	(unionid IN (?) OR openid IN (?) OR mini_openid IN (?) OR sent_openid IN (?))`

// Erase looks at the next rows and takes the people out of those that name them: recipient, message
// and what WeChat said of it. What was open, or in doubt, ends as cancelled. next is where the walk
// continues; 0: it is over. left are rows that another transaction holds.
func (q *Queue) Erase(ctx context.Context, o EraseOrder) (next int64, left []int64, err error) {
	values := o.Of.values()
	if len(values) == 0 {
		return 0, nil, nil
	}
	first, next, err := q.lookForTraces(ctx, o, values)
	if err != nil || first == 0 {
		return next, nil, err
	}
	rows := `
		SELECT id, unionid, mini_appid, mini_openid, openid, appid, fallback_from, sent_openid, dedup_key
		  FROM ` + o.table() + ` FORCE INDEX (PRIMARY)
		 WHERE id >= ? AND id < ? AND` + matchTraces
	theirs, err := find[traceRow](ctx, q, lookup{"reading an erased person's requests", rows},
		first, o.Before, values, values, values, values)
	if err != nil {
		return o.Before, nil, err
	}
	theirs = slices.DeleteFunc(theirs, func(r traceRow) bool { return !r.of(o.Of) })
	for part := range slices.Chunk(theirs, PageSize/4) {
		held, err := q.blank(ctx, o.table(), part, values)
		if err != nil {
			return o.Before, left, err
		}
		left = append(left, held...)
	}
	return next, left, nil
}

// lookForTraces looks at a page. first is its smallest id if any of its rows may be theirs, else 0.
func (q *Queue) lookForTraces(
	ctx context.Context, o EraseOrder, values []string,
) (first, next int64, err error) {
	// One row comes back, however many there are: mostly none is theirs.
	query := `
		SELECT COUNT(*) AS n, COALESCE(MIN(id), 0) AS first_id, COALESCE(SUM(theirs), 0) AS found
		  FROM (SELECT id,` + matchTraces + ` AS theirs
		          FROM ` + o.table() + ` FORCE INDEX (PRIMARY)
		         WHERE id < ?
		         ORDER BY id DESC
		         LIMIT ?) page`
	type page struct {
		N     int64 `db:"n"`
		First int64 `db:"first_id"`
		Found int64 `db:"found"`
	}
	found, err := find[page](ctx, q, lookup{"looking for an erased person's requests", query},
		values, values, values, values, o.Before, erasePage)
	if err != nil {
		return 0, o.Before, err
	}
	p := found[0]
	if p.N == erasePage {
		next = p.First
	}
	if p.Found > 0 {
		first = p.First
	}
	return first, next, nil
}

// blankColumns is what goes of a row that names an erased person. status comes last: the others read
// the old one. The row itself stays: it counts in the figures, and keeps its dedup_key.
const blankColumns = `
		       unionid     = NULL,
		       mini_openid = NULL,
		       openid      = NULL,
		       sent_openid = NULL,
		       data        = '{}',
		       url         = NULL,
		       page        = NULL,
		       mini_path   = NULL,
		       errmsg      = NULL,
		       warning     = NULL`

// endErased ends what is open. A row in doubt ends, too: no settle, receipt or operator may write
// again whom it was sent to. reason says that nothing is known of it.
const endErased = `,
		       reason      = CASE WHEN status IN ('pending', 'waiting', 'unknown') THEN 'erased'
		                          ELSE reason END,
		       finished_at = CASE WHEN status IN ('pending', 'waiting', 'unknown')
		                          THEN COALESCE(finished_at, CURRENT_TIMESTAMP(3)) ELSE finished_at END,
		       lease       = NULL,
		       status      = CASE WHEN status IN ('pending', 'waiting', 'unknown') THEN 'cancelled'
		                          ELSE status END`

// blank takes people out of rows, and returns those that another transaction holds.
func (q *Queue) blank(
	ctx context.Context, table string, rows []traceRow, values []string,
) (held []int64, err error) {
	lock := database.Lock{Query: `
		SELECT id FROM ` + table + ` FORCE INDEX (PRIMARY) WHERE id IN (?) FOR UPDATE`}
	var ids, keys []int64
	for _, r := range rows {
		ids = append(ids, r.ID)
	}
	err = database.InTx(ctx, q.db, func(ctx context.Context, tx *sqlx.Tx) error {
		ours, err := database.LockIn[int64](ctx, tx, lock, ids)
		if err != nil || len(ours) == 0 {
			held = ids
			return err
		}
		slices.Sort(ours)
		held, keys = without(ids, ours), nil
		for _, r := range rows {
			if _, locked := slices.BinarySearch(ours, r.ID); locked && r.keyNames(values) {
				keys = append(keys, r.ID)
			}
		}
		set, live := blankColumns, table == "send_request"
		if live {
			set += endErased
		}
		update := `UPDATE ` + table + ` FORCE INDEX (PRIMARY) SET` + set + ` WHERE id IN (?)`
		if _, err := database.ExecIn(ctx, tx, update, ours); err != nil {
			return err
		}
		if len(keys) > 0 {
			forget := `UPDATE ` + table + ` FORCE INDEX (PRIMARY) SET dedup_key = NULL WHERE id IN (?)`
			if _, err := database.ExecIn(ctx, tx, forget, keys); err != nil {
				return err
			}
		}
		if !live {
			return nil
		}
		if err := Unwait(ctx, tx, ours); err != nil {
			return err
		}
		return EndAttempts(ctx, tx, ours)
	})
	if err != nil {
		return nil, fmt.Errorf("taking an erased person out of %d requests: %w", len(rows), err)
	}
	return held, nil
}

// EraseReceipts takes a person out of the receipts of an account. They stay as the figures of their
// messages.
func (q *Queue) EraseReceipts(ctx context.Context, appid, openid string) error {
	const query = `
		UPDATE send_receipt SET openid = '' WHERE appid = ? AND openid = ? LIMIT ?`
	if openid == "" {
		return nil
	}
	for {
		n, err := q.exec(ctx, query, appid, openid, PageSize)
		if err != nil {
			return fmt.Errorf("taking a person out of receipts: %w", err)
		}
		if n < PageSize {
			return nil
		}
	}
}

// EraseAttempts deletes the attempts to a person that no request names any more, so that the walk did
// not find them. A younger one may be under way: without it, its request could be sent again.
func (q *Queue) EraseAttempts(
	ctx context.Context, appid, openid string, age time.Duration,
) error {
	const query = `
		DELETE FROM send_attempt
		 WHERE appid = ? AND openid = ? AND begun_at <= CURRENT_TIMESTAMP(3) - INTERVAL ? SECOND`
	if _, err := q.exec(ctx, query, appid, openid, int(age/time.Second)); err != nil {
		return fmt.Errorf("deleting attempts to an erased person: %w", err)
	}
	return nil
}
