package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

// TestRunNamesMissingGrants: a daemon that could not do its work does not start, and says what to grant.
func TestRunNamesMissingGrants(t *testing.T) {
	db := dbtest.New(t)
	var schema string
	if err := db.GetContext(t.Context(), &schema, `SELECT DATABASE()`); err != nil {
		t.Fatal(err)
	}
	const user, password = "ub_run_grants", "pass-2"
	for _, stmt := range []string{
		`CREATE USER '` + user + `'@'%' IDENTIFIED BY '` + password + `'`,
		`GRANT SELECT, INSERT, UPDATE ON ` + schema + `.* TO '` + user + `'@'%'`,
	} {
		if _, err := db.ExecContext(t.Context(), stmt); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _, _ = db.Exec(`DROP USER '` + user + `'@'%'`) })
	w := newWorld(t, dbtest.DSNAs(t, db, user, password))
	var stderr bytes.Buffer
	code := run(t.Context(), []string{"-c", w.writeConfig(t, w.dir), "run"}, nil, &stderr, &stderr)
	if code != exitDatabase || !strings.Contains(stderr.String(), "GRANT DELETE ON") {
		t.Errorf("exit code %d, want %d and the missing grant:\n%s", code, exitDatabase, &stderr)
	}
	if strings.Contains(stderr.String(), password) {
		t.Error("the output shows the password")
	}
}
