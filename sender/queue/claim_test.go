package queue

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// left are the columns of a row whose instance died during an attempt.
func left(more columns) columns {
	c := columns{"lease": "dead", "attempts": 1, "attempted_at": in(-5), "due_at": in(-4)}
	for name, value := range more {
		c[name] = value
	}
	return c
}

// TestClaim: what a claim makes of a row, and of one that was changed after it had been read.
func TestClaim(t *testing.T) {
	f := newFixture(t)
	takenByAnother := "lease = 'x', due_at = " + string(in(1))
	claimed := func(attempts int, inDoubtFrom string) row {
		m := Moments{Due: "1m", Attempted: "0m", InDoubtFrom: inDoubtFrom}
		return row{Status: Pending, Attempts: attempts, Held: true, Moments: m}
	}
	tooLate := row{Status: Unknown, Note: Note{Reason: "cancelled_too_late"}}
	lateLeft := tooLate
	lateLeft.Attempts, lateLeft.Moments = 1, Moments{Due: "-4m", Attempted: "-5m", Finished: "0m"}
	tooLate.Moments = Moments{Due: "0m", InDoubtFrom: "-5m", Finished: "0m"}
	for _, tc := range []struct {
		name    string
		before  columns
		between string // becomes so after Due
		got     bool
		want    row
	}{
		{"fresh", columns{}, "", true, claimed(1, "")},
		{"of no account", columns{"appid": nil}, "", true, claimed(1, "")},
		{"repeated", columns{"attempts": 2, "attempted_at": in(-5)}, "", true, claimed(3, "")},
		{"left behind", left(nil), "", true, claimed(2, "-5m")},
		{"left behind twice", left(columns{"uncertain_at": in(-20)}), "", true, claimed(2, "-20m")},
		{"in doubt, settled", columns{"uncertain_at": in(-20), "attempted_at": in(-5)}, "", true,
			claimed(1, "-20m")},
		{"withdrawn", columns{"cancel": 1}, "", false,
			row{Status: Cancelled, Moments: Moments{Due: "0m", Finished: "0m"}}},
		{"withdrawn, in doubt", columns{"cancel": 1, "uncertain_at": in(-5)}, "", false, tooLate},
		{"withdrawn, left behind", left(columns{"cancel": 1}), "", false, lateLeft},
		{"withdrawn meanwhile", columns{}, "cancel = 1", false,
			row{Status: Pending, Moments: Moments{Due: "0m"}}},
		{"sent meanwhile", columns{}, "status = 'sent'", false,
			row{Status: Sent, Moments: Moments{Due: "0m"}}},
		{"claimed meanwhile", columns{}, takenByAnother, false,
			row{Status: Pending, Held: true, Moments: Moments{Due: "1m"}}},
		{"withdrawn, claimed meanwhile", columns{"cancel": 1}, takenByAnother, false,
			row{Status: Pending, Held: true, Moments: Moments{Due: "1m"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f.exec(t, `DELETE FROM send_request`)
			id := f.insert(t, tc.before)
			rows := f.due(t, 10)
			if tc.between != "" {
				f.update(t, tc.between, id)
			}
			got, err := f.Claim(t.Context(), ClaimOrder{AppID: appid, Rows: rows})
			if err != nil || len(rows) != 1 || len(got.Locked) > 0 || (len(got.Ours) == 1) != tc.got {
				t.Errorf("%d rows due, the claim got %+v, %v", len(rows), got, err)
			}
			f.wantRow(t, id, tc.want)
			if tc.got && f.count(t, `lease = '`+got.Ours[0].Token+`'`) != 1 {
				t.Error("the row does not carry the claim's token")
			}
		})
	}
}

// TestClaimReturnsItsOwn: what came between takes its row out of the claim, and no other.
func TestClaimReturnsItsOwn(t *testing.T) {
	f := newFixture(t)
	ids := make([]int64, 3)
	for i := range ids {
		ids[i] = f.insert(t, columns{"due_at": in(i - 10)})
	}
	rows := f.due(t, 10)
	f.update(t, "cancel = 1", ids[1])
	got, err := f.Claim(t.Context(), ClaimOrder{AppID: appid, Rows: rows})
	if err != nil || len(got.Locked) > 0 {
		t.Fatal(got, err)
	}
	if diff := cmp.Diff([]int64{ids[0], ids[2]}, idsOf(got.Ours)); diff != "" {
		t.Errorf("the claim's rows differ (-want +got):\n%s", diff)
	}
	if got, err := f.Claim(t.Context(), ClaimOrder{AppID: appid}); err != nil || len(got.Ours) > 0 {
		t.Errorf("claimed %v of no rows, %v", got, err)
	}
}

// TestClaimLeavesLocked: rows that another transaction holds are returned, withdrawn ones too. At
// most one statement has waited for them, and none that knows of them.
func TestClaimLeavesLocked(t *testing.T) {
	f := newFixture(t)
	for name, tc := range map[string]struct {
		skipLocked bool
		maximum    time.Duration
	}{
		"known":   {true, lockTimeout},
		"unknown": {false, 2 * lockTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			f.exec(t, `DELETE FROM send_request`)
			free, held := f.insert(t, columns{}), f.insert(t, columns{})
			withdrawn := f.insert(t, columns{"cancel": 1})
			heldToo := f.insert(t, columns{"cancel": 1})
			rows := f.due(t, 10)
			neighbour := f.insert(t, columns{}) // not to be claimed
			release := f.hold(t, held, heldToo, neighbour)
			begin := time.Now()
			order := ClaimOrder{AppID: appid, Rows: rows, SkipLocked: tc.skipLocked}
			got, err := f.Claim(t.Context(), order)
			if err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begin); took >= tc.maximum {
				t.Errorf("the claim took %s", took)
			}
			slices.Sort(got.Locked)
			want := [][]int64{{free}, {held, heldToo}}
			if diff := cmp.Diff(want, [][]int64{idsOf(got.Ours), got.Locked}); diff != "" {
				t.Errorf("claimed and locked rows differ (-want +got):\n%s", diff)
			}
			release()
			f.wantStatus(t, map[int64]Status{withdrawn: Cancelled, heldToo: Pending})
			f.claim(t, held)
		})
	}
}

