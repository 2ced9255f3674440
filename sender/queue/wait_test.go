package queue

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func unionidWait(value string) Wait { return Wait{"unionid", appid, value} }

// hint makes rows wait for something, as a settle does.
func (f fixture) hint(t *testing.T, w Wait, ids ...int64) {
	t.Helper()
	for _, id := range ids {
		f.exec(t, `INSERT INTO send_wait (request_id, kind, appid, value) VALUES (?, ?, ?, ?)`,
			id, w.Kind, w.AppID, w.Value)
	}
}

// wantHints compares which rows wait for something.
func (f fixture) wantHints(t *testing.T, want ...int64) {
	t.Helper()
	got, err := f.WaitersAfter(t.Context(), 0, PageSize)
	if err != nil {
		t.Fatal(err)
	}
	if slices.Sort(want); !slices.Equal(want, got) {
		t.Errorf("rows %v wait for something, want %v", got, want)
	}
}

// waits makes a result wait.
func waits(r Request, things ...Wait) Result {
	result := r.End(Waiting, "not_following", "x")
	waits := Waits(things)
	result.Delay, result.Waits = 1e12, &waits
	return result
}

// TestSettleWaits: what a row waits for is stored with that it waits, and found by each of it.
func TestSettleWaits(t *testing.T) {
	f := newFixture(t)
	both, one, overtaken := f.insert(t, nil), f.insert(t, nil), f.insert(t, nil)
	other := Wait{"openid", otherAppID, "o-1"}
	rows := f.claim(t, both, one, overtaken)
	f.update(t, `lease = 'another'`, overtaken)
	batch := []Result{waits(rows[0], other, unionidWait("u-1")), waits(rows[1], unionidWait("u-1")),
		waits(rows[2], unionidWait("u-1"))}
	done, err := f.Settle(t.Context(), batch, SettleOrder{AppID: appid})
	if err != nil || done.Overtaken != 1 {
		t.Fatal(done, err)
	}
	f.wantStatus(t, map[int64]Status{both: Waiting, one: Waiting, overtaken: Pending})
	for _, c := range []struct {
		keys []Wait
		want []int64
	}{
		{[]Wait{unionidWait("u-1")}, []int64{both, one}},
		{[]Wait{other}, []int64{both}},
		{[]Wait{other, unionidWait("u-1"), unionidWait("u-2")}, []int64{both, one}},
		{[]Wait{unionidWait("u-2"), {"unionid", otherAppID, "u-1"}, {"openid", appid, "u-1"}}, nil},
		{nil, nil},
	} {
		got, err := f.Waiters(t.Context(), c.keys)
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%v: %v, %v; want %v", c.keys, got, err, c.want)
		}
	}
	got, err := f.Waits(t.Context(), []int64{both, one, overtaken})
	want := map[int64]Waits{both: {other, unionidWait("u-1")}, one: {unionidWait("u-1")}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("they wait (-want +got):\n%s%v", diff, err)
	}
}

// TestSettleWaitsLocked: a row that another transaction holds does not wait, and waits for nothing.
func TestSettleWaitsLocked(t *testing.T) {
	f := newFixture(t)
	free, held := f.insert(t, nil), f.insert(t, nil)
	rows := f.claim(t, free, held)
	release := f.hold(t, held)
	batch := []Result{waits(rows[0], unionidWait("u-1")), waits(rows[1], unionidWait("u-1"))}
	for _, skip := range []bool{false, true} {
		done, err := f.Settle(t.Context(), batch, SettleOrder{AppID: appid, SkipLocked: skip})
		if err != nil || len(done.Locked) != 1 {
			t.Fatal(done, err)
		}
		batch = done.Locked
		f.wantHints(t, free)
	}
	release()
	if _, err := f.Settle(t.Context(), batch, SettleOrder{AppID: appid, SkipLocked: true}); err != nil {
		t.Fatal(err)
	}
	f.wantHints(t, free, held)
}

