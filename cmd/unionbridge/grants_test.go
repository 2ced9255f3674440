package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

// TestRunNamesMissingGrants: a daemon that could not do its work does not start, and says what to
// grant.
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

// TestSendAsProducer: the rights of an app are enough to send, though they do not show which
// migrations the database has.
func TestSendAsProducer(t *testing.T) {
	db := dbtest.New(t)
	var schema string
	if err := db.GetContext(t.Context(), &schema, `SELECT DATABASE()`); err != nil {
		t.Fatal(err)
	}
	const user, password = "ub_send_producer", "pass-3"
	for _, stmt := range []string{
		`CREATE USER '` + user + `'@'%' IDENTIFIED BY '` + password + `'`,
		`GRANT INSERT (appid, unionid, mini_appid, mini_openid, openid, template, data, url, mini_path,
		               priority, due_at, expires_at, dedup_key) ON ` + schema + `.send_request TO '` + user + `'@'%'`,
	} {
		if _, err := db.ExecContext(t.Context(), stmt); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _, _ = db.Exec(`DROP USER '` + user + `'@'%'`) })
	w := newWorld(t, dbtest.DSNAs(t, db, user, password))
	var stdout, stderr bytes.Buffer
	args := []string{"-c", w.writeConfig(t, w.dir), "send", "--unionid", "u", "--template",
		"progress", "--set", "thing1=x", "--wait", "0"}
	if code := run(t.Context(), args, nil, &stdout, &stderr); code != exitOK ||
		stdout.String() != "1\n" {
		t.Errorf("exit code %d, printed %q, want the first id:\n%s", code, &stdout, &stderr)
	}
}
