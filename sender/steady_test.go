package sender

import (
	"context"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// TestUrgentStreamPastASlowQueue: one urgent row after the other is claimed at once while WeChat is slow, and each
// claims no more of the campaign.
func TestUrgentStreamPastASlowQueue(t *testing.T) {
	f := newFixture(t)
	f.bulk(t, 4000, "order", 2)
	f.start(t, "one")
	eventually(t, "the campaign", func() bool { return len(f.sim.Messages(appid)) > 500 })
	f.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultSlow, Delay: time.Second, Path: wechat.EndpointSendTemplate})
	held := 0
	for i := range 5 {
		urgent := f.insert(t, columns{"unionid": f.unionid(10 + i), "priority": 0})
		begin := time.Now()
		eventually(t, "the claim", func() bool { return f.row(t, urgent).Attempts > 0 })
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("urgent row %d was claimed after %s", i, took)
		}
		if n := f.count(t, `SELECT COUNT(*) FROM send_request WHERE lease IS NOT NULL`); i == 0 {
			held = n
		} else if n > held+2*i {
			t.Errorf("%d rows are held by claims after urgent row %d, it were %d", n, i, held)
		}
	}
}

// TestUrgentBesideOpenOutcomes: rows to be repeated do not stand before an urgent one.
func TestUrgentBesideOpenOutcomes(t *testing.T) {
	f := newFixture(t)
	f.config.Accounts[0].Rate, f.config.Accounts[0].MaxAttempts = 100, 20
	f.bulk(t, 1500, "order", 2)
	f.exec(t, `UPDATE send_request SET appid = ?, lease = 'of a dead one', attempts = 1, attempted_at = CURRENT_TIMESTAMP(3),
		due_at = CURRENT_TIMESTAMP(3) + INTERVAL 2 SECOND`, appid)
	f.start(t, "one")
	eventually(t, "the repetitions", func() bool { return len(f.sim.Messages(appid)) > 50 })
	urgent := f.insert(t, columns{"unionid": f.unionid(50), "priority": 0})
	begin := time.Now()
	f.await(t, urgent, statusSent)
	if took := time.Since(begin); took > 4*time.Second {
		t.Errorf("the urgent row was sent after %s", took)
	}
}

// TestOpenOutcomeKeepsItsPlace: a repetition that meets a pause is repeated ahead of the queue all the same.
func TestOpenOutcomeKeepsItsPlace(t *testing.T) {
	f := newFixture(t)
	s := newStepper(t, f)
	id := f.insert(t, columns{"appid": appid, "unionid": f.unionid(1), "attempts": 1, "uncertain_at": time.Now().UTC().Add(-20 * time.Second)})
	s.account.redeliveries.add(id, time.Now().Add(-time.Minute))
	f.server.CloseClientConnections()
	_ = f.server.Listener.Close()
	s.attempt(t)
	if r := f.row(t, id); r.Status != "pending" || len(s.account.redeliveries.rows) != 1 {
		t.Errorf("the row is %s (%s), the list has %d", r.Status, r.reason(), len(s.account.redeliveries.rows))
	}
}

// TestRepetitionsKeepToTheBudget: they may use the reserve of urgent rows, and not more than the account's own number.
func TestRepetitionsKeepToTheBudget(t *testing.T) {
	f := newFixture(t)
	s := newStepper(t, f)
	id := f.insert(t, columns{"appid": appid, "unionid": f.unionid(1), "attempts": 1, "uncertain_at": time.Now().UTC().Add(-20 * time.Second)})
	s.account.budget = budget{own: 5, used: 5, inFlight: 1, quota: noLimit, day: s.account.quotaDay(), asked: time.Now()}
	s.account.redeliveries.add(id, time.Now().Add(-time.Minute))
	s.attempt(t)
	if n := len(f.sim.Messages(appid)); n != 0 {
		t.Error("a repetition went out beyond the day's number")
	}
	s.account.budget = budget{own: 100, reserve: 100, quota: noLimit, day: s.account.quotaDay(), asked: time.Now()}
	s.attempt(t)
	if r := f.row(t, id); r.Status != "sent" {
		t.Errorf("the row is %s", r.Status)
	}
}

// quotaAPI answers the quota, and lets something happen meanwhile.
type quotaAPI struct {
	API
	meanwhile func()
}

