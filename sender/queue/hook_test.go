package queue

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jmoiron/sqlx"
)

// TestSettleHook: the hook gets the results that rows take, with their attempts, whether the caller
// knows when those began or the rows say it; and nothing is written where it fails.
func TestSettleHook(t *testing.T) {
	f := newFixture(t)
	moment := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	for name, tc := range map[string]struct {
		claimedAt time.Time
		overtaken bool // one of the rows has ended meanwhile
		fails     bool
	}{
		"known":                {claimedAt: moment},
		"known, one too late":  {claimedAt: moment, overtaken: true},
		"known, it fails":      {claimedAt: moment, fails: true},
		"not known":            {},
		"not known, one late":  {overtaken: true},
		"not known, and fails": {fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			ids := make([]int64, 3)
			for i := range ids {
				ids[i] = f.insert(t, columns{})
			}
			var results []Result
			want, status := slices.Clone(ids), map[int64]Status{}
			for _, row := range f.claim(t, ids...) {
				r := sent(row)
				r.ClaimedAt = tc.claimedAt
				results, status[row.ID] = append(results, r), Sent
			}
			rowTime := moment.Add(time.Minute)
			for _, id := range ids {
				f.exec(t, `UPDATE send_request SET attempted_at = ? WHERE id = ?`, rowTime, id)
			}
			if tc.overtaken {
				f.update(t, "status = 'cancelled', lease = NULL", ids[1])
				want, status[ids[1]] = slices.Delete(want, 1, 2), Cancelled
			}
			var got []int64
			hook := func(_ context.Context, _ *sqlx.Tx, done []Settling) error {
				got = nil
				for _, s := range done {
					got = append(got, s.ID)
					want := rowTime
					if !tc.claimedAt.IsZero() {
						want = tc.claimedAt
					}
					if !s.AttemptedAt.Equal(want) {
						t.Errorf("the attempt of %d began at %s, want %s", s.ID, s.AttemptedAt, want)
					}
				}
				slices.Sort(got)
				if tc.fails {
					return errors.New("the ledger is away")
				}
				return nil
			}
			done, err := f.Settle(t.Context(), results, SettleOrder{AppID: appid, Hook: hook})
			if tc.fails {
				if err == nil || len(done.Written) > 0 {
					t.Errorf("%+v, %v", done, err)
				}
				f.wantStatus(t, map[int64]Status{ids[0]: Pending, ids[1]: Pending, ids[2]: Pending})
				return
			}
			overtaken := int64(len(ids) - len(want))
			if err != nil || len(done.Written) != len(ids) || done.Overtaken != overtaken {
				t.Errorf("%+v, %v; want %d overtaken", done, err, overtaken)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the hook's results (-want +got):\n%s", diff)
			}
			f.wantStatus(t, status)
		})
	}
}

// TestAttempted: a claim finds the attempts that nobody has settled, however many others there are.
func TestAttempted(t *testing.T) {
	f := newFixture(t)
	ids := make([]int64, 5)
	for i := range ids {
		ids[i] = f.insert(t, columns{"due_at": in(i - 10)})
	}
	attempt := func(id int64) {
		f.exec(t, `INSERT INTO send_attempt (request_id, appid, openid, template_id, lease)
			VALUES (?, ?, 'o', 't', '-x')`, id, appid)
	}
	attempt(ids[1])
	attempt(ids[3])
	claim := func() (attempted []int64) {
		t.Helper()
		got, err := f.Claim(t.Context(), ClaimOrder{AppID: appid, Rows: f.due(t, 10), Attempts: true})
		if err != nil || len(got.Ours) != len(ids) {
			t.Fatal(got, err)
		}
		for _, r := range got.Ours {
			if r.Attempted {
				attempted = append(attempted, r.ID)
			}
		}
		return attempted
	}
	want := []int64{ids[1], ids[3]}
	if diff := cmp.Diff(want, claim()); diff != "" {
		t.Errorf("few attempts (-want +got):\n%s", diff)
	}
	f.exec(t, `UPDATE send_request SET id = id + 1000000 WHERE id = ?`, ids[4])
	ids[4] += 1000000
	for i := range int64(PageSize) { // of rows that are not claimed
		attempt(ids[3] + 100 + i)
	}
	attempt(ids[4])
	f.update(t, "due_at = CURRENT_TIMESTAMP(3)", ids...)
	want = append(want, ids[4])
	got := claim()
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("among many others (-want +got):\n%s", diff)
	}
}

// TestSettleOrder: statements lock rows in the order in which they name them, so that two of them, or
// one and an operator's, are no deadlock.
func TestSettleOrder(t *testing.T) {
	f := newFixture(t)
	f.bulk(t, 20, Pending, in(-1))
	claimed := f.claim(t, idsOf(f.due(t, 20))...)
	var batch []Result
	for _, r := range claimed {
		batch = append(batch, sent(r))
	}
	slices.SortFunc(batch, func(a, b Result) int { return int(b.ID - a.ID) })
	var order []int64
	done, err := f.Settle(t.Context(), batch, SettleOrder{
		AppID: appid, Hook: func(_ context.Context, _ *sqlx.Tx, done []Settling) error {
			for _, s := range done {
				order = append(order, s.ID)
			}
			return nil
		},
	})
	if err != nil || len(done.Written) != len(batch) {
		t.Fatalf("%d of %d are written, %v", len(done.Written), len(batch), err)
	}
	if len(order) != len(batch) || !slices.IsSorted(order) {
		t.Errorf("the rows are written in the order %v", order)
	}
}
