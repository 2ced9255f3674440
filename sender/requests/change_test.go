package requests

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestRetryWishesAgain: what an operator gives back is wished from then on, so that no alarm counts
// the time in which it was finished, or was to wait.
func TestRetryWishesAgain(t *testing.T) {
	f := newFixture(t)
	old := time.Now().UTC().Add(-24 * time.Hour)
	ids := []int64{
		f.place(t, "failed", columns{"wished_at": old, "due_at": old}),
		f.place(t, "waiting", columns{"wished_at": old, "due_at": old}),
		f.place(t, "pending", columns{"wished_at": old, "due_at": time.Now().UTC().Add(time.Hour)}),
	}
	changes, err := f.store.Retry(t.Context(), ids, RetryOptions{Now: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range changes {
		if c.Refused != "" {
			t.Errorf("request %d: %s", c.ID, c.Refused)
		}
	}
	var n int
	err = f.db.GetContext(t.Context(), &n, `SELECT COUNT(*) FROM send_request
		WHERE status = 'pending' AND wished_at > CURRENT_TIMESTAMP(3) - INTERVAL 1 MINUTE`)
	if err != nil || n != len(ids) {
		t.Errorf("%d of %d requests are wished from now on (%v)", n, len(ids), err)
	}
}

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
		{"cancelled, anyway", "cancelled", columns{"cancel": 1}, anyway, "", "pending"},
		{"cancelled, and cancel set back", "cancelled", nil, RetryOptions{}, refusedCancelled, "cancelled"},
		{"failed, and withdrawn", "failed", columns{"cancel": 1}, RetryOptions{}, refusedCancelled, "failed"},
		{"failed, and withdrawn, anyway", "failed", columns{"cancel": 1}, anyway, "", "pending"},
		{"sent, and withdrawn too late, forced", "sent", columns{"cancel": 1}, force, refusedCancelled, "sent"},
		{"sent, and withdrawn too late, anyway", "sent", columns{"cancel": 1}, anyway, refusedSent, "sent"},
		{"withdrawn and open, anyway", "pending", columns{"due_at": future, "cancel": 1}, RetryOptions{Now: true, Withdrawn: true},
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
			changes, err := f.store.Retry(t.Context(), []int64{id}, tc.options)
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

// TestRetryRemembersTheFirst: what was sent before, or withdrawn, says so, for whoever asks why the
// person got two messages, or one that a failed row denies.
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
			changes, err := f.store.Retry(t.Context(), []int64{id}, RetryOptions{Force: true, Withdrawn: true})
			if err != nil || changes[0].Refused != "" {
				t.Fatal(changes, err)
			}
			d, err := f.store.Show(t.Context(), id)
			if err != nil || d.Warning != tc.want || d.SentAgain() != tc.again {
				t.Errorf("warning %q (%t), want %q (%t), %v", d.Warning, d.SentAgain(), tc.want, tc.again, err)
			}
		})
	}
}

func TestChangeMissingAndArchived(t *testing.T) {
	f := newFixture(t)
	f.exec(t, `INSERT INTO send_request_archive (id, template, data, priority, status, attempts, created_at, due_at, finished_at,
		receipt_status) VALUES (900, 'order', '{}', 1, 'failed', 1, NOW(3), NOW(3), NOW(3), 'success')`)
	changes, err := f.store.Retry(t.Context(), []int64{900, 901}, RetryOptions{})
	if err != nil {
		t.Fatal(err)
	}
	want := []Change{{ID: 900, Status: "failed", Refused: refusedArchived}, {ID: 901, Refused: refusedMissing}}
	if diff := cmp.Diff(want, changes); diff != "" {
		t.Error(diff)
	}
	d, err := f.store.Show(t.Context(), 900)
	if err != nil || !d.Archived || d.ReceiptStatus != "success" {
		t.Errorf("%+v, %v; want the archived row", d, err)
	}
	if _, err := f.store.Show(t.Context(), 901); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v, want ErrNotFound", err)
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
	changes, err := f.store.Retry(t.Context(), ids, RetryOptions{})
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
		{"claimed alone", "pending", columns{"due_at": past, "lease": "-x"}, Change{Status: "cancelled"}},
		{"outcome open", "pending", columns{"due_at": future, "uncertain_at": past}, Change{Status: "unknown", Refused: refusedLate}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.want.ID = f.place(t, tc.state, tc.more)
			got, err := f.store.Cancel(t.Context(), []int64{tc.want.ID})
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

// TestChangesEndWaiting: an operator's change of a waiting row leaves nothing of what it waited for.
func TestChangesEndWaiting(t *testing.T) {
	f := newFixture(t)
	future := time.Now().UTC().Add(time.Hour)
	for name, change := range map[string]func(id int64) ([]Change, error){
		"retry": func(id int64) ([]Change, error) {
			return f.store.Retry(t.Context(), []int64{id}, RetryOptions{Now: true})
		},
		"cancel": func(id int64) ([]Change, error) {
			return f.store.Cancel(t.Context(), []int64{id})
		},
	} {
		t.Run(name, func(t *testing.T) {
			id, other := f.place(t, "waiting", columns{"due_at": future}), f.place(t, "waiting", columns{"due_at": future})
			const hint = `INSERT INTO send_wait (request_id, kind, appid, value) VALUES (?, 'unionid', ?, 'u1')`
			for _, id := range []int64{id, other} {
				if _, err := f.db.ExecContext(t.Context(), hint, id, appid); err != nil {
					t.Fatal(err)
				}
			}
			if changes, err := change(id); err != nil || changes[0].Refused != "" {
				t.Fatal(changes, err)
			}
			var left []int64
			const query = `SELECT request_id FROM send_wait WHERE request_id IN (?, ?)`
			err := f.db.SelectContext(t.Context(), &left, query, id, other)
			if err != nil || len(left) != 1 || left[0] != other {
				t.Errorf("%v wait for something, %v; want %d", left, err, other)
			}
		})
	}
}
