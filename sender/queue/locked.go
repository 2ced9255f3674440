package queue

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// errRowLocked means that a statement would have had to wait for another transaction.
var errRowLocked = errors.New("another transaction holds a row")

// errNotAll means that a statement did not match all rows.
var errNotAll = errors.New("not all rows were as they had been read")

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

// updated is what became of the rows of an update.
type updated struct {
	tried  []int64 // these; all of them, unless there is an error
	n      int64   // were matched
	locked []int64 // another transaction holds them
	// refused are rows that the server did not change, because of what is in them or was to be
	// written, and cause is why it refused the last of those.
	refused []int64
	cause   error
}

// left returns the rows that are left as they were.
func (u updated) left() []int64 { return slices.Concat(u.locked, u.refused) }

func (u updated) and(v updated) updated {
	return updated{
		tried: append(u.tried, v.tried...), n: u.n + v.n, locked: append(u.locked, v.locked...),
		refused: append(u.refused, v.refused...), cause: cmp.Or(v.cause, u.cause),
	}
}

// attempt changes rows as one, but for those that another transaction holds. It returns how many it
// matched, and the held ones. skipLocked says that some are known to be held; otherwise it tries all
// of them first.
type attempt func(
	ctx context.Context, ids []int64, skipLocked bool,
) (n int64, locked []int64, err error)

// halve makes the attempt for all rows but those that make the server refuse it: one such row must
// not stop the rest. It halves the rows down to the refused ones. What is returned with an error has
// been done nevertheless.
func (a attempt) halve(
	ctx context.Context, ids []int64, skipLocked bool,
) (done updated, err error) {
	n, locked, err := a(ctx, ids, skipLocked)
	switch {
	case err == nil:
		return updated{tried: ids, n: n, locked: locked}, nil
	case !database.IsRowError(err):
		return updated{}, err
	case len(ids) == 1:
		return updated{tried: ids, refused: ids, cause: err}, nil
	}
	for _, half := range [][]int64{ids[:len(ids)/2], ids[len(ids)/2:]} {
		part, err := a.halve(ctx, half, skipLocked || len(done.locked) > 0)
		if done = done.and(part); err != nil {
			return done, err
		}
	}
	return done, nil
}

// change is a statement, and what belongs to it; nil: nothing.
type change struct {
	// first runs before the statement, and returns what is to be done at the end.
	first func(ctx context.Context, tx *sqlx.Tx, ids []int64) (finish, error)
	do    statement
	then  func(ctx context.Context, tx *sqlx.Tx, ids []int64) error
	// all: the statement has to match all rows, else nothing is changed (errNotAll).
	all bool
}

type finish func(ctx context.Context, tx *sqlx.Tx) error

// alone reports whether it needs no transaction.
func (c change) alone() bool { return c.first == nil && c.then == nil }

// run runs all of it in a transaction.
func (c change) run(ctx context.Context, tx *sqlx.Tx, ids []int64) (n int64, err error) {
	last := func(context.Context, *sqlx.Tx) error { return nil }
	if c.first != nil {
		if last, err = c.first(ctx, tx, ids); err != nil {
			return 0, err
		}
	}
	n, err = c.do.exec(ctx, tx, ids)
	if err == nil && c.all && n != int64(len(ids)) {
		err = errNotAll
	}
	if err == nil && c.then != nil {
		err = c.then(ctx, tx, ids)
	}
	if err == nil {
		err = last(ctx, tx)
	}
	return n, err
}

// update runs a statement for rows, but for those that another transaction holds and those that
// make the server refuse it.
func (q *Queue) update(
	ctx context.Context, ids []int64, skipLocked bool, s statement,
) (updated, error) {
	return q.change(ctx, ids, skipLocked, change{do: s})
}

// change is update for a change of more than one statement.
func (q *Queue) change(
	ctx context.Context, ids []int64, skipLocked bool, c change,
) (updated, error) {
	once := func(
		ctx context.Context, ids []int64, skipLocked bool,
	) (n int64, locked []int64, err error) {
		return q.changeFree(ctx, ids, skipLocked, c)
	}
	return attempt(once).halve(ctx, ids, skipLocked)
}

func (q *Queue) changeFree(
	ctx context.Context, ids []int64, skipLocked bool, c change,
) (n int64, locked []int64, err error) {
	switch {
	case skipLocked: // below
	case c.alone():
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
		if len(locked) > 0 { // or deleted: nobody need wait for those
			const left = `SELECT id FROM send_request FORCE INDEX (PRIMARY) WHERE id IN (?)`
			if locked, err = database.SelectIn[int64](ctx, tx, left, locked); err != nil {
				return fmt.Errorf("reading locked rows: %w", err)
			}
		}
		if len(ours) == 0 {
			return nil
		}
		n, err = c.run(ctx, tx, ours)
		return err
	})
	return n, locked, err
}
