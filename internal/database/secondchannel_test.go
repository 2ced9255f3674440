package database_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/unionbridge/unionbridge"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

// TestSecondChannelIsInstant: migration 7 can be undone, and each of its ALTERs is one that copies
// no table, on this server.
func TestSecondChannelIsInstant(t *testing.T) {
	text, err := unionbridge.SQL.ReadFile("sql/migrations/00007_second_channel.sql")
	if err != nil {
		t.Fatal(err)
	}
	up, down, _ := strings.Cut(string(text), "-- +goose Down\n")
	db := dbtest.New(t)
	exec := func(stmt string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), stmt); err != nil {
			t.Fatalf("%s: %v", stmt, err)
		}
	}
	for stmt := range strings.SplitSeq(down, ";\n") {
		if strings.TrimSpace(stmt) != "" {
			exec(stmt)
		}
	}
	alters := regexp.MustCompile(`'(ALTER TABLE [^']*)'`).FindAllStringSubmatch(up, -1)
	if len(alters) != 4 {
		t.Fatalf("migration 7 has %d ALTERs, want 4", len(alters))
	}
	for _, m := range alters {
		exec(m[1] + `, ALGORITHM = INSTANT`)
	}
	// As after a crash in the middle: the columns are there, the tables are not.
	exec(`DELETE FROM goose_db_version WHERE version_id >= 7`)
	if _, err := database.Migrate(t.Context(), db, quiet); err != nil {
		t.Fatal(err)
	}
}
