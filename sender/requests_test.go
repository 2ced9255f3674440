package sender

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// place inserts a row in some state.
func (f *fixture) place(t *testing.T, state string, more columns) int64 {
	t.Helper()
	c := columns{"unionid": f.unionid(1), "appid": appid, "status": state}
	if state != "pending" && state != "waiting" {
		c["finished_at"] = time.Now().UTC().Add(-time.Hour)
	}
	for name, value := range more {
		c[name] = value
	}
	return f.insert(t, c)
}

func (f *fixture) requests() Requests { return Requests{DB: f.db, DefaultAppID: appid} }

// TestRetryDecides: what is retried and what is refused, for every state a row can be in.
func TestRetryDecides(t *testing.T) {
	f := newFixture(t)
	past, future := time.Now().UTC().Add(-20*time.Minute), time.Now().UTC().Add(time.Hour)
	var (
		force  = RetryOptions{Force: true}
		ignore = RetryOptions{IgnoreExpiry: true}
		now    = RetryOptions{Now: true}
		anyway = RetryOptions{Withdrawn: true}
	)
	for _, tc := range []struct {
		name    string
		state   string
		more    columns
		options RetryOptions
		refused string
		becomes string
	}{
		{"failed", "failed", columns{"reason": "timeout", "errcode": 40001, "errmsg": "x", "attempts": 8}, RetryOptions{}, "", "pending"},
		{"failed, also forced", "failed", nil, force, "", "pending"},
		{"cancelled", "cancelled", columns{"cancel": 1}, RetryOptions{}, refusedCancelled, "cancelled"},
		{"cancelled, forced", "cancelled", columns{"cancel": 1}, force, refusedCancelled, "cancelled"},
		{"cancelled, all the same", "cancelled", columns{"cancel": 1}, anyway, "", "pending"},
		{"cancelled, and cancel set back", "cancelled", nil, RetryOptions{}, refusedCancelled, "cancelled"},
		{"failed, and withdrawn", "failed", columns{"cancel": 1}, RetryOptions{}, refusedCancelled, "failed"},
		{"failed, and withdrawn, all the same", "failed", columns{"cancel": 1}, anyway, "", "pending"},
		{"sent, and withdrawn too late, forced", "sent", columns{"cancel": 1}, force, refusedCancelled, "sent"},
		{"sent, and withdrawn too late, all the same", "sent", columns{"cancel": 1}, anyway, refusedSent, "sent"},
		{"withdrawn and open, all the same", "pending", columns{"due_at": future, "cancel": 1}, RetryOptions{Now: true, Withdrawn: true},
			refusedWithdrawn, "pending"},
		{"expired", "expired", columns{"expires_at": past}, RetryOptions{}, refusedExpiry, "expired"},
		{"expired, forced", "expired", columns{"expires_at": past}, force, refusedExpiry, "expired"},
		{"expired, ignored", "expired", columns{"expires_at": past}, ignore, "", "pending"},
		{"failed, and expired since", "failed", columns{"expires_at": past}, RetryOptions{}, refusedExpiry, "failed"},
		{"failed, expires later", "failed", columns{"expires_at": future}, RetryOptions{}, "", "pending"},
		{"failed after an open outcome", "failed", columns{"uncertain_at": past}, RetryOptions{}, refusedUnknown, "failed"},
		{"failed with a lease", "failed", columns{"lease": "x"}, RetryOptions{}, refusedUnknown, "failed"},
		{"sent", "sent", columns{"msgid": 1}, RetryOptions{}, refusedSent, "sent"},
		{"sent, forced", "sent", columns{"msgid": 2, "sent_openid": "o", "channel": "oa_template"}, force, "", "pending"},
		{"unknown", "unknown", columns{"uncertain_at": past}, RetryOptions{}, refusedUnknown, "unknown"},
		{"unknown, forced", "unknown", columns{"uncertain_at": past}, force, "", "pending"},
		{"unknown and expired, forced", "unknown", columns{"uncertain_at": past, "expires_at": past}, force, refusedExpiry, "unknown"},
		{"pending", "pending", columns{"due_at": future}, RetryOptions{}, refusedOpen, "pending"},
		{"pending, now", "pending", columns{"due_at": future}, now, "", "pending"},
		{"pending and due, now", "pending", nil, now, refusedDue, "pending"},
		{"withdrawn, now", "pending", columns{"due_at": future, "cancel": 1}, now, refusedWithdrawn, "pending"},
		{"under way, forced now", "pending", columns{"due_at": future, "lease": "x"}, RetryOptions{Force: true, Now: true}, refusedUnderWay, "pending"},
		{"left behind, now", "pending", columns{"due_at": past, "lease": "x"}, now, refusedLeft, "pending"},
		{"waiting", "waiting", columns{"due_at": future}, force, refusedOpen, "waiting"},
		{"waiting, now", "waiting", columns{"due_at": future, "reason": "not_following", "errmsg": "x"}, now, "", "pending"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			id := f.place(t, tc.state, tc.more)
			changes, err := f.requests().Retry(t.Context(), []int64{id}, tc.options)
			if err != nil {
				t.Fatal(err)
			}
			want := []Change{{ID: id, Status: tc.becomes, Refused: tc.refused}}
			if diff := cmp.Diff(want, changes); diff != "" {
				t.Error(diff)
			}
			if got := f.row(t, id); got.Status != tc.becomes {
				t.Errorf("the row is %s, want %s", got.Status, tc.becomes)
			}
			if tc.refused != "" {
				return
			}
			clean := f.count(t, `
				SELECT COUNT(*) FROM send_request
				 WHERE id = ? AND due_at <= CURRENT_TIMESTAMP(3) AND lease IS NULL AND uncertain_at IS NULL AND cancel = 0
				   AND finished_at IS NULL AND reason IS NULL AND errcode IS NULL AND errmsg IS NULL AND attempts = 0
				   AND msgid IS NULL AND sent_openid IS NULL AND channel IS NULL
				   AND COALESCE(expires_at > CURRENT_TIMESTAMP(3), 1)`, id)
			if clean != 1 {
				t.Errorf("the row keeps something of its past: %+v", f.row(t, id))
			}
		})
	}
}

