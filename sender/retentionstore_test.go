package sender

import (
	"database/sql"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

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

// TestFinalLanes: each lane once, in a few reads, wherever the last one stood.
func TestFinalLanes(t *testing.T) {
	f := newFixture(t)
	var want []finalLane
	for _, account := range []any{nil, "wxa", "wxb"} {
		f.exec(t, `INSERT INTO send_request (appid, unionid, template, priority, data, status, finished_at)
			SELECT ?, 'u', CONCAT('t', n % 3), n % 2, '{}', CASE WHEN n < 6 THEN 'expired' ELSE 'sent' END, NOW(3)
			  FROM (SELECT a.n + 10 * b.n + 100 * c.n + 1000 * d.n AS n FROM `+digits("a")+`, `+digits("b")+`, `+digits("c")+`, `+digits("d")+`) seq`,
			account)
		name, _ := account.(string)
		for priority := range 2 {
			for template := range 3 {
				want = append(want, finalLane{statusSent, sql.NullString{String: name, Valid: account != nil}, priority, fmt.Sprint("t", template)})
			}
		}
	}
	f.exec(t, `ANALYZE TABLE send_request`)
	var got []finalLane
	for at := (*finalLane)(nil); ; got = append(got, *at) {
		var next *finalLane
		n := f.reads(t, func() {
			var err error
			if next, err = (store{db: f.db}).nextFinalLane(t.Context(), statusSent, at); err != nil {
				t.Fatal(err)
			}
		})
		if n > 20 {
			t.Errorf("the step after %+v read %d rows or entries", at, n)
		}
		if at = next; at == nil {
			break
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
