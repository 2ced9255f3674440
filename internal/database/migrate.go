package database

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/unionbridge/unionbridge"
)

const migrationsDir = "sql/migrations"

// The migration lock is a row with an expiry, because GET_LOCK is local to one node in Galera.
const (
	// lockLease is how long others wait for a dead instance: three lost heartbeats.
	lockLease     = 16 * time.Second
	lockHeartbeat = 4 * time.Second

	// lockPause and lockTries: an instance that waits looks again twice a second, for ten minutes,
	// the time that a long ALTER of another instance may take.
	lockPause = 500 * time.Millisecond
	lockTries = 1200

	// unlockTries: five seconds; what is not unlocked then expires.
	unlockTries = 10
)

// Migration is one step of the schema.
type Migration struct {
	Version int64
	// Name is the file's base name; empty for a migration that this program does not know.
	Name string
	// Applied says whether the database has it, and AppliedAt (UTC) since when.
	Applied   bool
	AppliedAt time.Time
}

// SchemaError says that the database's schema is not the one this program works with.
type SchemaError struct {
	// Have is the newest version in the database, 0 if there is none; Want the newest one embedded.
	Have, Want int64
	// Missing are embedded versions that the database lacks, Unknown the other way round.
	Missing, Unknown []int64
}

// Error says what is wrong and what to do.
func (e *SchemaError) Error() string {
	switch {
	case len(e.Unknown) > 0:
		return fmt.Sprintf("the database's schema has version %d, which this program (up to %d) "+
			"does not know: a newer unionbridge has migrated it, install that one",
			e.Unknown[len(e.Unknown)-1], e.Want)
	case e.Have == 0:
		return "the database has no schema of unionbridge yet: run unionbridge migrate up"
	default:
		return fmt.Sprintf("the database's schema is older than this program "+
			"(versions %v are missing): run unionbridge migrate up", e.Missing)
	}
}

// Migrate brings the schema up to the embedded migrations and returns how many it applied. Any
// number of instances may call it at once: one works, the others wait and find nothing to do. After
// a crash in the middle it can be run again; the lock of the dead instance expires within 16 s.
// A schema that a newer program has migrated is refused with a *SchemaError.
func Migrate(ctx context.Context, db *sqlx.DB, log *slog.Logger) (applied int, err error) {
	applied, err = migrate(ctx, db, cmp.Or(log, slog.New(slog.DiscardHandler)))
	if err != nil {
		return applied, fmt.Errorf("migrating: %w", err)
	}
	return applied, nil
}

func migrate(ctx context.Context, db *sqlx.DB, log *slog.Logger) (applied int, err error) {
	state, err := schemaState(ctx, db)
	switch {
	case err != nil:
		return 0, err
	case len(state.Unknown) > 0:
		return 0, state
	case len(state.Missing) == 0:
		return 0, nil
	}

	// The lock is taken here and not by goose (WithLocker), which makes its version table before it
	// locks: a second instance can then find the table without its first row and give up.
	locker, err := newLocker(log)
	if err != nil {
		return 0, fmt.Errorf("making the lock: %w", err)
	}
	if err := locker.Lock(ctx, db.DB); err != nil {
		return 0, fmt.Errorf("waiting for the lock: %w", Explain(err))
	}
	defer func() {
		// Unlock goes on when ctx has ended.
		if unlockErr := locker.Unlock(ctx, db.DB); unlockErr != nil {
			err = errors.Join(err, fmt.Errorf("releasing the lock: %w", unlockErr))
		}
	}()
	if slices.Contains(state.Missing, templateCollation) {
		announce(ctx, db, log, largeTable)
	}
	return up(ctx, db, log)
}

func newLocker(log *slog.Logger) (lock.Locker, error) {
	return lock.NewMySQLTableLocker(
		lock.WithTableLeaseDuration(lockLease),
		lock.WithTableHeartbeatInterval(lockHeartbeat),
		lock.WithTableLockTimeout(lockPause, lockTries),
		lock.WithTableUnlockTimeout(lockPause, unlockTries),
		lock.WithTableRetryPolicy(mayWaitForLock),
		lock.WithTableLogger(log),
	)
}

