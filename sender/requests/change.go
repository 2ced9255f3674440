package requests

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// Change is what became of one request that was to be changed.
type Change struct {
	ID     int64
	Status string // by now; "" if there is no such request
	// Refused says why the request is not as was asked for; "": it is.
	Refused string
}

// Why a request is not changed. The words hold nothing of the single request, so that they can be
// counted.
const (
	refusedMissing  = "there is no such request"
	refusedArchived = "it is in the archive only: INSERT a new one"
	refusedLocked   = "somebody's open transaction holds the row: try again when that has ended"
	refusedSent     = "it was sent: the person would get it twice. " +
		"WeChat drops a repetition only within 10 minutes of the first attempt; --force sends it anyway"
	refusedUnknown = `it may have been sent: find out, and say so with "unionbridge requests resolve". ` +
		"--force sends it again, and if it was sent more than 10 minutes ago, the person gets it twice"
	refusedExpiry = "its expires_at has passed, it would expire again at once: " +
		"--ignore-expiry takes expires_at away"
	refusedOpen      = "there is nothing to retry, it is not finished: --now makes it due at once"
	refusedDue       = "it is due already: is a daemon running, and the account not paused?"
	refusedUnderWay  = "an attempt is under way: look at it again in a minute"
	refusedLeft      = "an instance died during an attempt: the request falls due again within a minute"
	refusedWithdrawn = "its producer has withdrawn it"
	refusedCancelled = "it was withdrawn, and its producer may rely on its never being sent: " +
		"--withdrawn sends it anyway"
	refusedFinal  = "it is too late, the request is finished"
	refusedLate   = "it was withdrawn too late: an attempt has been made, and its outcome is not known"
	refusedMarked = "it is marked, but an attempt is under way, and if that succeeds it is sent: " +
		"look at it again in a minute"
	refusedErased  = "its recipient was erased, and what it said"
	refusedKnown   = "its outcome is known: only unknown ones can be resolved"
	refusedMsgID   = "another request has this msgid"
	refusedReceipt = "the receipt with this msgid is of a message to another person"
)

// maxChange rows are changed in one transaction.
const maxChange = 500

// lockedRow is what decides about a change.
type lockedRow struct {
	ID      int64          `db:"id"`
	Status  queue.Status   `db:"status"`
	AppID   sql.NullString `db:"appid"`
	Cancel  bool           `db:"cancel"`
	Leased  bool           `db:"leased"`   // an attempt holds it, or held it when its instance died
	InDoubt bool           `db:"in_doubt"` // an attempt's outcome is not known
	Due     bool           `db:"due"`
	Overdue bool           `db:"overdue"` // expires_at has passed
	Erased  bool           `db:"erased"`
}

// underWay reports whether an attempt may hold the row now.
func (r lockedRow) underWay() bool { return !final(r.Status) && r.Leased && !r.Due }

// step is what is done to one row.
type step struct {
	query   string       // "": nothing; its last parameters are the ids, their status and their account
	args    []any        // those before
	becomes queue.Status // where there is a query
	refused string
	// ends: what may have been sent is decided about, so nothing is known of an attempt any more.
	ends bool
	// then belongs to the change, in its transaction; nil: nothing does.
	then func(ctx context.Context, tx *sqlx.Tx, ids []int64) error
	// check has the last word, in the transaction that holds the row; "": nothing speaks against
	// the step. nil: no check.
	check func(ctx context.Context, tx *sqlx.Tx) (refused string, err error)
}

// errRowLocked means that a statement would have had to wait for another transaction.
var errRowLocked = errors.New("another transaction holds a row")

