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

// runRow is a Run with what its table has besides.
type runRow struct {
	Run
	Updated   time.Time    `db:"updated_at"`
	EndedAt   sql.NullTime `db:"ended_at"`
	ResumesAt sql.NullTime `db:"resume_at"`
	CallsJSON []byte       `db:"calls"`
	Now       time.Time    `db:"now"` // by the database's clock, as all its moments
}

const runColumns = `
		SELECT id, kind, appid, mode, state, started_at, updated_at, ended_at, resume_at, pages,
		       total, listed, added, changed, missing, gone, calls,
		       COALESCE(next_openid, '') AS next_openid, COALESCE(error, '') AS error,
		       CURRENT_TIMESTAMP(3) AS now
		  FROM sync_run`

// last returns the newest run of a kind; nil: there is none.
func (l ledger) last(ctx context.Context, kind, appid string) (*runRow, error) {
	return l.one(ctx, `WHERE appid = ? AND kind = ? ORDER BY id DESC LIMIT 1`, appid, kind)
}

// lastDone returns the newest run of a kind that ended well; nil: there is none.
func (l ledger) lastDone(ctx context.Context, kind, appid string) (*runRow, error) {
	const where = `WHERE appid = ? AND kind = ? AND state = ? ORDER BY id DESC LIMIT 1`
	return l.one(ctx, where, appid, kind, StateDone)
}

// orphans returns the accounts with a running sweep that has been silent for some seconds; a living
// one writes every second.
func (l ledger) orphans(ctx context.Context) ([]string, error) {
	const query = `
		SELECT DISTINCT appid
		  FROM sync_run
		 WHERE kind = 'sweep' AND state = 'running'
		   AND updated_at < CURRENT_TIMESTAMP(3) - INTERVAL 5 SECOND`
	var appids []string
	if err := l.db.SelectContext(ctx, &appids, query); err != nil {
		return nil, fmt.Errorf("reading the ledger: %w", database.Explain(err))
	}
	return appids, nil
}

// byID returns one run; nil: there is none.
func (l ledger) byID(ctx context.Context, id int64) (*runRow, error) {
	return l.one(ctx, `WHERE id = ?`, id)
}

func (l ledger) one(ctx context.Context, where string, args ...any) (*runRow, error) {
	var row runRow
	err := l.db.GetContext(ctx, &row, runColumns+" "+where, args...)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the ledger: %w", database.Explain(err))
	}
	row.decode()
	return &row, nil
}

// decode fills the Run with what its columns do not say as they are.
func (r *runRow) decode() {
	r.Ended, r.ResumeAt, r.Calls = r.EndedAt.Time, r.ResumesAt.Time, map[string]int64{}
	// What this program wrote decodes. Anything else, NULL too, only loses counts.
	_ = json.Unmarshal(r.CallsJSON, &r.Calls)
}

// resumable reports whether the next sweep resumes this one. Its list ages: after six hours it is
// read again. A list that waits for the next day's quota may take several days and is kept. After a
// rebinding the run is always resumed, because only it knows who has been asked since.
func (r runRow) resumable() bool {
	const failed, suspended = 6 * time.Hour, 25 * time.Hour
	switch {
	case !r.State.resumable():
		return false
	case r.Mode == modeRebind:
		return true
	case r.State == StateSuspended:
		return r.Now.Sub(r.Updated) < suspended
	}
	return r.Now.Sub(r.Started) < failed
}

// open resumes the last run if it is an unfinished sweep, and inserts a new one otherwise. The
// caller holds the lease of this kind and account, so no other run of it is alive.
func (l ledger) open(ctx context.Context, t *tracker, keep int) error {
	r := t.snapshot()
	last, err := l.last(ctx, r.Kind, r.AppID)
	if err != nil {
		return err
	}
	if r.Kind == kindSweep && last != nil && last.resumable() {
		return l.resume(ctx, t, last.Run)
	}
	if err := l.abandon(ctx, r); err != nil {
		return err
	}
	if t.ID, err = l.insert(ctx, r); err != nil {
		return fmt.Errorf("opening a run in the ledger: %w", err)
	}
	return l.prune(ctx, r, keep)
}

// insert gives a run the next number itself, so that the newest run has the largest id:
// AUTO_INCREMENT does not grow with time where several servers of a TiDB cluster hand ids out in
// blocks. Nor would started_at do, as the database's clock may be set back.
func (l ledger) insert(ctx context.Context, r Run) (id int64, err error) {
	const next = `SELECT COALESCE(MAX(id), 0) + 1 FROM sync_run`
	const query = `INSERT INTO sync_run (id, kind, appid, state, holder) VALUES (?, ?, ?, ?, ?)`
	for {
		if err := l.db.GetContext(ctx, &id, next); err != nil {
			return 0, database.Explain(err)
		}
		_, err := l.exec(ctx, query, id, r.Kind, r.AppID, r.State, l.holder)
		if !database.IsDuplicate(err) { // else another account's run was opened in between
			return id, err
		}
	}
}

func (l ledger) resume(ctx context.Context, t *tracker, r Run) error {
	const query = `
		UPDATE sync_run
		   SET state = ?, holder = ?, ended_at = NULL, resume_at = NULL, error = NULL,
		       updated_at = CURRENT_TIMESTAMP(3)
		 WHERE id = ?`
	if _, err := l.exec(ctx, query, StateRunning, l.holder, r.ID); err != nil {
		return fmt.Errorf("resuming run %d: %w", r.ID, err)
	}
	r.State, r.Error, r.Ended, r.ResumeAt = StateRunning, "", time.Time{}, time.Time{}
	t.update(func(run *Run) { *run = r })
	t.ID, t.resumed = r.ID, true
	return nil
}

