package database

import (
	"context"

	"github.com/jmoiron/sqlx"
)

// Lock is a SELECT … WHERE id IN (?) … FOR UPDATE, and its arguments after the ids.
type Lock struct {
	Query string
	Args  []any
}

// LockIn locks rows and returns them, but for those that another transaction holds: it waits for
// none.
func LockIn[T any](ctx context.Context, tx *sqlx.Tx, l Lock, ids []int64) ([]T, error) {
	// TiDB parses SKIP LOCKED, ignores it, and then locks nothing at all.
	var skips bool
	if err := tx.GetContext(ctx, &skips, `SELECT VERSION() NOT LIKE '%TiDB%'`); err != nil {
		return nil, err
	}
	if skips {
		return selectLocked[T](ctx, tx, Lock{l.Query + ` SKIP LOCKED`, l.Args}, ids)
	}
	return lockHalves[T](ctx, tx, Lock{l.Query + ` NOWAIT`, l.Args}, ids)
}

// lockHalves halves ids of which another transaction holds some down to those.
func lockHalves[T any](ctx context.Context, tx *sqlx.Tx, l Lock, ids []int64) ([]T, error) {
	rows, err := selectLocked[T](ctx, tx, l, ids)
	switch {
	case !IsLockTimeout(err):
		return rows, err
	case len(ids) == 1:
		return nil, nil
	}
	rows, err = lockHalves[T](ctx, tx, l, ids[:len(ids)/2])
	if err != nil {
		return nil, err
	}
	others, err := lockHalves[T](ctx, tx, l, ids[len(ids)/2:])
	return append(rows, others...), err
}

func selectLocked[T any](ctx context.Context, tx *sqlx.Tx, l Lock, ids []int64) ([]T, error) {
	return SelectIn[T](ctx, tx, l.Query, append([]any{ids}, l.Args...)...)
}
