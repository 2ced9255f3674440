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
	done, err := f.Settle(t.Context(), batch, SettleOrder{AppID: appid})
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

// TestRefusedWhatever: whatever a trigger of the operator's raises for one row, the others are
// written.
func TestRefusedWhatever(t *testing.T) {
	f := newFixture(t)
	f.exec(t, `CREATE TABLE audit (id BIGINT NOT NULL PRIMARY KEY, e ENUM('a'), n INT NOT NULL, t SMALLINT, CHECK (id > 0))`)
	f.exec(t, `INSERT INTO audit (id, n) VALUES (1, 1)`)
	for _, body := range []string{
		`SIGNAL SQLSTATE '45000'`, `SIGNAL SQLSTATE '99001'`, `SIGNAL SQLSTATE 'HY000'`,
		`INSERT INTO audit (id, n, e) VALUES (2, 1, 'b')`,
		`INSERT INTO audit (id) VALUES (2)`,
		`INSERT INTO audit (id, n) VALUES (2, NULL)`,
		`INSERT INTO audit (id, n) VALUES (2, 'x')`,
		`INSERT INTO audit (id, n, t) VALUES (2, 1, 70000)`,
		`INSERT INTO audit (id, n) VALUES (1, 1)`,
		`INSERT INTO audit (id, n) VALUES (-1, 1)`,
		`SET @several = (SELECT id FROM (SELECT 1 AS id UNION SELECT 2) two)`,
		`SET @sum = 18446744073709551615 + 1`,
	} {
		bad := f.insert(t, columns{})
		_, err := f.db.ExecContext(t.Context(), fmt.Sprintf(`CREATE TRIGGER refusing BEFORE UPDATE ON send_request FOR EACH ROW
			BEGIN IF NEW.id = %d AND NEW.status = 'sent' THEN %s; END IF; END`, bad, body))
		if err != nil {
			t.Skip("this server has no triggers: ", err)
		}
		ours := f.claim(t, f.insert(t, columns{}), bad, f.insert(t, columns{}))
		done, err := f.Settle(t.Context(), []Result{sent(ours[0]), sent(ours[1]), sent(ours[2])}, SettleOrder{AppID: appid})
		if err != nil || len(done.Written) != 2 || len(done.Refused) != 1 || done.Cause == nil {
			t.Errorf("%s: %+v, %v", body, done, err)
		}
		f.exec(t, `DROP TRIGGER refusing`)
	}
}

// TestClaimRefused: rows that the server refuses to change are returned, withdrawn ones too, and all
// others of the claim are taken.
func TestClaimRefused(t *testing.T) {
	f := newFixture(t)
	var rows []int64
	for i := range 9 {
		rows = append(rows, f.insert(t, columns{"cancel": i / 7}))
	}
	_, err := f.db.ExecContext(t.Context(), fmt.Sprintf(`CREATE TRIGGER refusing BEFORE UPDATE ON send_request FOR EACH ROW
		BEGIN IF NEW.id IN (%d, %d, %d) THEN SIGNAL SQLSTATE '45000'; END IF; END`, rows[2], rows[3], rows[7]))
	if err != nil {
		t.Skip("this server has no triggers: ", err)
	}
	locked := f.hold(t, rows[5])
	defer locked()
	got, err := f.Claim(t.Context(), ClaimOrder{AppID: appid, Rows: f.due(t, 20)})
	if err != nil || got.Cause == nil {
		t.Fatal(got, err)
	}
	slices.Sort(got.Refused)
	want := [][]int64{{rows[0], rows[1], rows[4], rows[6]}, {rows[5]}, {rows[2], rows[3], rows[7]}}
	if diff := cmp.Diff(want, [][]int64{idsOf(got.Ours), got.Locked, got.Refused}); diff != "" {
		t.Errorf("claimed, locked and refused rows differ (-want +got):\n%s", diff)
	}
	f.wantStatus(t, map[int64]Status{rows[7]: Pending, rows[8]: Cancelled})
}

// TestSettleOne: a batch of one result, which some servers fold into constants, is written as any.
func TestSettleOne(t *testing.T) {
	f := newFixture(t)
	r := f.claim(t, f.insert(t, columns{}))[0]
	inDoubt := Result{ID: r.ID, Token: r.Token, Status: Pending, InDoubt: true, OpenID: "o-1"}
	if done, err := f.Settle(t.Context(), []Result{inDoubt}, SettleOrder{AppID: appid}); err != nil || done.Overtaken != 0 {
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
		if _, err := f.Settle(t.Context(), []Result{result}, SettleOrder{AppID: appid}); err != nil {
			t.Fatal(err)
		}
		if n := f.count(t, fmt.Sprintf(`id = %d AND status = 'waiting' AND due_at = '2038-01-19'`, r.ID)); n != 1 {
			t.Errorf("after %s the row is %+v", delay, f.row(t, r.ID))
		}
	}
}
