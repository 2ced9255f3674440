package sender

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/status"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/sender/channel/oatemplate"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// refuse makes the database refuse to call a request of a person sent, as a trigger or a CHECK of
// the operator's may; "%": of anybody.
func (f *fixture) refuse(t *testing.T, unionid, sqlstate string) (end func()) {
	t.Helper()
	return f.trigger(t, `NEW.status = 'sent' AND NEW.unionid LIKE '`+unionid+`'`,
		`SIGNAL SQLSTATE '`+sqlstate+`' SET MESSAGE_TEXT = 'not this one';`)
}

// trigger makes the database do something before it changes certain requests.
func (f *fixture) trigger(t *testing.T, condition, body string) (end func()) {
	t.Helper()
	dbtest.Trigger(t, f.db, `CREATE TRIGGER refusing BEFORE UPDATE ON send_request FOR EACH ROW
		BEGIN IF `+condition+` THEN `+body+` END IF; END`)
	return func() { f.exec(t, `DROP TRIGGER refusing`) }
}

// alarms returns the codes of the alarms about outcomes.
func (f *fixture) alarms(t *testing.T) (texts []string) {
	t.Helper()
	r, err := status.Read(t.Context(), f.db, status.Config{Now: time.Now()})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range r.Alarms {
		if a.Code == "unsettled" {
			texts = append(texts, a.Text)
		}
	}
	if len(r.Pauses) > 0 {
		t.Errorf("it is called a pause: %+v", r.Pauses)
	}
	return texts
}

// TestOneRefusedOutcome: an outcome that the database refuses stops no other. It is an alarm, its
// message is not sent again, and it is written when it can be.
func TestOneRefusedOutcome(t *testing.T) {
	f := newFixture(t)
	clock := &movedClock{}
	f.setClock(clock.now)
	api := f.counting()
	end := f.refuse(t, f.unionid(7), "45000")
	var ids []int64
	for i := range 20 {
		ids = append(ids, f.insert(t, columns{"unionid": f.unionid(i)}))
	}
	f.start(t, "one")
	for i, id := range ids {
		if i != 7 {
			f.await(t, id, queue.Sent)
		}
	}
	eventually(t, "the alarm", func() bool { return f.running.Unsettled() != nil && len(f.alarms(t)) == 1 })
	if text := f.alarms(t)[0]; !strings.Contains(text, "not this one") {
		t.Errorf("the alarm says %q", text)
	}
	// Due again, it is left alone, and others are sent.
	f.exec(t, `UPDATE send_request SET due_at = CURRENT_TIMESTAMP(3) WHERE id = ?`, ids[7])
	f.await(t, f.insert(t, columns{"unionid": f.unionid(1)}), queue.Sent)
	if r := f.row(t, ids[7]); r.Status != "pending" || r.Attempts != 1 {
		t.Errorf("the refused row is %+v", r)
	}
	end()
	clock.move(time.Minute)
	if r := f.await(t, ids[7], queue.Sent); r.Attempts != 1 || api.posts.Load() != 21 {
		t.Errorf("the row is %+v, %d POSTs", r, api.posts.Load())
	}
	eventually(t, "the alarm's end", func() bool { return f.running.Unsettled() == nil && len(f.alarms(t)) == 0 })
}

