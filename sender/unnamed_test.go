package sender

import (
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/bridge/grants"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// TestUnnamedMessage: an event of a message that WeChat gave no msgid resolves no other row, also where
// no ledger says which messages were sent.
func TestUnnamedMessage(t *testing.T) {
	for _, source := range []grants.Source{grants.Events, grants.None} {
		options := wechatsim.Standard(100, 100, 0)
		options.Minis[0].NoMsgID = true
		f := newMiniFixtureOf(t, source, options)
		f.grant(t, 1, 3)
		f.grant(t, 2, 1)
		f.start(t, "a")
		f.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultReset, Path: wechat.EndpointSendSubscribe, Next: 1})
		lost := f.insert(t, columns{"openid": f.openid(1)})
		f.await(t, lost, queue.Unknown)
		sent := f.insert(t, columns{"openid": f.openid(1)})
		f.await(t, sent, queue.Sent)
		f.told(t, 1, "success", false)
		other := f.loses(t, 2)
		f.told(t, 2, "success", false)
		f.await(t, other, queue.Sent) // so maintenance has looked
		if r := f.row(t, lost); r.Status != string(queue.Unknown) {
			t.Errorf("%s: it was never delivered: %s (%s)", source, r.Status, r.reason())
		}
	}
}

// TestManyInDoubt: after a breakdown there are more attempts in doubt than one query reads. The receipts
// of all of them count.
func TestManyInDoubt(t *testing.T) {
	f := newMiniFixture(t, grants.Reports)
	f.exec(t, `INSERT INTO send_request (id, appid, openid, template, data, status, due_at, attempted_at)
		SELECT 1000 + n, ?, CONCAT('-', n), 'order', '{}', 'unknown', CURRENT_TIMESTAMP(3), CURRENT_TIMESTAMP(3)
		  FROM (SELECT a.n + 20 * b.n + 400 * c.n + 8000 * d.n AS n
		          FROM `+twenty+` a, `+twenty+` b, `+twenty+` c, (SELECT 0 AS n UNION SELECT 1) d) numbers
		 WHERE n < 11000`, miniID)
	f.exec(t, `INSERT INTO send_attempt (request_id, appid, openid, template_id, lease)
		SELECT id, appid, openid, ?, '-' FROM send_request`, f.templateID)
	f.grant(t, 1, 1)
	f.start(t, "a")
	lost := f.loses(t, 1)
	f.told(t, 1, "success", false)
	f.await(t, lost, queue.Sent)
	first := f.count(t, `SELECT MIN(id) FROM send_request WHERE openid = '-0'`)
	if err := f.running.Receipt(t.Context(), miniID, queue.Receipt{
		OpenID: "-0", TemplateID: f.templateID, Status: "success", At: time.Now()}); err != nil {
		t.Fatal(err)
	}
	notify(f.running.takenOver)
	f.await(t, int64(first), queue.Sent)
}

// twenty is a derived table of the numbers from 0 to 19.
const twenty = `(WITH RECURSIVE t (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM t WHERE n < 19) SELECT n FROM t)`
