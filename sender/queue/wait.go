package queue

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// Wait is one thing that may release a waiting row: a row of send_wait. The queue does not know
// what its value means. It is a hint and nothing more: whether the row waits, send_request says.
type Wait struct {
	Kind  string `db:"kind"`
	AppID string `db:"appid"`
	Value string `db:"value"`
}

// Compare orders waits as send_wait does.
func (w Wait) Compare(o Wait) int {
	return cmp.Or(cmp.Compare(w.Kind, o.Kind), cmp.Compare(w.AppID, o.AppID),
		cmp.Compare(w.Value, o.Value))
}

// Waits is all that may release one row.
type Waits []Wait

// maxWaits hints, or keys of them, go into one statement.
const maxWaits = database.MaxRanges

// Waiters returns the ids of rows that wait for one of the keys. Some may wait no more.
func (q *Queue) Waiters(ctx context.Context, keys []Wait) (ids []int64, err error) {
	const some = `
		SELECT request_id
		  FROM send_wait FORCE INDEX (send_wait_key)
		 WHERE kind = ? AND appid = ?
		 LIMIT 1`
	const query = `
		SELECT request_id
		  FROM send_wait FORCE INDEX (send_wait_key)
		 WHERE kind = ? AND appid = ? AND value IN (?)`
	type group struct{ kind, appid string }
	values := map[group][]string{}
	for _, k := range keys {
		g := group{k.Kind, k.AppID}
		values[g] = append(values[g], k.Value)
	}
	l := lookup{"looking for who waits", query}
	for g, values := range values {
		if len(values) > 1 { // a sweep's page, and mostly nobody waits
			l := lookup{"looking whether anybody waits", some}
			if any, err := find[int64](ctx, q, l, g.kind, g.appid); err != nil {
				return nil, err
			} else if len(any) == 0 {
				continue
			}
		}
		for part := range slices.Chunk(values, maxWaits) {
			found, err := find[int64](ctx, q, l, g.kind, g.appid, part)
			if err != nil {
				return nil, err
			}
			ids = append(ids, found...)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// WaitingByID returns those of at most PageSize rows that wait, and the ids of the others.
func (q *Queue) WaitingByID(
	ctx context.Context, ids []int64,
) (rows []Request, others []int64, err error) {
	const query = waitingColumns + `
		  FROM send_request FORCE INDEX (PRIMARY)
		 WHERE id IN (?) AND status = 'waiting'`
	for part := range slices.Chunk(ids, maxWaits) {
		found, err := find[Request](ctx, q, lookup{"reading waiting requests", query}, part)
		if err != nil {
			return nil, nil, err
		}
		rows = append(rows, found...)
	}
	waiting := make([]int64, len(rows))
	for i, r := range rows {
		waiting[i] = r.ID
	}
	return rows, without(ids, waiting), nil
}

// Waits returns what rows wait for, in the order of Compare.
func (q *Queue) Waits(ctx context.Context, ids []int64) (map[int64]Waits, error) {
	const query = `
		SELECT request_id, kind, appid, value
		  FROM send_wait FORCE INDEX (PRIMARY)
		 WHERE request_id IN (?)`
	waits := make(map[int64]Waits, len(ids))
	for part := range slices.Chunk(ids, maxWaits) {
		type hint struct {
			RequestID int64 `db:"request_id"`
			Wait
		}
		hints, err := find[hint](ctx, q, lookup{"reading what requests wait for", query}, part)
		if err != nil {
			return nil, err
		}
		for _, h := range hints {
			waits[h.RequestID] = append(waits[h.RequestID], h.Wait)
		}
	}
	for _, w := range waits {
		slices.SortFunc(w, Wait.Compare)
	}
	return waits, nil
}

// WaitersAfter returns the next ids that send_wait has, up to limit, in their order.
func (q *Queue) WaitersAfter(ctx context.Context, last int64, limit int) ([]int64, error) {
	const query = `
		SELECT DISTINCT request_id
		  FROM send_wait FORCE INDEX (PRIMARY)
		 WHERE request_id > ?
		 ORDER BY request_id
		 LIMIT ?`
	return find[int64](ctx, q, lookup{"reading who waits", query}, last, limit)
}

// Await replaces what rows wait for, of those that still wait. One that another transaction holds
// is left as it is.
func (q *Queue) Await(ctx context.Context, waits map[int64]Waits) error {
	lock := database.Lock{Query: `
		SELECT id
		  FROM send_request FORCE INDEX (PRIMARY)
		 WHERE id IN (?) AND status = 'waiting'
		   FOR UPDATE`}
	ids := make([]int64, 0, len(waits))
	for id := range waits {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for part := range slices.Chunk(ids, PageSize) {
		err := database.InTx(ctx, q.db, func(ctx context.Context, tx *sqlx.Tx) error {
			ours, err := database.LockIn[int64](ctx, tx, lock, part)
			if err == nil {
				err = Unwait(ctx, tx, ours)
			}
			if err != nil {
				return err
			}
			return addWaits(ctx, tx, ours, func(id int64) Waits { return waits[id] })
		})
		if err != nil {
			return fmt.Errorf("storing what %d requests wait for: %w", len(part), err)
		}
	}
	return nil
}

// addWaits stores what rows wait for, in a transaction that has locked them.
func addWaits(ctx context.Context, tx *sqlx.Tx, ids []int64, of func(id int64) Waits) error {
	const insert = `INSERT INTO send_wait (request_id, kind, appid, value) VALUES `
	const values = `(?, ?, ?, ?)`
	var args []any
	for _, id := range ids {
		for _, w := range of(id) {
			args = append(args, id, w.Kind, w.AppID, w.Value)
		}
	}
	for part := range slices.Chunk(args, 4*maxWaits) {
		query := insert + values
		for range len(part)/4 - 1 {
			query += `, ` + values
		}
		query += ` ON DUPLICATE KEY UPDATE request_id = VALUES(request_id)`
		if _, err := tx.ExecContext(ctx, query, part...); err != nil {
			return fmt.Errorf("storing what requests wait for: %w", err)
		}
	}
	return nil
}

// Unwait deletes what rows wait for, in the transaction that ends their waiting and holds them:
// send_wait is locked after send_request, always.
func Unwait(ctx context.Context, tx *sqlx.Tx, ids []int64) error {
	if len(ids) == 0 {
		return nil
	}
	const query = `DELETE FROM send_wait WHERE request_id IN (?)`
	if _, err := database.ExecIn(ctx, tx, query, ids); err != nil {
		return fmt.Errorf("deleting what requests waited for: %w", err)
	}
	return nil
}

// Kept says which of the things that rows waited for stay stored when the rows are released, until
// they are sent: they take what others still wait for. The zero Kept: none.
type Kept struct{ Kind, AppID string }

// unwait is Unwait but for what is kept.
func (k Kept) unwait(ctx context.Context, tx *sqlx.Tx, ids []int64) error {
	if k == (Kept{}) || len(ids) == 0 {
		return Unwait(ctx, tx, ids)
	}
	const query = `
		DELETE FROM send_wait WHERE request_id IN (?) AND NOT (kind = ? AND appid = ?)`
	if _, err := database.ExecIn(ctx, tx, query, ids, k.Kind, k.AppID); err != nil {
		return fmt.Errorf("deleting what requests waited for: %w", err)
	}
	return nil
}

// Released returns those of rows that have been released and not posted yet.
func (q *Queue) Released(ctx context.Context, ids []int64) (rows []Request, err error) {
	const query = waitingColumns + `
		  FROM send_request FORCE INDEX (PRIMARY)
		 WHERE id IN (?) AND status = 'pending'
		   AND NOT EXISTS (SELECT 1 FROM send_attempt a WHERE a.request_id = send_request.id)`
	for part := range slices.Chunk(ids, maxWaits) {
		found, err := find[Request](ctx, q, lookup{"reading released requests", query}, part)
		if err != nil {
			return nil, err
		}
		rows = append(rows, found...)
	}
	return rows, nil
}

// Forget deletes what rows wait for that do not wait, or are no more: of those that an older
// program released, or that were sent after all. Of pending ones the kind keep stays, see Kept.
func (q *Queue) Forget(ctx context.Context, ids []int64, keep string) error {
	const existing = `SELECT id FROM send_request FORCE INDEX (PRIMARY) WHERE id IN (?)`
	const released = `DELETE FROM send_wait WHERE request_id IN (?) AND kind <> ?`
	lock := database.Lock{Query: `
		SELECT id, status
		  FROM send_request FORCE INDEX (PRIMARY)
		 WHERE id IN (?) AND status <> 'waiting'
		   FOR UPDATE`}
	type row struct {
		ID     int64  `db:"id"`
		Status Status `db:"status"`
	}
	for part := range slices.Chunk(ids, PageSize) {
		err := database.InTx(ctx, q.db, func(ctx context.Context, tx *sqlx.Tx) error {
			// Those that wait again by now, or are held by who may make them wait, are not ours.
			ours, err := database.LockIn[row](ctx, tx, lock, part)
			if err != nil {
				return err
			}
			exist, err := database.SelectIn[int64](ctx, tx, existing, part)
			if err != nil {
				return err
			}
			forget := without(part, exist)
			var pending []int64
			for _, r := range ours {
				if r.Status == Pending {
					pending = append(pending, r.ID)
				} else {
					forget = append(forget, r.ID)
				}
			}
			if len(pending) > 0 {
				if _, err := database.ExecIn(ctx, tx, released, pending, keep); err != nil {
					return err
				}
			}
			return Unwait(ctx, tx, forget)
		})
		if err != nil {
			return fmt.Errorf("deleting what %d requests waited for: %w", len(part), err)
		}
	}
	return nil
}

// Withdrawn is a place in the walk over withdrawn rows.
type Withdrawn struct {
	ID     int64  `db:"id"`
	Cancel int    `db:"cancel"`
	Status Status `db:"status"`
	AppID  string `db:"appid"`
}

// WithdrawnAfter returns the next page of withdrawn rows of any status, in the order of (cancel,
// id). After the zero Withdrawn it begins.
func (q *Queue) WithdrawnAfter(ctx context.Context, last Withdrawn) ([]Withdrawn, error) {
	// cancel is 1 where the daemon or a documented statement set it.
	const rows = `(
		    SELECT id, cancel, status, COALESCE(appid, '') AS appid
		      FROM send_request FORCE INDEX (send_request_cancel)
		     WHERE `
	const query = rows + `cancel = ? AND id > ? ORDER BY id LIMIT ?)
		UNION ALL ` + rows + `cancel > ? AND cancel <> 0 ORDER BY cancel, id LIMIT ?)
		ORDER BY cancel, id
		LIMIT ?`
	if last == (Withdrawn{}) {
		last.Cancel = -128 // the least of a TINYINT
	}
	return find[Withdrawn](ctx, q, lookup{"reading withdrawn requests", query},
		last.Cancel, last.ID, PageSize, last.Cancel, PageSize, PageSize)
}

// AnyWait reports whether any row waits for something of one of the kinds at one of the accounts,
// and says when that was.
func (q *Queue) AnyWait(
	ctx context.Context, kinds, appids []string,
) (now time.Time, waits bool, err error) {
	const query = `
		SELECT CURRENT_TIMESTAMP(3) AS now,
		       EXISTS (SELECT 1
		                 FROM send_wait FORCE INDEX (send_wait_key)
		                WHERE kind IN (?) AND appid IN (?)) AS waits`
	type answer struct {
		Now   time.Time `db:"now"`
		Waits bool      `db:"waits"`
	}
	found, err := find[answer](ctx, q, lookup{"looking whether anybody waits", query}, kinds, appids)
	if err != nil {
		return now, false, err
	}
	return found[0].Now, found[0].Waits, nil
}
