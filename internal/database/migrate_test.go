package database_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jmoiron/sqlx"
	"golang.org/x/sync/errgroup"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

var quiet = slog.New(slog.DiscardHandler)

// Tables and views as DESIGN and README name them: other people's scripts type these.
var relations = []string{
	"account_problem", "account_quota", "account_state", "application", "application_usage",
	"door_duplicate", "door_echo", "erased_person", "erasure", "follower",
	"follower_recheck", "grant_event",
	"installation", "instance", "lease", "mini_user", "secret_key", "send_attempt", "send_day",
	"send_receipt", "send_request", "send_request_archive", "send_wait", "subscription_grant",
	"subscription_report", "sync_run", "v_coverage", "v_identity", "v_send_status",
	"withdrawn_permission",
}

func listRelations(t *testing.T, db *sqlx.DB) []string {
	t.Helper()
	var names []string
	err := db.SelectContext(t.Context(), &names, `
		SELECT table_name AS name
		  FROM information_schema.tables
		 WHERE table_schema = DATABASE() AND table_name NOT LIKE 'goose%'
		 ORDER BY table_name`)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestMigrate(t *testing.T) {
	ctx := t.Context()
	db := dbtest.Open(t, dbtest.Empty(t))

	var schemaErr *database.SchemaError
	if err := database.CheckSchema(ctx, db); !errors.As(err, &schemaErr) ||
		!strings.Contains(err.Error(), "unionbridge migrate up") {
		t.Fatalf("CheckSchema of an empty schema = %v, want a SchemaError that says what to run",
			err)
	}

	embedded, err := database.Status(ctx, db)
	if err != nil {
		t.Fatal(err)
	}
	applied, err := database.Migrate(ctx, db, quiet)
	if err != nil {
		t.Fatal(err)
	}
	if applied != len(embedded) {
		t.Errorf("Migrate applied %d, want all %d", applied, len(embedded))
	}
	if diff := cmp.Diff(relations, listRelations(t, db)); diff != "" {
		t.Errorf("tables and views (-want +got):\n%s", diff)
	}
	if err := database.CheckSchema(ctx, db); err != nil {
		t.Errorf("CheckSchema after Migrate: %v", err)
	}
	status, err := database.Status(ctx, db)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range status {
		if !m.Applied || m.Name == "" || m.AppliedAt.IsZero() {
			t.Errorf("Status after Migrate: %+v, want applied, named and dated", m)
		}
	}
	if applied, err := database.Migrate(ctx, db, quiet); applied != 0 || err != nil {
		t.Errorf("second Migrate = %d, %v; want 0, nil", applied, err)
	}
}

func TestMigrateConcurrently(t *testing.T) {
	for _, instances := range []int{2, 8} {
		t.Run(string(rune('0'+instances))+" instances", func(t *testing.T) {
			dsn := dbtest.Empty(t)
			applied := make([]int, instances)
			g, ctx := errgroup.WithContext(t.Context())
			for i := range instances {
				db := dbtest.Open(t, dsn)
				g.Go(func() (err error) {
					applied[i], err = database.Migrate(ctx, db, quiet)
					return err
				})
			}
			if err := g.Wait(); err != nil {
				t.Fatal(err)
			}
			sum := 0
			for _, n := range applied {
				sum += n
			}
			db := dbtest.Open(t, dsn)
			status, err := database.Status(t.Context(), db)
			if err != nil {
				t.Fatal(err)
			}
			if sum != len(status) {
				t.Errorf("migrations applied by all instances together: %v, want each of %d once",
					applied, len(status))
			}
			var ids int
			if err := db.GetContext(t.Context(), &ids,
				`SELECT COUNT(*) FROM installation`); err != nil || ids != 1 {
				t.Errorf("installation has %d rows (%v), want 1", ids, err)
			}
		})
	}
}

// A crash in the middle of a migration leaves some of its statements done (DDL commits implicitly)
// and its version not recorded.
func TestMigrateAfterCrash(t *testing.T) {
	ctx := t.Context()
	db := dbtest.New(t)
	var before string
	if err := db.GetContext(ctx, &before, `SELECT id FROM installation`); err != nil {
		t.Fatal(err)
	}
	for _, stmt := range []string{
		`DELETE FROM goose_db_version WHERE version_id > 0`,
		`DROP VIEW v_coverage`,
		`DROP TABLE send_request`,
		`DROP TABLE lease`,
	} {
		if _, err := db.ExecContext(ctx, stmt); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := database.Migrate(ctx, db, quiet); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(relations, listRelations(t, db)); diff != "" {
		t.Errorf("tables and views (-want +got):\n%s", diff)
	}
	var after string
	if err := db.GetContext(ctx, &after, `SELECT id FROM installation`); err != nil {
		t.Fatal(err)
	}
	if before != after {
		t.Errorf("installation id changed from %s to %s: client_msg_ids in flight would lose "+
			"their protection", before, after)
	}
}

// A dead migrator's lock row expires; until then the next one waits.
func TestMigrateWaitsForLock(t *testing.T) {
	ctx := t.Context()
	db := dbtest.New(t)
	if _, err := db.ExecContext(ctx, `DELETE FROM goose_db_version WHERE version_id >= 2`); err != nil {
		t.Fatal(err)
	}
	expiry := serverTime(t, db).Add(700 * time.Millisecond)
	_, err := db.ExecContext(ctx, `
		UPDATE goose_lock
		   SET locked = TRUE, locked_by = 'dead', locked_at = NOW(6), lease_expires_at = ?`, expiry)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := database.Migrate(ctx, db, quiet); err != nil {
		t.Fatal(err)
	}
	if now := serverTime(t, db); now.Before(expiry) {
		t.Errorf("Migrate ended at %s, before the dead instance's lock expired at %s", now, expiry)
	}
}

func serverTime(t *testing.T, db *sqlx.DB) (now time.Time) {
	t.Helper()
	if err := db.GetContext(t.Context(), &now, `SELECT NOW(6)`); err != nil {
		t.Fatal(err)
	}
	return now
}

func TestNewerSchemaIsRefused(t *testing.T) {
	ctx := t.Context()
	db := dbtest.New(t)
	if _, err := db.ExecContext(ctx, `INSERT INTO goose_db_version (version_id, is_applied) `+
		`VALUES (99999, TRUE)`); err != nil {
		t.Fatal(err)
	}
	check := database.CheckSchema(ctx, db)
	_, migrate := database.Migrate(ctx, db, quiet)
	for name, err := range map[string]error{"CheckSchema": check, "Migrate": migrate} {
		var schemaErr *database.SchemaError
		if !errors.As(err, &schemaErr) {
			t.Errorf("%s = %v, want a SchemaError", name, err)
			continue
		}
		if diff := cmp.Diff([]int64{99999}, schemaErr.Unknown); diff != "" {
			t.Errorf("%s: unknown versions (-want +got):\n%s", name, diff)
		}
	}
}

func TestOlderSchemaIsRefused(t *testing.T) {
	ctx := t.Context()
	db := dbtest.New(t)
	if _, err := db.ExecContext(ctx, `DELETE FROM goose_db_version WHERE version_id = 2`); err != nil {
		t.Fatal(err)
	}
	err := database.CheckSchema(ctx, db)
	var schemaErr *database.SchemaError
	if !errors.As(err, &schemaErr) {
		t.Fatalf("CheckSchema = %v, want a SchemaError", err)
	}
	if diff := cmp.Diff([]int64{2}, schemaErr.Missing); diff != "" {
		t.Errorf("missing versions (-want +got):\n%s", diff)
	}
}

// TestIDsGrowWithTime: TiDB gives each node a block of ids, but for a table that was created so.
func TestIDsGrowWithTime(t *testing.T) {
	db := dbtest.New(t)
	var name, create string
	if err := db.QueryRowxContext(t.Context(), `SHOW CREATE TABLE send_request`).Scan(&name, &create); err != nil {
		t.Fatal(err)
	}
	tidb := dbtest.ServerOf(t, db).Name == "TiDB"
	if got := strings.Contains(create, "AUTO_ID_CACHE=1 "); got != tidb {
		t.Errorf("the table has AUTO_ID_CACHE 1: %t, on TiDB: %t\n%s", got, tidb, create)
	}
}
