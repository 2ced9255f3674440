package queue

import (
	"context"
	"slices"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// leave runs a statement that ends the waiting of rows, as update does, and deletes what those
// waited for whose waiting it ended.
func (q *Queue) leave(
	ctx context.Context, ids []int64, skipLocked bool, s statement,
) (updated, error) {
	return q.leaveBut(ctx, ids, skipLocked, leaving{s, Unwait})
}

// leaving is a statement that ends the waiting of rows, and what is done about what they waited for.
type leaving struct {
	statement
	unwait func(ctx context.Context, tx *sqlx.Tx, ids []int64) error
}

func (q *Queue) leaveBut(
	ctx context.Context, ids []int64, skipLocked bool, s leaving,
) (updated, error) {
	once := func(
		ctx context.Context, ids []int64, skipLocked bool,
	) (n int64, locked []int64, err error) {
		return q.leaveFree(ctx, ids, skipLocked, s)
	}
	return attempt(once).halve(ctx, ids, skipLocked)
}

func (q *Queue) leaveFree(
	ctx context.Context, ids []int64, skipLocked bool, s leaving,
) (n int64, locked []int64, err error) {
	const waiting = `
		SELECT id FROM send_request FORCE INDEX (PRIMARY) WHERE id IN (?) AND status = 'waiting'`
	const held = waiting + ` FOR UPDATE`
	lock := func(ctx context.Context, tx *sqlx.Tx) ([]int64, error) {
		if skipLocked {
			return database.LockIn[int64](ctx, tx, database.Lock{Query: held}, ids)
		}
		ours, err := database.SelectIn[int64](ctx, tx, held, ids)
		if database.IsLockTimeout(err) {
			return nil, errRowLocked
		}
		return ours, err
	}
	err = database.InTx(ctx, q.db, func(ctx context.Context, tx *sqlx.Tx) error {
		n, locked = 0, nil // of a try before, whose COMMIT failed
		ours, err := lock(ctx, tx)
		if err != nil {
			return err
		}
		if skipLocked && len(ours) < len(ids) {
			all, err := database.SelectIn[int64](ctx, tx, waiting, ids)
			if err != nil {
				return err
			}
			locked = without(all, ours)
		}
		if len(ours) == 0 {
			return nil
		}
		if n, err = s.exec(ctx, tx, ours); err != nil {
			return err
		}
		if n < int64(len(ours)) {
			still, err := database.SelectIn[int64](ctx, tx, waiting, ours)
			if err != nil {
				return err
			}
			ours = without(ours, still)
		}
		return s.unwait(ctx, tx, ours)
	})
	if !skipLocked && isRowLocked(err) {
		return q.leaveFree(ctx, ids, true, s)
	}
	return n, locked, err
}

// without returns the ids that are not among others.
func without(ids, others []int64) []int64 {
	others = slices.Sorted(slices.Values(others))
	return slices.DeleteFunc(slices.Clone(ids), func(id int64) bool {
		_, found := slices.BinarySearch(others, id)
		return found
	})
}
