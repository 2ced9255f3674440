package queue

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// crowd adds rows of n templates of one name, priority 1 and appid, each with so many rows.
func (f fixture) crowd(t *testing.T, name string, n, rows int, due expr) {
	t.Helper()
	for i := 0; i < n; i += 500 { // servers bound the recursion
		f.exec(t, `INSERT INTO send_request (appid, unionid, template, data, due_at)
			WITH RECURSIVE
			  n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?),
			  m (j) AS (SELECT 1 UNION ALL SELECT j + 1 FROM m WHERE j < ?)
			SELECT ?, 'u-1', CONCAT(?, LPAD(n.i + ?, 5, '0')), '{}', `+string(due)+` FROM n, m`,
			min(n-i, 500), rows, appid, name, i)
	}
}

func (w *Watch) looked(t *testing.T) []Lane {
	t.Helper()
	lanes, err := w.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(lanes, func(a, b Lane) int {
		return cmp.Or(
			cmp.Compare(a.Status, b.Status), cmp.Compare(a.AppID.String, b.AppID.String),
			cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Template, b.Template))
	})
	return lanes
}

// TestWatchReads: what a look costs beside many rows that came after the last statistics, in few
// lanes and in fifty. Nobody runs ANALYZE.
func TestWatchReads(t *testing.T) {
	f := newFixture(t)
	f.freeze(t)
	w := f.Watch(nil, Pending)
	w.looked(t)
	for range 40 {
		f.bulk(t, 500, Pending, in(24*60))
	}
	f.crowd(t, "t", 50, 200, in(24*60))
	f.crowd(t, "u", 1, 500, in(-1))
	for _, appid := range []any{nil, ""} {
		f.exec(t, `INSERT INTO send_request (appid, unionid, template, data, due_at)
			SELECT ?, unionid, template, data, due_at FROM send_request WHERE template LIKE 't0000_'`, appid)
	}
	var lanes []Lane
	for range 12 { // the new ones stand one behind another
		if entries, s := f.reads(t, func() { lanes = w.looked(t) }); entries > 1000 || s > maxRounds+1 {
			t.Errorf("a look at new lanes read %d entries with %d statements", entries, s)
		}
	}
	const all = 52 + 2*9
	if len(lanes) != all || !lanes[all-1].Due || lanes[all-2].Due {
		t.Fatalf("the lanes: %+v", lanes)
	}
	look := func(what string, most, statements int) {
		t.Helper()
		// Of each lane one entry and the end of the range before it.
		if e, s := f.reads(t, func() { lanes = w.looked(t) }); e > most || s > statements {
			t.Errorf("a look %s reads %d entries with %d statements, want %d and %d",
				what, e, s, most, statements)
		}
	}
	look("where nothing is new", 180, 1)
	f.insert(t, columns{"template": "t00017a", "due_at": in(1)})
	look("with a new lane", 450, 3)
	if len(lanes) != all+1 {
		t.Errorf("%d lanes, want %d", len(lanes), all+1)
	}
	look("after it", 180, 1)
}

