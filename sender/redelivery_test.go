package sender

import (
	"testing"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// TestRepeatedAheadOfTheQueue: a message whose answer was lost is repeated while its window lasts,
// and not behind a campaign that lasts longer.
func TestRepeatedAheadOfTheQueue(t *testing.T) {
	f := newFixture(t)
	f.config.Accounts[0].Rate = 100
	first := f.insert(t, columns{"unionid": f.unionid(50)})
	f.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultReset, Path: wechat.EndpointSendTemplate, Next: 1})
	f.start(t, "one")
	eventually(t, "the first attempt", func() bool { return f.row(t, first).Attempts > 0 && f.row(t, first).reason() != "" })
	f.bulk(t, 1500, "order", 1) // due before the repetition, and 15 seconds' work
	r := f.await(t, first, queue.Sent)
	if left := f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'pending'`); left < 300 || r.Attempts != 2 {
		t.Errorf("repeated after %d attempts with %d rows left before it", r.Attempts, left)
	}
}

// TestTakeoverRepeatsFirst: what a dead instance had claimed is repeated when it falls due, ahead
// of the queue.
func TestTakeoverRepeatsFirst(t *testing.T) {
	f := newFixture(t)
	f.config.Accounts[0].Rate = 100
	f.bulk(t, 1000, "order", 1)
	lost := f.insert(t, columns{"unionid": f.unionid(50), "appid": appid})
	f.exec(t, `UPDATE send_request SET lease = 'of a dead one', attempts = 1, attempted_at = CURRENT_TIMESTAMP(3) - INTERVAL 58 SECOND,
		due_at = CURRENT_TIMESTAMP(3) + INTERVAL 2 SECOND WHERE id = ?`, lost)
	f.start(t, "two")
	f.await(t, lost, queue.Sent)
	if left := f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'pending'`); left < 300 {
		t.Errorf("%d rows are left: the dead instance's row came last", left)
	}
}
