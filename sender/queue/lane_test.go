package queue

import (
	"fmt"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
)

// TestTemplatesCompareAlike: SQL takes the same templates for one that Go does.
func TestTemplatesCompareAlike(t *testing.T) {
	f := newFixture(t)
	var want []string
	for _, name := range []string{"ORDER", "order", "ordér", "order\u200b"} {
		f.insert(t, columns{"template": name})
		want = append(want, name)
	}
	f.insert(t, columns{"template": "order "})
	var got []string
	for _, l := range f.Watch(nil, Pending).looked(t) {
		got = append(got, l.Template)
	}
	slices.Sort(want)
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("lanes differ (-want +got):\n%s", diff)
	}
	rows, err := f.Due(t.Context(), []Share{{lane(Pending), 9}}, 9, nil)
	if err != nil || len(rows) != 2 {
		t.Errorf("the lane has %d rows, %v; want 2", len(rows), err)
	}
}

// TestFailUnroutablePage: only what is due, a page of it, as what it is, and with its template.
func TestFailUnroutablePage(t *testing.T) {
	f := newFixture(t)
	f.crowd(t, "junk", PageSize+10, 1, in(-1))
	later := f.insert(t, columns{"template": "junk00001", "due_at": in(1)})
	order := f.insert(t, columns{})
	var stuck []Lane
	for _, l := range f.Watch(nil, Pending).looked(t) {
		if l.Template != "order" {
			stuck = append(stuck, l)
		}
	}
	left := f.insert(t, left(columns{"template": stuck[0].Template, "attempted_at": in(-9)}))
	held := f.insert(t, columns{"template": stuck[0].Template})
	release := f.hold(t, held)
	groups := Group(stuck[:100])
	u := Unroutable{Lanes: groups[0], Reason: "why", DueOf: otherAppID, Everywhere: true,
		Message: `template "` + TemplateMark + `" is none`}
	if n, err := f.FailUnroutable(t.Context(), u); err != nil || n != 101 {
		t.Errorf("%d rows ended, %v; want 101", n, err)
	}
	release()
	if n := f.count(t, `status = 'failed' AND appid <> '`+otherAppID+`'`); n > 0 {
		t.Errorf("%d rows do not say whose claim failed them", n)
	}
	f.wantStatus(t, map[int64]Status{later: Pending, order: Pending, left: Unknown, held: Pending})
	if n := f.count(t, `errmsg = CONCAT('template "', template, '" is none')`); n != 101 {
		t.Errorf("%d rows say which template it was, want 101", n)
	}
	f.exec(t, `UPDATE send_request SET due_at = `+string(in(-1)))
	u.Lanes = Group([]Lane{{Status: Pending, AppID: nullable(appid), Priority: 1, Template: "order"}})[0]
	f.bulk(t, PageSize+500, Pending, in(-1))
	if n, err := f.FailUnroutable(t.Context(), u); err != nil || n != PageSize {
		t.Errorf("%d rows ended, %v; want one page", n, err)
	}
}

// TestGroup: a group has lanes of one place, no more than a page.
func TestGroup(t *testing.T) {
	var lanes []Lane
	for i := range PageSize + 1 {
		lanes = append(lanes, Lane{Status: Pending, Template: fmt.Sprint(i)}, Lane{Status: Waiting})
	}
	var sizes []int
	for _, g := range Group(lanes) {
		sizes = append(sizes, len(g.Templates))
	}
	if diff := gocmp.Diff([]int{PageSize, PageSize, 1, 1}, sizes); diff != "" {
		t.Error(diff)
	}
}