func up(ctx context.Context, db *sqlx.DB, log *slog.Logger) (int, error) {
	files, err := fs.Sub(unionbridge.SQL, migrationsDir)
	if err != nil {
		return 0, fmt.Errorf("reading embedded files: %w", err)
	}
	provider, err := goose.NewProvider(goose.DialectMySQL, db.DB, files,
		goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return 0, err
	}
	results, err := provider.Up(ctx)
	if partial, ok := errors.AsType[*goose.PartialError](err); ok {
		results = partial.Applied
	}
	for _, r := range results {
		log.InfoContext(ctx, "migration applied",
			"version", r.Source.Version, "file", path.Base(r.Source.Path), "duration", r.Duration)
	}
	return len(results), Explain(explainOnline(err))
}

// mayWaitForLock: goose does not type "already held by another instance", so all but the server's
// own errors count as that: waiting ten minutes for a missing grant is useless.
func mayWaitForLock(err error) bool {
	if _, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return isRetryable(err)
	}
	return !IsUnavailable(err)
}

// CheckSchema returns a *SchemaError unless the database has exactly this program's migrations.
func CheckSchema(ctx context.Context, db *sqlx.DB) error {
	state, err := schemaState(ctx, db)
	if err != nil {
		return fmt.Errorf("checking the schema: %w", err)
	}
	if len(state.Missing) > 0 || len(state.Unknown) > 0 {
		return state
	}
	return nil
}

func schemaState(ctx context.Context, db *sqlx.DB) (*SchemaError, error) {
	migrations, err := Status(ctx, db)
	if err != nil {
		return nil, err
	}
	state := &SchemaError{}
	for _, m := range migrations {
		switch {
		case m.Name == "":
			state.Unknown = append(state.Unknown, m.Version)
		case !m.Applied:
			state.Missing = append(state.Missing, m.Version)
		}
		if m.Name != "" {
			state.Want = m.Version
		}
		if m.Applied {
			state.Have = m.Version
		}
	}
	return state, nil
}

// Status lists the embedded migrations and those of the database, in the order of their versions.
// It only reads, and needs no more than SELECT.
func Status(ctx context.Context, db *sqlx.DB) ([]Migration, error) {
	known, err := embeddedMigrations()
	if err != nil {
		return nil, err
	}
	applied, err := appliedMigrations(ctx, db)
	if err != nil {
		return nil, err
	}
	for i, m := range known {
		at, ok := applied[m.Version]
		known[i].Applied, known[i].AppliedAt = ok, at
		delete(applied, m.Version)
	}
	for version, at := range applied {
		known = append(known, Migration{Version: version, Applied: true, AppliedAt: at})
	}
	slices.SortFunc(known, func(a, b Migration) int { return int(a.Version - b.Version) })
	return known, nil
}

func embeddedMigrations() ([]Migration, error) {
	names, err := fs.Glob(unionbridge.SQL, migrationsDir+"/*.sql")
	if err != nil {
		return nil, fmt.Errorf("listing embedded migrations: %w", err)
	}
	var list []Migration
	for _, name := range names {
		version, err := goose.NumericComponent(name)
		if err != nil {
			return nil, fmt.Errorf("listing embedded migrations: %s: %w", name, err)
		}
		list = append(list, Migration{Version: version, Name: path.Base(name)})
	}
	return list, nil
}

// appliedMigrations reads goose's table as goose does: of the rows of one version the newest
// counts, because a rollback of older gooses adds a row instead of deleting one. Version 0 is
// goose's mark that the table exists.
func appliedMigrations(ctx context.Context, db *sqlx.DB) (map[int64]time.Time, error) {
	type row struct {
		Version int64        `db:"version_id"`
		Applied bool         `db:"is_applied"`
		At      sql.NullTime `db:"tstamp"`
	}
	var rows []row
	err := db.SelectContext(ctx, &rows, `
		SELECT version_id, is_applied, tstamp
		  FROM goose_db_version
		 WHERE version_id > 0
		 ORDER BY id`)
	if isServerError(err, erNoSuchTable) {
		return map[int64]time.Time{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading applied migrations: %w", Explain(err))
	}
	applied := make(map[int64]time.Time, len(rows))
	for _, r := range rows {
		delete(applied, r.Version)
		if r.Applied {
			applied[r.Version] = r.At.Time
		}
	}
	return applied, nil
}
