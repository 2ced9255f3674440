package sender

import (
	"context"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/bridge/grants"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// left is a row whose instance died after it had claimed it; of an attempt, too.
func (f *miniFixture) left(t *testing.T, user int, attempt bool, c columns) int64 {
	t.Helper()
	row := columns{"appid": miniID, "openid": f.openid(user), "lease": "-TOKEN",
		"attempts": 1, "attempted_at": time.Now().UTC().Add(-20 * time.Second)}
	for name, value := range c {
		row[name] = value
	}
	id := f.insert(t, row)
	if attempt {
		f.exec(t, `INSERT INTO send_attempt (request_id, appid, openid, template_id, lease)
			VALUES (?, ?, ?, ?, '-TOKEN')`, id, miniID, f.openid(user), f.templateID)
	}
	return id
}

func (f *miniFixture) openAttempts(t *testing.T) int {
	t.Helper()
	return f.count(t, `SELECT COUNT(*) FROM send_attempt`)
}

func (f *miniFixture) remaining(t *testing.T, user int) int {
	t.Helper()
	return f.count(t, `SELECT remaining FROM subscription_grant WHERE appid = ? AND openid = ?`,
		miniID, f.openid(user))
}

// TestAbandoned: of what a dead instance had claimed, only that is in doubt which it had begun to
// post. That is so at once, and not when the claim has run out.
func TestAbandoned(t *testing.T) {
	f := newMiniFixture(t, grants.Reports)
	f.config.Templates["twice"] = f.config.Templates["order"]
	f.config.Accounts[0].Repeat = map[string]bool{"twice": true}
	later := time.Now().UTC().Add(45 * time.Second)
	for user := range 8 {
		f.grant(t, user, 1)
	}
	claimed := f.left(t, 0, false, nil)
	posted := f.left(t, 1, true, nil)
	young := f.left(t, 2, true, columns{"due_at": later})
	repeated := f.left(t, 3, true, columns{"template": "twice"})
	expired := f.left(t, 4, true, columns{"expires_at": time.Now().UTC().Add(-time.Second)})
	expiredClaim := f.left(t, 5, false, columns{"expires_at": time.Now().UTC().Add(-time.Second)})
	withdrawn := f.left(t, 6, true, columns{"cancel": 1})
	withdrawnClaim := f.left(t, 7, false, columns{"cancel": 1})
	f.start(t, "a")
	for id, want := range map[int64]queue.Status{
		claimed: queue.Sent, posted: queue.Unknown, young: queue.Unknown, repeated: queue.Sent,
		expired: queue.Unknown, expiredClaim: queue.Expired, withdrawn: queue.Unknown,
		withdrawnClaim: queue.Cancelled,
	} {
		if r := f.await(t, id, want); want == queue.Unknown && r.reason() == "" {
			t.Errorf("request %d: %+v", id, r)
		}
	}
	for user := range 8 {
		want := 0
		if user == 0 || user == 3 {
			want = 1
		}
		if n := len(f.received(user)); n != want {
			t.Errorf("user %d got %d messages, want %d", user, n, want)
		}
	}
	// What is in doubt goes on holding what the person allows.
	if n := f.openAttempts(t); n != 4 {
		t.Errorf("%d attempts are open, want those of the unknown requests", n)
	}
	if n := f.count(t, `SELECT COUNT(*) FROM send_request WHERE id = ? AND uncertain_at IS NOT NULL`,
		posted); n != 1 {
		t.Error("the row does not say that it is in doubt")
	}
}

// TestLostAnswer: a message whose answer is lost is not repeated, and keeps what it may have used up.
func TestLostAnswer(t *testing.T) {
	f := newMiniFixture(t, grants.Reports)
	f.grant(t, 1, 2)
	f.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultReset, After: true,
		Path: wechat.EndpointSendSubscribe, Next: 1})
	lost := f.insert(t, columns{"openid": f.openid(1)})
	f.start(t, "a")
	f.await(t, lost, queue.Unknown)
	second := f.insert(t, columns{"openid": f.openid(1)})
	third := f.insert(t, columns{"openid": f.openid(1)})
	waiting, sent := f.await(t, third, queue.Waiting), f.await(t, second, queue.Sent)
	if waiting.reason() != "no_grant" || sent.Attempts != 1 {
		t.Errorf("%+v, %+v", waiting, sent)
	}
	if n := len(f.received(1)); n != 2 {
		t.Errorf("the person got %d messages, want 2", n)
	}
	if f.openAttempts(t) != 1 || f.remaining(t, 1) != 1 {
		t.Errorf("%d attempts, %d left; want 1 and 1", f.openAttempts(t), f.remaining(t, 1))
	}
}

