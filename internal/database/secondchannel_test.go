package database_test

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/unionbridge/unionbridge"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

// TestColumnsAreInstant: a migration that appends columns can be undone, and each of its ALTERs is one
// that copies no table, on this server.
func TestColumnsAreInstant(t *testing.T) {
	t.Run("7", func(t *testing.T) { instant(t, "00007_second_channel.sql", 7, 4) })
	t.Run("9", func(t *testing.T) { instant(t, "00009_moves.sql", 9, 1) })
}

func instant(t *testing.T, name string, version, want int) {
	text, err := unionbridge.SQL.ReadFile("sql/migrations/" + name)
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
	if len(alters) != want {
		t.Fatalf("migration %d has %d ALTERs, want %d", version, len(alters), want)
	}
	for _, m := range alters {
		exec(m[1] + `, ALGORITHM = INSTANT`)
	}
	// As after a crash in the middle: the columns are there, the tables are not.
	exec(`DELETE FROM goose_db_version WHERE version_id >= ` + strconv.Itoa(version))
	if _, err := database.Migrate(t.Context(), db, quiet); err != nil {
		t.Fatal(err)
	}
}
