package queue

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/database"
)

// TestWaitingAfter: each row of the lane comes once, in the order of its end, however many end at
// one moment.
func TestWaitingAfter(t *testing.T) {
	f := newFixture(t)
	f.bulk(t, 200, Waiting, in(90))
	f.bulk(t, 2*PageSize, Waiting, "'2037-01-01'")
	f.bulk(t, 300, Waiting, in(30))
	f.bulk(t, 1, Waiting, in(-1)) // over, and not ended yet
	for _, c := range []columns{
		{"appid": otherAppID}, {"priority": 2}, {"template": "refund"}, {"appid": nil},
		{"status": "pending"},
	} {
		if c["status"] == nil {
			c["status"] = "waiting"
		}
		f.insert(t, c)
	}
	var want []int64
	if err := f.db.SelectContext(t.Context(), &want, `
		SELECT id FROM send_request
		 WHERE status = 'waiting' AND appid = ? AND priority = 1 AND template = 'order'
		 ORDER BY due_at, id`, appid); err != nil {
		t.Fatal(err)
	}
	var got []int64
	var pages []int
	for last := (Request{}); len(pages) < 9; {
		rows, err := f.WaitingAfter(t.Context(), lane(Waiting), last, PageSize)
		if err != nil {
			t.Fatal(err)
		}
		if len(rows) == 0 {
			break
		}
		got, pages, last = append(got, idsOf(rows)...), append(pages, len(rows)), rows[len(rows)-1]
	}
	if len(want) != 2*PageSize+501 || !slices.Equal(want, got) {
		t.Errorf("%d rows, want %d, in the order of due_at and id", len(got), len(want))
	}
	if diff := cmp.Diff([]int{PageSize, PageSize, 501}, pages); diff != "" {
		t.Errorf("pages differ (-want +got):\n%s", diff)
	}
}

