package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jmoiron/sqlx"
)

const (
	// maxTries bounds the repetition of a transaction that lost against another one. With the
	// pauses below, eight tries last about a second; what still conflicts then is not bad luck.
	maxTries = 8

	retryBase = 5 * time.Millisecond
	retryCap  = 400 * time.Millisecond
)

// InTx runs fn in a transaction and commits it; an error or a panic of fn rolls it back. A
// deadlock, a lock wait timeout or a certification conflict (Galera, TiDB) repeats the whole
// transaction up to 8 times with jittered pauses, so fn must be safe to run again: it keeps no
// state between tries but what it resets at its start.
//
// The isolation level is READ COMMITTED: the one every connection of Open has.
//
// A connection that is lost during COMMIT leaves the outcome unknown. InTx then returns an error
// for which IsUnavailable is true and does not try again; callers' writes are fenced or idempotent.
func InTx(ctx context.Context, db *sqlx.DB, fn func(ctx context.Context, tx *sqlx.Tx) error) error {
	return Retry(ctx, func(ctx context.Context) error {
		return once(ctx, db, fn)
	})
}

func once(ctx context.Context, db *sqlx.DB, fn func(ctx context.Context, tx *sqlx.Tx) error) (err error) {
	tx, err := db.BeginTxx(ctx, nil)
	if err != nil {
		return fmt.Errorf("beginning transaction: %w", err)
	}
	// After a commit this is a no-op that returns ErrTxDone. A failed rollback needs no word: the
	// server rolls back when the connection goes, and the first error is the one that matters.
	defer func() { _ = tx.Rollback() }()

	if err := fn(ctx, tx); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil && !errors.Is(err, sql.ErrTxDone) {
		return fmt.Errorf("committing: %w", err)
	} else if err != nil {
		return fmt.Errorf("committing: %w", context.Cause(ctx))
	}
	return nil
}

// Retry runs fn, which holds one autocommit statement, and repeats it within the same bound as
// InTx when it lost against another transaction.
func Retry(ctx context.Context, fn func(ctx context.Context) error) error {
	for try := 1; ; try++ {
		err := fn(ctx)
		if err == nil {
			return nil
		}
		if !isRetryable(err) {
			return Explain(err)
		}
		if try == maxTries {
			return fmt.Errorf("giving up after %d tries: %w", maxTries, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w while waiting to repeat after: %w", ctx.Err(), err)
		case <-time.After(backoff(try)):
		}
	}
}

// backoff doubles from 5 ms to 400 ms; the jitter of half its length keeps two transactions that
// killed each other from meeting again.
func backoff(try int) time.Duration {
	d := min(retryBase<<(try-1), retryCap)
	return d/2 + rand.N(d/2+1)
}

// detachedTimeout is more than a Galera group needs to drop a dead member.
const detachedTimeout = 10 * time.Second

// Detached runs fn with a context that outlives ctx by at most 10 s, so that a stop does not lose
// what only this process knows: an outcome, a count, the end of a run, a lease to give back.
func Detached(ctx context.Context, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), detachedTimeout)
	defer cancel()
	return fn(ctx)
}

// Null returns v as a statement's argument, or NULL if v is its type's zero value.
func Null[T comparable](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v
}

// SQLLastMoment is, as an SQL literal, the last day that a TIMESTAMP can hold on every server; those
// of MariaDB since 11.5 end in 2106. A later moment would be refused, or stand for NULL. It has no
// colon, which sqlx takes for a name.
const SQLLastMoment = `CAST('2038-01-19' AS DATETIME)`

// Storable returns t, or the last moment that every server stores if t is later.
func Storable(t time.Time) time.Time {
	if last := time.Date(2038, 1, 19, 0, 0, 0, 0, time.UTC); t.After(last) {
		return last
	}
	return t.UTC()
}
