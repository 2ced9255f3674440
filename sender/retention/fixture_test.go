package retention

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

// appid is an account.
const appid = "wx00000000000000aa"

const month = 30 * 24 * time.Hour

// fixture is a database of its own. Nothing sends.
type fixture struct {
	db *sqlx.DB
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	return &fixture{db: dbtest.New(t)}
}

func (f *fixture) purger(archive bool) *Purger {
	return New(Config{
		DB: f.db, Keep: month, Archive: archive, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
}

// columns are those of a row; a missing data or template gets one.
type columns map[string]any

func (f *fixture) insert(t *testing.T, c columns) int64 {
	t.Helper()
	for name, value := range (columns{"template": "order", "data": `{"thing1":"茶"}`}) {
		if _, ok := c[name]; !ok {
			c[name] = value
		}
	}
	var names, marks []string
	var args []any
	for name, value := range c {
		names, marks, args = append(names, name), append(marks, "?"), append(args, value)
	}
	res, err := f.db.ExecContext(t.Context(), fmt.Sprintf("INSERT INTO send_request (%s) VALUES (%s)",
		strings.Join(names, ", "), strings.Join(marks, ", ")), args...)
	if err != nil {
		t.Fatal(err)
	}
	id, err := res.LastInsertId()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// place inserts a row in some state.
func (f *fixture) place(t *testing.T, state string, more columns) int64 {
	t.Helper()
	c := columns{"unionid": "u1", "appid": appid, "status": state}
	if state != "pending" && state != "waiting" {
		c["finished_at"] = time.Now().UTC().Add(-time.Hour)
	}
	for name, value := range more {
		c[name] = value
	}
	return f.insert(t, c)
}

func (f *fixture) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	if _, err := f.db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) count(t *testing.T, query string, args ...any) (n int) {
	t.Helper()
	if err := f.db.GetContext(t.Context(), &n, query, args...); err != nil {
		t.Fatal(err)
	}
	return n
}

// eventually polls a condition for a bounded time.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 s", what)
		}
	}
}

// fill inserts sent rows of two lanes, each of four pages, finished two months ago, each with a
// receipt.
func (f *fixture) fill(t *testing.T) int {
	t.Helper()
	f.exec(t, `INSERT INTO send_request (appid, unionid, template, priority, data, status, msgid, sent_openid, created_at, due_at, finished_at)
		SELECT ?, 'u', CONCAT('t', n % 2), n % 2, '{"thing1":"茶"}', 'sent', 1000 + n, 'o', m, m, m
		  FROM (SELECT n, NOW(3) - INTERVAL 60 DAY AS m FROM `+numbers(4)+`) moments
		 WHERE n < 3000`, appid)
	f.exec(t, `INSERT INTO send_receipt (appid, msgid, openid, status, arrived_at)
		SELECT appid, msgid, sent_openid, 'success', finished_at FROM send_request WHERE status = 'sent'`)
	return 3000
}

// loosely runs a statement in a session that does not refuse zero dates, as some producers' do not.
func (f *fixture) loosely(t *testing.T, query string, args ...any) {
	t.Helper()
	conn, err := f.db.Connx(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	var mode string
	if err := conn.GetContext(t.Context(), &mode, `SELECT @@SESSION.sql_mode`); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		query string
		args  []any
	}{{`SET SESSION sql_mode = ''`, nil}, {query, args}, {`SET SESSION sql_mode = ?`, []any{mode}}} {
		if _, err := conn.ExecContext(t.Context(), step.query, step.args...); err != nil {
			t.Fatal(err)
		}
	}
}

// reads counts the rows and entries that fn reads.
func (f *fixture) reads(t *testing.T, fn func()) int {
	t.Helper()
	f.db.SetMaxOpenConns(1) // the server counts for each session
	total := func() (n int) {
		var rows []struct {
			Name  string `db:"Variable_name"`
			Value int    `db:"Value"`
		}
		if err := f.db.SelectContext(t.Context(), &rows, `SHOW SESSION STATUS LIKE 'Handler_read%'`); err != nil {
			t.Fatal(err)
		}
		for _, r := range rows {
			n += r.Value
		}
		return n
	}
	before := total()
	fn()
	return total() - before
}

func (f *fixture) maps(t *testing.T, query string) []map[string]any {
	t.Helper()
	rows, err := f.db.QueryxContext(t.Context(), query)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	var out []map[string]any
	for rows.Next() {
		m := map[string]any{}
		if err := rows.MapScan(m); err != nil {
			t.Fatal(err)
		}
		for key, value := range m {
			if text, ok := value.([]byte); ok {
				m[key] = string(text)
			}
		}
		out = append(out, m)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return out
}

// numbers is a derived table of 10^digits rows, whose column n counts from 0.
func numbers(digits int) string {
	const digit = `(SELECT 0 AS n UNION ALL SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3 UNION ALL SELECT 4
		UNION ALL SELECT 5 UNION ALL SELECT 6 UNION ALL SELECT 7 UNION ALL SELECT 8 UNION ALL SELECT 9)`
	terms, tables, power := []string{}, []string{}, 1
	for i := range digits {
		terms = append(terms, fmt.Sprintf("%d * d%d.n", power, i))
		tables = append(tables, fmt.Sprintf("%s d%d", digit, i))
		power *= 10
	}
	return fmt.Sprintf("(SELECT %s AS n FROM %s) seq", strings.Join(terms, " + "), strings.Join(tables, ", "))
}
