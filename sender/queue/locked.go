package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// errRowLocked means that a statement would have had to wait for another transaction.
var errRowLocked = errors.New("another transaction holds a row")

// execOnce runs a statement with IN lists and returns the rows it matched. Where it had to wait too
// long for a row, it returns errRowLocked, which database.Retry does not repeat.
func execOnce(
	ctx context.Context, db sqlx.ExecerContext, query string, args ...any,
) (n int64, err error) {
	query, args, err = sqlx.In(query, args...)
	if err != nil {
		return 0, err
	}
	res, err := db.ExecContext(ctx, query, args...)
	switch {
	case database.IsLockTimeout(err):
		return 0, errRowLocked
	case err != nil:
		return 0, err
	}
	return res.RowsAffected()
}

// rowsFunc does something to rows by one statement.
type rowsFunc func(ctx context.Context, db sqlx.ExecerContext, ids []int64) error

// withoutLocked runs do for those of the rows that no other transaction holds, and returns the
// others: one row that a producer's open transaction holds must not stop the rest. skipLocked says
// that some are known to be held; otherwise do is tried with all of them first.
func (q *Queue) withoutLocked(
	ctx context.Context, ids []int64, skipLocked bool, do rowsFunc,
) (locked []int64, err error) {
	if !skipLocked {
		err := database.Retry(ctx, func(ctx context.Context) error { return do(ctx, q.db, ids) })
		if !errors.Is(err, errRowLocked) {
			return nil, err
		}
	}
	// Nothing rests on SKIP LOCKED but that other rows need not wait: TiDB, which ignores it, waits.
	const query = `
		SELECT id FROM send_request FORCE INDEX (PRIMARY) WHERE id IN (?) FOR UPDATE SKIP LOCKED`
	err = database.InTx(ctx, q.db, func(ctx context.Context, tx *sqlx.Tx) error {
		query, args, err := sqlx.In(query, ids)
		if err != nil {
			return err
		}
		var ours []int64
		if err := tx.SelectContext(ctx, &ours, query, args...); err != nil {
			return fmt.Errorf("locking rows: %w", err)
		}
		slices.Sort(ours)
		locked = slices.DeleteFunc(slices.Clone(ids), func(id int64) bool {
			_, found := slices.BinarySearch(ours, id)
			return found
		})
		if len(ours) == 0 {
			return nil
		}
		return do(ctx, tx, ours)
	})
	return locked, err
}
