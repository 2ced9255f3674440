package database

import (
	"context"
	"sync/atomic"

	"github.com/jmoiron/sqlx"
)

// Lock is a SELECT … WHERE id IN (?) … FOR UPDATE, and its arguments after the ids.
type Lock struct {
	Query  string
	Args   []any
	Server *Server // nil: the server is asked each time what it can do
}

// Server remembers what the server can do. The zero value knows nothing yet.
type Server struct{ skips atomic.Bool }

// LockIn locks rows and returns them, but for those that another transaction holds: it waits for
// none.
func LockIn[T any](ctx context.Context, tx *sqlx.Tx, l Lock, ids []int64) ([]T, error) {
	// TiDB parses SKIP LOCKED, ignores it, and then locks nothing at all.
	skips := l.Server != nil && l.Server.skips.Load()
	if !skips {
		err := tx.GetContext(ctx, &skips, `SELECT VERSION() NOT LIKE '%TiDB%'`)
		if err != nil {
			return nil, err
		}
		if l.Server != nil {
			l.Server.skips.Store(skips)
		}
	}
	if skips {
		return selectLocked[T](ctx, tx, Lock{Query: l.Query + ` SKIP LOCKED`, Args: l.Args}, ids)
	}
	return lockHalves[T](ctx, tx, Lock{Query: l.Query + ` NOWAIT`, Args: l.Args}, ids)
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
