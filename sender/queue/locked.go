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

func isRowLocked(err error) bool { return errors.Is(err, errRowLocked) }

// statement returns an UPDATE of rows, which may have IN lists, with its arguments.
type statement func(ids []int64) (query string, args []any)

// exec runs a statement and returns the rows it matched. Where it had to wait too long for a row,
// it returns errRowLocked, which database.Retry does not repeat.
func (s statement) exec(ctx context.Context, db sqlx.ExecerContext, ids []int64) (int64, error) {
	query, args := s(ids)
	query, args, err := sqlx.In(query, args...)
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

// update runs a statement for those of the rows that no other transaction holds, and returns how
// many it matched, and the others: one row that a producer's open transaction holds must not stop
// the rest. skipLocked says that some are known to be held; otherwise it tries all of them first.
func (q *Queue) update(
	ctx context.Context, ids []int64, skipLocked bool, s statement,
) (n int64, locked []int64, err error) {
	return q.change(ctx, ids, skipLocked, change{do: s})
}

// change is a statement, and what belongs to it; nil: nothing.
type change struct {
	do   statement
	then func(ctx context.Context, tx *sqlx.Tx, ids []int64) error
}

// run runs both in a transaction.
func (c change) run(ctx context.Context, tx *sqlx.Tx, ids []int64) (int64, error) {
	n, err := c.do.exec(ctx, tx, ids)
	if err == nil && c.then != nil {
		err = c.then(ctx, tx, ids)
	}
	return n, err
}

// change is update for a change of more than one statement.
func (q *Queue) change(
	ctx context.Context, ids []int64, skipLocked bool, c change,
) (n int64, locked []int64, err error) {
	switch {
	case skipLocked: // below
	case c.then == nil:
		err = database.Retry(ctx, func(ctx context.Context) (err error) {
			n, err = c.do.exec(ctx, q.db, ids)
			return err
		})
	default:
		err = database.InTx(ctx, q.db, func(ctx context.Context, tx *sqlx.Tx) (err error) {
			n, err = c.run(ctx, tx, ids)
			return err
		})
	}
	if !skipLocked {
		if !isRowLocked(err) {
			return n, nil, err
		}
	}
	const query = `SELECT id FROM send_request FORCE INDEX (PRIMARY) WHERE id IN (?) FOR UPDATE`
	err = database.InTx(ctx, q.db, func(ctx context.Context, tx *sqlx.Tx) error {
		n, locked = 0, nil // of a try before, whose COMMIT failed
		ours, err := database.LockIn[int64](ctx, tx, database.Lock{Query: query}, ids)
		if err != nil {
			return fmt.Errorf("locking rows: %w", err)
		}
		locked = without(ids, ours)
		if len(ours) == 0 {
			return nil
		}
		n, err = c.run(ctx, tx, ours)
		return err
	})
	return n, locked, err
}
