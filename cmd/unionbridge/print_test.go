package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"unicode"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

func TestVisible(t *testing.T) {
	for text, want := range map[string]string{
		"热拿铁 & 茶 <1>":             "热拿铁 & 茶 <1>",
		"a\x1b[2Kb\a":             `a\u001b[2Kb\u0007`,
		"order\nalarms  none\r\t": `order\nalarms  none\u000d\t`,
		"\u202egnp.exe":           `\u202egnp.exe`,
		"a\u009b31mb\u200b":       `a\u009b31mb\u200b`,
		"a\xffb":                  `a�b`,
		"\U000e0041":              `\udb40\udc41`,
	} {
		if got := visible(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
}

// TestPrintJSON: what is escaped for the terminal is the same JSON.
func TestPrintJSON(t *testing.T) {
	for _, text := range []string{"\x1b]0;x\a", "\u202e\u009b\u2066", "\U000e0041", "a\nb", "热<&>"} {
		var out bytes.Buffer
		if err := printJSON(&out, text, ""); err != nil {
			t.Fatal(err)
		}
		var got string
		if err := json.Unmarshal(out.Bytes(), &got); err != nil || got != text {
			t.Errorf("%s is %q, want %q (%v)", out.String(), got, text, err)
		}
		if i := strings.IndexFunc(strings.TrimSuffix(out.String(), "\n"), obeyed); i >= 0 {
			t.Errorf("%q holds what a terminal obeys", out.String())
		}
	}
}

// TestLogLines: no line of either log format holds what a terminal obeys.
func TestLogLines(t *testing.T) {
	text := "\u202e\u009b2J\x1b]0;x\a\nalarms  none"
	for _, format := range []string{"json", "text"} {
		var out bytes.Buffer
		newLogger(config.Log{Format: format}, &out).Error("storing", "err", text)
		line := strings.TrimSuffix(out.String(), "\n")
		if line == "" || strings.ContainsFunc(line, obeyed) {
			t.Errorf("%s: %q", format, line)
		}
		var entry struct{ Err string }
		if err := json.Unmarshal([]byte(line), &entry); format == "json" && (err != nil || entry.Err != text) {
			t.Errorf("%q says %q, %v", line, entry.Err, err)
		}
	}
}

// obeyed reports whether a terminal does something else with a character than showing it.
func obeyed(r rune) bool { return !unicode.IsGraphic(r) }

// hostile is what anybody might write into a column of its character set.
func hostile(charset string) string {
	text := "=cmd\x1b[2K\x1b]0;title\a\x7f\r\nalarms  none\nid  7\t|"
	if charset != "ascii" {
		text = "\u202e\u009b2J\u2066" + text
	}
	return text
}

// TestHostileColumns puts what terminals obey into every text column of every table, and runs every
// command that prints what is in the database.
func TestHostileColumns(t *testing.T) {
	db := dbtest.New(t)
	w := newWorld(t, dbtest.DSN(t, db))
	path := w.writeConfig(t, w.dir)
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	for _, query := range []string{
		`INSERT INTO send_request (id, unionid, template, data, appid) VALUES (7, 'u', 'progress', '{}', '` +
			wechatsim.StandardAppID + `')`,
		`INSERT INTO send_receipt (appid, msgid, openid, status) VALUES ('a', 5, 'o', 'success')`,
		`INSERT INTO send_request_archive (id, template, data, priority, due_at, created_at, status,
		     attempts, finished_at) VALUES (8, 'x', '{}', 1, NOW(), NOW(), 'sent', 1, NOW())`,
		`INSERT INTO account_state (appid, scope, reason) VALUES ('a', 'send', 'r')`,
		`INSERT INTO sync_run (kind, appid, state, holder) VALUES ('sweep', '` +
			wechatsim.StandardAppID + `', 'failed', 'h')`,
		`INSERT INTO lease (name, holder, epoch, expires_at) VALUES ('send:` +
			wechatsim.StandardAppID + `', 'h', 1, NOW() + INTERVAL 1 HOUR)`,
		`INSERT INTO mini_user (appid, openid, unionid) VALUES ('m', 'o', 'u')`,
		`INSERT INTO follower (appid, openid, unionid) VALUES ('a', 'o', 'u')`,
	} {
		exec(query)
	}
	check := func(round string, people string) {
		for _, args := range [][]string{
			{"status"}, {"status", "--json"}, {"status", "--coverage"}, {"status", "--check"},
			{"lookup", people}, {"lookup", people, "--json"}, {"export-users"},
			{"requests", "list"}, {"requests", "list", "--json"}, {"requests", "show", "7"},
			{"requests", "show", "--data", "7"}, {"requests", "show", "--json", "--data", "7"},
			{"requests", "show", "8", "--data"}, {"requests", "retry", "7"},
			{"requests", "cancel", "7"}, {"requests", "resolve", "7", "--sent"},
			{"requests", "retry", "--status", "pending", "--yes"}, {"migrate", "status"},
			{"send", "--dedup-key", "k", "--unionid", "u", "--template", "progress", "--set", "thing1=x"},
			{"send", "--dedup-key", "k", "--unionid", "u", "--template", "progress", "--set", "thing1=x",
				"--json"},
		} {
			if args[0] == "send" { // the request of that key, which has ended
				exec(`UPDATE send_request SET dedup_key = 'k', status = 'failed'`)
			}
			var stdout, stderr bytes.Buffer
			run(t.Context(), append([]string{"-c", path}, args...), strings.NewReader(""),
				&stdout, &stderr)
			out := strings.ReplaceAll(stdout.String(), "\r\n", "\n") + stderr.String()
			for line := range strings.SplitSeq(out, "\n") {
				forged := strings.HasPrefix(line, "alarms  none") || strings.HasPrefix(line, "id  7")
				formula := strings.HasPrefix(line, "=") || strings.Contains(line, ",=")
				if forged || strings.ContainsFunc(line, obeyed) || args[0] == "export-users" && formula {
					t.Errorf("%s, %v: %q", round, args, line)
				}
			}
			if out == "" {
				t.Errorf("%s, %v prints nothing", round, args)
			}
		}
	}
	for _, round := range []struct {
		name, people string
		keep         map[string]bool
	}{
		{"unionids", "o", map[string]bool{"status": true, "state": true, "kind": true, "name": true,
			"openid": true, "appid": true}},
		{"texts", "u", map[string]bool{"status": true, "state": true, "kind": true, "name": true,
			"unionid": true, "appid": true}},
		{"texts and accounts", "u", map[string]bool{"status": true, "state": true, "unionid": true}},
		{"all", "u", map[string]bool{"unionid": true}},
	} {
		for _, update := range hostileUpdates(t, db, round.keep) {
			exec(update.query, update.values...)
		}
		if round.people == "u" {
			exec(`UPDATE mini_user SET unionid = 'u'`)
			exec(`UPDATE follower SET unionid = 'u'`)
		}
		check(round.name, round.people)
	}
}

type update struct {
	query  string
	values []any
}

// hostileUpdates fill the text columns of every table but those to keep.
func hostileUpdates(t *testing.T, db *sqlx.DB, keep map[string]bool) (updates []update) {
	const columns = `
		SELECT c.table_name AS tbl, c.column_name AS col, COALESCE(c.character_set_name, '') AS charset,
		       COALESCE(c.character_maximum_length, 0) AS width
		  FROM information_schema.columns c
		  JOIN information_schema.tables t
		       ON t.table_schema = c.table_schema AND t.table_name = c.table_name
		 WHERE c.table_schema = DATABASE() AND t.table_type = 'BASE TABLE'
		   AND c.data_type IN ('varchar', 'text', 'char')
		   AND c.table_name NOT IN ('installation', 'goose_db_version')`
	var found []struct {
		Table   string `db:"tbl"`
		Column  string `db:"col"`
		Charset string `db:"charset"`
		Width   int    `db:"width"`
	}
	if err := db.SelectContext(t.Context(), &found, columns); err != nil {
		t.Fatal(err)
	}
	for _, c := range found {
		if keep[c.Column] {
			continue
		}
		text := []rune(hostile(c.Charset))
		updates = append(updates, update{
			fmt.Sprintf("UPDATE %s SET %s = ?", c.Table, c.Column),
			[]any{string(text[:min(len(text), c.Width)])},
		})
	}
	const links = `UPDATE send_request SET data = ?`
	return append(updates, update{links, []any{`{"thing1":"` + "\u202e\u009b2J\u2066" + `"}`}})
}