// TestAwaitReplaces: a login is known, the follow is not.
func TestAwaitReplaces(t *testing.T) {
	f := newFixture(t)
	id, ended := f.insert(t, columns{"status": "waiting"}), f.insert(t, columns{"status": "failed"})
	held := f.insert(t, columns{"status": "waiting"})
	login := Wait{"openid", otherAppID, "m-1"}
	f.hint(t, login, id, held)
	release := f.hold(t, held)
	now := Waits{unionidWait("u-1")}
	if err := f.Await(t.Context(), map[int64]Waits{id: now, ended: now, held: now}); err != nil {
		t.Fatal(err)
	}
	release()
	got, err := f.Waits(t.Context(), []int64{id, ended, held})
	if diff := cmp.Diff(map[int64]Waits{id: now, held: {login}}, got); diff != "" || err != nil {
		t.Errorf("they wait (-want +got):\n%s%v", diff, err)
	}
}

// TestEndsOfWaiting: whatever ends the waiting of a row, it waits for nothing more. The others do.
func TestEndsOfWaiting(t *testing.T) {
	f := newFixture(t)
	f.hint(t, unionidWait("u-0"), f.insert(t, columns{"status": "waiting", "due_at": in(9)}))
	for name, tc := range map[string]struct {
		columns columns
		end     func(id int64) error
		stays   bool
	}{
		"released": {nil, func(id int64) error {
			_, err := f.Release(t.Context(), ReleaseOrder{AppID: appid, IDs: []int64{id}})
			return err
		}, false},
		"withdrawn before its release": {columns{"cancel": 1}, func(id int64) error {
			_, err := f.Release(t.Context(), ReleaseOrder{AppID: appid, IDs: []int64{id}})
			return err
		}, true},
		"cancelled": {columns{"cancel": 1}, func(id int64) error {
			return f.Cancel(t.Context(), CancelOrder{From: Waiting, AppID: appid, IDs: []int64{id}})
		}, false},
		"not withdrawn": {nil, func(id int64) error {
			return f.Cancel(t.Context(), CancelOrder{From: Waiting, AppID: appid, IDs: []int64{id}})
		}, true},
		"over": {columns{"due_at": in(-1)}, func(int64) error {
			return f.EndWaits(t.Context(), lane(Waiting), "no_follower")
		}, false},
		"expired": {columns{"due_at": in(-1), "expires_at": in(-1)}, func(int64) error {
			return f.EndWaits(t.Context(), lane(Waiting), "no_follower")
		}, false},
		"unroutable": {columns{"template": "gone"}, func(int64) error {
			l := lane(Waiting)
			l.Template = "gone"
			_, err := f.FailUnroutable(t.Context(), Unroutable{Lanes: Group([]Lane{l})[0], Reason: "x"})
			return err
		}, false},
		"sent after all": {nil, func(id int64) error {
			_, err := f.Settle(t.Context(), []Result{sent(Request{ID: id})}, SettleOrder{AppID: appid})
			if err != nil {
				return err
			}
			return f.Forget(t.Context(), []int64{id}, "grant")
		}, false},
		"deleted": {nil, func(id int64) error {
			f.exec(t, `DELETE FROM send_request WHERE id = ?`, id)
			return f.Forget(t.Context(), []int64{id}, "grant")
		}, false},
		"waiting, when it should be forgotten": {nil, func(id int64) error {
			return f.Forget(t.Context(), []int64{id}, "grant")
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			c := columns{"status": "waiting", "due_at": in(9)}
			for column, value := range tc.columns {
				c[column] = value
			}
			id := f.insert(t, c)
			f.hint(t, unionidWait("u-1"), id)
			f.hint(t, unionidWait("u-2"), id)
			if err := tc.end(id); err != nil {
				t.Fatal(err)
			}
			hints, err := f.Waits(t.Context(), []int64{id})
			if err != nil || (len(hints[id]) > 0) != tc.stays {
				t.Errorf("it waits for %v, %v", hints[id], err)
			}
		})
	}
	if hints, err := f.Waiters(t.Context(), []Wait{unionidWait("u-0")}); err != nil || len(hints) != 1 {
		t.Errorf("the other row: %v, %v", hints, err)
	}
}