// TestRetryRemembersTheFirst: what was sent before, or withdrawn, says so, for whoever asks why the person got two
// messages, or one that a failed row denies.
func TestRetryRemembersTheFirst(t *testing.T) {
	f := newFixture(t)
	past := time.Now().UTC().Add(-time.Hour)
	const word = "sent again on an operator's word; before, it was "
	for _, tc := range []struct {
		name, state string
		more        columns
		want        string
		again       bool
	}{
		{"sent", "sent", columns{"msgid": 77, "reason": "resolved_by_operator"}, word + "sent (resolved_by_operator), msgid 77", true},
		{"unknown", "unknown", columns{"uncertain_at": past, "reason": "timeout"}, word + "unknown (timeout)", true},
		{"an open outcome", "failed", columns{"uncertain_at": past, "reason": "x"}, word + "failed (x)", true},
		{"sent again, then failed", "failed", columns{"warning": word + "sent"}, word + "sent", true},
		{"sent again, then withdrawn", "cancelled", columns{"warning": word + "sent", "cancel": 1}, word + "sent", true},
		{"sent again, then sent", "sent", columns{"warning": word + "sent, msgid 1", "msgid": 2}, word + "sent, msgid 2", true},
		{"cancelled", "cancelled", columns{"cancel": 1}, "sent on an operator's word; before, it was cancelled", false},
		{"cancelled, then failed", "failed", columns{"warning": "sent on an operator's word; before, it was cancelled"},
			"sent on an operator's word; before, it was cancelled", false},
		{"another warning", "failed", columns{"warning": "thing1 was cut"}, "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			id := f.place(t, tc.state, tc.more)
			changes, err := f.requests().Retry(t.Context(), []int64{id}, RetryOptions{Force: true, Withdrawn: true})
			if err != nil || changes[0].Refused != "" {
				t.Fatal(changes, err)
			}
			d, err := f.requests().Show(t.Context(), id)
			if err != nil || d.Warning != tc.want || d.SentAgain() != tc.again {
				t.Errorf("warning %q (%t), want %q (%t), %v", d.Warning, d.SentAgain(), tc.want, tc.again, err)
			}
		})
	}
}

// TestForcedThenFailed: a row that was sent, and whose repetition is refused, ends as failed. Its warning tells the
// producer, for whom failed means "did not get it" otherwise.
func TestForcedThenFailed(t *testing.T) {
	f := newFixture(t)
	s := newStepper(t, f)
	id := f.insert(t, columns{"unionid": f.unionid(1)})
	s.attempt(t)
	msgid := *f.row(t, id).MsgID
	if _, err := f.requests().Retry(t.Context(), []int64{id}, RetryOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	f.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultErrcode, Code: 43101, Path: wechat.EndpointSendTemplate})
	s.attempt(t)
	// Then it is an ordinary failed row, which anybody retries.
	for range 2 {
		row := f.maps(t, fmt.Sprintf(`SELECT status, warning FROM v_send_status WHERE id = %d`, id))
		want := []map[string]any{{"status": "failed", "warning": fmt.Sprintf("sent again on an operator's word; before, it was sent, msgid %d", msgid)}}
		if diff := cmp.Diff(want, row); diff != "" {
			t.Fatal(diff)
		}
		if _, err := f.requests().Retry(t.Context(), []int64{id}, RetryOptions{}); err != nil {
			t.Fatal(err)
		}
		s.attempt(t)
	}
}

