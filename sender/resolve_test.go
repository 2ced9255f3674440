package sender

import (
	"context"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/bridge/grants"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// loses sends a message whose answer is lost.
func (f *miniFixture) loses(t *testing.T, user int) int64 {
	t.Helper()
	f.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultReset, After: true,
		Path: wechat.EndpointSendSubscribe, Next: 1})
	id := f.insert(t, columns{"openid": f.openid(user)})
	f.await(t, id, queue.Unknown)
	return id
}

// told pushes what became of the last message to a user.
func (f *miniFixture) told(t *testing.T, user int, status string, named bool) {
	t.Helper()
	got := f.received(user)
	last := got[len(got)-1]
	r := queue.Receipt{OpenID: last.OpenID, TemplateID: last.TemplateID, Status: status, At: time.Now()}
	if named {
		r.MsgID = last.MsgID
	}
	if err := f.running.Receipt(t.Context(), miniID, r); err != nil {
		t.Fatal(err)
	}
	notify(f.running.takenOver) // maintenance comes at once
}

// TestSentEvent: an event says what became of a message in doubt, and what it used up.
func TestSentEvent(t *testing.T) {
	f := newMiniFixture(t, grants.Reports)
	f.start(t, "a")
	for user, c := range []struct {
		status string
		named  bool
		want   queue.Status
		reason string
	}{
		{"success", true, queue.Sent, "resolved_by_receipt"},
		{"success", false, queue.Sent, "resolved_by_receipt"},
		{"failed:system error", true, queue.Failed, queue.NotDelivered},
		{"failed:system error", false, queue.Failed, queue.NotDelivered},
	} {
		f.grant(t, user, 2)
		id := f.loses(t, user)
		if n := f.remaining(t, user); n != 2 {
			t.Fatalf("%d left of what nobody knows to be used up", n)
		}
		f.told(t, user, c.status, c.named)
		r := f.await(t, id, c.want)
		if r.reason() != c.reason || *r.OpenID != f.openid(user) || r.MsgID == nil {
			t.Errorf("%s: %+v", c.status, r)
		}
		if f.remaining(t, user) != 1 || f.openAttempts(t) != 0 {
			t.Errorf("%s: %d left, %d attempts", c.status, f.remaining(t, user), f.openAttempts(t))
		}
	}
}

// TestSentEventOfAnother: an event of a message whose outcome is known resolves no other.
func TestSentEventOfAnother(t *testing.T) {
	f := newMiniFixture(t, grants.Reports)
	f.grant(t, 1, 3)
	f.start(t, "a")
	lost := f.loses(t, 1)
	second := f.insert(t, columns{"openid": f.openid(1)})
	f.await(t, second, queue.Sent)
	f.told(t, 1, "failed:system error", true)
	third := f.insert(t, columns{"openid": f.openid(1)})
	f.await(t, third, queue.Sent)
	f.told(t, 1, "success", true)
	f.grant(t, 2, 1)
	other := f.loses(t, 2)
	f.told(t, 2, "success", true)
	f.await(t, other, queue.Sent) // so maintenance has looked
	if r := f.row(t, lost); r.Status != string(queue.Unknown) {
		t.Errorf("%+v", r)
	}
}

// TestSentEventsInOrder: of several messages in doubt to one person, as many events come in order.
func TestSentEventsInOrder(t *testing.T) {
	f := newMiniFixture(t, grants.Reports)
	f.grant(t, 1, 2)
	f.start(t, "a")
	first, second := f.loses(t, 1), f.loses(t, 1)
	f.told(t, 1, "failed:system error", false)
	f.exec(t, `UPDATE send_receipt SET event_at = event_at + INTERVAL 1 SECOND`)
	eventually(t, "one event is of either", func() bool { return len(f.running.takenOver) == 0 })
	if err := f.running.Receipt(t.Context(), miniID, queue.Receipt{OpenID: f.openid(1),
		TemplateID: f.templateID, Status: "success", At: time.Now().Add(2 * time.Second)}); err != nil {
		t.Fatal(err)
	}
	notify(f.running.takenOver)
	f.await(t, first, queue.Failed)
	f.await(t, second, queue.Sent)
}

// TestSentEventOfALaterMessage: between the looks at the attempts and at the receipts a message may
// begin, arrive and be told of. Its receipt is not that of an older one in doubt.
func TestSentEventOfALaterMessage(t *testing.T) {
	f := newMiniFixture(t, grants.Reports)
	f.grant(t, 1, 2)
	f.start(t, "a")
	f.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultReset, Path: wechat.EndpointSendSubscribe, Next: 1})
	lost := f.insert(t, columns{"openid": f.openid(1)})
	f.await(t, lost, queue.Unknown)
	later := f.insert(t, columns{"openid": f.openid(1)})
	r := f.await(t, later, queue.Sent)
	q := queue.New(f.db)
	done, err := q.Resolve(t.Context(), queue.Resolution{
		OpenAttempt: queue.OpenAttempt{RequestID: lost, AppID: miniID, OpenID: f.openid(1)},
		Receipt:     queue.Receipt{MsgID: *r.MsgID, OpenID: f.openid(1)}, Sent: true,
	}, func(context.Context, *sqlx.Tx) error { return nil })
	if done || err != nil {
		t.Errorf("resolved %t by another row's receipt, %v", done, err)
	}
}
