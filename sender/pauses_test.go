package sender

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/requests"
)

// TestOperatorPausesSending: what is on its way is finished and settled, nothing else is posted, no
// attempt is counted of what was claimed, and after the resume each message goes once. The claim
// loop waits for a slow WeChat meanwhile.
func TestOperatorPausesSending(t *testing.T) {
	f := newFixture(t)
	const rows = 200
	for i := range rows {
		f.insert(t, columns{"unionid": f.unionid(i % 100), "priority": 1 + i%2})
	}
	f.sim.SetFault(wechatsim.Fault{
		Kind: wechatsim.FaultSlow, Path: wechat.EndpointSendTemplate, Delay: 300 * time.Millisecond,
	})
	posts := func() int64 { return f.sim.Calls()[wechat.EndpointSendTemplate] }
	f.start(t, "one")
	eventually(t, "the first messages", func() bool { return posts() > 8 })
	account := requests.Pausable{AppID: appid}
	if changed, err := f.requests().Pause(t.Context(), account, "wrong price"); !changed || err != nil {
		t.Fatal(changed, err)
	}
	eventually(t, "all that was claimed to be settled or given back", func() bool {
		return f.count(t, `SELECT COUNT(*) FROM send_request WHERE lease IS NOT NULL`) == 0
	})
	sent := f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'sent'`)
	if n, _ := f.sim.Delivered(appid); int(n) != sent || sent == rows {
		t.Errorf("%d of %d messages were delivered, %d rows are sent", n, rows, sent)
	}
	const untouched = `SELECT COUNT(*) FROM send_request
		WHERE status = 'pending' AND attempts = 0 AND reason IS NULL AND uncertain_at IS NULL`
	if n := f.count(t, untouched); n != rows-sent {
		t.Errorf("%d rows are as they were, want %d", n, rows-sent)
	}
	f.sim.ClearFaults()
	if ended, err := f.requests().Resume(t.Context(), account); len(ended) != 1 || err != nil {
		t.Fatal(ended, err)
	}
	eventually(t, "the others", func() bool {
		return f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'sent'`) == rows
	})
	if n, _ := f.sim.Delivered(appid); n != rows {
		t.Errorf("%d messages were delivered, want %d", n, rows)
	}
}

// TestOperatorPausesOneTemplate: the rows of a paused template stay, whatever names it, and those of
// others go.
func TestOperatorPausesOneTemplate(t *testing.T) {
	f := newFixture(t)
	what := requests.Pausable{AppID: appid, TemplateID: f.templateID}
	if _, err := f.requests().Pause(t.Context(), what, "x"); err != nil {
		t.Fatal(err)
	}
	byAlias := f.insert(t, columns{"unionid": f.unionid(1)})
	byID := f.insert(t, columns{"unionid": f.unionid(2), "template": f.templateID, "priority": 0})
	other := f.insert(t, columns{"unionid": f.unionid(3), "template": f.otherTemplate, "data": `{"thing1":"x"}`})
	f.start(t, "one")
	f.await(t, other, "sent")
	for _, id := range []int64{byAlias, byID} {
		if r := f.row(t, id); r.Status != "pending" || r.Attempts != 0 {
			t.Errorf("a row of the paused template is %+v", r)
		}
	}
	if _, err := f.requests().Resume(t.Context(), what); err != nil {
		t.Fatal(err)
	}
	f.await(t, byAlias, "sent")
	f.await(t, byID, "sent")
}

// TestTakeoverChecks: an instance that takes over an account with a wrong secret's pause ends it if
// its own secret is right, without a message; a check that hangs holds up no message.
func TestTakeoverChecks(t *testing.T) {
	f := newFixture(t)
	f.exec(t, `INSERT INTO account_state (appid, scope, reason, paused_until)
		VALUES (?, 'send', 'wrong_secret', CURRENT_TIMESTAMP(3) + INTERVAL 1 DAY)`, appid)
	var answer atomic.Pointer[channel.Outcome]
	answer.Store(&channel.Outcome{Confirms: channel.ScopeToken})
	account := &f.config.Accounts[0]
	account.Credentials = func(reason string) bool { return reason == "wrong_secret" }
	account.Check = func(ctx context.Context) channel.Outcome {
		if o := answer.Load(); o != nil {
			return *o
		}
		<-ctx.Done()
		return channel.Outcome{Confirms: channel.ScopeToken}
	}
	stop := f.start(t, "one")
	eventually(t, "the end of the pause", func() bool {
		return f.count(t, `SELECT COUNT(*) FROM account_state`) == 0
	})
	// So does any other call, while the instance sends.
	stop()
	f.exec(t, `INSERT INTO account_state (appid, scope, reason) VALUES (?, 'send', 'wrong_secret')`, appid)
	answer.Store(&channel.Outcome{})
	stop = f.start(t, "one more")
	eventually(t, "the account", func() bool { return f.running.accounts[0].throttle.Held() })
	f.running.TokenTaken("another")
	f.running.TokenTaken(appid)
	eventually(t, "the end of the second pause", func() bool {
		return f.count(t, `SELECT COUNT(*) FROM account_state`) == 0
	})
	stop()
	answer.Store(nil)
	id := f.insert(t, columns{"unionid": f.unionid(1)})
	stop = f.start(t, "two")
	f.await(t, id, "sent")
	stop()
	// What an instance finds that does not have the account any more is not written.
	f.exec(t, `INSERT INTO account_state (appid, scope, reason, paused_until)
		VALUES (?, 'send', 'wrong_secret', CURRENT_TIMESTAMP(3) + INTERVAL 1 DAY)`, appid)
	stop = f.start(t, "three")
	eventually(t, "the account", func() bool {
		return f.count(t, `SELECT COUNT(*) FROM lease WHERE holder = 'three'`) == 1
	})
	stop()
	if n := f.count(t, `SELECT COUNT(*) FROM account_state`); n != 1 {
		t.Error("a check that was interrupted ended the pause")
	}
}
