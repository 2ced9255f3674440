package requests

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestResolveMsgID: a msgid that cannot be the row's is refused, and a row of a known outcome for
// that alone.
func TestResolveMsgID(t *testing.T) {
	f := newFixture(t)
	q := f.store
	f.exec(t, `INSERT INTO send_receipt (appid, msgid, openid, status) VALUES (?, 99, 'o-other', 'success'), (?, 98, 'o-own', 'success'),
		('another-account', 97, 'o-other', 'success')`, appid, appid)
	taken := f.place(t, "sent", columns{"msgid": 4711})
	f.place(t, "sent", columns{"msgid": 4712, "appid": "another-account"})
	for _, tc := range []struct {
		name, state string
		more        columns
		msgid       int64
		want        Change
	}{
		{"another row's", "unknown", nil, 4711, Change{Status: "unknown", Refused: refusedMsgID}},
		{"another account's row's", "unknown", nil, 4712, Change{Status: "sent"}},
		{"another person's receipt", "unknown", columns{"sent_openid": "o-own"}, 99, Change{Status: "unknown", Refused: refusedReceipt}},
		{"another person's, by the row's own openid", "unknown", columns{"openid": "o-own"}, 99, Change{Status: "unknown", Refused: refusedReceipt}},
		{"another account's receipt", "unknown", columns{"sent_openid": "o-own"}, 97, Change{Status: "sent"}},
		{"the person's own receipt", "unknown", columns{"sent_openid": "o-own"}, 98, Change{Status: "sent"}},
		{"nobody's yet", "unknown", columns{"sent_openid": "o-own"}, 96, Change{Status: "sent"}},
		{"known, and another row's", "sent", columns{"msgid": 5}, 4711, Change{Status: "sent", Refused: refusedKnown}},
		{"known, and another person's", "failed", columns{"sent_openid": "o-own"}, 99, Change{Status: "failed", Refused: refusedKnown}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.want.ID = f.place(t, tc.state, tc.more)
			got, err := q.ResolveSent(t.Context(), tc.want.ID, tc.msgid)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Error(diff)
			}
			if row := f.row(t, tc.want.ID); row.Status != tc.want.Status {
				t.Errorf("the row is %s, want %s", row.Status, tc.want.Status)
			}
		})
	}
	unknown := f.place(t, "unknown", nil)
	if c, err := q.ResolveSent(t.Context(), unknown, -5); err == nil || f.row(t, unknown).Status != "unknown" {
		t.Errorf("a negative msgid: %+v", c)
	}
	if c, err := q.ResolveSent(t.Context(), 1_000_000, 4711); err != nil || c.Refused != refusedMissing {
		t.Errorf("a missing row: %+v, %v", c, err)
	}
	if row := f.row(t, taken); *row.MsgID != 4711 {
		t.Errorf("the other row: %+v", row)
	}
}

func TestResolve(t *testing.T) {
	f := newFixture(t)
	q := f.store
	past := time.Now().UTC().Add(-time.Hour)
	id := f.place(t, "unknown", columns{"uncertain_at": past, "reason": "timeout", "errcode": -1})
	other := f.place(t, "sent", columns{"msgid": 4711})
	if c, err := q.ResolveSent(t.Context(), id, 4711); err != nil || c.Refused != refusedMsgID {
		t.Errorf("another row's msgid: %+v, %v", c, err)
	}
	if c, err := q.ResolveSent(t.Context(), other, 0); err != nil || c.Refused != refusedKnown {
		t.Errorf("a sent row: %+v, %v", c, err)
	}
	if c, err := q.ResolveResend(t.Context(), other, RetryOptions{}); err != nil || c.Refused != refusedKnown {
		t.Errorf("a sent row again: %+v, %v", c, err)
	}
	if c, err := q.ResolveResend(t.Context(), 1_000_000, RetryOptions{}); err != nil || c.Refused != refusedMissing {
		t.Errorf("a missing row: %+v, %v", c, err)
	}
	if c, err := q.ResolveSent(t.Context(), id, 4712); err != nil || c != (Change{ID: id, Status: "sent"}) {
		t.Errorf("resolved: %+v, %v", c, err)
	}
	d, err := q.Show(t.Context(), id)
	if err != nil || d.Reason != reasonResolved || d.MsgID != 4712 || d.ErrCode != 0 || d.FinishedAt == nil ||
		!strings.Contains(d.ErrMsg, "(timeout)") {
		t.Errorf("the row: %+v, %v", d, err)
	}
	again := f.place(t, "unknown", columns{"uncertain_at": past})
	if c, err := q.ResolveResend(t.Context(), again, RetryOptions{}); err != nil || c != (Change{ID: again, Status: "pending"}) {
		t.Errorf("resent: %+v, %v", c, err)
	}
}