// TestRetriedIsSent: a running sender takes what was given back, whatever it ended as.
func TestRetriedIsSent(t *testing.T) {
	f := newFixture(t)
	past := time.Now().UTC().Add(-time.Hour)
	ids := []int64{
		f.place(t, "failed", columns{"attempts": 4}),
		f.place(t, "unknown", columns{"uncertain_at": past, "attempts": 4}),
		f.place(t, "expired", columns{"expires_at": past}),
		f.place(t, "cancelled", columns{"cancel": 1}),
	}
	f.start(t, "one")
	changes, err := f.requests().Retry(t.Context(), ids, RetryOptions{Force: true, IgnoreExpiry: true, Withdrawn: true})
	if err != nil || len(changes) != len(ids) {
		t.Fatal(changes, err)
	}
	for _, id := range ids {
		f.await(t, id, statusSent)
	}
	if n := len(f.messagesTo(1)); n != len(ids) {
		t.Errorf("%d messages, want %d", n, len(ids))
	}
}

func TestChangeMissingAndArchived(t *testing.T) {
	f := newFixture(t)
	f.exec(t, `INSERT INTO send_request_archive (id, template, data, priority, status, attempts, created_at, due_at, finished_at,
		receipt_status) VALUES (900, 'order', '{}', 1, 'failed', 1, NOW(3), NOW(3), NOW(3), 'success')`)
	changes, err := f.requests().Retry(t.Context(), []int64{900, 901}, RetryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := []Change{{ID: 900, Status: "failed", Refused: refusedArchived}, {ID: 901, Refused: refusedMissing}}
	if diff := cmp.Diff(want, changes); diff != "" {
		t.Error(diff)
	}
	d, err := f.requests().Show(t.Context(), 900)
	if err != nil || !d.Archived || d.ReceiptStatus != "success" {
		t.Errorf("%+v, %v; want the archived row", d, err)
	}
	if _, err := f.requests().Show(t.Context(), 901); !errors.Is(err, ErrNoRequest) {
		t.Errorf("%v, want ErrNoRequest", err)
	}
}

// TestChangeWaitsForNobody: a producer's open transaction on one row holds up that row alone.
func TestChangeWaitsForNobody(t *testing.T) {
	f := newFixture(t)
	ids := []int64{f.place(t, "failed", nil), f.place(t, "failed", nil)}
	tx, err := f.db.BeginTxx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(t.Context(), `UPDATE send_request SET cancel = 1 WHERE id = ?`, ids[0]); err != nil {
		t.Fatal(err)
	}
	changes, err := f.requests().Retry(t.Context(), ids, RetryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := []Change{{ID: ids[0], Status: "failed", Refused: refusedLocked}, {ID: ids[1], Status: "pending"}}
	if diff := cmp.Diff(want, changes); diff != "" {
		t.Error(diff)
	}
}

func TestCancelDecides(t *testing.T) {
	f := newFixture(t)
	past, future := time.Now().UTC().Add(-time.Minute), time.Now().UTC().Add(time.Hour)
	for _, tc := range []struct {
		name, state string
		more        columns
		want        Change
	}{
		{"due later", "pending", columns{"due_at": future}, Change{Status: "cancelled"}},
		{"waiting", "waiting", columns{"due_at": future}, Change{Status: "cancelled"}},
		{"withdrawn by its producer", "pending", columns{"due_at": future, "cancel": 1}, Change{Status: "cancelled"}},
		{"twice", "cancelled", columns{"cancel": 1}, Change{Status: "cancelled"}},
		{"sent", "sent", nil, Change{Status: "sent", Refused: refusedFinal}},
		{"under way", "pending", columns{"due_at": future, "lease": "x"}, Change{Status: "pending", Refused: refusedMarked}},
		{"left behind", "pending", columns{"due_at": past, "lease": "x"}, Change{Status: "unknown", Refused: refusedLate}},
		{"outcome open", "pending", columns{"due_at": future, "uncertain_at": past}, Change{Status: "unknown", Refused: refusedLate}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.want.ID = f.place(t, tc.state, tc.more)
			got, err := f.requests().Cancel(t.Context(), []int64{tc.want.ID})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]Change{tc.want}, got); diff != "" {
				t.Error(diff)
			}
			if row := f.row(t, tc.want.ID); row.Status != tc.want.Status {
				t.Errorf("the row is %s, want %s", row.Status, tc.want.Status)
			}
			if marked := f.count(t, `SELECT cancel FROM send_request WHERE id = ?`, tc.want.ID); marked != 1 && tc.state != "sent" {
				t.Error("the row is not marked")
			}
		})
	}
}

