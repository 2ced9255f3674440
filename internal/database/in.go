package database

import (
	"context"

	"github.com/jmoiron/sqlx"
)

// MaxRanges is how many places of an index one statement may name where several rows may have the
// same place. For 200 and more the servers ask the statistics how many rows that is, and not the index
// (eq_range_index_dive_limit). Of a table that has just grown those are wrong, and MariaDB 10.11 then
// reads all of it, whatever index the statement names.
const MaxRanges = 190

// SelectIn returns the rows of a query that may have IN (?) lists, each of them one slice in args.
func SelectIn[T any](
	ctx context.Context, db sqlx.QueryerContext, query string, args ...any,
) (rows []T, err error) {
	query, args, err = sqlx.In(query, args...)
	if err != nil {
		return nil, err
	}
	err = sqlx.SelectContext(ctx, db, &rows, query, args...)
	return rows, err
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
