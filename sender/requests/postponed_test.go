package requests

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// TestPostponed: what could have gone long ago is counted, whatever its due_at says.
func TestPostponed(t *testing.T) {
	f := newFixture(t)
	at := func(minutes int) time.Time {
		return time.Now().UTC().Add(time.Duration(minutes) * time.Minute)
	}
	for _, c := range []columns{
		{"reason": "unknown_template", "wished_at": at(-40), "due_at": at(2)},
		{"reason": "unknown_template", "wished_at": at(-30), "due_at": at(1), "template": "other"},
		{"reason": "system_error", "wished_at": at(-20), "due_at": at(59)},
		{"wished_at": at(-20), "due_at": at(-1), "appid": nil}, // due again, and not claimed yet
		{"wished_at": at(-20), "due_at": at(-1), "appid": ""},  // the same account
		{"due_at": at(-20), "priority": 0},                     // never claimed
		// None of these is late.
		{"due_at": at(-10)},
		{"wished_at": at(-10), "due_at": at(2)},
		{"due_at": at(600)},
		{"wished_at": at(-600), "due_at": at(30), "reason": "recipient_later"},
		{"wished_at": at(-600), "due_at": at(1), "lease": "x"}, // it is being sent
		{"wished_at": at(-600), "due_at": at(1), "cancel": 1},
	} {
		f.place(t, "pending", c)
	}
	f.place(t, "waiting", columns{"wished_at": at(-600), "due_at": at(30)})
	f.place(t, "failed", columns{"wished_at": at(-600), "due_at": at(1)})
	ages, err := f.store.Ages(t.Context(), 15*time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	got := ages.Postponed
	want := []Postponed{
		{AppID: "", Reason: "", Requests: 2, Since: at(-20)},
		{AppID: appid, Reason: "", Requests: 1, Since: at(-20)},
		{AppID: appid, Reason: "system_error", Requests: 1, Since: at(-20)},
		{AppID: appid, Reason: "unknown_template", Requests: 2, Since: at(-40)},
	}
	same := cmp.Options{cmpopts.EquateApproxTime(10 * time.Second),
		cmpopts.SortSlices(func(a, b Postponed) bool { return a.AppID+a.Reason < b.AppID+b.Reason })}
	if diff := cmp.Diff(want, got, same); diff != "" {
		t.Errorf("postponed (-want +got):\n%s", diff)
	}
	oldest := map[string]int64{}
	for _, a := range ages.Oldest {
		oldest[a.AppID+":"+a.Status] = (a.Seconds + 30) / 60
	}
	wantOldest := map[string]int64{":pending": 20, appid + ":pending": 40, appid + ":waiting": 600}
	if diff := cmp.Diff(wantOldest, oldest); diff != "" {
		t.Errorf("minutes of the oldest (-want +got):\n%s", diff)
	}
}

// TestPostponedIsBounded: neither many rows of one template nor many templates are read whole, and
// what was put off is seen before what is due later.
func TestPostponedIsBounded(t *testing.T) {
	f := newFixture(t)
	insert := func(values string, n int) {
		t.Helper()
		query := `INSERT INTO send_request (appid, unionid, template, data, due_at, wished_at) VALUES `
		rows := make([]string, n)
		for i := range rows {
			rows[i] = fmt.Sprintf(values, i)
		}
		if _, err := f.db.ExecContext(t.Context(), query+strings.Join(rows, ", ")); err != nil {
			t.Fatal(err)
		}
	}
	const off = `CURRENT_TIMESTAMP(3) + INTERVAL 3 MINUTE, CURRENT_TIMESTAMP(3) - INTERVAL 1 HOUR)`
	for range 4 {
		insert(`('`+appid+`', 'u%d', 'order', '{}', CURRENT_TIMESTAMP(3) + INTERVAL 1 HOUR, NULL)`, 2000)
	}
	insert(`('`+appid+`', 'u%d', 'order', '{}', `+off, 1)
	count := func() (n int64) {
		t.Helper()
		found, err := f.store.Ages(t.Context(), 15*time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range found.Postponed {
			n += p.Requests
		}
		return n
	}
	if n := count(); n != 1 {
		t.Errorf("%d of 8,000 rows were found, want the one that was put off", n)
	}
	insert(`('`+appid+`', 'u%d', 'order', '{}', `+off, 2000)
	if n := count(); n != maxLaneSample {
		t.Errorf("%d rows of one template were counted, want %d", n, maxLaneSample)
	}
	insert(`('`+appid+`', 'u', 'invented-%d', '{}', `+off, maxLanes)
	if n := count(); n < maxLanes-1 || n > maxLanes+minLaneSample {
		t.Errorf("%d rows of %d templates were counted", n, maxLanes)
	}
}