// TestCancelWhileSending: rows are withdrawn while a sender works through them. What is reported as cancelled was
// not received, and everything else was.
func TestCancelWhileSending(t *testing.T) {
	f := newFixture(t)
	const rows = 1500
	ids := make([]int64, rows)
	for i := range ids {
		ids[i] = f.insert(t, columns{"unionid": f.unionid(i % 100), "dedup_key": i})
	}
	stop := f.start(t, "one")
	eventually(t, "a part", func() bool { return len(f.sim.Messages(appid)) > 50 })
	cancelled := map[int64]bool{}
	// From the end, where the sender is not yet, towards where it is.
	for at := rows; at > 0; at -= 50 {
		changes, err := f.requests().Cancel(t.Context(), ids[at-50:at])
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range changes {
			if c.Refused == "" {
				cancelled[c.ID] = true
			}
		}
	}
	eventually(t, "the end", func() bool {
		return f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'pending'`) == 0
	})
	stop()
	received := map[string]int{}
	for _, m := range f.sim.Messages(appid) {
		received[m.ClientMsgID]++
	}
	if len(cancelled) == 0 || len(received) == 0 {
		t.Fatalf("%d cancelled, %d received: the test shows nothing", len(cancelled), len(received))
	}
	s := &Service{}
	if err := f.db.GetContext(t.Context(), &s.installation, `SELECT id FROM installation`); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		row, got := f.row(t, id), received[s.clientMsgID(id)]
		if want := map[string]int{"sent": 1, "cancelled": 0}; want[row.Status] != got || (cancelled[id] && row.Status != "cancelled") {
			t.Errorf("request %d is %s, reported cancelled: %t, received %d times", id, row.Status, cancelled[id], got)
		}
	}
}

// TestRetryRaces: many operators retry the same failed rows while senders work: each row goes out once for each time
// somebody was told that it was retried.
func TestRetryRaces(t *testing.T) {
	f := newFixture(t)
	const rows = 200
	ids := make([]int64, rows)
	for i := range ids {
		ids[i] = f.place(t, "failed", columns{"unionid": f.unionid(i % 100)})
	}
	stopOne, stopTwo := f.start(t, "one"), f.start(t, "two")
	var mu sync.Mutex
	retried := 0
	var operators sync.WaitGroup
	for range 4 {
		operators.Go(func() {
			changes, err := f.requests().Retry(context.Background(), ids, RetryOptions{})
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, c := range changes {
				if c.Refused == "" {
					retried++
				}
			}
		})
	}
	operators.Wait()
	eventually(t, "the end", func() bool { return f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'sent'`) == rows })
	stopOne()
	stopTwo()
	if n := len(f.sim.Messages(appid)); n != rows || retried != rows {
		t.Errorf("%d messages, %d retries reported; want %d of each", n, retried, rows)
	}
}

// TestShowJoins: the receipt, the account's pause and who sends for it stand beside the row.
func TestShowJoins(t *testing.T) {
	f := newFixture(t)
	f.exec(t, `INSERT INTO account_state (appid, scope, reason) VALUES (?, 'send', 'ip_not_allowed')`, appid)
	f.exec(t, `INSERT INTO lease (name, holder, expires_at) VALUES (?, 'host-1', NOW(3) + INTERVAL 1 HOUR)`, LeaseName(appid))
	f.exec(t, `INSERT INTO send_receipt (appid, msgid, openid, status) VALUES (?, 5, 'o', 'failed:user block')`, appid)
	d, err := f.requests().Show(t.Context(), f.place(t, "sent", columns{"msgid": 5}))
	if err != nil || d.ReceiptStatus != "failed:user block" || d.SentBy != "host-1" || len(d.Pauses) != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	unclaimed := f.insert(t, columns{"unionid": f.unionid(1)})
	if d, err = f.requests().Show(t.Context(), unclaimed); err != nil || len(d.Pauses) != 1 || d.AppID != "" {
		t.Errorf("of the default account: %+v, %v", d, err)
	}
}