// change does to each of the rows what plan says, in the order of ids. The rows are locked while
// that is decided, so that no claim and no settle comes between; the statements repeat the
// conditions anyway.
func (s Store) change(ctx context.Context, ids []int64, plan func(lockedRow) step) (
	[]Change, error,
) {
	changes := make([]Change, 0, len(ids))
	for chunk := range slices.Chunk(ids, maxChange) {
		var done map[int64]Change
		attempt := func(skipLocked bool) error {
			return database.InTx(ctx, s.DB, func(ctx context.Context, tx *sqlx.Tx) error {
				rows, err := lockRows(ctx, tx, chunk, skipLocked)
				if err == nil {
					done, err = changeLocked(ctx, tx, rows, plan)
				}
				return err
			})
		}
		err := attempt(false)
		if errors.Is(err, errRowLocked) {
			err = attempt(true)
		}
		if err != nil {
			return changes, fmt.Errorf("changing requests: %w", err)
		}
		for _, id := range chunk {
			c, ok := done[id]
			if !ok {
				if c, err = s.missing(ctx, id); err != nil {
					return changes, err
				}
			}
			changes = append(changes, c)
		}
	}
	return changes, nil
}

// lockRows locks rows; skipLocked leaves out those that another transaction holds.
func lockRows(ctx context.Context, tx *sqlx.Tx, ids []int64, skipLocked bool) ([]lockedRow, error) {
	const query = `
		SELECT id, status, appid, cancel <> 0 AS cancel, lease IS NOT NULL AS leased,
		       ` + queue.SQLInDoubt + ` AS in_doubt, due_at <= CURRENT_TIMESTAMP(3) AS due,
		       COALESCE(expires_at <= CURRENT_TIMESTAMP(3), 0) AS overdue,
		       COALESCE(reason = 'erased', 0) AS erased
		  FROM send_request FORCE INDEX (PRIMARY)
		 WHERE id IN (?)
		   FOR UPDATE`
	var rows []lockedRow
	var err error
	if skipLocked {
		rows, err = database.LockIn[lockedRow](ctx, tx, database.Lock{Query: query}, ids)
	} else {
		rows, err = database.SelectIn[lockedRow](ctx, tx, query, ids)
	}
	if database.IsLockTimeout(err) && !skipLocked {
		return nil, errRowLocked // not repeated
	}
	if err != nil {
		return nil, fmt.Errorf("locking rows: %w", err)
	}
	return rows, nil
}

func changeLocked(
	ctx context.Context, tx *sqlx.Tx, rows []lockedRow, plan func(lockedRow) step,
) (map[int64]Change, error) {
	type kind struct {
		query string
		from  queue.Status
		appid sql.NullString
	}
	steps, groups := map[kind]step{}, map[kind][]int64{}
	done := make(map[int64]Change, len(rows))
	for _, row := range rows {
		s := plan(row)
		if s.check != nil {
			refused, err := s.check(ctx, tx)
			if err != nil {
				return nil, err
			}
			if refused != "" {
				s = step{refused: refused}
			}
		}
		change := Change{ID: row.ID, Status: string(row.Status), Refused: s.refused}
		if s.query != "" {
			k := kind{s.query, row.Status, row.AppID}
			steps[k], groups[k] = s, append(groups[k], row.ID)
			change.Status = string(s.becomes)
		}
		done[row.ID] = change
	}
	for k, ids := range groups {
		n, err := database.ExecIn(ctx, tx, k.query, append(steps[k].args, ids, k.from, k.appid)...)
		if err != nil {
			return nil, err
		}
		if n != int64(len(ids)) {
			return nil, fmt.Errorf("%d of %d rows were as they had been read under a lock; "+
				"nothing was changed, try again", n, len(ids))
		}
		if steps[k].then != nil {
			if err := steps[k].then(ctx, tx, ids); err != nil {
				return nil, err
			}
		}
		if steps[k].ends {
			if err := queue.EndAttempts(ctx, tx, ids); err != nil {
				return nil, err
			}
		}
		if steps[k].becomes != queue.Waiting { // it waits no more
			if err := queue.Unwait(ctx, tx, ids); err != nil {
				return nil, err
			}
		}
	}
	return done, nil
}

// missing says why a row could not be locked.
func (s Store) missing(ctx context.Context, id int64) (Change, error) {
	d, err := s.detail(ctx, id)
	c := Change{ID: id, Status: d.Status, Refused: refusedLocked}
	switch {
	case errors.Is(err, ErrNotFound):
		c.Refused, err = refusedMissing, nil
	case d.Archived:
		c.Refused = refusedArchived
	}
	return c, err
}
