package sender

import (
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechat/push"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
	"github.com/unionbridge/unionbridge/sender/queue"
)

func (f *fixture) status(t *testing.T, id int64) (status, receipt string) {
	t.Helper()
	var row struct {
		Status  string  `db:"status"`
		Receipt *string `db:"receipt_status"`
	}
	if err := f.db.GetContext(t.Context(), &row, `SELECT status, receipt_status FROM v_send_status WHERE id = ?`, id); err != nil {
		t.Fatal(err)
	}
	if row.Receipt == nil {
		return row.Status, ""
	}
	return row.Status, *row.Receipt
}

// TestReceiptBeforeCommit: a receipt that comes before the sender has written the outcome is not
// lost, and a second one changes nothing.
func TestReceiptBeforeCommit(t *testing.T) {
	f := newFixture(t)
	s := newStepper(t, f)
	id := f.insert(t, columns{"unionid": f.unionid(1)})
	// The simulator tells which msgid comes next only by sending; so the row is taken back to
	// before its settle.
	s.attempt(t)
	r := f.row(t, id)
	f.exec(t, `UPDATE send_request SET status = 'pending', msgid = NULL, sent_openid = NULL WHERE id = ?`, id)
	for _, said := range []string{push.ReceiptSystemFailed, push.ReceiptSuccess} {
		err := s.receipt(t.Context(), appid, queue.Receipt{OpenID: *r.OpenID, MsgID: *r.MsgID, Status: said, At: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
	}
	if status, receipt := f.status(t, id); status != "pending" || receipt != "" {
		t.Errorf("before the commit the view says %s, %q", status, receipt)
	}
	f.exec(t, `UPDATE send_request SET status = 'sent', msgid = ?, sent_openid = ? WHERE id = ?`, *r.MsgID, *r.OpenID, id)
	if status, receipt := f.status(t, id); status != "sent" || receipt != push.ReceiptSystemFailed {
		t.Errorf("the view says %s, %q", status, receipt)
	}
}

// TestUserBlockFailsFast: after a receipt said "user block" requests to that person fail without a
// call, until the configured time is over; other people's go on.
func TestUserBlockFailsFast(t *testing.T) {
	f := newFixture(t)
	s := newStepper(t, f)
	block := bridge.Block{AppID: appid, OpenID: f.sim.OpenID(appid, 1), At: time.Now()}
	if err := f.identities.RecordBlock(t.Context(), block, time.Hour); err != nil {
		t.Fatal(err)
	}
	late := bridge.Block{AppID: appid, OpenID: f.sim.OpenID(appid, 3), At: time.Date(2037, 12, 31, 0, 0, 0, 0, time.UTC)}
	if err := f.identities.RecordBlock(t.Context(), late, 8760*time.Hour); err != nil {
		t.Error("a block until after the end of TIMESTAMP: ", err)
	}
	blocked := []int64{
		f.insert(t, columns{"unionid": f.unionid(1)}),
		f.insert(t, columns{"openid": f.sim.OpenID(appid, 1)}),
		f.insert(t, columns{"mini_openid": f.sim.OpenID(miniID, 1)}),
	}
	other := f.insert(t, columns{"unionid": f.unionid(2)})
	s.attempt(t)
	for _, id := range blocked {
		if r := f.row(t, id); r.Status != "failed" || r.reason() != "blocked_by_user" || r.Attempts != 0 {
			t.Errorf("row %d is %s (%s) after %d attempts", id, r.Status, r.reason(), r.Attempts)
		}
	}
	if r := f.row(t, other); r.Status != "sent" {
		t.Errorf("another person's row is %s", r.Status)
	}
	f.exec(t, `UPDATE follower SET blocked_until = CURRENT_TIMESTAMP(3) - INTERVAL 1 SECOND WHERE blocked_until IS NOT NULL`)
	again := f.insert(t, columns{"unionid": f.unionid(1)})
	s.attempt(t)
	if r := f.row(t, again); r.Status != "sent" {
		t.Errorf("after the time the row is %s (%s)", r.Status, r.reason())
	}
}

// TestUnknownByReceipt: a receipt that no request has the msgid of, to the same person and of the
// same time, tells the outcome of an attempt that nobody saw end; where there is more than one
// choice the row stays unknown.
func TestUnknownByReceipt(t *testing.T) {
	f := newFixture(t)
	f.config.Accounts[0].ResendWindow = 0 // an uncertain outcome is final at once
	s := newStepper(t, f)
	f.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultReset, After: true, Path: wechat.EndpointSendTemplate})
	one := f.insert(t, columns{"unionid": f.unionid(1)})
	twice := []int64{f.insert(t, columns{"unionid": f.unionid(2)}), f.insert(t, columns{"unionid": f.unionid(2)})}
	lost := f.insert(t, columns{"unionid": f.unionid(3)})
	s.attempt(t)
	f.sim.ClearFaults()
	for _, id := range append(twice, one, lost) {
		if r := f.row(t, id); r.Status != "unknown" || r.OpenID == nil {
			t.Fatalf("row %d is %s, sent to %v", id, r.Status, r.OpenID)
		}
	}
	for _, m := range f.sim.Messages(appid) {
		if m.Person == 3 {
			continue // its receipt never comes
		}
		receipt := queue.Receipt{OpenID: m.OpenID, MsgID: m.MsgID, Status: push.ReceiptSuccess, At: time.Now()}
		if err := s.receipt(t.Context(), appid, receipt); err != nil {
			t.Fatal(err)
		}
	}
	// A receipt of long before, of another program's message to the same person.
	foreign := queue.Receipt{OpenID: f.sim.OpenID(appid, 1), MsgID: 5, Status: push.ReceiptSuccess, At: time.Now().Add(-time.Hour)}
	if err := s.receipt(t.Context(), appid, foreign); err != nil {
		t.Fatal(err)
	}
	round := func() { s.maintain(t) }
	round()
	if r := f.row(t, one); r.Status != "unknown" {
		t.Errorf("the row is %s by a receipt that may still be of a message under way", r.Status)
	}
	f.exec(t, `UPDATE send_receipt SET arrived_at = arrived_at - INTERVAL 5 MINUTE`)
	round()
	r := f.row(t, one)
	if r.Status != "sent" || r.reason() != "resolved_by_receipt" || r.MsgID == nil || *r.MsgID != f.messagesTo(1)[0].MsgID {
		t.Errorf("the row is %s (%s), msgid %v", r.Status, r.reason(), r.MsgID)
	}
	for _, id := range append(twice, lost) {
		if r := f.row(t, id); r.Status != "unknown" {
			t.Errorf("row %d is %s", id, r.Status)
		}
	}
}