// rebind turns the run into one that fetches everybody. It starts now, by the clock that writes
// info_at: whoever was asked earlier is asked again. No other statement writes the mode, so that a
// save that is under way does not take it back.
func (l ledger) rebind(ctx context.Context, t *tracker) error {
	const query = `UPDATE sync_run SET mode = ?, started_at = CURRENT_TIMESTAMP(3) WHERE id = ?`
	if _, err := l.exec(ctx, query, modeRebind, t.ID); err != nil {
		return fmt.Errorf("writing run %d: %w", t.ID, err)
	}
	row, err := l.byID(ctx, t.ID)
	if err != nil {
		return err
	}
	t.update(func(r *Run) { r.Mode, r.Started = modeRebind, row.Started })
	return nil
}

// abandon closes runs of a crashed instance that will not be resumed.
func (l ledger) abandon(ctx context.Context, r Run) error {
	const query = `
		UPDATE sync_run
		   SET state = ?, ended_at = updated_at,
		       error = 'the instance that ran it ended without a word'
		 WHERE appid = ? AND kind = ? AND state = ?`
	if _, err := l.exec(ctx, query, StateInterrupted, r.AppID, r.Kind, StateRunning); err != nil {
		return fmt.Errorf("closing a crashed run: %w", err)
	}
	return nil
}

// prune deletes all but the newest runs of a kind and account. keep 0 keeps all.
func (l ledger) prune(ctx context.Context, r Run, keep int) error {
	const oldest = `
		SELECT id FROM sync_run WHERE appid = ? AND kind = ? ORDER BY id DESC LIMIT 1 OFFSET ?`
	const query = `DELETE FROM sync_run WHERE appid = ? AND kind = ? AND id <= ?`
	if keep <= 0 {
		return nil
	}
	var id int64
	err := l.db.GetContext(ctx, &id, oldest, r.AppID, r.Kind, keep)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err == nil {
		_, err = l.exec(ctx, query, r.AppID, r.Kind, id)
	}
	if err != nil {
		return fmt.Errorf("deleting old runs: %w", err)
	}
	return nil
}

// save writes the counts of a run in progress, close writes its end. The server may carry a save
// out late, after the run has ended and its caller has given the statement up; it must not open the
// run again.
func (l ledger) save(ctx context.Context, t *tracker) error  { return l.write(ctx, t, false) }
func (l ledger) close(ctx context.Context, t *tracker) error { return l.write(ctx, t, true) }

func (l ledger) write(ctx context.Context, t *tracker, ended bool) error {
	const query = `
		UPDATE sync_run
		   SET state = ?, pages = ?, total = ?, listed = ?, added = ?, changed = ?, missing = ?,
		       gone = ?, calls = ?, next_openid = ?, error = ?,
		       updated_at = CURRENT_TIMESTAMP(3),
		       ended_at = CASE WHEN ? THEN CURRENT_TIMESTAMP(3) ELSE ended_at END,
		       resume_at = CURRENT_TIMESTAMP(3) + INTERVAL ? SECOND
		 WHERE id = ? AND holder = ? AND (? OR ended_at IS NULL)`
	r := t.snapshot()
	calls, err := json.Marshal(r.Calls)
	if err != nil {
		return fmt.Errorf("encoding a run's calls: %w", err)
	}
	var pause sql.NullInt64 // NULL makes resume_at NULL
	if !r.ResumeAt.IsZero() {
		pause = sql.NullInt64{Int64: int64(r.ResumeAt.Sub(r.Ended) / time.Second), Valid: true}
	}
	if ended && !r.State.resumable() {
		r.NextOpenID = "" // the cursor is somebody's openid, and nothing resumes from it
	}
	res, err := l.exec(ctx, query, r.State, r.Pages, r.Total, r.Listed, r.Added, r.Changed,
		r.Missing, r.Gone, string(calls), database.Null(r.NextOpenID), database.Null(r.Error),
		ended, pause, r.ID, l.holder, ended)
	if err != nil {
		return fmt.Errorf("writing run %d: %w", r.ID, err)
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return fmt.Errorf("writing run %d: it has ended, or another instance has resumed it", r.ID)
	}
	return nil
}

// exec runs one statement, again if it lost against another transaction.
func (l ledger) exec(ctx context.Context, query string, args ...any) (res sql.Result, err error) {
	err = database.Retry(ctx, func(ctx context.Context) error {
		res, err = l.db.ExecContext(ctx, query, args...)
		return err
	})
	return res, err
}

// Forget takes a person out of the ledger, where a sweep of theirs ended or failed at their openid.
func Forget(ctx context.Context, db *sqlx.DB, appid, openid string) error {
	const query = `
		UPDATE sync_run
		   SET error       = REPLACE(error, ?, '…'),
		       next_openid = CASE WHEN next_openid = ? THEN NULL ELSE next_openid END
		 WHERE appid = ? AND (next_openid = ? OR INSTR(error, ?) > 0)`
	if openid == "" {
		return nil
	}
	_, err := (ledger{db: db}).exec(ctx, query, openid, openid, appid, openid, openid)
	if err != nil {
		return fmt.Errorf("taking a person out of the ledger: %w", err)
	}
	return nil
}
