package database

import (
	"context"

	"github.com/jmoiron/sqlx"
)

// SelectIn is sqlx's Select for a query with IN (?) lists, each of which is one slice in args.
func SelectIn(
	ctx context.Context, db sqlx.QueryerContext, dest any, query string, args ...any,
) error {
	query, args, err := sqlx.In(query, args...)
	if err != nil {
		return err
	}
	return sqlx.SelectContext(ctx, db, dest, query, args...)
}

// ExecIn runs a statement that may have IN (?) lists, and returns how many rows it matched.
func ExecIn(
	ctx context.Context, db sqlx.ExecerContext, query string, args ...any,
) (int64, error) {
	query, args, err := sqlx.In(query, args...)
	if err != nil {
		return 0, err
	}
	res, err := db.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}