// TestCrashedThenReceipt: the instance died before it could write whom it sent to; the receipt
// still finds the row.
func TestCrashedThenReceipt(t *testing.T) {
	f := newFixture(t)
	s := newStepper(t, f)
	id := f.insert(t, columns{"mini_openid": f.sim.OpenID(miniID, 4)})
	s.attempt(t)
	msgid := *f.row(t, id).MsgID
	f.exec(t, `UPDATE send_request SET status = 'pending', msgid = NULL, sent_openid = NULL, finished_at = NULL, lease = 'of a dead one',
		attempted_at = CURRENT_TIMESTAMP(3) - INTERVAL 10 MINUTE, due_at = CURRENT_TIMESTAMP(3) WHERE id = ?`, id)
	s.attempt(t)
	if r := f.row(t, id); r.Status != "unknown" || len(f.sim.Messages(appid)) != 1 {
		t.Fatalf("the row is %s, %d messages", r.Status, len(f.sim.Messages(appid)))
	}
	receipt := queue.Receipt{OpenID: f.sim.OpenID(appid, 4), MsgID: msgid, Status: push.ReceiptUserBlock, At: time.Now().Add(-10 * time.Minute)}
	if err := s.receipt(t.Context(), appid, receipt); err != nil {
		t.Fatal(err)
	}
	f.exec(t, `UPDATE send_receipt SET arrived_at = arrived_at - INTERVAL 15 MINUTE`)
	s.maintain(t)
	if status, said := f.status(t, id); status != "sent" || said != push.ReceiptUserBlock {
		t.Errorf("the view says %s, %q", status, said)
	}
}

// TestReceiptOfAnotherTemplate: that two messages to one person differ in template or priority
// makes their receipts no less ambiguous.
func TestReceiptOfAnotherTemplate(t *testing.T) {
	f := newFixture(t)
	f.config.Accounts[0].ResendWindow = 0
	s := newStepper(t, f)
	fault := wechatsim.Fault{Kind: wechatsim.FaultReset, Path: wechat.EndpointSendTemplate}
	f.sim.SetFault(fault) // before it is processed: never delivered
	lost := f.insert(t, columns{"unionid": f.unionid(1)})
	s.attempt(t)
	f.sim.ClearFaults()
	fault.After = true
	f.sim.SetFault(fault)
	delivered := f.insert(t, columns{"unionid": f.unionid(1), "template": f.otherTemplate, "data": `{"thing1":"x"}`, "priority": 2})
	s.attempt(t)
	f.sim.ClearFaults()
	m := f.messagesTo(1)[0]
	err := s.receipt(t.Context(), appid, queue.Receipt{OpenID: m.OpenID, MsgID: m.MsgID, Status: push.ReceiptSuccess, At: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	f.exec(t, `UPDATE send_receipt SET arrived_at = arrived_at - INTERVAL 15 MINUTE`)
	s.maintain(t)
	for _, id := range []int64{lost, delivered} {
		if r := f.row(t, id); r.Status != "unknown" {
			t.Errorf("row %d is %s (%s)", id, r.Status, r.reason())
		}
	}
}

// TestOldBlockIsOver: a receipt of before the person's last follow does not block them, however late
// it comes.
func TestOldBlockIsOver(t *testing.T) {
	f := newFixture(t)
	s := newStepper(t, f)
	f.exec(t, `UPDATE follower SET subscribe_time = CURRENT_TIMESTAMP(3) - INTERVAL 1 MINUTE`)
	receipt := queue.Receipt{OpenID: f.sim.OpenID(appid, 1), MsgID: 9, Status: push.ReceiptUserBlock, At: time.Now().Add(-10 * time.Minute)}
	for range 2 {
		if err := s.receipt(t.Context(), appid, receipt); err != nil {
			t.Fatal(err)
		}
	}
	id := f.insert(t, columns{"unionid": f.unionid(1)})
	s.attempt(t)
	if r := f.row(t, id); r.Status != "sent" {
		t.Errorf("the row is %s (%s)", r.Status, r.reason())
	}
	if n := s.metric(t, "unionbridge_receipts_total", push.ReceiptUserBlock); n != 1 {
		t.Errorf("the metric counts %v receipts, one of them came twice", n)
	}
}
