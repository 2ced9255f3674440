package sender

import (
	"fmt"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/sender/queue"
)

// TestTimeRunsDuringAPause: who waits for the outcome of a row whose time is over, or that is
// withdrawn, need not wait for the end of a pause, of the account or of the template.
func TestTimeRunsDuringAPause(t *testing.T) {
	for _, scope := range []string{"send", "template"} {
		t.Run(scope, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			if scope == "template" {
				scope += ":" + f.templateID
			}
			f.exec(t, `INSERT INTO account_state (appid, scope, reason, paused_until)
				VALUES (?, ?, 'x', CURRENT_TIMESTAMP(3) + INTERVAL 1 HOUR)`, appid, scope)
			s := newStepper(t, f)
			if err := s.claims.refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			past, future := time.Now().UTC().Add(-time.Second), time.Now().UTC().Add(time.Hour)
			old := time.Now().UTC().Add(-10 * time.Minute)
			want := map[int64]queue.Status{
				f.insert(t, columns{"unionid": "u", "due_at": old, "expires_at": past}):                               queue.Expired,
				f.insert(t, columns{"unionid": "u", "due_at": old, "expires_at": past, "appid": appid}):               queue.Expired,
				f.insert(t, columns{"unionid": "u", "due_at": old, "cancel": 1}):                                      queue.Cancelled,
				f.insert(t, columns{"unionid": "u", "due_at": old, "uncertain_at": old, "appid": appid}):              queue.Unknown,
				f.insert(t, columns{"unionid": "u", "due_at": old, "uncertain_at": past, "expires_at": past}):         queue.Unknown,
				f.insert(t, columns{"unionid": "u", "due_at": old, "lease": "dead", "attempted_at": old}):             queue.Unknown,
				f.insert(t, columns{"unionid": "u", "due_at": old, "uncertain_at": past, "appid": appid}):             queue.Pending,
				f.insert(t, columns{"unionid": "u", "due_at": old, "expires_at": future}):                             queue.Pending,
				f.insert(t, columns{"unionid": "u", "due_at": future, "expires_at": past, "lease": "on its way"}):     queue.Pending,
				f.insert(t, columns{"unionid": "u", "due_at": old, "expires_at": past, "appid": "wx00000000000000f"}): queue.Failed,
			}
			s.maintain(t)
			for id, status := range want {
				if r := f.row(t, id); r.Status != string(status) {
					if status != queue.Failed || r.Status != "expired" { // nobody's account: whatever ends it
						t.Errorf("row %d is %s (%s), want %s", id, r.Status, r.reason(), status)
					}
				}
			}
			if n := f.count(t, `SELECT COUNT(*) FROM send_request WHERE finished_at IS NOT NULL AND lease IS NOT NULL`); n > 0 {
				t.Errorf("%d finished rows keep a lease", n)
			}
		})
	}
}

// TestLongPausedQueue: the walk goes on where the last round ended, and reaches every row.
func TestLongPausedQueue(t *testing.T) {
	f := newFixture(t)
	f.exec(t, `INSERT INTO account_state (appid, scope, reason, paused_until)
		VALUES (?, 'send', 'x', CURRENT_TIMESTAMP(3) + INTERVAL 1 HOUR)`, appid)
	s := newStepper(t, f)
	if err := s.claims.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	const rows = 2*queue.PageSize + 500
	f.bulk(t, rows, "order", 1)
	// All have one due_at; the last ones have expired.
	f.exec(t, `UPDATE send_request SET due_at = CURRENT_TIMESTAMP(3) - INTERVAL 1 MINUTE,
		expires_at = CASE WHEN id % 7 = 0 THEN CURRENT_TIMESTAMP(3) END`)
	expired := f.count(t, `SELECT COUNT(*) FROM send_request WHERE id % 7 = 0`)
	s.account.owner.Store(true)
	m := newMaintenance(s.svc)
	lanes, err := s.svc.queue.Watch(nil, queue.Pending).Look(t.Context())
	if err != nil || len(lanes) != 1 {
		t.Fatal(lanes, err)
	}
	over := func() bool { return false } // one page a round
	for range 3 {
		if err := m.held.walk(t.Context(), s.account, lanes[0], over); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'expired'`); n != expired || len(m.held.at) != 0 {
		t.Errorf("%d of %d rows have expired, %d walks go on", n, expired, len(m.held.at))
	}
}

// TestPausedLanesTakeTurns: where a round has no time for all templates, the next one goes on with
// those that it did not look at.
func TestPausedLanesTakeTurns(t *testing.T) {
	f := newFixture(t)
	f.exec(t, `INSERT INTO account_state (appid, scope, reason, paused_until)
		VALUES (?, 'send', 'x', CURRENT_TIMESTAMP(3) + INTERVAL 1 HOUR)`, appid)
	clock := &movedClock{}
	f.setClock(func() time.Time {
		clock.move(heldTime / 3) // so that a round has time for three of them
		return clock.now()
	})
	s := newStepper(t, f)
	if err := s.claims.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	const templates = 9
	for i := range templates {
		for range 2 {
			f.insert(t, columns{"unionid": f.unionid(1), "template": fmt.Sprint("paused-", i)})
		}
	}
	f.exec(t, `UPDATE send_request SET expires_at = CURRENT_TIMESTAMP(3) WHERE id % 2 = 0`)
	s.account.owner.Store(true)
	m := newMaintenance(s.svc)
	for range templates/3 + 1 {
		lanes, err := s.svc.queue.Watch(nil, queue.Pending).Look(t.Context()) // in any order
		if err == nil {
			err = m.endHeld(t.Context(), lanes)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if n := f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'expired'`); n != templates {
		t.Errorf("%d of %d rows have expired", n, templates)
	}
}
