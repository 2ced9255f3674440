package sender

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// countingAPI counts the POSTs that are made, and notes when the last one began.
type countingAPI struct {
	API
	posts atomic.Int64
	last  atomic.Pointer[time.Time]
}

func (c *countingAPI) SendTemplate(ctx context.Context, m wechat.TemplateMessage) (int64, error) {
	now := time.Now()
	c.posts.Add(1)
	c.last.Store(&now)
	return c.API.SendTemplate(ctx, m)
}

func (b *bed) counting() *countingAPI {
	api := &countingAPI{API: b.config.Accounts[0].API}
	b.config.Accounts[0].API = api
	return api
}

// hold locks rows as a producer's open transaction does.
func (b *bed) hold(t *testing.T, query string, args ...any) (release func()) {
	t.Helper()
	tx, err := b.db.Beginx()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback() })
	if _, err := tx.Exec(query, args...); err != nil {
		t.Fatal(err)
	}
	return func() { _ = tx.Rollback() }
}

// TestHeldRowsWaitAlone: rows that a producer's transaction holds do not stop those behind them: not at the head of
// the queue, not at a rate at which a claim is one row, and not where they are withdrawn ones.
func TestHeldRowsWaitAlone(t *testing.T) {
	for _, c := range []struct {
		name string
		rate float64
		held int
		hold string
	}{
		{"head of the queue", 5000, 150, `UPDATE send_request SET cancel = 1 WHERE unionid = ?`},
		{"one row, low rate", 5, 1, `UPDATE send_request SET cancel = 1 WHERE unionid = ?`},
		{"withdrawn row", 5000, 1, `UPDATE send_request SET cancel = 2 WHERE unionid = ?`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			b.config.Accounts[0].Rate = c.rate
			withdrawn := 0
			if c.name == "withdrawn row" {
				withdrawn = 1
			}
			for range c.held {
				b.insert(t, columns{"unionid": b.unionid(0), "due_at": "2020-01-01", "cancel": withdrawn})
			}
			for i := range 5 {
				b.insert(t, columns{"unionid": b.unionid(i + 1)})
			}
			b.hold(t, c.hold, b.unionid(0))
			b.start(t, "one")
			until(t, "the free rows", func() bool {
				return b.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'sent'`) == 5
			})
		})
	}
}

// TestHeldWaitingRow: a waiting row that somebody holds does not keep the others waiting.
func TestHeldWaitingRow(t *testing.T) {
	b := newBed(t)
	s := newStepper(t, b)
	held := b.insert(t, columns{"unionid": b.unionid(0), "status": "waiting", "appid": appid, "due_at": "2037-01-01"})
	for i := range 4 {
		b.insert(t, columns{"unionid": b.unionid(i + 1), "status": "waiting", "appid": appid, "due_at": "2037-01-01"})
	}
	b.hold(t, `UPDATE send_request SET cancel = 1 WHERE id = ?`, held)
	s.account.owner.Store(true)
	begin := time.Now()
	if err := s.account.svc.maintainOnce(t.Context()); err != nil {
		t.Error(err)
	}
	if n := b.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'pending'`); n != 4 || time.Since(begin) > 8*time.Second {
		t.Errorf("%d of 4 free rows were released, in %s", n, time.Since(begin))
	}
}

// TestHeldState: an operator's open transaction on account_state does not stop whoever asks for the state.
func TestHeldState(t *testing.T) {
	b := newBed(t)
	s := newStepper(t, b)
	b.exec(t, `INSERT INTO account_state (appid, scope, reason) VALUES (?, 'send', 'x')`, appid)
	release := b.hold(t, `DELETE FROM account_state`)
	written := make(chan struct{})
	go func() {
		defer close(written)
		s.account.beginPause(pauseConfig, &wechat.Error{Reason: "no_permission", Code: 48001})
	}()
	begin := time.Now()
	until(t, "the pause", func() bool { return s.account.breaker.active(time.Now()) })
	if took := time.Since(begin); took > time.Second {
		t.Errorf("the state could not be read for %s", took)
	}
	release()
	<-written
	until(t, "the row", func() bool {
		_ = s.account.reloadState(t.Context())
		return b.count(t, `SELECT COUNT(*) FROM account_state WHERE reason = 'no_permission'`) == 1
	})
}

// TestOneProbe: one message finds out whether an account, or a template, works again, however slowly it is answered.
func TestOneProbe(t *testing.T) {
	for _, c := range []struct {
		name string
		code int
	}{{"account", 48001}, {"template", 43116}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t)
			api := b.counting()
			scope := map[string]string{"account": scopeSend, "template": scopeTemplate + b.templateID}[c.name]
			b.exec(t, `INSERT INTO account_state (appid, scope, reason, paused_until) VALUES (?, ?, 'x', CURRENT_TIMESTAMP(3))`, appid, scope)
			b.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultErrcode, Code: c.code, Delay: 1500 * time.Millisecond, Path: wechat.EndpointSendTemplate})
			for i := range 50 {
				b.insert(t, columns{"unionid": b.unionid(i)})
			}
			b.start(t, "one")
			until(t, "the answer", func() bool {
				return b.count(t, `SELECT COUNT(*) FROM account_state WHERE paused_until > CURRENT_TIMESTAMP(3)`) == 1
			})
			if n := api.posts.Load(); n != 1 {
				t.Errorf("%d messages found out", n)
			}
		})
	}
}