// TestWithdrawnAfter: each withdrawn row comes once, whatever its producer wrote into cancel.
func TestWithdrawnAfter(t *testing.T) {
	f := newFixture(t)
	var want []int64
	for _, cancel := range []int{-1, 1, 2} {
		f.bulk(t, PageSize/2, Waiting, in(9))
		f.exec(t, `UPDATE send_request SET cancel = ? WHERE cancel = 0`, cancel)
	}
	f.bulk(t, 10, Waiting, in(9))
	if err := f.db.SelectContext(t.Context(), &want,
		`SELECT id FROM send_request WHERE cancel <> 0 ORDER BY cancel, id`); err != nil {
		t.Fatal(err)
	}
	var got []int64
	for last := (Withdrawn{}); ; {
		page, err := f.WithdrawnAfter(t.Context(), last)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range page {
			got = append(got, w.ID)
		}
		if len(page) < PageSize {
			break
		}
		last = page[len(page)-1]
	}
	if !slices.Equal(want, got) || len(want) != 3*PageSize/2 {
		t.Errorf("%d rows, want %d", len(got), len(want))
	}
}

// TestWaitersReadFew: what a change of the map costs does not depend on how many rows wait, also
// with the statistics of an empty table.
func TestWaitersReadFew(t *testing.T) {
	f := newFixture(t)
	f.db.SetMaxOpenConns(1) // the counters are a session's
	f.exec(t, `ANALYZE TABLE send_wait`)
	f.exec(t, `ANALYZE TABLE send_request`)
	f.bulk(t, 5000, Waiting, in(9))
	f.exec(t, `INSERT INTO send_wait (request_id, kind, appid, value)
		SELECT id, 'unionid', ?, CONCAT('u-', id) FROM send_request`, appid)
	f.exec(t, `INSERT INTO send_attempt (request_id, appid, openid, template_id, lease)
		SELECT id, ?, 'o-1', 't', '-x' FROM send_request ORDER BY id LIMIT 1000`, appid)
	id := f.insert(t, columns{"status": "waiting", "due_at": in(9)})
	f.hint(t, unionidWait("u-followed"), id)
	withdrawn := f.insert(t, columns{"status": "waiting", "due_at": in(9), "cancel": 1})
	f.hint(t, unionidWait("u-withdrawn"), withdrawn)
	over := f.insert(t, columns{"status": "waiting", "due_at": in(-1)})
	f.hint(t, unionidWait("u-over"), over)
	page := make([]Wait, 1000)
	for i := range page {
		page[i] = Wait{"openid", appid, fmt.Sprint("o-", i)}
	}
	for _, c := range []struct {
		name string
		do   func() error
		most int
	}{
		{"a release", func() error {
			ids, err := f.Waiters(t.Context(), []Wait{unionidWait("u-followed")})
			if err == nil {
				_, err = f.Release(t.Context(), ReleaseOrder{AppID: appid, IDs: ids})
			}
			return err
		}, 20},
		{"a page for whom nobody waits", func() error {
			_, err := f.Waiters(t.Context(), page)
			return err
		}, 5},
		{"a page for some of whom somebody may wait", func() error {
			_, err := f.Waiters(t.Context(), slices.Concat(page, []Wait{unionidWait("u-7"), unionidWait("u-8")}))
			return err
		}, 15},
		{"whether somebody waits for a login", func() error {
			_, _, err := f.AnyWait(t.Context(), []string{"openid", "unionid"}, []string{otherAppID})
			return err
		}, 5},
		{"who is withdrawn", func() error {
			_, err := f.WithdrawnAfter(t.Context(), Withdrawn{})
			return err
		}, 10},
		{"a page of who waits", func() error {
			_, err := f.WaitersAfter(t.Context(), 100, PageSize)
			return err
		}, 2*PageSize + 20},
		{"whose time is over", func() error {
			return f.EndWaits(t.Context(), lane(Waiting), "no_follower")
		}, 60}, // MySQL looks for the attempt once for each column
	} {
		before := f.handlerReads(t)
		if err := c.do(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if n := f.handlerReads(t) - before; n > c.most {
			t.Errorf("%s reads %d entries, want at most %d", c.name, n, c.most)
		}
	}
	f.wantStatus(t, map[int64]Status{id: Pending, over: Failed, withdrawn: Waiting})
}

// handlerReads is how many entries of indexes and tables this session has read.
func (f fixture) handlerReads(t *testing.T) (n int) {
	t.Helper()
	rows, err := f.db.QueryContext(t.Context(), `SHOW SESSION STATUS LIKE 'Handler_read%'`)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	counters := 0
	for rows.Next() {
		var name string
		var value int
		if err := rows.Scan(&name, &value); err != nil {
			t.Fatal(err)
		}
		n, counters = n+value, counters+1
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if counters == 0 {
		t.Skip("TiDB counts no reads of entries")
	}
	return n
}
