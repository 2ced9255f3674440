package database

import (
	"context"
	"log/slog"

	"github.com/jmoiron/sqlx"
)

// LockHalves is LockIn on a server that ignores SKIP LOCKED.
func LockHalves(ctx context.Context, tx *sqlx.Tx, query string, ids []int64) ([]int64, error) {
	return lockHalves[int64](ctx, tx, Lock{Query: query + ` NOWAIT`}, ids)
}

// Announce is what migrate says of a table of large rows or more.
func Announce(ctx context.Context, db *sqlx.DB, log *slog.Logger, large int64) {
	announce(ctx, db, log, large)
}
