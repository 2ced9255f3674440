package grants

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// randomEntries makes entries of a grant between two moments, as pushes, reports and messages.
func randomEntries(n int, from, to time.Time, name string) (entries []entry) {
	kinds := []string{kindAccept, kindAccept, kindAccept, kindAccept, kindSent, kindSent, kindSent, kindOn, kindOff, kindRefused}
	span := to.Sub(from)
	for i := range n {
		e := entry{OpenID: "o", TemplateID: "t", Kind: kinds[rand.N(len(kinds))], Source: sourceEvent,
			Key: fmt.Sprint(name, i), HappenedAt: from.Add(rand.N(span)).Truncate(time.Millisecond)}
		switch {
		case e.Kind == kindSent || e.Kind == kindRefused:
			e.Source = sourceMessage
		case e.Kind == kindAccept && rand.N(2) == 0:
			e.Source = sourceReport
		}
		e.ArrivedAt = e.HappenedAt.Add(rand.N(time.Minute))
		entries = append(entries, e)
		if e.Kind == kindAccept && rand.N(2) == 0 { // the other half of a pair
			twin := e
			twin.Key += "twin"
			twin.Source = map[string]string{sourceEvent: sourceReport, sourceReport: sourceEvent}[e.Source]
			twin.HappenedAt = e.HappenedAt.Add(rand.N(5 * time.Minute))
			twin.ArrivedAt = twin.HappenedAt.Add(rand.N(time.Minute))
			entries = append(entries, twin)
		}
	}
	return entries
}

// TestFold: without what is superfluous a grant comes to the same, now and whatever is added later.
func TestFold(t *testing.T) {
	before := time.Unix(1_700_000_000, 0).UTC()
	deleted, kept := 0, 0
	for range 20_000 {
		longTerm := rand.N(3) == 0
		old := randomEntries(rand.N(12), before.Add(-6*time.Hour), before.Add(-time.Hour), "old")
		recent := randomEntries(rand.N(5), before, before.Add(3*time.Hour), "recent")
		all := slices.Concat(old, recent)
		gone := superfluous(all, longTerm, before)
		left := slices.DeleteFunc(slices.Clone(all), func(e entry) bool { return slices.Contains(gone, e.Key) })
		deleted, kept = deleted+len(gone), kept+len(old)-len(gone)
		later := randomEntries(rand.N(6), before, before.Add(5*time.Hour), "later")
		for _, more := range [][]entry{nil, later} {
			want, got := tally(slices.Concat(all, more), longTerm), tally(slices.Concat(left, more), longTerm)
			if got != want {
				t.Fatalf("%+v instead of %+v, long-term %t, without %v of\n%+v\nwith %+v", got, want, longTerm, gone, all, more)
			}
		}
		if n := superfluous(left, longTerm, before); len(n) > 0 {
			t.Fatalf("a second time deletes %v of %+v", n, left)
		}
	}
	if deleted < kept {
		t.Errorf("%d entries were deleted and %d kept", deleted, kept)
	}
}

// TestPurge: what is old goes, with the numbers as they were, and reports that nobody takes.
func TestPurge(t *testing.T) {
	l, _, db := newLedger(t, Both)
	exec := func(query string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
			t.Fatal(err)
		}
	}
	count := func(query string) (n int) {
		t.Helper()
		if err := db.GetContext(t.Context(), &n, query); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for i := range 450 { // more than two pages
		kind := []any{"one_time", "long_term", nil}[i%3]
		openid := fmt.Sprintf("o%03d", i)
		exec(`INSERT INTO subscription_grant (appid, openid, template_id, kind, remaining) VALUES ('`+mini+`', ?, 't', ?, 1)`, openid, kind)
		for n, k := range []string{kindAccept, kindAccept, kindSent} {
			exec(`INSERT INTO grant_event (appid, openid, template_id, event_key, kind, source, happened_at, arrived_at)
				VALUES ('`+mini+`', ?, 't', ?, ?, 'event', NOW(3) - INTERVAL ? DAY, NOW(3) - INTERVAL ? DAY)`, openid, n, k, 300-n, 300-n)
		}
	}
	exec(`INSERT INTO subscription_report (appid, openid, template_id, result, report_key, created_at) VALUES
		('wx9', 'o', 't', 'accept', 'a', NOW(3) - INTERVAL 8 DAY), ('wx9', 'o', 't', 'accept', 'b', NOW(3))`)
	pace := func(_ context.Context, piece func() error) error { return piece() }
	for range 2 {
		if err := l.Purge(t.Context(), pace); err != nil {
			t.Fatal(err)
		}
	}
	if n := count(`SELECT COUNT(*) FROM grant_event`); n != 150+150+450 {
		t.Errorf("%d entries are left, want one each of the templates whose type is known", n)
	}
	var differences []Difference
	_, err := Check(t.Context(), db, mini, func(d Difference) error {
		differences = append(differences, d)
		return nil
	})
	if err != nil || len(differences) > 0 {
		t.Errorf("the ledger and its result differ: %v (%v)", differences, err)
	}
	if n := count(`SELECT COUNT(*) FROM subscription_report`); n != 1 {
		t.Errorf("%d reports are left, want the young one", n)
	}
}