// TestWaitingReads: what maintenance needs to know of a waiting row.
func TestWaitingReads(t *testing.T) {
	f := newFixture(t)
	end := time.Date(2037, 1, 2, 3, 4, 5, 6e6, time.UTC)
	id := f.insert(t, columns{"status": "waiting", "unionid": "u-2", "mini_appid": "wxm",
		"mini_openid": "om", "openid": "o", "cancel": 2, "due_at": end})
	got, err := f.WaitingAfter(t.Context(), lane(Waiting), Request{}, PageSize)
	if err != nil {
		t.Fatal(err)
	}
	want := []Request{{
		ID: id, DueAt: end, AppID: nullable(appid), State: State{Cancel: true, Priority: 1},
		Message:   Message{Template: "order"},
		Recipient: Recipient{nullable("u-2"), nullable("wxm"), nullable("om"), nullable("o")},
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the request differs (-want +got):\n%s", diff)
	}
}

// TestReleaseWaiting: rows become due, but for those that were withdrawn, have ended or are locked.
func TestReleaseWaiting(t *testing.T) {
	f := newFixture(t)
	waiting := func(more columns) int64 {
		c := columns{"status": "waiting", "due_at": in(60), "reason": "not_following",
			"errcode": 43004, "errmsg": "x", "attempts": 1, "uncertain_at": in(-9)}
		for name, value := range more {
			c[name] = value
		}
		return f.insert(t, c)
	}
	id, withdrawn, locked := waiting(nil), waiting(columns{"cancel": 1}), waiting(nil)
	ended, unnamed := waiting(columns{"status": "failed"}), waiting(nil)
	release := f.hold(t, locked)
	left, err := f.Release(t.Context(), ReleaseOrder{AppID: appid, IDs: []int64{id, withdrawn, locked, ended}})
	if err != nil || !slices.Equal(left, []int64{locked}) {
		t.Fatalf("%v are locked, %v; want %d", left, err, locked)
	}
	release()
	f.wantRow(t, id, row{
		Status: Pending, Attempts: 1, Moments: Moments{Due: "0m", InDoubtFrom: "-9m"}})
	f.wantStatus(t, map[int64]Status{
		withdrawn: Waiting, locked: Waiting, ended: Failed, unnamed: Waiting})
	if _, err := f.Release(t.Context(), ReleaseOrder{AppID: appid, IDs: nil}); err != nil {
		t.Errorf("releasing nothing: %v", err)
	}
}

// end is a row that ends without a message, and how.
type end struct {
	before columns
	want   row
}

// over returns the columns of the row, which was due a minute ago.
func (e end) over(s Status, errmsg string) columns {
	e.before["status"], e.before["due_at"], e.before["errmsg"] = s, in(-1), errmsg
	return e.before
}

// ends are all of them.
func ends() map[string]end {
	finished := Moments{Due: "-1m", Finished: "0m"}
	inDoubt := Moments{Due: "-1m", Finished: "0m", InDoubtFrom: "-9m"}
	unknown := Note{Reason: "outcome_unknown"}
	failed := row{Status: Failed, Note: Note{Reason: "why"}, Moments: finished}
	return map[string]end{
		"failed":    {columns{}, failed},
		"to expire": {columns{"expires_at": in(9)}, failed},
		"expired": {columns{"expires_at": in(-1)},
			row{Status: Expired, Note: Note{Reason: "expired"}, Moments: finished}},
		"withdrawn": {columns{"cancel": 1, "expires_at": in(-1)},
			row{Status: Cancelled, Moments: finished}},
		"in doubt": {columns{"cancel": 1, "expires_at": in(-1), "uncertain_at": in(-9)},
			row{Status: Unknown, Note: unknown, Moments: inDoubt}},
		"left behind": {columns{"lease": "dead"},
			row{Status: Unknown, Note: unknown, Moments: finished}},
	}
}

// TestEndWaits: a wait that is over ends as what its row is.
func TestEndWaits(t *testing.T) {
	f := newFixture(t)
	for name, tc := range ends() {
		t.Run(name, func(t *testing.T) {
			id := f.insert(t, tc.over(Waiting, "text"))
			if err := f.EndWaits(t.Context(), lane(Waiting), "why"); err != nil {
				t.Fatal(err)
			}
			tc.want.ErrMsg = "text"
			f.wantRow(t, id, tc.want)
		})
	}
}

// TestEndWaitsAll: all waits of the lane that are over end, however many; no other row does.
func TestEndWaitsAll(t *testing.T) {
	f := newFixture(t)
	f.bulk(t, PageSize+2, Waiting, in(-1))
	for _, c := range []columns{
		{"due_at": in(1)}, {"appid": otherAppID}, {"priority": 0}, {"template": "refund"},
		{"status": "pending"}, {"status": "unknown"},
	} {
		if c["status"] == nil {
			c["status"] = "waiting"
		}
		f.insert(t, c)
	}
	if err := f.EndWaits(t.Context(), lane(Waiting), "why"); err != nil {
		t.Fatal(err)
	}
	for where, want := range map[string]int{
		`status = 'failed'`: PageSize + 2, `status = 'waiting'`: 4,
		`status IN ('pending', 'unknown')`: 2,
	} {
		if n := f.count(t, where); n != want {
			t.Errorf("%d rows are %s, want %d", n, where, want)
		}
	}
}

// TestFailUnroutableEnds: a row that nobody claims ends as what it is.
func TestFailUnroutableEnds(t *testing.T) {
	f := newFixture(t)
	for _, status := range []Status{Pending, Waiting} {
		for name, tc := range ends() {
			t.Run(string(status)+"/"+name, func(t *testing.T) {
				id := f.insert(t, tc.over(status, "old"))
				u := Unroutable{Lanes: alone(lane(status)), Reason: "why", Message: "text"}
				if n, err := f.FailUnroutable(t.Context(), u); err != nil || n != 1 {
					t.Errorf("%d rows ended, %v", n, err)
				}
				tc.want.ErrMsg = "text"
				f.wantRow(t, id, tc.want)
			})
		}
	}
}

// TestFailUnroutableGrace: an instance that was seen of late may have a newer configuration. Where
// no instance can claim the lane, that does not count.
func TestFailUnroutableGrace(t *testing.T) {
	f := newFixture(t)
	for _, tc := range []struct {
		name       string
		lease      string
		expires    int
		everywhere bool
		want       int64
	}{
		{"held", LeaseName(appid), 1, false, 0},
		{"held a moment ago", LeaseName(appid), -9, false, 0},
		{"held once", LeaseName(appid), -11, false, 1},
		{"held, everywhere", LeaseName(appid), 1, true, 1},
		{"held for another account", LeaseName(otherAppID), 1, false, 1},
		{"held for other work", "sweep:" + appid, 1, false, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f.exec(t, `DELETE FROM lease`)
			f.exec(t, `DELETE FROM send_request`)
			f.exec(t, `INSERT INTO lease (name, holder, expires_at) VALUES (?, 'one', `+
				string(in(tc.expires))+`)`, tc.lease)
			f.insert(t, columns{})
			u := Unroutable{Lanes: alone(lane(Pending)), Reason: "why", Everywhere: tc.everywhere}
			n, err := f.FailUnroutable(t.Context(), u)
			if err != nil || n != tc.want || f.count(t, `status = 'failed'`) != int(tc.want) {
				t.Errorf("%d rows ended, %v; want %d", n, err, tc.want)
			}
		})
	}
}

