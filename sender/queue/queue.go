// Package queue is the table send_request as a queue: which rows are due, who has claimed them, how
// they end. It holds the SQL of that and nothing else: no goroutine, no call to WeChat, no decision
// about a message.
//
// A claim is a visibility timeout: it moves due_at past the time an attempt can take, so that a row
// whose instance died falls due again without a rescuer. What a claim did not settle is in doubt.
// All moments are the database's own: the producers' due_at is too, and instances' clocks may
// differ.
package queue

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// Status is send_request.status. docs/states.md draws the machine.
type Status string

// The statuses.
const (
	Pending   Status = "pending"
	Waiting   Status = "waiting"
	Sent      Status = "sent"
	Failed    Status = "failed"
	Expired   Status = "expired"
	Cancelled Status = "cancelled"
	Unknown   Status = "unknown"
)

// DefaultChannel is send_request.channel of what an official account sends.
const DefaultChannel = "oa_template"

// AttemptChannel is the same of messages whose attempts are written down.
const AttemptChannel = "mini_subscribe"

// What the warning of a row begins with, as an SQL literal's text, that an operator had sent
// although it was sent or may have been, or although it was withdrawn. Settle keeps such a warning.
const (
	SQLSentAgain     = `sent again on an operator''s word`
	SQLSentWithdrawn = `sent on an operator''s word`
)

// LeaseName is the name of the lease that the one instance holds which sends for an account.
func LeaseName(appid string) string { return "send:" + appid }

// Queue is send_request in one database. It is safe for concurrent use.
type Queue struct {
	db   *sqlx.DB
	read sqlx.QueryerContext // db, or the transaction of a Snapshot

	server *database.Server
}

// New returns the queue in db, whose schema must be migrated.
func New(db *sqlx.DB) *Queue { return &Queue{db: db, read: db, server: new(database.Server)} }

// Snapshot runs fn with a queue whose lookups all see one moment.
func (q *Queue) Snapshot(ctx context.Context, fn func(q *Queue) error) error {
	tx, err := q.db.BeginTxx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	if err != nil {
		return database.Explain(err)
	}
	defer func() { _ = tx.Rollback() }() // it has only read
	return fn(&Queue{db: q.db, read: tx, server: q.server})
}

// lookup is a query, which may have IN lists, and what begins the text of its error.
type lookup struct{ what, query string }

// find returns the rows of a query.
func find[T any](ctx context.Context, q *Queue, l lookup, args ...any) ([]T, error) {
	query, args, err := sqlx.In(l.query, args...)
	if err != nil {
		return nil, err
	}
	var rows []T
	if err := sqlx.SelectContext(ctx, q.read, &rows, query, args...); err != nil {
		return nil, fmt.Errorf("%s: %w", l.what, database.Explain(err))
	}
	return rows, nil
}

// Installation returns the id that the first migration gave this database: letters and digits, 12
// of them.
func (q *Queue) Installation(ctx context.Context) (string, error) {
	var id string
	err := q.db.GetContext(ctx, &id, `SELECT id FROM installation WHERE singleton = 1`)
	if err != nil {
		return "", fmt.Errorf("reading the installation's id: %w", database.Explain(err))
	}
	return id, nil
}
