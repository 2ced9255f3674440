package sender

import (
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechat/push"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

func (b *bed) status(t *testing.T, id int64) (status, receipt string) {
	t.Helper()
	var row struct {
		Status  string  `db:"status"`
		Receipt *string `db:"receipt_status"`
	}
	if err := b.db.GetContext(t.Context(), &row, `SELECT status, receipt_status FROM v_send_status WHERE id = ?`, id); err != nil {
		t.Fatal(err)
	}
	if row.Receipt == nil {
		return row.Status, ""
	}
	return row.Status, *row.Receipt
}

// TestReceiptBeforeCommit: a receipt that comes before the sender has written the outcome is not lost, and a second
// one changes nothing.
func TestReceiptBeforeCommit(t *testing.T) {
	b := newBed(t)
	s := newStepper(t, b)
	id := b.insert(t, columns{"unionid": b.unionid(1)})
	// The simulator tells which msgid comes next only by sending; so the row is taken back to before its settle.
	s.attempt(t)
	r := b.row(t, id)
	b.exec(t, `UPDATE send_request SET status = 'pending', msgid = NULL, sent_openid = NULL WHERE id = ?`, id)
	for _, said := range []string{push.ReceiptSystemFailed, push.ReceiptSuccess} {
		err := s.w.svc.Receipt(t.Context(), appid, push.Receipt{OpenID: *r.OpenID, MsgID: *r.MsgID, Status: said, At: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
	}
	if status, receipt := b.status(t, id); status != "pending" || receipt != "" {
		t.Errorf("before the commit the view says %s, %q", status, receipt)
	}
	b.exec(t, `UPDATE send_request SET status = 'sent', msgid = ?, sent_openid = ? WHERE id = ?`, *r.MsgID, *r.OpenID, id)
	if status, receipt := b.status(t, id); status != "sent" || receipt != push.ReceiptSystemFailed {
		t.Errorf("the view says %s, %q", status, receipt)
	}
}

// TestUserBlockFailsFast: after a receipt said "user block" requests to that person fail without a call, until the
// configured time is over; other people's go on.
func TestUserBlockFailsFast(t *testing.T) {
	b := newBed(t)
	s := newStepper(t, b)
	err := s.w.svc.Receipt(t.Context(), appid, push.Receipt{
		OpenID: b.sim.OpenID(appid, 1), MsgID: 1 << 60, Status: push.ReceiptUserBlock, At: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	blocked := []int64{
		b.insert(t, columns{"unionid": b.unionid(1)}),
		b.insert(t, columns{"openid": b.sim.OpenID(appid, 1)}),
		b.insert(t, columns{"mini_openid": b.sim.OpenID(miniID, 1)}),
	}
	other := b.insert(t, columns{"unionid": b.unionid(2)})
	s.attempt(t)
	for _, id := range blocked {
		if r := b.row(t, id); r.Status != "failed" || r.reason() != reasonBlocked || r.Attempts != 0 {
			t.Errorf("row %d is %s (%s) after %d attempts", id, r.Status, r.reason(), r.Attempts)
		}
	}
	if r := b.row(t, other); r.Status != "sent" {
		t.Errorf("another person's row is %s", r.Status)
	}
	b.exec(t, `UPDATE follower SET blocked_until = CURRENT_TIMESTAMP(3) - INTERVAL 1 SECOND WHERE blocked_until IS NOT NULL`)
	again := b.insert(t, columns{"unionid": b.unionid(1)})
	s.attempt(t)
	if r := b.row(t, again); r.Status != "sent" {
		t.Errorf("after the time the row is %s (%s)", r.Status, r.reason())
	}
}

// TestUnknownByReceipt: a receipt that no request has the msgid of, to the same person and of the same time, tells
// the outcome of an attempt that nobody saw end; where there is more than one choice the row stays unknown.
func TestUnknownByReceipt(t *testing.T) {
	b := newBed(t)
	b.config.Accounts[0].ResendWindow = 0 // an uncertain outcome is final at once
	s := newStepper(t, b)
	b.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultReset, After: true, Path: wechat.EndpointSendTemplate})
	one := b.insert(t, columns{"unionid": b.unionid(1)})
	twice := []int64{b.insert(t, columns{"unionid": b.unionid(2)}), b.insert(t, columns{"unionid": b.unionid(2)})}
	lost := b.insert(t, columns{"unionid": b.unionid(3)})
	s.attempt(t)
	b.sim.ClearFaults()
	for _, id := range append(twice, one, lost) {
		if r := b.row(t, id); r.Status != "unknown" || r.OpenID == nil {
			t.Fatalf("row %d is %s, sent to %v", id, r.Status, r.OpenID)
		}
	}
	for _, m := range b.sim.Messages(appid) {
		if m.Person == 3 {
			continue // his receipt never comes
		}
		receipt := push.Receipt{OpenID: m.OpenID, MsgID: m.MsgID, Status: push.ReceiptSuccess, At: time.Now()}
		if err := s.w.svc.Receipt(t.Context(), appid, receipt); err != nil {
			t.Fatal(err)
		}
	}
	// A receipt of long before, of another program's message to the same person.
	foreign := push.Receipt{OpenID: b.sim.OpenID(appid, 1), MsgID: 5, Status: push.ReceiptSuccess, At: time.Now().Add(-time.Hour)}
	if err := s.w.svc.Receipt(t.Context(), appid, foreign); err != nil {
		t.Fatal(err)
	}
	round := func() {
		t.Helper()
		s.w.settled = time.Time{}
		s.w.owner.Store(true)
		if err := s.w.svc.round(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	round()
	if r := b.row(t, one); r.Status != "unknown" {
		t.Errorf("the row is %s by a receipt that may still be of a message under way", r.Status)
	}
	b.exec(t, `UPDATE send_receipt SET arrived_at = arrived_at - INTERVAL 5 MINUTE`)
	round()
	r := b.row(t, one)
	if r.Status != "sent" || r.reason() != reasonByReceipt || r.MsgID == nil || *r.MsgID != b.messagesTo(1)[0].MsgID {
		t.Errorf("the row is %s (%s), msgid %v", r.Status, r.reason(), r.MsgID)
	}
	for _, id := range append(twice, lost) {
		if r := b.row(t, id); r.Status != "unknown" {
			t.Errorf("row %d is %s", id, r.Status)
		}
	}
}

// TestCrashedThenReceipt: the instance died before it could write whom it sent to; the receipt finds the row all the
// same.
func TestCrashedThenReceipt(t *testing.T) {
	b := newBed(t)
	s := newStepper(t, b)
	id := b.insert(t, columns{"mini_openid": b.sim.OpenID(miniID, 4)})
	s.attempt(t)
	msgid := *b.row(t, id).MsgID
	b.exec(t, `UPDATE send_request SET status = 'pending', msgid = NULL, sent_openid = NULL, finished_at = NULL, lease = 'of a dead one',
		attempted_at = CURRENT_TIMESTAMP(3) - INTERVAL 10 MINUTE, due_at = CURRENT_TIMESTAMP(3) WHERE id = ?`, id)
	s.attempt(t)
	if r := b.row(t, id); r.Status != "unknown" || len(b.sim.Messages(appid)) != 1 {
		t.Fatalf("the row is %s, %d messages", r.Status, len(b.sim.Messages(appid)))
	}
	receipt := push.Receipt{OpenID: b.sim.OpenID(appid, 4), MsgID: msgid, Status: push.ReceiptUserBlock, At: time.Now().Add(-10 * time.Minute)}
	if err := s.w.svc.Receipt(t.Context(), appid, receipt); err != nil {
		t.Fatal(err)
	}
	b.exec(t, `UPDATE send_receipt SET arrived_at = arrived_at - INTERVAL 15 MINUTE`)
	s.w.owner.Store(true)
	if err := s.w.svc.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	if status, said := b.status(t, id); status != "sent" || said != push.ReceiptUserBlock {
		t.Errorf("the view says %s, %q", status, said)
	}
}

// TestReceiptOfAnotherTemplate: that two messages to one person differ in template or priority makes their receipts no
// less ambiguous.
func TestReceiptOfAnotherTemplate(t *testing.T) {
	b := newBed(t)
	b.config.Accounts[0].ResendWindow = 0
	s := newStepper(t, b)
	fault := wechatsim.Fault{Kind: wechatsim.FaultReset, Path: wechat.EndpointSendTemplate}
	b.sim.SetFault(fault) // before it is processed: never delivered
	lost := b.insert(t, columns{"unionid": b.unionid(1)})
	s.attempt(t)
	b.sim.ClearFaults()
	fault.After = true
	b.sim.SetFault(fault)
	delivered := b.insert(t, columns{"unionid": b.unionid(1), "template": b.otherTemplate, "data": `{"thing1":"x"}`, "priority": 2})
	s.attempt(t)
	b.sim.ClearFaults()
	m := b.messagesTo(1)[0]
	err := s.w.svc.Receipt(t.Context(), appid, push.Receipt{OpenID: m.OpenID, MsgID: m.MsgID, Status: push.ReceiptSuccess, At: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	b.exec(t, `UPDATE send_receipt SET arrived_at = arrived_at - INTERVAL 15 MINUTE`)
	s.w.owner.Store(true)
	if err := s.w.svc.round(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, id := range []int64{lost, delivered} {
		if r := b.row(t, id); r.Status != "unknown" {
			t.Errorf("row %d is %s (%s)", id, r.Status, r.reason())
		}
	}
}

// TestOldBlockIsOver: a receipt of before the person's last follow does not block him, however late it comes.
func TestOldBlockIsOver(t *testing.T) {
	b := newBed(t)
	s := newStepper(t, b)
	b.exec(t, `UPDATE follower SET subscribe_time = CURRENT_TIMESTAMP(3) - INTERVAL 1 MINUTE`)
	receipt := push.Receipt{OpenID: b.sim.OpenID(appid, 1), MsgID: 9, Status: push.ReceiptUserBlock, At: time.Now().Add(-10 * time.Minute)}
	for range 2 {
		if err := s.w.svc.Receipt(t.Context(), appid, receipt); err != nil {
			t.Fatal(err)
		}
	}
	id := b.insert(t, columns{"unionid": b.unionid(1)})
	s.attempt(t)
	if r := b.row(t, id); r.Status != "sent" {
		t.Errorf("the row is %s (%s)", r.Status, r.reason())
	}
	if n := s.metric(t, "unionbridge_receipts_total", push.ReceiptUserBlock); n != 1 {
		t.Errorf("the metric counts %v receipts, one of them came twice", n)
	}
}