// TestExpectAccounts: an account that nobody has sent for yet is expected, and its first instance
// takes the lease at once.
func TestExpectAccounts(t *testing.T) {
	f := newFixture(t)
	f.insert(t, columns{})
	expect := func() {
		t.Helper()
		if err := ExpectAccounts(t.Context(), f.db, []string{otherAppID, appid}); err != nil {
			t.Fatal(err)
		}
	}
	expect()
	u := Unroutable{Lanes: alone(lane(Pending)), Reason: "why"}
	if n, err := f.FailUnroutable(t.Context(), u); err != nil || n != 0 {
		t.Errorf("%d rows of an expected account ended, %v", n, err)
	}
	leases := database.NewLeases(f.db, database.LeaseConfig{Holder: "one"})
	lease, err := leases.TryAcquire(t.Context(), LeaseName(appid))
	if err != nil || lease == nil {
		t.Fatalf("the lease of an expected account: %v, %v", lease, err)
	}
	expect()
	if again, err := leases.TryAcquire(t.Context(), LeaseName(otherAppID)); err != nil || again == nil {
		t.Errorf("the lease of the other account: %v, %v", again, err)
	}
	if free, err := database.NewLeases(f.db, database.LeaseConfig{Holder: "two"}).
		TryAcquire(t.Context(), LeaseName(appid)); err != nil || free != nil {
		t.Errorf("a lease that is held was given away: %v, %v", free, err)
	}
}

// TestFailUnroutableLane: all of the lane but what an attempt may hold, and nothing else.
func TestFailUnroutableLane(t *testing.T) {
	f := newFixture(t)
	f.bulk(t, PageSize+2, Pending, in(1))
	f.insert(t, columns{"lease": "x", "due_at": in(1)})
	for _, c := range []columns{
		{"appid": otherAppID}, {"appid": nil}, {"priority": 0}, {"template": "refund"},
		{"status": "waiting"}, {"status": "unknown"},
	} {
		f.insert(t, c)
	}
	ofNobody := lane(Pending)
	ofNobody.AppID = nullable("")
	for _, tc := range []struct {
		lane Lane
		want int64
	}{{lane(Pending), PageSize + 2}, {lane(Pending), 0}, {ofNobody, 1}} {
		n, err := f.FailUnroutable(t.Context(), Unroutable{Lanes: alone(tc.lane), Reason: "why"})
		if err != nil || n != tc.want {
			t.Errorf("%d rows of %+v ended, %v; want %d", n, tc.lane, err, tc.want)
		}
	}
	if n := f.count(t, `status = 'failed'`); n != PageSize+3 {
		t.Errorf("%d rows failed, want %d", n, PageSize+3)
	}
}

// TestEndsLeaveLocked: a row that another transaction holds waits alone, for a later round.
func TestEndsLeaveLocked(t *testing.T) {
	f := newFixture(t)
	free, held := f.insert(t, columns{}), f.insert(t, columns{})
	release := f.hold(t, held)
	u := Unroutable{Lanes: alone(lane(Pending)), Reason: "why"}
	if n, err := f.FailUnroutable(t.Context(), u); err != nil || n != 1 {
		t.Errorf("%d rows ended, %v; want 1", n, err)
	}
	release()
	f.wantStatus(t, map[int64]Status{free: Failed, held: Pending})
	if n, err := f.FailUnroutable(t.Context(), u); err != nil || n != 1 {
		t.Errorf("%d rows ended later, %v; want 1", n, err)
	}
}
