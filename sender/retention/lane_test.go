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
	var want []queue.Lane
	for _, account := range []any{nil, "wxa", "wxb"} {
		f.exec(t, `INSERT INTO send_request (appid, unionid, template, priority, data, status, finished_at)
			SELECT ?, 'u', CONCAT('t', n % 3), n % 2, '{}', CASE WHEN n < 6 THEN 'expired' ELSE 'sent' END, NOW(3)
			  FROM `+numbers(4),
			account)
		name, _ := account.(string)
		for priority := range 2 {
			for template := range 3 {
				want = append(want, queue.Lane{Status: queue.Sent, AppID: sql.NullString{String: name, Valid: account != nil},
					Priority: priority, Template: fmt.Sprint("t", template), Due: true})
			}
		}
	}
	f.exec(t, `ANALYZE TABLE send_request`)
	var got []queue.Lane
	for at := (*queue.Lane)(nil); ; got = append(got, *at) {
		var next *queue.Lane
		n := f.reads(t, func() {
			var err error
			if next, err = queue.New(f.db).NextLane(t.Context(), queue.Sent, at); err != nil {
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
