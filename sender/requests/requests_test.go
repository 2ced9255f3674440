package requests

import (
	"testing"

	"github.com/unionbridge/unionbridge/sender/queue"
)

// TestShowJoins: the receipt, the account's pause and who sends for it stand beside the row.
func TestShowJoins(t *testing.T) {
	f := newFixture(t)
	f.exec(t, `INSERT INTO account_state (appid, scope, reason) VALUES (?, 'send', 'ip_not_allowed')`, appid)
	f.exec(t, `INSERT INTO lease (name, holder, expires_at) VALUES (?, 'host-1', NOW(3) + INTERVAL 1 HOUR)`, queue.LeaseName(appid))
	f.exec(t, `INSERT INTO send_receipt (appid, msgid, openid, status) VALUES (?, 5, 'o', 'failed:user block')`, appid)
	d, err := f.store.Show(t.Context(), f.place(t, "sent", columns{"msgid": 5}))
	if err != nil || d.ReceiptStatus != "failed:user block" || d.SentBy != "host-1" || len(d.Pauses) != 1 {
		t.Errorf("%+v, %v", d, err)
	}
	unclaimed := f.insert(t, columns{"unionid": "u1"})
	if d, err = f.store.Show(t.Context(), unclaimed); err != nil || len(d.Pauses) != 1 || d.AppID != "" {
		t.Errorf("of the default account: %+v, %v", d, err)
	}
}
