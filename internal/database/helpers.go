package database

import (
	"context"
	"time"
)

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
