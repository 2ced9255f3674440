package sender

import (
	"testing"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// TestRepeatedAheadOfTheQueue: a message whose answer was lost is repeated while its window lasts, and not behind a
// campaign that lasts longer.
func TestRepeatedAheadOfTheQueue(t *testing.T) {
	b := newBed(t)
	b.config.Accounts[0].Rate = 100
	first := b.insert(t, columns{"unionid": b.unionid(50)})
	b.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultReset, Path: wechat.EndpointSendTemplate, Next: 1})
	b.start(t, "one")
	until(t, "the first attempt", func() bool { return b.row(t, first).Attempts > 0 && b.row(t, first).reason() != "" })
	b.bulk(t, 1500, "order", 1) // due before the repetition, and 15 seconds' work
	r := b.await(t, first, statusSent)
	if left := b.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'pending'`); left < 300 || r.Attempts != 2 {
		t.Errorf("repeated after %d attempts with %d rows left before it", r.Attempts, left)
	}
}

// TestTakeoverRepeatsFirst: what a dead instance had claimed is repeated when it falls due, ahead of the queue.
func TestTakeoverRepeatsFirst(t *testing.T) {
	b := newBed(t)
	b.config.Accounts[0].Rate = 100
	b.bulk(t, 1000, "order", 1)
	lost := b.insert(t, columns{"unionid": b.unionid(50), "appid": appid})
	b.exec(t, `UPDATE send_request SET lease = 'of a dead one', attempts = 1, attempted_at = CURRENT_TIMESTAMP(3) - INTERVAL 58 SECOND,
		due_at = CURRENT_TIMESTAMP(3) + INTERVAL 2 SECOND WHERE id = ?`, lost)
	b.start(t, "two")
	b.await(t, lost, statusSent)
	if left := b.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'pending'`); left < 300 {
		t.Errorf("%d rows are left: the dead instance's row came last", left)
	}
}
