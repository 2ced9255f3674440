package requests

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

// appid is the default account.
const appid = "wx00000000000000aa"

// fixture is a Store on a database of its own. Nothing sends.
type fixture struct {
	db    *sqlx.DB
	store Store
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	db := dbtest.New(t)
	return &fixture{db: db, store: Store{DB: db, DefaultAppID: appid}}
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

// row is what the tests look at of a row.
type row struct {
	Status string `db:"status"`
	MsgID  *int64 `db:"msgid"`
}

func (f *fixture) row(t *testing.T, id int64) row {
	t.Helper()
	var r row
	err := f.db.GetContext(t.Context(), &r, `SELECT status, msgid FROM send_request WHERE id = ?`, id)
	if err != nil {
		t.Fatal(err)
	}
	return r
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
