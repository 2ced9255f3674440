package queue

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/database"
)

// TestSettleRefused: results that the server does not store are returned, and all others of their
// batch are written, by either statement.
func TestSettleRefused(t *testing.T) {
	f := newFixture(t)
	tooLong := strings.Repeat("x", 65) // for any column with a code in it
	ids := []int64{f.insert(t, columns{})}
	for range 8 {
		ids = append(ids, f.insert(t, columns{}))
	}
	var batch, refused, written []Result
	for i, r := range f.claim(t, ids...) {
		result := sent(r)
		switch {
		case i == 3: // among the simple ones
			result.OpenID = tooLong
		case i >= 5:
			result = r.End(Failed, map[bool]string{true: tooLong, false: "bad"}[i == 6], "")
		}
		batch = append(batch, result)
		if i == 3 || i == 6 {
			refused = append(refused, result)
		} else {
			written = append(written, result)
		}
	}
	done, err := f.Settle(t.Context(), batch, false)
	if err != nil {
		t.Fatal(err)
	}
	if !database.IsRowError(done.Cause) {
		t.Errorf("the cause is %v", done.Cause)
	}
	byID := func(a, b Result) int { return int(a.ID - b.ID) }
	slices.SortFunc(done.Written, byID)
	slices.SortFunc(written, byID)
	if diff := cmp.Diff(Settled{Written: written, Refused: refused, Cause: done.Cause}, done,
		cmp.Comparer(errors.Is)); diff != "" {
		t.Errorf("what Settle returns differs (-want +got):\n%s", diff)
	}
	if n := f.count(t, `status = 'pending'`); n != 2 {
		t.Errorf("%d rows are still pending, want the two that were refused", n)
	}
}

// TestSettleOne: a batch of one result, which some servers fold into constants, is written as any.
func TestSettleOne(t *testing.T) {
	f := newFixture(t)
	r := f.claim(t, f.insert(t, columns{}))[0]
	inDoubt := Result{ID: r.ID, Token: r.Token, Status: Pending, InDoubt: true, OpenID: "o-1"}
	if done, err := f.Settle(t.Context(), []Result{inDoubt}, false); err != nil || done.Overtaken != 0 {
		t.Fatal(done, err)
	}
	if got := f.row(t, r.ID); got.Status != Pending || got.Held || got.SentOpenID != "o-1" {
		t.Errorf("the row is %+v", got)
	}
}

// TestSettleBeyondTheEnd: a moment after the end of TIMESTAMP becomes its end.
func TestSettleBeyondTheEnd(t *testing.T) {
	f := newFixture(t)
	for _, delay := range []time.Duration{876_000 * time.Hour, 12 * 8760 * time.Hour} {
		r := f.claim(t, f.insert(t, columns{}))[0]
		result := r.End(Waiting, "not_following", "")
		result.Delay = delay
		if _, err := f.Settle(t.Context(), []Result{result}, false); err != nil {
			t.Fatal(err)
		}
		if n := f.count(t, fmt.Sprintf(`id = %d AND status = 'waiting' AND due_at = '2038-01-19'`, r.ID)); n != 1 {
			t.Errorf("after %s the row is %+v", delay, f.row(t, r.ID))
		}
	}
}
