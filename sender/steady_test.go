package sender

import (
	"context"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// TestUrgentStreamPastASlowQueue: one urgent row after the other is claimed at once while WeChat is
// slow, and each claims no more of the campaign.
func TestUrgentStreamPastASlowQueue(t *testing.T) {
	f := newFixture(t)
	f.bulk(t, 4000, "order", 2)
	f.start(t, "one")
	eventually(t, "the campaign", func() bool { return len(f.sim.Messages(appid)) > 500 })
	f.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultSlow, Delay: time.Second, Path: wechat.EndpointSendTemplate})
	held := 0
	for i := range 5 {
		urgent := f.insert(t, columns{"unionid": f.unionid(10 + i), "priority": 0})
		begin := time.Now()
		eventually(t, "the claim", func() bool { return f.row(t, urgent).Attempts > 0 })
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("urgent row %d was claimed after %s", i, took)
		}
		if n := f.count(t, `SELECT COUNT(*) FROM send_request WHERE lease IS NOT NULL`); i == 0 {
			held = n
		} else if n > held+2*i {
			t.Errorf("%d rows are held by claims after urgent row %d, it were %d", n, i, held)
		}
	}
}

// TestUrgentBesideOpenOutcomes: rows to be repeated do not stand before an urgent one.
func TestUrgentBesideOpenOutcomes(t *testing.T) {
	f := newFixture(t)
	f.config.Accounts[0].Rate, f.config.Accounts[0].MaxAttempts = 100, 20
	f.bulk(t, 1500, "order", 2)
	f.exec(t, `UPDATE send_request SET appid = ?, lease = 'of a dead one', attempts = 1, attempted_at = CURRENT_TIMESTAMP(3),
		due_at = CURRENT_TIMESTAMP(3) + INTERVAL 2 SECOND`, appid)
	f.start(t, "one")
	eventually(t, "the repetitions", func() bool { return len(f.sim.Messages(appid)) > 50 })
	urgent := f.insert(t, columns{"unionid": f.unionid(50), "priority": 0})
	begin := time.Now()
	f.await(t, urgent, queue.Sent)
	if took := time.Since(begin); took > 4*time.Second {
		t.Errorf("the urgent row was sent after %s", took)
	}
}

// TestOpenOutcomeKeepsItsPlace: a repetition that meets a pause is still repeated ahead of the
// queue.
func TestOpenOutcomeKeepsItsPlace(t *testing.T) {
	f := newFixture(t)
	s := newStepper(t, f)
	id := f.insert(t, columns{"appid": appid, "unionid": f.unionid(1), "attempts": 1, "uncertain_at": time.Now().UTC().Add(-20 * time.Second)})
	s.account.redelivery.add(id, time.Now().Add(-time.Minute))
	f.server.CloseClientConnections()
	_ = f.server.Listener.Close()
	s.attempt(t)
	if r := f.row(t, id); r.Status != "pending" || len(s.account.redelivery.rows) != 1 {
		t.Errorf("the row is %s (%s), the list has %d", r.Status, r.reason(), len(s.account.redelivery.rows))
	}
}

// TestHeldResults: the outcomes of rows that a producer holds do not stop the settling of others.
func TestHeldResults(t *testing.T) {
	f := newFixture(t)
	s := newStepper(t, f)
	f.bulk(t, 600, "order", 2)
	f.exec(t, `UPDATE send_request SET appid = ?, lease = 'x', attempts = 1, attempted_at = CURRENT_TIMESTAMP(3),
		due_at = CURRENT_TIMESTAMP(3) + INTERVAL 1 MINUTE`, appid)
	var rows []int64
	if err := f.db.SelectContext(t.Context(), &rows, `SELECT id FROM send_request ORDER BY id`); err != nil {
		t.Fatal(err)
	}
	release := f.hold(t, `UPDATE send_request SET cancel = 1 WHERE id <= ?`, rows[499])
	results := make(chan queue.Result, 1000)
	for _, id := range rows {
		results <- queue.Result{
			ID: id, Token: "x", Status: queue.Sent, MsgID: id, OpenID: "o", Channel: "oa_template",
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.account.settler.Run(context.Background(), results, nil)
	}()
	sent := func() int { return f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'sent'`) }
	eventually(t, "the free rows", func() bool { return sent() == 100 })
	release()
	eventually(t, "the others", func() bool { return sent() == 600 })
	close(results)
	<-done
}
