package sync

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

func TestReadHistory(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(5, 0, 0))
	if h := must(ReadHistory(t.Context(), b.db, appid)); h != (History{}) {
		t.Errorf("an empty ledger gives %+v", h)
	}
	b.exec(t, `
		INSERT INTO sync_run (kind, appid, state, holder, listed, gone, calls, error) VALUES
		    ('sweep',   ?, 'done',    'x', 1, 0, NULL, NULL),
		    ('sweep',   ?, 'done',    'x', 2, 5, ?, NULL),
		    ('refresh', ?, 'done',    'x', 3, 0, NULL, NULL),
		    ('sweep',   ?, 'failed',  'x', 4, 0, NULL, 'no luck'),
		    ('sweep',   'wxother', 'done', 'x', 9, 0, NULL, NULL),
		    ('refresh', 'wxother', 'done', 'x', 9, 0, NULL, NULL)`, appid, appid,
		`{"`+endpointFollowers+`":2}`, appid, appid)
	h := must(ReadHistory(t.Context(), b.db, appid))
	type brief struct {
		Listed, Gone, Calls int64
		State               State
		Error               string
	}
	of := func(r *Run) brief {
		return brief{r.Listed, r.Gone, r.Calls[endpointFollowers], r.State,
			r.Error}
	}
	got := []brief{of(h.Sweep), of(h.GoodSweep), of(h.Refresh)}
	want := []brief{{4, 0, 0, StateFailed, "no luck"}, {2, 5, 2, StateDone, ""},
		{3, 0, 0, StateDone, ""}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
}

func TestTurns(t *testing.T) {
	shanghai := time.FixedZone("UTC+8", 8*60*60)
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, shanghai)
	if got := must(NextTurn("17 3 * * *", now)); !got.Equal(time.Date(2026, 3, 2, 3, 17, 0, 0, shanghai)) {
		t.Errorf("the next turn is %v", got)
	}
	if got := must(NextTurn("CRON_TZ=UTC 17 3 * * *", now)); !got.Equal(time.Date(2026, 3, 2, 3, 17, 0, 0, time.UTC)) {
		t.Errorf("the next turn in another zone is %v", got)
	}
	if got := must(NextTurn("@every 5m", now)); !got.IsZero() {
		t.Errorf("an interval promises %v", got)
	}
	if _, err := NextTurn("often", now); err == nil {
		t.Error("a schedule that is none was read")
	}
	for _, c := range []struct {
		line string
		age  time.Duration
		want bool
	}{
		{"17 3 * * *", 9 * time.Hour, false},
		{"17 3 * * *", 32 * time.Hour, false}, // one turn passed
		{"17 3 * * *", 34 * time.Hour, true},  // began before yesterday's turn
		{"@every 1h", 119 * time.Minute, false},
		{"@every 1h", 121 * time.Minute, true},
	} {
		if got := must(Overdue(c.line, now.Add(-c.age), now)); got != c.want {
			t.Errorf("%s, %s ago: overdue %v, want %v", c.line, c.age, got, c.want)
		}
	}
}