// TestRefusalEndsThePause: an answer about the person proves that the account works.
func TestRefusalEndsThePause(t *testing.T) {
	b := newBed(t)
	s := newStepper(t, b)
	b.exec(t, `INSERT INTO account_state (appid, scope, reason, paused_until) VALUES (?, 'send', 'x', CURRENT_TIMESTAMP(3))`, appid)
	if err := s.account.refresh(t.Context()); err != nil || !s.account.breaker.isHalfOpen() {
		t.Fatalf("the pause was not taken over: %v", err)
	}
	b.insert(t, columns{"unionid": b.unionid(1)})
	b.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultErrcode, Code: 43101, Path: wechat.EndpointSendTemplate})
	s.attempt(t)
	if s.account.breaker.isHalfOpen() || b.count(t, `SELECT COUNT(*) FROM account_state`) != 0 {
		t.Error("the account still counts as paused")
	}
}

// TestNothingAfterExpiry: a row whose expires_at passes between the claim and its turn is not sent.
func TestNothingAfterExpiry(t *testing.T) {
	b := newBed(t)
	api := b.counting()
	b.config.Accounts[0].Concurrency = 1
	b.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultSlow, Delay: 300 * time.Millisecond, Path: wechat.EndpointSendTemplate})
	expires := time.Now().Add(2 * time.Second)
	for i := range 30 {
		b.insert(t, columns{"unionid": b.unionid(i), "expires_at": expires.UTC()})
	}
	b.start(t, "one")
	until(t, "the end of all rows", func() bool {
		return b.count(t, `SELECT COUNT(*) FROM send_request WHERE status IN ('sent', 'expired')`) == 30
	})
	if last := *api.last.Load(); last.After(expires.Add(100 * time.Millisecond)) {
		t.Errorf("a POST began %s after expires_at", last.Sub(expires))
	}
	if n := b.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'expired' AND attempts > 0`); n != 0 {
		t.Errorf("%d expired rows count an attempt that was not made", n)
	}
}

// TestUrgentPastASlowQueue: WeChat turns slow while a campaign is being sent; an urgent row does not wait for what
// has been claimed.
func TestUrgentPastASlowQueue(t *testing.T) {
	b := newBed(t)
	b.bulk(t, 3000, "order", 2)
	b.start(t, "one")
	until(t, "the campaign", func() bool { return len(b.sim.Messages(appid)) > 500 })
	b.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultSlow, Delay: time.Second, Path: wechat.EndpointSendTemplate})
	urgent := b.insert(t, columns{"unionid": b.unionid(7), "priority": 0})
	begin := time.Now()
	until(t, "the claim", func() bool { return b.row(t, urgent).Attempts > 0 })
	// The campaign's queue alone would take a minute by now.
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("the urgent row was claimed after %s", took)
	}
}

// TestReserveEndsWithTheDay: rows that the reserve held back go on the next day by themselves.
func TestReserveEndsWithTheDay(t *testing.T) {
	options := wechatsim.Standard(100, 100, 0)
	clock := &movedClock{}
	options.Now = clock.now
	options.Accounts[0].DailyLimits = map[string]int64{wechat.EndpointSendTemplate: 40}
	b := newBedOf(t, options)
	b.config.Now = clock.now
	b.config.Accounts[0].UrgentReserve = 0.5
	for i := range 30 {
		b.insert(t, columns{"unionid": b.unionid(i)})
	}
	b.start(t, "one")
	until(t, "the first day", func() bool { return b.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'sent'`) == 20 })
	clock.move(25 * time.Hour)
	until(t, "the second day", func() bool { return b.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'sent'`) == 30 })
}

// TestUncertainInTheFuture: an attempt that lies ahead of the database's clock, which was set back, is of unknown age.
func TestUncertainInTheFuture(t *testing.T) {
	b := newBed(t)
	s := newStepper(t, b)
	id := b.insert(t, columns{"appid": appid, "unionid": b.unionid(1), "uncertain_at": time.Now().UTC().Add(time.Hour), "attempts": 1})
	s.attempt(t)
	if r := b.row(t, id); r.Status != "unknown" || len(b.messagesTo(1)) != 0 {
		t.Errorf("the row is %s, %d messages", r.Status, len(b.messagesTo(1)))
	}
}

// TestBudgetAfterAnother: an instance that gets the account back on the same day knows what the other one sent.
func TestBudgetAfterAnother(t *testing.T) {
	b := newBed(t)
	b.config.Accounts[0].DailyBudget = 20
	s := newStepper(t, b)
	for i := range 10 {
		b.insert(t, columns{"unionid": b.unionid(i)})
	}
	s.prepared(t)
	for i := range 30 {
		b.insert(t, columns{"unionid": b.unionid(i)})
	}
	b.exec(t, `INSERT INTO send_day (appid, day, sent) VALUES (?, ?, 5) ON DUPLICATE KEY UPDATE sent = sent + 5`, appid, s.account.quotaDay().Format(dayFormat))
	s.account.loaded = false // it lost the lease, and has it again
	for range 4 {
		s.prepared(t)
	}
	if n := len(b.sim.Messages(appid)); n != 15 {
		t.Errorf("%d messages, want 15 beside the other instance's 5", n)
	}
}
