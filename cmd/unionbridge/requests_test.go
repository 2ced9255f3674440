package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

// TestRequestsGrants: a reader may list; a producer, and a reader who wants more, learn which role
// they lack.
func TestRequestsGrants(t *testing.T) {
	db := dbtest.New(t)
	var schema string
	if err := db.GetContext(t.Context(), &schema, `SELECT DATABASE()`); err != nil {
		t.Fatal(err)
	}
	const password = "pass-4"
	grants := map[string][]string{
		"ub_requests_producer": {`INSERT (unionid, template, data), UPDATE (cancel), SELECT (id, ` +
			`dedup_key) ON ` + schema + `.send_request`},
		"ub_requests_reader": {
			`SELECT (id, dedup_key, appid, template, priority, due_at, expires_at, cancel, created_at, status, reason, errcode, errmsg,
			         warning, attempts, attempted_at, channel, sent_openid, msgid, finished_at, route, fallback_from,
			         fallback_reason, fallback_errcode, application) ON ` + schema + `.send_request`,
			`SELECT ON ` + schema + `.lease`,
		},
	}
	for user, rights := range grants {
		if _, err := db.ExecContext(t.Context(),
			`CREATE USER '`+user+`'@'%' IDENTIFIED BY '`+password+`'`); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _, _ = db.Exec(`DROP USER '` + user + `'@'%'`) })
		for _, right := range rights {
			if _, err := db.ExecContext(t.Context(),
				`GRANT `+right+` TO '`+user+`'@'%'`); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := db.ExecContext(t.Context(),
		`INSERT INTO send_request (unionid, template, data) VALUES ('u', 'progress', '{}')`); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		user string
		args []string
		code int
		say  string // "": nothing is missing
	}{
		{"ub_requests_reader", []string{"list", "--status", "pending", "--since", "1h"}, exitOK,
			""},
		{"ub_requests_reader", []string{"show", "1"}, exitDatabase, "missing: GRANT SELECT"},
		{"ub_requests_producer", []string{"list"}, exitDatabase, "missing: GRANT SELECT (appid)"},
		{"ub_requests_producer", []string{"show", "1"}, exitDatabase, "missing: GRANT SELECT"},
		{"ub_requests_producer", []string{"retry", "1"}, exitDatabase, "missing: GRANT SELECT"},
		{"ub_requests_producer", []string{"cancel", "1"}, exitDatabase, "missing: GRANT SELECT"},
	} {
		t.Run(tc.user+" "+tc.args[0], func(t *testing.T) {
			w := newWorld(t, dbtest.DSNAs(t, db, tc.user, password))
			var stdout, stderr bytes.Buffer
			args := append([]string{"-c", w.writeConfig(t, w.dir), "requests"}, tc.args...)
			code := run(t.Context(), args, nil, &stdout, &stderr)
			if code != tc.code || !strings.Contains(stderr.String(), tc.say) {
				t.Errorf("exit code %d, want %d and %q:\n%s", code, tc.code, tc.say, &stderr)
			}
			if tc.say != "" && !strings.Contains(stderr.String(),
				"all else here needs unionbridge_daemon") {
				t.Errorf("the role is not named:\n%s", &stderr)
			}
		})
	}
}
