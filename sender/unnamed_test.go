package sender

import (
	"testing"

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