func (q quotaAPI) Quota(context.Context, string) (wechat.Quota, error) {
	q.meanwhile()
	return wechat.Quota{}, nil
}

// TestBudgetCountsMeanwhile: messages that land while WeChat is asked for its quota count.
func TestBudgetCountsMeanwhile(t *testing.T) {
	f := newFixture(t)
	f.config.Accounts[0].DailyBudget = 100
	s := newStepper(t, f)
	s.account.cfg.API = quotaAPI{s.account.cfg.API, func() {}}
	if err := s.account.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 30 {
		s.account.budget.acquire()
	}
	s.account.budget.asked = time.Now().Add(-2 * budgetEvery)
	s.account.cfg.API = quotaAPI{s.account.cfg.API, func() {
		for range 30 {
			s.account.budget.done(true)
		}
	}}
	if err := s.account.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, left := s.account.budget.left(); left != 70 {
		t.Errorf("%d of 100 are left after 30 messages", left)
	}
}

// TestNoQuotaAtMidnight: what is refused just after the reset may be the day before's; it costs minutes and not a day.
func TestNoQuotaAtMidnight(t *testing.T) {
	f := newFixture(t)
	china := time.FixedZone("UTC+8", 8*3600)
	for now, want := range map[time.Time]time.Duration{
		time.Date(2026, 11, 22, 0, 0, 30, 0, china): 30 * time.Second,
		time.Date(2026, 11, 22, 0, 1, 30, 0, china): quotaRetry,
		time.Date(2026, 11, 22, 2, 0, 0, 0, china):  22*time.Hour + time.Minute,
	} {
		f.config.Now = func() time.Time { return now }
		a := newStepper(t, f).account
		a.beginPause(pauseDay, &wechat.Error{Reason: "quota_day", Code: 45009})
		if got := a.breaker.until.Sub(now); got != want {
			t.Errorf("at %s the account pauses for %s, want %s", now, got, want)
		}
		f.exec(t, `DELETE FROM lease`)
	}
}

// TestHeldResults: the outcomes of rows that a producer holds do not stop the settling of others.
func TestHeldResults(t *testing.T) {
	f := newFixture(t)
	s := newStepper(t, f)
	f.bulk(t, 600, "order", 2)
	f.exec(t, `UPDATE send_request SET appid = ?, lease = 'x', attempts = 1, attempted_at = CURRENT_TIMESTAMP(3),
		due_at = CURRENT_TIMESTAMP(3) + INTERVAL 1 MINUTE`, appid)
	var rows []int64
	if err := f.db.SelectContext(t.Context(), &rows, `SELECT id FROM send_request ORDER BY id`); err != nil {
		t.Fatal(err)
	}
	release := f.hold(t, `UPDATE send_request SET cancel = 1 WHERE id <= ?`, rows[499])
	results := make(chan result, 1000)
	for _, id := range rows {
		results <- result{id: id, token: "x", status: statusSent, msgid: id, openid: "o"}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		(&settler{account: s.account}).run(context.Background(), results)
	}()
	sent := func() int { return f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'sent'`) }
	eventually(t, "the free rows", func() bool { return sent() == 100 })
	release()
	eventually(t, "the others", func() bool { return sent() == 600 })
	close(results)
	<-done
}

// TestStateIsWrittenInTheEnd: a pause whose row could not be removed is not forgotten by the next one.
func TestStateIsWrittenInTheEnd(t *testing.T) {
	f := newFixture(t)
	s := newStepper(t, f)
	f.exec(t, `INSERT INTO account_state (appid, scope, reason, paused_until) VALUES (?, 'send', 'x', CURRENT_TIMESTAMP(3))`, appid)
	if err := s.account.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.exec(t, `RENAME TABLE account_state TO away`)
	s.account.reportSuccess()
	f.exec(t, `RENAME TABLE away TO account_state`)
	s.account.breaker.halfOpen, s.account.breaker.until = true, time.Now().Add(-time.Second) // a pause for want of a connection came and went
	s.account.reportSuccess()
	if err := s.account.reloadState(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := f.count(t, `SELECT COUNT(*) FROM account_state`); n != 0 {
		t.Errorf("account_state still has %d rows", n)
	}
}