// TestWatchFollows: each look finds what is there, whatever was there before.
func TestWatchFollows(t *testing.T) {
	f := newFixture(t)
	w := f.Watch(nil, Pending, Waiting)
	place := func(c columns) { f.insert(t, c) }
	for i, step := range []func(){
		func() {},
		func() { place(columns{"template": "m"}) },
		func() { place(columns{"template": "a"}); place(columns{"template": "z", "due_at": in(1)}) },
		func() { place(columns{"template": "z"}); place(columns{"appid": nil}) },
		func() { place(columns{"status": "waiting"}); place(columns{"priority": 0}) },
		func() { place(columns{"priority": 2}); place(columns{"priority": -3, "template": "x"}) },
		func() { place(columns{"appid": otherAppID, "priority": 2}); place(columns{"appid": "a"}) },
		func() { f.exec(t, `DELETE FROM send_request WHERE template IN ('m', 'a')`) },
		func() { f.exec(t, `DELETE FROM send_request WHERE priority <> 1 OR appid IS NULL`) },
		func() { f.exec(t, `UPDATE send_request SET status = 'waiting'`) },
		func() { f.exec(t, `DELETE FROM send_request`) },
		func() { place(columns{"template": "Ä"}); place(columns{"template": "a\tb"}) },
	} {
		step()
		var want []Lane
		err := f.db.SelectContext(t.Context(), &want, `
			SELECT status, appid, priority, template, MIN(due_at) <= CURRENT_TIMESTAMP(3) AS due
			  FROM send_request
			 WHERE status IN ('pending', 'waiting')
			 GROUP BY status, appid, priority, template
			 ORDER BY status, appid, priority, template`)
		if err != nil {
			t.Fatal(err)
		}
		got := w.looked(t)
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Errorf("step %d: lanes differ (-want +got):\n%s", i, diff)
		}
	}
}

// TestWatchOfManyLanes: where producers invent templates, those that always count are looked at
// each time, each look stays small, and the rounds find the others, and their end.
func TestWatchOfManyLanes(t *testing.T) {
	f := newFixture(t)
	order, refund := lane(Pending), lane(Pending)
	refund.Template = "refund"
	w := f.Watch([]Lane{order, refund}, Pending)
	const invented = 2500
	const looks = invented/maxLook + 3 // a round
	f.crowd(t, "junk", invented, 1, in(1))
	f.insert(t, columns{"template": "order"})
	knows := func(l Lane) bool { return slices.Contains(w.looked(t), l) }
	order.Due, refund.Due = true, true
	if !knows(order) {
		t.Error("the first look did not find the template that counts")
	}
	for range looks {
		if e, s := f.reads(t, func() { w.looked(t) }); e > 2*maxRounds*maxPage || s > maxRounds+2 {
			t.Errorf("a look reads %d entries with %d statements", e, s)
		}
	}
	if n := len(w.looked(t)); n != invented+1 {
		t.Errorf("%d lanes are known, want %d", n, invented+1)
	}
	if e, s := f.reads(t, func() { w.looked(t) }); e > 3*maxLook || s > 2 {
		t.Errorf("a look at what is known reads %d entries with %d statements", e, s)
	}
	f.insert(t, columns{"template": "refund"})
	if !knows(refund) {
		t.Error("a new row of a template that counts was not seen at once")
	}
	f.exec(t, `DELETE FROM send_request WHERE template <> 'refund'`)
	if knows(order) {
		t.Error("a lane that counts is still known after its end")
	}
	for range looks {
		w.looked(t)
	}
	if diff := gocmp.Diff([]Lane{refund}, w.looked(t)); diff != "" {
		t.Errorf("lanes differ (-want +got):\n%s", diff)
	}
}

