package queue

import (
	"database/sql"
	"testing"
	"time"
)

// wished returns how long a row could have gone, in whole minutes; false: nothing is known of it.
func (f fixture) wished(t *testing.T, id int64) (minutes int64, known bool) {
	t.Helper()
	var n sql.NullInt64
	err := f.db.GetContext(t.Context(), &n, `
		SELECT ROUND(TIMESTAMPDIFF(SECOND, wished_at, CURRENT_TIMESTAMP(3)) / 60)
		  FROM send_request WHERE id = ?`, id)
	if err != nil {
		t.Fatal(err)
	}
	return n.Int64, n.Valid
}

func (f fixture) wantWished(t *testing.T, what string, id, want int64) {
	t.Helper()
	if got, ok := f.wished(t, id); !ok || got != want {
		t.Errorf("%s: wished %d minutes ago (%v), want %d", what, got, ok, want)
	}
}

// TestWishedAt: the first claim notes the producer's due_at, which no postponement moves. A waiting
// row is wished from when its recipient appears: before, it could not have gone.
func TestWishedAt(t *testing.T) {
	f := newFixture(t)
	id := f.insert(t, columns{"due_at": in(-60)})
	if _, ok := f.wished(t, id); ok {
		t.Error("a row that was never claimed has a wished_at")
	}
	settle := func(r Result) {
		t.Helper()
		if _, err := f.Settle(t.Context(), []Result{r}, SettleOrder{AppID: appid}); err != nil {
			t.Fatal(err)
		}
	}
	ours := f.claim(t, id)
	f.wantWished(t, "claimed", id, 60)
	postponed := ours[0].End(Pending, "unknown_template", "x")
	postponed.Delay = 2 * time.Minute
	settle(postponed)
	f.wantWished(t, "postponed", id, 60)
	f.update(t, "due_at = "+string(in(0)), id)
	ours = f.claim(t, id)
	f.wantWished(t, "claimed again", id, 60)
	waits := ours[0].End(Waiting, "not_following", "x")
	waits.Delay = time.Hour
	settle(waits)
	f.wantWished(t, "waiting", id, 60)
	if _, err := f.Release(t.Context(), ReleaseOrder{AppID: appid, IDs: []int64{id}}); err != nil {
		t.Fatal(err)
	}
	f.wantWished(t, "released", id, 0)
}

// TestWishedAtOfZeroDate: the date that INSERT IGNORE makes of an invalid one is due, and strict mode
// does not store it a second time. It must not stop the claim of the others.
func TestWishedAtOfZeroDate(t *testing.T) {
	f := newFixture(t)
	ids := []int64{f.insert(t, nil), f.insert(t, columns{"due_at": in(-5)})}
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
	}{
		{`SET SESSION sql_mode = ''`, nil},
		{`UPDATE send_request SET due_at = '0000-00-00' ORDER BY id LIMIT 1`, nil},
		{`SET SESSION sql_mode = ?`, []any{mode}},
	} {
		if _, err := conn.ExecContext(t.Context(), step.query, step.args...); err != nil {
			t.Fatal(err)
		}
	}
	f.claim(t, ids...)
	f.wantWished(t, "the other one", ids[1], 5)
	if _, ok := f.wished(t, ids[0]); ok {
		t.Error("the zero date is a wished_at")
	}
}
