package retention

import (
	"database/sql"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/sender/queue"
)

// TestFinalLanes: each lane once, in a few reads, wherever the last one stood.
func TestFinalLanes(t *testing.T) {
	f := newFixture(t)
	var want []finalLane
	for _, account := range []any{nil, "wxa", "wxb"} {
		f.exec(t, `INSERT INTO send_request (appid, unionid, template, priority, data, status, finished_at)
			SELECT ?, 'u', CONCAT('t', n % 3), n % 2, '{}', CASE WHEN n < 6 THEN 'expired' ELSE 'sent' END, NOW(3)
			  FROM `+numbers(4),
			account)
		name, _ := account.(string)
		for priority := range 2 {
			for template := range 3 {
				want = append(want, finalLane{queue.Sent, sql.NullString{String: name, Valid: account != nil}, priority, fmt.Sprint("t", template)})
			}
		}
	}
	f.exec(t, `ANALYZE TABLE send_request`)
	var got []finalLane
	for at := (*finalLane)(nil); ; got = append(got, *at) {
		var next *finalLane
		n := f.reads(t, func() {
			var err error
			if next, err = f.purger(false).nextFinalLane(t.Context(), queue.Sent, at); err != nil {
				t.Fatal(err)
			}
		})
		if n > 20 {
			t.Errorf("the step after %+v read %d rows or entries", at, n)
		}
		if at = next; at == nil {
			break
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
