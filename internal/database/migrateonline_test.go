package database_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

// Steps of the migration of templates, and the way back to before it.
const (
	dropDue      = `ALTER TABLE send_request DROP INDEX send_request_due`
	addDue       = `ALTER TABLE send_request ADD INDEX send_request_due (status, appid, priority, template, due_at)`
	swapDue      = `ALTER TABLE send_request DROP INDEX send_request_due, RENAME INDEX send_request_due_next TO send_request_due`
	addInterim   = `ALTER TABLE send_request ADD INDEX send_request_due_next (status, appid, priority, due_at)`
	addNext      = `ALTER TABLE send_request ADD INDEX send_request_due_next (status, appid, priority, template, due_at)`
	renameNext   = `ALTER TABLE send_request RENAME INDEX send_request_due_next TO send_request_due`
	caseCounts   = `ALTER TABLE send_request MODIFY template VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL`
	caseIgnored  = `ALTER TABLE send_request MODIFY template VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL`
	archiveOlder = `ALTER TABLE send_request_archive MODIFY template VARCHAR(128) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL`
	forget       = `DELETE FROM goose_db_version WHERE version_id >= 4`
)

// beforeCollation brings a migrated database with a few rows back to before the migration.
func beforeCollation(t *testing.T) *sqlx.DB {
	t.Helper()
	db := dbtest.New(t)
	for _, stmt := range []string{
		`INSERT INTO send_request (unionid, template, data) VALUES ('u', 'order', '{}'), ('u', 'ORDER', '{}')`,
		dropDue, caseIgnored, addDue, archiveOlder, forget,
	} {
		execute(t, db, stmt)
	}
	return db
}

func execute(t *testing.T, db *sqlx.DB, stmt string) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), stmt); err != nil {
		t.Fatalf("%s: %v", stmt, err)
	}
}

// shape is what the migration changes.
type shape struct {
	Collations []string // of both tables
	Due, Next  []string // columns of the indexes
}

func shapeOf(t *testing.T, db *sqlx.DB) (s shape) {
	t.Helper()
	index := func(name string) (columns []string) {
		err := db.SelectContext(t.Context(), &columns, `
			SELECT column_name FROM information_schema.statistics
			 WHERE table_schema = DATABASE() AND table_name = 'send_request' AND index_name = ?
			 ORDER BY seq_in_index`, name)
		if err != nil {
			t.Fatal(err)
		}
		return columns
	}
	err := db.SelectContext(t.Context(), &s.Collations, `
		SELECT collation_name FROM information_schema.columns
		 WHERE table_schema = DATABASE() AND column_name = 'template'
		   AND table_name IN ('send_request', 'send_request_archive')`)
	if err != nil {
		t.Fatal(err)
	}
	s.Due, s.Next = index("send_request_due"), index("send_request_due_next")
	return s
}

// TestTemplateCollation: the migration goes on from whatever a crash, or a DBA, has left.
func TestTemplateCollation(t *testing.T) {
	want := shape{
		Collations: []string{"utf8mb4_bin", "utf8mb4_bin"},
		Due:        []string{"status", "appid", "priority", "template", "due_at"},
	}
	done := []string{addInterim, swapDue, caseCounts, addNext, swapDue}
	if dbtest.ServerOf(t, dbtest.New(t)).Name == "TiDB" {
		done = []string{addInterim, dropDue, renameNext, caseCounts, addNext, dropDue, renameNext}
	}
	for n := range len(done) + 1 {
		db := beforeCollation(t)
		for _, stmt := range done[:n] {
			execute(t, db, stmt)
		}
		for range 2 { // the second time there is nothing to do
			if _, err := database.Migrate(t.Context(), db, quiet); err != nil {
				t.Fatalf("after %d steps: %v", n, err)
			}
			if diff := cmp.Diff(want, shapeOf(t, db)); diff != "" {
				t.Errorf("after %d steps (-want +got):\n%s", n, diff)
			}
			execute(t, db, forget)
		}
	}
}

// TestDueIndexIsAlwaysThere: the migration may be stopped after any of its statements, as by an open
// transaction of a producer. Daemons name the index in all they look for.
func TestDueIndexIsAlwaysThere(t *testing.T) {
	db := beforeCollation(t)
	if dbtest.ServerOf(t, db).Name == "TiDB" {
		t.Skip("TiDB does not drop and rename in one ALTER")
	}
	file, err := os.ReadFile("../../sql/migrations/00004_template_collation.sql")
	if err != nil {
		t.Fatal(err)
	}
	up, _, _ := strings.Cut(string(file), "-- +goose Down")
	conn, err := db.Connx(t.Context()) // the statements have variables of their session
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	up = regexp.MustCompile(`(?m)^--.*$`).ReplaceAllString(up, "")
	for stmt := range strings.SplitSeq(up, ";\n") {
		if stmt = strings.TrimSpace(stmt); stmt == "" {
			continue
		}
		if _, err := conn.ExecContext(t.Context(), stmt); err != nil {
			t.Fatalf("%s: %v", stmt, err)
		}
		if shapeOf(t, db).Due == nil {
			t.Fatalf("no index send_request_due after %s", stmt)
		}
	}
	if n := len(shapeOf(t, db).Due); n != 5 {
		t.Errorf("the index has %d columns in the end", n)
	}
}

// TestTemplateCollationOnline: a column that cannot be changed while others write is an error with
// a cure, and not a table that nobody may write to. MariaDB can change it.
func TestTemplateCollationOnline(t *testing.T) {
	db := beforeCollation(t)
	execute(t, db, `ALTER TABLE send_request ADD INDEX mine (template)`)
	_, err := database.Migrate(t.Context(), db, quiet)
	if err != nil && !strings.Contains(err.Error(), "Drop indexes of your own") {
		t.Errorf("Migrate = %v", err)
	}
	execute(t, db, `ALTER TABLE send_request DROP INDEX mine`)
	if _, err := database.Migrate(t.Context(), db, quiet); err != nil {
		t.Errorf("Migrate after the cure = %v", err)
	}
}

// TestMigrationsAreImpatient: each of them waits ten seconds for open transactions, as Open says.
// What one of them set would hold for those after it: they share a connection.
func TestMigrationsAreImpatient(t *testing.T) {
	files, err := filepath.Glob("../../sql/migrations/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d migrations (%v)", len(files), err)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil || bytes.Contains(text, []byte("lock_wait_timeout =")) {
			t.Errorf("%s sets lock_wait_timeout (%v)", name, err)
		}
	}
}

// TestMigrationIsAnnounced: on a large table migrate says what it is going to do.
func TestMigrationIsAnnounced(t *testing.T) {
	db := beforeCollation(t)
	execute(t, db, `ANALYZE TABLE send_request`)
	var log bytes.Buffer
	announce := func(large int64) string {
		log.Reset()
		database.Announce(t.Context(), db, slog.New(slog.NewTextHandler(&log, nil)), large)
		return log.String()
	}
	if got := announce(1000); got != "" {
		t.Errorf("of a small table it says %s", got)
	}
	if got := announce(1); !strings.Contains(got, "built twice") {
		t.Errorf("of a large table it says %q", got)
	}
	if _, err := database.Migrate(t.Context(), db, quiet); err != nil {
		t.Fatal(err)
	}
	if got := announce(1); got != "" {
		t.Errorf("where there is nothing to do it says %s", got)
	}
}
