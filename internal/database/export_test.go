package database

import (
	"context"

	"github.com/jmoiron/sqlx"
)

// LockHalves is LockIn on a server that ignores SKIP LOCKED.
func LockHalves(ctx context.Context, tx *sqlx.Tx, query string, ids []int64) ([]int64, error) {
	return lockHalves[int64](ctx, tx, Lock{Query: query + ` NOWAIT`}, ids)
}
