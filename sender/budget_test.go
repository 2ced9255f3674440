package sender

import (
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// TestDailyBudget: the account's own number of messages a day holds to the message, over a change
// of instance, with a part of it kept for urgent rows; the next day begins with a new budget.
func TestDailyBudget(t *testing.T) {
	f := newFixture(t)
	f.config.Accounts[0].DailyBudget, f.config.Accounts[0].UrgentReserve = 20, 0.25
	clock := &movedClock{}
	f.setClock(clock.now)
	s := newStepper(t, f)
	work := func(s *stepper) {
		for range 6 {
			s.prepared(t)
		}
	}
	for i := range 40 {
		f.insert(t, columns{"unionid": f.unionid(i), "priority": 1})
	}
	work(s)
	if n := len(f.sim.Messages(appid)); n != 15 {
		t.Fatalf("%d messages went out, want 15 of 20: the rest is for urgent rows", n)
	}
	if n := f.count(t, `SELECT COUNT(*) FROM account_state`); n != 0 {
		t.Errorf("the account counts as paused, though urgent rows may go")
	}
	for i := range 10 {
		f.insert(t, columns{"unionid": f.unionid(50 + i), "priority": 0})
	}
	s.restart(t) // the successor knows only what the database does
	work(s)
	if n := len(f.sim.Messages(appid)); n != 20 {
		t.Errorf("%d messages went out, the budget is 20", n)
	}
	if n := f.count(t, `SELECT COUNT(*) FROM account_state WHERE scope = 'send' AND reason = ?`, "daily_budget"); n != 1 {
		t.Errorf("account_state does not say that the budget is used up")
	}
	if n := f.count(t, `SELECT COUNT(*) FROM send_request WHERE attempts > 0 AND status <> 'sent'`); n != 0 {
		t.Errorf("%d rows burnt an attempt", n)
	}
	clock.move(wechat.QuotaReset(clock.now(), 0).Sub(clock.now()) + time.Minute)
	work(s)
	work(s)
	if n := len(f.sim.Messages(appid)); n <= 20 || n > 40 {
		t.Errorf("%d messages on the second day, want some of the second day's 20", n)
	}
}

// prepared is a turn of the claim loop.
func (s *stepper) prepared(t *testing.T) {
	t.Helper()
	if err := s.claims.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.attempt(t)
}

// TestReserveOfWeChatsQuota: without a number of its own the account goes by WeChat's.
func TestReserveOfWeChatsQuota(t *testing.T) {
	options := wechatsim.Standard(100, 100, 0)
	options.Accounts[0].DailyLimits = map[string]int64{wechat.EndpointSendTemplate: 40}
	f := newFixtureOf(t, options)
	f.config.Accounts[0].UrgentReserve = 0.5
	s := newStepper(t, f)
	for i := range 30 {
		f.insert(t, columns{"unionid": f.unionid(i)})
	}
	for range 4 {
		s.prepared(t)
	}
	if n := len(f.sim.Messages(appid)); n != 20 {
		t.Errorf("%d messages went out, want 20: half of WeChat's 40 is for urgent rows", n)
	}
	urgent := f.insert(t, columns{"unionid": f.unionid(50), "priority": 0})
	s.attempt(t)
	if r := f.row(t, urgent); r.Status != "sent" {
		t.Errorf("the urgent row is %s (%s)", r.Status, r.reason())
	}
}
