package queue

import (
	"context"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// errRowLocked means that a statement would have had to wait for another transaction.
var errRowLocked = errors.New("another transaction holds a row")

// execOnce runs a statement with IN lists and returns the rows it matched. Where it had to wait too
// long for a row, it returns errRowLocked.
func execOnce(
	ctx context.Context, db sqlx.ExecerContext, query string, args ...any,
) (n int64, err error) {
	query, args, err = sqlx.In(query, args...)
	if err != nil {
		return 0, err
	}
	err = database.Retry(ctx, func(ctx context.Context) error {
		res, err := db.ExecContext(ctx, query, args...)
		if database.IsLockTimeout(err) {
			return errRowLocked // not repeated
		}
		if err != nil {
			return err
		}
		n, err = res.RowsAffected()
		return err
	})
	return n, err
}

// rowsFunc does something to rows.
type rowsFunc func(ctx context.Context, db sqlx.ExecerContext, ids []int64) error

// withoutLocked runs do for those of the rows that no other transaction holds, and returns the
// others: one row that a producer's open transaction holds must not stop the rest. skipLocked says
// that some are known to be held; otherwise do is tried with all of them first.
func (q *Queue) withoutLocked(
	ctx context.Context, ids []int64, skipLocked bool, do rowsFunc,
) (locked []int64, err error) {
	if !skipLocked {
		if err := do(ctx, q.db, ids); !errors.Is(err, errRowLocked) {
			return nil, err
		}
	}
	err = database.InTx(ctx, q.db, func(ctx context.Context, tx *sqlx.Tx) error {
		locked = nil
		available, err := lockAvailable(ctx, tx, ids)
		if err != nil {
			return err
		}
		ours := make([]int64, 0, len(available))
		for _, id := range ids {
			if available[id] {
				ours = append(ours, id)
			} else {
				locked = append(locked, id)
			}
		}
		if len(ours) == 0 {
			return nil
		}
		return do(ctx, tx, ours)
	})
	return locked, err
}

// lockAvailable locks those of the rows that no other transaction holds. Nothing rests on SKIP
// LOCKED but that other rows need not wait: TiDB, which ignores it, waits.
func lockAvailable(ctx context.Context, tx *sqlx.Tx, ids []int64) (map[int64]bool, error) {
	query, args, err := sqlx.In(`
		SELECT id FROM send_request FORCE INDEX (PRIMARY) WHERE id IN (?) FOR UPDATE SKIP LOCKED`, ids)
	if err != nil {
		return nil, err
	}
	var found []int64
	if err := tx.SelectContext(ctx, &found, query, args...); err != nil {
		return nil, fmt.Errorf("locking rows: %w", err)
	}
	available := make(map[int64]bool, len(found))
	for _, id := range found {
		available[id] = true
	}
	return available, nil
}
