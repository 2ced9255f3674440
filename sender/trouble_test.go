package sender

import (
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechatsim"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// TestForeignLocks: a producer's open transaction holds a row. The others are claimed and settled,
// and it follows when it is free.
func TestForeignLocks(t *testing.T) {
	f := newFixture(t)
	var ids []int64
	for i := range 30 {
		ids = append(ids, f.insert(t, columns{"unionid": f.unionid(i)}))
	}
	hold := func(id int64) (release func()) {
		t.Helper()
		tx := f.db.MustBegin()
		tx.MustExec(`UPDATE send_request SET cancel = 0 WHERE id = ?`, id)
		release = func() { _ = tx.Rollback() }
		t.Cleanup(release)
		return release
	}
	sent := func(n int) func() bool {
		return func() bool { return f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'sent'`) == n }
	}
	release := hold(ids[3])
	f.start(t, "one")
	eventually(t, "the other rows", sent(29))
	release()
	eventually(t, "the held row", sent(30))

	// And one whose message is on its way.
	f.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultSlow, Delay: 300 * time.Millisecond, Next: 1, Path: "/cgi-bin/message/template/send"})
	slow := f.insert(t, columns{"unionid": f.unionid(50)})
	eventually(t, "its claim", func() bool {
		return f.count(t, `SELECT COUNT(*) FROM send_request WHERE id = ? AND lease IS NOT NULL`, slow) == 1
	})
	release = hold(slow)
	for i := range 10 {
		f.insert(t, columns{"unionid": f.unionid(60 + i)})
	}
	eventually(t, "the rows after it", sent(40))
	release()
	eventually(t, "the held row", sent(41))
	if n := len(f.sim.Messages(appid)); n != 41 {
		t.Errorf("%d messages", n)
	}
}

// TestEmptyIDs: an empty id is not given, and blanks at its end say nothing, in each id column.
func TestEmptyIDs(t *testing.T) {
	f := newFixture(t)
	rows := []columns{
		{"unionid": f.unionid(1), "appid": "", "openid": "", "mini_openid": "", "mini_appid": ""},
		{"unionid": f.unionid(2) + " ", "appid": appid + "  ", "openid": " "},
		{"openid": f.sim.OpenID(appid, 3) + " ", "unionid": ""},
	}
	var ids []int64
	for _, row := range rows {
		ids = append(ids, f.insert(t, row))
	}
	f.start(t, "one")
	for _, id := range ids {
		f.await(t, id, queue.Sent)
	}
}

// TestOddCancel: a producer may write any number into cancel.
func TestOddCancel(t *testing.T) {
	f := newFixture(t)
	odd := f.insert(t, columns{"unionid": f.unionid(1), "cancel": 2})
	good := f.insert(t, columns{"unionid": f.unionid(2)})
	f.start(t, "one")
	f.await(t, odd, queue.Cancelled)
	f.await(t, good, queue.Sent)
}

// TestDeliveredIsNeverCalledFailed: a first attempt may have delivered the message; whatever the
// second one meets, the producer must not be told that it failed.
func TestDeliveredIsNeverCalledFailed(t *testing.T) {
	f := newFixture(t)
	const send = "/cgi-bin/message/template/send"
	refused := f.insert(t, columns{"unionid": f.unionid(1)})
	f.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultReset, After: true, Next: 1, Path: send})
	f.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultErrcode, Code: 43101, Next: 1, Path: send})
	f.start(t, "one")
	eventually(t, "the first attempt", func() bool {
		return f.count(t, `SELECT COUNT(*) FROM send_request WHERE uncertain_at IS NOT NULL AND lease IS NULL`) == 1
	})
	f.exec(t, `UPDATE send_request SET due_at = CURRENT_TIMESTAMP(3)`)
	if r := f.await(t, refused, queue.Unknown); r.reason() != "refused_by_user" {
		t.Errorf("the row says %+v", r)
	}
	bad := f.insert(t, columns{"unionid": f.unionid(2), "template": "gone", "uncertain_at": time.Now().UTC()})
	if r := f.await(t, bad, queue.Unknown); r.reason() != channel.ReasonUnknownTemplate {
		t.Errorf("the row says %+v", r)
	}
}

// TestTokenTroubleBurnsNoAttempt: no token can be had, and no message is to blame for it.
func TestTokenTroubleBurnsNoAttempt(t *testing.T) {
	f := newFixture(t)
	f.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultErrcode, Code: -1, Path: "/cgi-bin/stable_token"})
	id := f.insert(t, columns{"unionid": f.unionid(1)})
	f.start(t, "one")
	eventually(t, "the attempt", func() bool {
		return f.count(t, `SELECT COUNT(*) FROM send_request WHERE attempted_at IS NOT NULL AND lease IS NULL`) == 1
	})
	if r := f.row(t, id); r.Status != "pending" || r.Attempts != 0 {
		t.Errorf("the row says %+v", r)
	}
	f.sim.ClearFaults()
	f.await(t, id, queue.Sent)
}

// TestAfterAPause: rows that need no POST do not hold up the probe for the rows that do.
func TestAfterAPause(t *testing.T) {
	f := newFixture(t)
	for i := range 200 {
		f.insert(t, columns{"unionid": f.unionid(i % 100), "expires_at": "2020-01-01", "due_at": "2019-01-01"})
	}
	good := f.insert(t, columns{"unionid": f.unionid(1)})
	f.exec(t, `INSERT INTO account_state (appid, scope, reason, paused_until) VALUES (?, 'send', 'quota_minute', CURRENT_TIMESTAMP(3))`, appid)
	begin := time.Now()
	f.start(t, "one")
	f.await(t, good, queue.Sent)
	if took := time.Since(begin); took > 15*time.Second {
		t.Errorf("it took %s; a second for each expired row would be 200", took)
	}
}

// TestAccountOfAnotherInstance: a row for an account that this configuration does not have is left
// to the instance that has it.
func TestAccountOfAnotherInstance(t *testing.T) {
	f := newFixture(t)
	const other = "wx00000000000000fe"
	f.exec(t, `INSERT INTO lease (name, holder, expires_at) VALUES (?, 'x', CURRENT_TIMESTAMP(3) - INTERVAL 1 MINUTE)`, queue.LeaseName(other))
	theirs := f.insert(t, columns{"unionid": f.unionid(1), "appid": other})
	nobodys := f.insert(t, columns{"unionid": f.unionid(1), "appid": "wx00000000000000ff"})
	orphan := f.insert(t, columns{"unionid": f.unionid(1), "appid": "wx00000000000000ff", "lease": "dead",
		"attempted_at": "2020-01-01", "due_at": "2020-01-01"})
	f.start(t, "one")
	f.await(t, nobodys, queue.Failed)
	f.await(t, orphan, queue.Unknown)
	if r := f.row(t, theirs); r.Status != "pending" {
		t.Errorf("the row says %+v", r)
	}
}
