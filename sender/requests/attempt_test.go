package requests

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jmoiron/sqlx"
)

// attempted is a row whose message was begun to be posted, and nothing more is known.
func (f *fixture) attempted(t *testing.T, state string, more columns) int64 {
	t.Helper()
	id := f.place(t, state, more)
	f.exec(t, `INSERT INTO send_attempt (request_id, appid, openid, template_id, lease)
		VALUES (?, 'wx1', 'o1', 'order', '-x')`, id)
	return id
}

// TestResolveSpends: what an operator says was sent has used up a grant, and what was not gives it
// back.
func TestResolveSpends(t *testing.T) {
	f := newFixture(t)
	var spent []Attempt
	f.store.Spend = func(_ context.Context, _ *sqlx.Tx, a Attempt) error {
		spent = append(spent, a)
		return nil
	}
	sent, resent := f.attempted(t, "unknown", nil), f.attempted(t, "unknown", nil)
	late := f.attempted(t, "pending", columns{"lease": "-x"})
	if c, err := f.store.ResolveSent(t.Context(), sent, 0); err != nil || c.Refused != "" {
		t.Fatalf("%+v, %v", c, err)
	}
	if c, err := f.store.ResolveResend(t.Context(), resent, RetryOptions{}); err != nil || c.Refused != "" {
		t.Fatalf("%+v, %v", c, err)
	}
	if c, err := f.store.Cancel(t.Context(), []int64{late}); err != nil || c[0].Refused != refusedLate {
		t.Fatalf("%+v, %v", c, err)
	}
	want := []Attempt{{RequestID: sent, AppID: "wx1", OpenID: "o1", TemplateID: "order"}}
	if len(spent) > 0 {
		want[0].BegunAt = spent[0].BegunAt
	}
	if diff := cmp.Diff(want, spent); diff != "" {
		t.Errorf("spent (-want +got):\n%s", diff)
	}
	if n := f.count(t, `SELECT COUNT(*) FROM send_attempt WHERE request_id <> ?`, late); n != 0 {
		t.Errorf("%d attempts are left whose outcome is known", n)
	}
	if n := f.count(t, `SELECT COUNT(*) FROM send_attempt WHERE request_id = ?`, late); n != 1 {
		t.Error("nothing is left of the attempt that is in doubt")
	}
	if n := f.count(t, `SELECT COUNT(*) FROM send_request WHERE id = ? AND channel = 'mini_subscribe'
		AND sent_openid = 'o1'`, sent); n != 1 {
		t.Error("the row does not say how it was sent, and to whom")
	}
}