// TestAllOutcomesRefused: where the database refuses every outcome, the sending stops, and so does the
// daemon when it is told to.
func TestAllOutcomesRefused(t *testing.T) {
	f := newFixture(t)
	api := f.counting()
	end := f.refuse(t, "%", "45000")
	f.bulk(t, 4000, "order", 1)
	stop := f.start(t, "one")
	eventually(t, "the alarm", func() bool { return len(f.alarms(t)) == 1 })
	last := int64(-1)
	eventually(t, "the end of the sending", func() bool {
		time.Sleep(3 * time.Second)
		n := api.posts.Load()
		defer func() { last = n }()
		return n == last
	})
	if last > 3500 {
		t.Errorf("%d POSTs whose outcomes are lost", last)
	}
	begin := time.Now()
	stop()
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("the stop took %s", took)
	}
	end()
	f.exec(t, `UPDATE send_request SET due_at = CURRENT_TIMESTAMP(3)`)
	f.start(t, "two")
	eventually(t, "all rows", func() bool {
		return f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'sent'`) == 4000
	})
	if n := len(f.messagesTo(1)); n != 4000 {
		t.Errorf("%d messages of 4000 requests", n)
	}
}

// TestRefusedOutcomeIsLost: an instance that stops gives up on what the database refuses. The row is
// in doubt for the next one, which repeats it under the same client_msg_id, and no alarm stays.
func TestRefusedOutcomeIsLost(t *testing.T) {
	f := newFixture(t)
	end := f.refuse(t, f.unionid(7), "45000")
	id := f.insert(t, columns{"unionid": f.unionid(7)})
	stop := f.start(t, "one")
	eventually(t, "the alarm", func() bool { return len(f.alarms(t)) == 1 })
	stop()
	end()
	f.exec(t, `UPDATE send_request SET due_at = CURRENT_TIMESTAMP(3) WHERE id = ?`, id)
	f.start(t, "two")
	f.await(t, id, queue.Sent)
	if n := len(f.messagesTo(7)); n != 1 {
		t.Errorf("%d messages", n)
	}
	eventually(t, "the alarm's end", func() bool { return len(f.alarms(t)) == 0 })
}

// loseLease gives the account to another instance, and waits until this one knows.
func (f *fixture) loseLease(t *testing.T) {
	t.Helper()
	f.exec(t, `UPDATE lease SET holder = 'other', epoch = epoch + 1,
		expires_at = CURRENT_TIMESTAMP(3) + INTERVAL 1 HOUR WHERE name = ?`, queue.LeaseName(appid))
	eventually(t, "the loss of the lease", func() bool { return !f.running.accounts[0].owner.Load() })
}

// TestReadyWithoutTheAccount: an instance that lost its account has no outcomes to write any more, and
// is ready, however many the database had refused. Whether the next one can store them is in
// account_state until it knows.
func TestReadyWithoutTheAccount(t *testing.T) {
	for _, c := range []struct {
		name, whose string
		rows        int
	}{{"one outcome", "%", 1}, {"all of them", "%", 3000}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.refuse(t, c.whose, "45000")
			f.bulk(t, c.rows, "order", 1)
			f.start(t, "one")
			eventually(t, "the alarm", func() bool {
				full := c.rows == 1 || len(f.running.accounts[0].settler.Parked()) >= 100
				return f.running.Unsettled() != nil && len(f.alarms(t)) == 1 && full
			})
			f.loseLease(t)
			eventually(t, "the end of it here", func() bool { return f.running.Unsettled() == nil })
			if len(f.alarms(t)) != 1 {
				t.Error("the alarm has ended everywhere")
			}
		})
	}
}

// TestRefusedOutcomeDuringAPause: the row of an outcome that is known is left alone during a pause,
// too.
func TestRefusedOutcomeDuringAPause(t *testing.T) {
	f := newFixture(t)
	s := newStepper(t, f)
	id := f.insert(t, columns{"unionid": f.unionid(1), "appid": appid})
	won, err := s.svc.queue.Claim(t.Context(), queue.ClaimOrder{AppID: appid, Rows: []queue.Request{{ID: id}}})
	if err != nil || len(won.Ours) != 1 {
		t.Fatal(won, err)
	}
	end := f.trigger(t, `NEW.status = 'failed'`, `SIGNAL SQLSTATE '45000';`)
	results := make(chan queue.Result, 1)
	results <- won.Ours[0].End(queue.Failed, "bad", "text")
	var settling sync.WaitGroup
	settling.Go(func() { s.account.settler.Run(t.Context(), results, nil) })
	eventually(t, "the refusal", func() bool { return len(s.account.settler.Parked()) == 1 })
	end()
	f.exec(t, `UPDATE send_request SET due_at = CURRENT_TIMESTAMP(3) - INTERVAL 9 MINUTE,
		attempted_at = CURRENT_TIMESTAMP(3) - INTERVAL 10 MINUTE`)
	f.exec(t, `INSERT INTO account_state (appid, scope, reason, paused_until)
		VALUES (?, 'send', 'x', CURRENT_TIMESTAMP(3) + INTERVAL 1 HOUR)`, appid)
	if err := s.claims.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.maintain(t)
	if r := f.row(t, id); r.Status != "pending" {
		t.Errorf("the row is %+v", r)
	}
	close(results)
	settling.Wait()
}

// TestRefusedOutcomeAtAStop: what was refused is tried once more before it is given up.
func TestRefusedOutcomeAtAStop(t *testing.T) {
	f := newFixture(t)
	end := f.refuse(t, f.unionid(7), "45000")
	id := f.insert(t, columns{"unionid": f.unionid(7)})
	stop := f.start(t, "one")
	eventually(t, "the alarm", func() bool { return len(f.alarms(t)) == 1 })
	end()
	stop()
	if r := f.row(t, id); r.Status != "sent" || len(f.alarms(t)) != 0 {
		t.Errorf("the row is %+v, with %d alarms", r, len(f.alarms(t)))
	}
}

// TestUnsettledForAMinute: outcomes that cannot be written at all are an alarm after a minute,
// whatever the cause.
func TestUnsettledForAMinute(t *testing.T) {
	for _, c := range []struct {
		name, cause string
		stop        func(t *testing.T, f *fixture) (end func())
	}{
		{"the server fails", "not_there", func(t *testing.T, f *fixture) func() {
			return f.trigger(t, `NEW.status = 'sent'`, `INSERT INTO not_there VALUES (1);`)
		}},
		{"another transaction", "another program's transaction", func(t *testing.T, f *fixture) func() {
			f.channel.API = &holding{API: f.channel.API, hold: func() (release func()) {
				return f.hold(t, `UPDATE send_request SET cancel = 1`)
			}}
			return func() { f.channel.API.(*holding).release() }
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			clock := &movedClock{}
			f.setClock(clock.now)
			end := c.stop(t, f)
			id := f.insert(t, columns{"unionid": f.unionid(7)})
			f.start(t, "one")
			eventually(t, "the message", func() bool { return len(f.messagesTo(7)) == 1 })
			time.Sleep(3 * time.Second)
			if err := f.running.Unsettled(); err != nil {
				t.Error("an alarm at once: ", err)
			}
			clock.move(time.Minute)
			eventually(t, "the alarm", func() bool {
				alarms := f.alarms(t)
				return f.running.Unsettled() != nil && len(alarms) == 1 && strings.Contains(alarms[0], c.cause)
			})
			end()
			f.await(t, id, queue.Sent)
			eventually(t, "the alarm's end", func() bool { return f.running.Unsettled() == nil && len(f.alarms(t)) == 0 })
		})
	}
}

// holding takes locks while the first message is on its way.
type holding struct {
	oatemplate.API
	hold    func() (release func())
	release func()
}

func (h *holding) SendTemplate(ctx context.Context, m wechat.TemplateMessage) (int64, error) {
	if h.release == nil {
		h.release = h.hold()
	}
	return h.API.SendTemplate(ctx, m)
}
