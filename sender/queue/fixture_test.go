package queue

import (
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

const (
	appid      = "wx00000000000000aa"
	otherAppID = "wx00000000000000bb"
)

// lockTimeout is how long a statement waits for a row that another transaction holds. A call that
// waits for none takes less, also on a busy machine.
const lockTimeout = 2 * time.Second

// fixture is a queue on a database of its own.
type fixture struct {
	*Queue
}

func newFixture(t *testing.T) fixture {
	t.Helper()
	return fixture{New(dbtest.New(t))}
}

// expr is an SQL expression as the value of a column.
type expr string

// in is a moment by the database's clock, in minutes from now.
func in(minutes int) expr {
	return expr(fmt.Sprintf("CURRENT_TIMESTAMP(3) + INTERVAL %d MINUTE", minutes))
}

// columns are those of a row.
type columns map[string]any

// insert adds a row, by default a due one of appid and the template order.
func (f fixture) insert(t *testing.T, c columns) int64 {
	t.Helper()
	var names, values []string
	var args []any
	add := func(name string, value any) {
		names = append(names, name)
		if e, ok := value.(expr); ok {
			values = append(values, string(e))
		} else {
			values, args = append(values, "?"), append(args, value)
		}
	}
	for name, value := range c {
		add(name, value)
	}
	defaults := columns{"appid": appid, "unionid": "u-1", "template": "order", "data": `{"a":1}`}
	for name, value := range defaults {
		if _, ok := c[name]; !ok {
			add(name, value)
		}
	}
	query := fmt.Sprintf("INSERT INTO send_request (%s) VALUES (%s)",
		strings.Join(names, ", "), strings.Join(values, ", "))
	res, err := f.db.ExecContext(t.Context(), query, args...)
	if err != nil {
		t.Fatal(err)
	}
	id, err := res.LastInsertId()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// bulk adds n rows of appid and the template order.
func (f fixture) bulk(t *testing.T, n int, status Status, due expr) {
	t.Helper()
	for ; n > 0; n -= 500 { // servers bound the recursion
		f.exec(t, `INSERT INTO send_request (appid, unionid, template, data, status, due_at)
			WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
			SELECT ?, 'u-1', 'order', '{}', ?, `+string(due)+` FROM n`, min(n, 500), appid, status)
	}
}

func (f fixture) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	if _, err := f.db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

// update changes rows as a producer, an operator or another instance does.
func (f fixture) update(t *testing.T, assignments string, ids ...int64) {
	t.Helper()
	query, args, err := sqlx.In(`UPDATE send_request SET `+assignments+` WHERE id IN (?)`, ids)
	if err != nil {
		t.Fatal(err)
	}
	f.exec(t, query, args...)
}

func (f fixture) count(t *testing.T, where string) (n int) {
	t.Helper()
	query := `SELECT COUNT(*) FROM send_request WHERE ` + where
	if err := f.db.GetContext(t.Context(), &n, query); err != nil {
		t.Fatal(err)
	}
	return n
}

// hold locks rows as a producer's open transaction does.
func (f fixture) hold(t *testing.T, ids ...int64) (release func()) {
	t.Helper()
	tx, err := f.db.BeginTxx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback() })
	for _, id := range ids {
		const query = `UPDATE send_request SET url = 'held' WHERE id = ?`
		if _, err := tx.ExecContext(t.Context(), query, id); err != nil {
			t.Fatal(err)
		}
	}
	return func() { _ = tx.Rollback() }
}

// row is what the tests compare of a row: NULL is the zero value.
type row struct {
	Status   Status
	AppID    string
	Attempts int
	Held     bool // it carries a lease
	Note
	Moments
	Delivery
}

// Moments of a row are in minutes from now, such as "-5m"; "" is NULL.
type Moments struct {
	Due         string `db:"due_at"`
	Attempted   string `db:"attempted_at"`
	InDoubtFrom string `db:"uncertain_at"`
	Finished    string `db:"finished_at"`
}

// Delivery is what is known of the message.
type Delivery struct {
	MsgID      int64
	SentOpenID string `db:"sent_openid"`
	Channel    string
}