// TestRacingClaimers: the compare-and-set gives each row to one of many claimers.
func TestRacingClaimers(t *testing.T) {
	f := newFixture(t)
	const n = 200
	f.bulk(t, n, Pending, in(-1))
	rows := f.due(t, n)
	if len(rows) != n {
		t.Fatalf("%d rows are due, want %d", len(rows), n)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	owners := map[int64]int{}
	for i := range 6 {
		wg.Go(func() {
			some := append(slices.Clone(rows[i*n/6:]), rows[:i*n/6]...)[:n/2]
			got, err := f.Claim(t.Context(), ClaimOrder{AppID: appid, Rows: some})
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, r := range got.Ours {
				owners[r.ID]++
			}
		})
	}
	wg.Wait()
	for id, n := range owners {
		if n != 1 {
			t.Errorf("request %d was claimed %d times", id, n)
		}
	}
	if len(owners) != n {
		t.Errorf("%d requests were claimed, want %d", len(owners), n)
	}
}

// TestCancel: rows end that are withdrawn and in the status named, and no others.
func TestCancel(t *testing.T) {
	f := newFixture(t)
	want := map[int64]Status{}
	for _, tc := range []struct {
		before columns
		want   Status
	}{
		{columns{"status": "waiting", "cancel": 1, "due_at": in(9)}, Cancelled},
		{columns{"status": "waiting", "cancel": 2, "due_at": in(9)}, Cancelled},
		{columns{"status": "waiting", "cancel": 1, "uncertain_at": in(-9)}, Unknown},
		{columns{"status": "waiting"}, Waiting},
		{columns{"status": "pending", "cancel": 1}, Pending},
		{columns{"status": "sent", "cancel": 1}, Sent},
	} {
		want[f.insert(t, tc.before)] = tc.want
	}
	unnamed := f.insert(t, columns{"status": "waiting", "cancel": 1})
	order := CancelOrder{From: Waiting, AppID: appid}
	for id := range want {
		order.IDs = append(order.IDs, id)
	}
	want[unnamed] = Waiting
	for _, o := range []CancelOrder{order, {From: Waiting, AppID: appid}} {
		if err := f.Cancel(t.Context(), o); err != nil {
			t.Error(err)
		}
	}
	f.wantStatus(t, want)
}
