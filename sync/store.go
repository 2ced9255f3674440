package sync

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// ledger writes the table sync_run.
type ledger struct {
	db     *sqlx.DB
	holder string
}

// open inserts the run, and closes what a crashed instance left open: the caller holds the lease of
// this kind and account, so no other run of it can be alive.
func (l ledger) open(ctx context.Context, t *tracker) error {
	const abandon = `
		UPDATE sync_run
		   SET state = ?, ended_at = updated_at, error = 'the instance that ran it ended without a word'
		 WHERE appid = ? AND kind = ? AND state = ?`
	const insert = `INSERT INTO sync_run (kind, appid, state, holder) VALUES (?, ?, ?, ?)`
	r := t.snapshot()
	err := database.InTx(ctx, l.db, func(ctx context.Context, tx *sqlx.Tx) error {
		if _, err := tx.ExecContext(ctx, abandon, StateInterrupted, r.AppID, r.Kind, StateRunning); err != nil {
			return err
		}
		res, err := tx.ExecContext(ctx, insert, r.Kind, r.AppID, r.State, l.holder)
		if err != nil {
			return err
		}
		t.ID, err = res.LastInsertId()
		return err
	})
	if err != nil {
		return fmt.Errorf("opening a run in the ledger: %w", err)
	}
	return nil
}

// save writes the run's counts while it works, close writes its end.
func (l ledger) save(ctx context.Context, t *tracker) error  { return l.write(ctx, t, false) }
func (l ledger) close(ctx context.Context, t *tracker) error { return l.write(ctx, t, true) }

func (l ledger) write(ctx context.Context, t *tracker, ended bool) error {
	const query = `
		UPDATE sync_run
		   SET state = ?, pages = ?, total = ?, listed = ?, added = ?, changed = ?, gone = ?, calls = ?,
		       next_openid = ?, error = ?, updated_at = CURRENT_TIMESTAMP(3),
		       ended_at = CASE WHEN ? THEN CURRENT_TIMESTAMP(3) ELSE ended_at END
		 WHERE id = ?`
	r := t.snapshot()
	calls, err := json.Marshal(r.Calls)
	if err != nil {
		return fmt.Errorf("encoding a run's calls: %w", err)
	}
	return database.Retry(ctx, func(ctx context.Context) error {
		_, err := l.db.ExecContext(ctx, query, r.State, r.Pages, r.Total, r.Listed, r.Added, r.Changed, r.Gone,
			string(calls), orNull(r.NextOpenID), orNull(r.Error), ended, r.ID)
		return err
	})
}

// last returns the state of the newest run of a kind and how long ago it last changed; the empty state:
// there was none.
func (l ledger) last(ctx context.Context, kind, appid string) (State, time.Duration, error) {
	const query = `
		SELECT state, TIMESTAMPDIFF(SECOND, updated_at, CURRENT_TIMESTAMP(3)) AS age
		  FROM sync_run
		 WHERE appid = ? AND kind = ?
		 ORDER BY id DESC
		 LIMIT 1`
	var row struct {
		State State `db:"state"`
		Age   int64 `db:"age"`
	}
	err := l.db.GetContext(ctx, &row, query, appid, kind)
	if errors.Is(err, sql.ErrNoRows) {
		return "", 0, nil
	}
	if err != nil {
		return "", 0, fmt.Errorf("reading the last %s of %s: %w", kind, appid, database.Explain(err))
	}
	return row.State, time.Duration(row.Age) * time.Second, nil
}

func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}