func (f fixture) row(t *testing.T, id int64) row {
	t.Helper()
	query := `SELECT status, attempts, lease IS NOT NULL AS held`
	for _, name := range []string{"due_at", "attempted_at", "uncertain_at", "finished_at"} {
		query += fmt.Sprintf(`, COALESCE(CONCAT(CAST(ROUND(
			TIMESTAMPDIFF(SECOND, CURRENT_TIMESTAMP(3), %s) / 60) AS SIGNED), 'm'), '') AS %[1]s`, name)
	}
	texts := []string{"appid", "reason", "errmsg", "warning", "sent_openid", "channel"}
	for _, name := range texts {
		query += fmt.Sprintf(`, COALESCE(%s, '') AS %[1]s`, name)
	}
	query += `, COALESCE(errcode, 0) AS errcode, COALESCE(msgid, 0) AS msgid`
	var r row
	err := f.db.GetContext(t.Context(), &r, query+` FROM send_request WHERE id = ?`, id)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// wantNulls checks that nothing but NULL stands for what is not known.
func (f fixture) wantNulls(t *testing.T) {
	t.Helper()
	if n := f.count(t, `msgid = 0 OR errcode = 0 OR reason = '' OR errmsg = '' OR warning = ''
		OR sent_openid = '' OR channel = '' OR lease = ''`); n > 0 {
		t.Errorf("%d rows have 0 or an empty text instead of NULL", n)
	}
}

// wantRow compares a row; of appid, if want names no other account.
func (f fixture) wantRow(t *testing.T, id int64, want row) {
	t.Helper()
	if want.AppID == "" {
		want.AppID = appid
	}
	if diff := cmp.Diff(want, f.row(t, id)); diff != "" {
		t.Errorf("the row differs (-want +got):\n%s", diff)
	}
}

// wantStatus compares the statuses of rows.
func (f fixture) wantStatus(t *testing.T, want map[int64]Status) {
	t.Helper()
	got := make(map[int64]Status, len(want))
	for id := range want {
		got[id] = f.row(t, id).Status
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("statuses differ (-want +got):\n%s", diff)
	}
}

// shares returns the pending lanes with something due, each with the same quantum.
func (f fixture) shares(t *testing.T, quantum int) (shares []Share) {
	t.Helper()
	lanes, err := f.Watch(nil, Pending).Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lanes {
		if l.Due {
			shares = append(shares, Share{Lane: l, Quantum: quantum})
		}
	}
	return shares
}

// due returns what is due, at most limit rows.
func (f fixture) due(t *testing.T, limit int) []Request {
	t.Helper()
	rows, err := f.Due(t.Context(), f.shares(t, limit), limit, nil)
	if err != nil {
		t.Fatal(err)
	}
	return rows
}

// claim claims due rows of appid, all of which it must get, in the order of their ids.
func (f fixture) claim(t *testing.T, ids ...int64) []Request {
	t.Helper()
	found, err := f.DueByID(t.Context(), appid, ids)
	if err != nil {
		t.Fatal(err)
	}
	byID := make(map[int64]Request, len(found))
	for _, r := range found {
		byID[r.ID] = r
	}
	rows := make([]Request, len(ids))
	for i, id := range ids {
		rows[i] = byID[id]
	}
	got, err := f.Claim(t.Context(), ClaimOrder{AppID: appid, Rows: rows})
	if err != nil || len(got.Locked) > 0 || len(got.Ours) != len(ids) {
		t.Fatalf("of %d rows the claim got %+v, %v", len(ids), got, err)
	}
	return got.Ours
}

// lane is one of appid and the template order.
func lane(s Status) Lane {
	return Lane{Status: s, AppID: nullable(appid), Priority: 1, Template: "order"}
}

func nullable(s string) sql.NullString { return sql.NullString{String: s, Valid: s != ""} }

func idsOf(rows []Request) []int64 {
	ids := make([]int64, len(rows))
	for i, r := range rows {
		ids[i] = r.ID
	}
	return ids
}

// alone is one lane as lanes.
func alone(l Lane) Lanes { return Group([]Lane{l})[0] }

// reads counts the rows and index entries that fn reads, and its statements.
func (f fixture) reads(t *testing.T, fn func()) (entries, statements int) {
	t.Helper()
	f.db.SetMaxOpenConns(1) // the server counts for each session
	if f.onTiDB(t) {        // it has no such counters
		fn()
		return 0, 0
	}
	read := func() (entries, statements int) {
		var counters []struct {
			Name  string `db:"Variable_name"`
			Value int    `db:"Value"`
		}
		err := f.db.SelectContext(t.Context(), &counters, `SHOW SESSION STATUS
			WHERE Variable_name LIKE 'Handler_read%' OR Variable_name = 'Questions'`)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range counters {
			if c.Name == "Questions" {
				statements = c.Value
			} else {
				entries += c.Value
			}
		}
		return entries, statements
	}
	entries, statements = read()
	fn()
	e, s := read()
	return e - entries, s - statements - 1
}

// freeze keeps the server's statistics as they are: those of empty tables.
func (f fixture) freeze(t *testing.T) {
	t.Helper()
	if f.onTiDB(t) { // it has no such setting
		return
	}
	for _, table := range []string{"send_request", "send_receipt"} {
		f.exec(t, `ALTER TABLE `+table+` STATS_AUTO_RECALC = 0`)
		f.exec(t, `ANALYZE TABLE `+table)
	}
}

func (f fixture) onTiDB(t *testing.T) bool {
	t.Helper()
	return dbtest.ServerOf(t, f.db).Name == "TiDB"
}
