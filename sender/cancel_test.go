package sender

import (
	"encoding/json"
	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"
)

// TestCancelIsNeverBoth: a producer withdraws rows while they are being claimed, sent and settled.
// Each ends either cancelled and not delivered or sent and delivered, and what the view once called
// cancelled stays it.
func TestCancelIsNeverBoth(t *testing.T) {
	f := newFixture(t)
	f.config.Accounts[0].Rate = 400
	const rows = 400
	ids := make([]int64, rows)
	for i := range ids {
		ids[i] = f.insert(t, columns{"unionid": f.unionid(i % 100), "data": f.data("R" + strconv.Itoa(i))})
	}
	f.start(t, "one")
	calledCancelled := make([]bool, rows)
	var producers sync.WaitGroup
	for p := range 4 {
		producers.Go(func() {
			for i := p; i < rows; i += 8 { // every other row
				if _, err := f.db.Exec(`UPDATE send_request SET cancel = 1 WHERE id = ?`, ids[i]); err != nil {
					t.Error(err)
				}
				var said string
				if err := f.db.Get(&said, `SELECT status FROM v_send_status WHERE id = ?`, ids[i]); err != nil {
					t.Error(err)
				}
				calledCancelled[i] = said == "cancelled"
				time.Sleep(rand.N(5 * time.Millisecond)) // the pace of the producer, not a wait for anything
			}
		})
	}
	producers.Wait()
	eventually(t, "the end of all rows", func() bool {
		return f.count(t, `SELECT COUNT(*) FROM send_request WHERE status IN ('pending', 'waiting')`) == 0
	})
	delivered := map[string]int{}
	for _, m := range f.sim.Messages(appid) {
		delivered[orderOf(t, m.Data)]++
	}
	var cancelled, sent int
	for i, id := range ids {
		r := f.row(t, id)
		n := delivered["R"+strconv.Itoa(i)]
		switch {
		case r.Status == "sent" && n == 1 && !calledCancelled[i]:
			sent++
		case r.Status == "cancelled" && n == 0:
			cancelled++
		default:
			t.Errorf("row %d is %s (%s) with %d messages; the view called it cancelled: %t", id, r.Status, r.reason(), n, calledCancelled[i])
		}
	}
	if cancelled == 0 || sent < rows/2 {
		t.Errorf("%d sent, %d cancelled: nothing was raced", sent, cancelled)
	}
}

// orderOf reads the order's number out of a message that was filled by data.
func orderOf(t *testing.T, data json.RawMessage) string {
	t.Helper()
	var fields map[string]struct{ Value string }
	if err := json.Unmarshal(data, &fields); err != nil {
		t.Fatal(err)
	}
	return fields["character_string4"].Value
}