// TestRepeat: where the configuration prefers two messages to none, one in doubt is repeated.
func TestRepeat(t *testing.T) {
	f := newMiniFixture(t, grants.Reports)
	f.config.Accounts[0].Repeat = map[string]bool{"order": true}
	f.grant(t, 1, 2)
	f.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultReset, After: true,
		Path: wechat.EndpointSendSubscribe, Next: 1})
	id := f.insert(t, columns{"openid": f.openid(1)})
	f.start(t, "a")
	f.await(t, id, queue.Sent)
	if n := len(f.received(1)); n != 2 {
		t.Errorf("the person got %d messages, want 2", n)
	}
	if f.openAttempts(t) != 0 {
		t.Error("an attempt is left of a message that was sent")
	}
}

// TestSpends: each message uses up what its person has accepted, and no more are posted than that.
func TestSpends(t *testing.T) {
	f := newMiniFixture(t, grants.Reports)
	var ids []int64
	for user := range 20 {
		f.grant(t, user, 2)
		for range 3 {
			ids = append(ids, f.insert(t, columns{"openid": f.openid(user)}))
		}
	}
	f.start(t, "a")
	eventually(t, "all requests are sent or wait", func() bool {
		return f.count(t, `SELECT COUNT(*) FROM send_request
			WHERE status = 'sent' OR status = 'waiting' AND reason = 'no_grant'`) == len(ids)
	})
	if n := f.sim.Calls()[wechat.EndpointSendSubscribe]; n != 40 {
		t.Errorf("%d calls for 40 messages", n)
	}
	for _, state := range f.sim.Grants(miniID) {
		if left := f.count(t, `SELECT remaining FROM subscription_grant WHERE appid = ? AND openid = ?`,
			miniID, state.OpenID); left != state.Left {
			t.Errorf("the ledger has %d, WeChat %d", left, state.Left)
		}
	}
	if f.openAttempts(t) != 0 {
		t.Errorf("%d attempts are open", f.openAttempts(t))
	}
	if n := f.count(t, `SELECT COUNT(*) FROM grant_event WHERE kind = 'sent'`); n != 40 {
		t.Errorf("%d uses in the ledger, want 40", n)
	}
}

// TestRefusedGrant: WeChat's word counts more than the ledger's.
func TestRefusedGrant(t *testing.T) {
	f := newMiniFixture(t, grants.Reports)
	f.grant(t, 1, 3)
	f.sim.SwitchOff(miniID, f.sim.MiniUser(miniID, 1), f.templateID) // an event that never came
	id := f.insert(t, columns{"openid": f.openid(1)})
	f.start(t, "a")
	r := f.await(t, id, queue.Waiting)
	if r.reason() != "no_grant" || *r.ErrCode != 43101 {
		t.Errorf("%+v", r)
	}
	if f.remaining(t, 1) != 0 || f.openAttempts(t) != 0 {
		t.Errorf("%d left, %d attempts", f.remaining(t, 1), f.openAttempts(t))
	}
	if n := f.count(t, `SELECT COUNT(*) FROM send_wait WHERE request_id = ? AND kind = 'grant'`, id); n != 1 {
		t.Error("nothing says what the request waits for")
	}
}

// TestHeldRow: a row that a producer's transaction holds stops no other, neither when its attempt is
// to be written down nor when its outcome is.
func TestHeldRow(t *testing.T) {
	f := newMiniFixture(t, grants.Reports)
	f.grant(t, 1, 1)
	f.grant(t, 2, 1)
	f.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultSlow, Delay: 300 * time.Millisecond,
		Path: wechat.EndpointSendSubscribe, Next: 1})
	held := f.insert(t, columns{"openid": f.openid(1)})
	f.start(t, "a")
	eventually(t, "the first is posted", func() bool { return f.openAttempts(t) == 1 })
	tx, err := f.db.BeginTxx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(t.Context(), `UPDATE send_request SET url = NULL, mini_path = 'x' WHERE id = ?`,
		held); err != nil {
		t.Fatal(err)
	}
	other := f.insert(t, columns{"openid": f.openid(2)})
	f.await(t, other, queue.Sent)
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	f.await(t, held, queue.Sent)
	if f.remaining(t, 1) != 0 || f.openAttempts(t) != 0 {
		t.Errorf("%d left, %d attempts", f.remaining(t, 1), f.openAttempts(t))
	}
}

// TestErasedWhilePosted: whoever is erased while a message to them is under way gets no second one,
// though its instance dies before the erasure has come to the request.
func TestErasedWhilePosted(t *testing.T) {
	f := newMiniFixture(t, grants.None)
	id := f.left(t, 1, true, nil)
	err := database.InTx(t.Context(), f.db, func(ctx context.Context, tx *sqlx.Tx) error {
		return grants.Forget(ctx, tx, miniID, f.openid(1))
	})
	if err != nil {
		t.Fatal(err)
	}
	f.sim.Grant(miniID, f.sim.MiniUser(miniID, 1), f.templateID, 2)
	f.start(t, "a")
	f.await(t, id, queue.Unknown)
	if n := len(f.received(1)); n != 0 {
		t.Errorf("%d messages were sent by an attempt that may have been the second", n)
	}
}