// TestWatchOfLongLanes: hundreds of lanes with many rows each are all found at the start, by
// LookAtAll, and what is new among them by the next round.
func TestWatchOfLongLanes(t *testing.T) {
	f := newFixture(t)
	const lanes = maxLook + 50
	f.crowd(t, "long", lanes, 3, in(60))
	w := f.Watch(nil, Pending)
	all := func() (due, n int) {
		t.Helper()
		got, err := w.LookAtAll(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range got {
			if l.Due {
				due++
			}
		}
		return due, len(got)
	}
	if due, n := all(); due != 0 || n != lanes {
		t.Errorf("%d lanes, %d of them due; want %d and 0", n, due, lanes)
	}
	f.exec(t, `UPDATE send_request SET due_at = `+string(in(-1))+` WHERE template = 'long00100'`)
	f.insert(t, columns{"template": "long00100a"})
	if due, n := all(); due != 2 || n != lanes+1 {
		t.Errorf("%d lanes, %d of them due; want %d and 2", n, due, lanes+1)
	}
}

// TestWatchOfManyAccounts: producers can invent accounts as well, each with one lane.
func TestWatchOfManyAccounts(t *testing.T) {
	f := newFixture(t)
	const accounts = 3000
	f.crowd(t, "x", accounts, 1, in(-1))
	f.exec(t, `UPDATE send_request SET appid = CONCAT('a', template), template = 'order'`)
	f.insert(t, columns{"template": "by-id"})
	w := f.Watch(nil, Pending)
	for range 4 {
		w.looked(t)
	}
	last := lane(Pending)
	last.Template, last.Due = "by-id", true
	if lanes := w.looked(t); len(lanes) != accounts+1 || !slices.Contains(lanes, last) {
		t.Errorf("%d lanes are known, want %d", len(lanes), accounts+1)
	}
}

// TestWatchForgets: lanes beyond the most that are remembered are walked over, but for those that
// are due: they have their turn whatever stands before them.
func TestWatchForgets(t *testing.T) {
	f := newFixture(t)
	f.crowd(t, "junk", 3*maxPage, 1, in(60))
	f.insert(t, columns{"template": "junk00900a"})
	f.insert(t, columns{"template": "z"})
	w := f.Watch(nil, Pending)
	w.most = 100
	for range 2 {
		lanes, err := w.LookAtAll(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		due := slices.DeleteFunc(slices.Clone(lanes), func(l Lane) bool { return !l.Due })
		if len(lanes) != w.most+2 || len(due) != 2 {
			t.Errorf("%d lanes are known, %d of them due; want %d and 2", len(lanes), len(due), w.most+2)
		}
	}
}

// TestWatchWhileLanesCome: lanes come, end and are dropped in the middle of rounds that take many
// looks. What stood through a round is known after it, and in the end all are right.
func TestWatchWhileLanesCome(t *testing.T) {
	f := newFixture(t)
	w := f.Watch(nil, Pending, Waiting)
	w.room = 3
	random := rand.New(rand.NewPCG(1, 2))
	query := `
		SELECT status, appid, priority, template, MIN(due_at) <= CURRENT_TIMESTAMP(3) AS due
		  FROM send_request
		 GROUP BY status, appid, priority, template
		 ORDER BY status, appid, priority, template`
	stored := func() (lanes []Lane) {
		t.Helper()
		if err := f.db.SelectContext(t.Context(), &lanes, query); err != nil {
			t.Fatal(err)
		}
		return lanes
	}
	standing := map[Lane]bool{} // since the round began
	for i := range 400 {
		if w.round == nil {
			clear(standing)
			for _, l := range stored() {
				standing[l.key()] = true
			}
		}
		c := columns{
			"template": string('a' + rune(random.IntN(12))), "priority": random.IntN(3),
			"appid":  []any{nil, appid, otherAppID}[random.IntN(3)],
			"status": []Status{Pending, Waiting}[random.IntN(2)], "due_at": in(random.IntN(3) - 1),
		}
		if random.IntN(2) == 0 {
			f.insert(t, c)
		} else {
			f.exec(t, `DELETE FROM send_request WHERE template = ? AND priority = ?`, c["template"], c["priority"])
			maps.DeleteFunc(standing, func(l Lane, _ bool) bool {
				return l.Template == c["template"] && l.Priority == c["priority"]
			})
		}
		got := w.looked(t)
		if random.IntN(9) == 0 && len(got) > 0 {
			w.Drop(got[:1])
			delete(standing, got[0].key())
		}
		if w.round != nil {
			continue
		}
		for l := range standing {
			if !slices.ContainsFunc(got, func(g Lane) bool { return g.key() == l }) {
				t.Fatalf("step %d: %+v stood through a round and is not known", i, l)
			}
		}
	}
	if _, err := w.LookAtAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	for w.looked(t); w.round != nil; {
		w.looked(t)
	}
	if diff := gocmp.Diff(stored(), w.looked(t)); diff != "" {
		t.Errorf("lanes differ (-want +got):\n%s", diff)
	}
}
