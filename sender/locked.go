package sender

import (
	"context"
	"errors"
	"fmt"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// errRowLocked means that a statement would have had to wait for another transaction.
var errRowLocked = errors.New("another transaction holds a row")

// execOnce runs a statement with IN lists and returns the rows it matched. Where it had to wait too long for a
// row, it returns errRowLocked.
func (s store) execOnce(ctx context.Context, db sqlx.ExecerContext, query string, args ...any) (int64, error) {
	query, args, err := sqlx.In(query, args...)
	if err != nil {
		return 0, err
	}
	var n int64
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

// withoutLocked runs something for those of the rows that no other transaction holds, and returns the others: one row
// that a producer's open transaction holds must not stop the rest. skipLocked says that some are known to be held;
// else it is tried for all of them first.
func (s store) withoutLocked(ctx context.Context, ids []int64, skipLocked bool, run func(context.Context, sqlx.ExecerContext, []int64) error) (locked []int64, err error) {
	if !skipLocked {
		if err := run(ctx, s.db, ids); !errors.Is(err, errRowLocked) {
			return nil, err
		}
	}
	err = database.InTx(ctx, s.db, func(ctx context.Context, tx *sqlx.Tx) error {
		locked = nil
		free, err := s.lockAvailable(ctx, tx, ids)
		if err != nil {
			return err
		}
		mine := make([]int64, 0, len(free))
		for _, id := range ids {
			if free[id] {
				mine = append(mine, id)
			} else {
				locked = append(locked, id)
			}
		}
		if len(mine) == 0 {
			return nil
		}
		return run(ctx, tx, mine)
	})
	return locked, err
}

// lockAvailable locks those of the rows that no other transaction holds. Nothing rests on SKIP LOCKED but that other
// rows need not wait: TiDB, which ignores it, waits.
func (s store) lockAvailable(ctx context.Context, tx *sqlx.Tx, ids []int64) (map[int64]bool, error) {
	query, args, err := sqlx.In(`SELECT id FROM send_request FORCE INDEX (PRIMARY) WHERE id IN (?) FOR UPDATE SKIP LOCKED`, ids)
	if err != nil {
		return nil, err
	}
	var found []int64
	if err := tx.SelectContext(ctx, &found, query, args...); err != nil {
		return nil, fmt.Errorf("locking rows: %w", err)
	}
	free := make(map[int64]bool, len(found))
	for _, id := range found {
		free[id] = true
	}
	return free, nil
}
