package sender

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
	"github.com/unionbridge/unionbridge/sender/channel/oatemplate"
)

// countingAPI counts the POSTs that are made, and notes when the last one began.
type countingAPI struct {
	oatemplate.API
	posts atomic.Int64
	last  atomic.Pointer[time.Time]
}

func (c *countingAPI) SendTemplate(ctx context.Context, m wechat.TemplateMessage) (int64, error) {
	now := time.Now()
	c.posts.Add(1)
	c.last.Store(&now)
	return c.API.SendTemplate(ctx, m)
}

func (f *fixture) counting() *countingAPI {
	api := &countingAPI{API: f.channel.API}
	f.channel.API = api
	return api
}

// hold locks rows as a producer's open transaction does.
func (f *fixture) hold(t *testing.T, query string, args ...any) (release func()) {
	t.Helper()
	tx, err := f.db.Beginx()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tx.Rollback() })
	if _, err := tx.Exec(query, args...); err != nil {
		t.Fatal(err)
	}
	return func() { _ = tx.Rollback() }
}

// TestHeldRowsWaitAlone: rows that a producer's transaction holds do not stop those behind them:
// not at the head of the queue, not at a rate at which a claim is one row, and not where they are
// withdrawn ones.
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
			f := newFixture(t)
			f.config.Accounts[0].Rate = c.rate
			withdrawn := 0
			if c.name == "withdrawn row" {
				withdrawn = 1
			}
			for range c.held {
				f.insert(t, columns{"unionid": f.unionid(0), "due_at": "2020-01-01", "cancel": withdrawn})
			}
			for i := range 5 {
				f.insert(t, columns{"unionid": f.unionid(i + 1)})
			}
			f.hold(t, c.hold, f.unionid(0))
			f.start(t, "one")
			eventually(t, "the free rows", func() bool {
				return f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'sent'`) == 5
			})
		})
	}
}

// TestHeldWaitingRow: a waiting row that somebody holds does not keep the others waiting.
func TestHeldWaitingRow(t *testing.T) {
	f := newFixture(t)
	s := newStepper(t, f)
	held := f.insert(t, columns{"unionid": f.unionid(0), "status": "waiting", "appid": appid, "due_at": "2037-01-01"})
	for i := range 4 {
		f.insert(t, columns{"unionid": f.unionid(i + 1), "status": "waiting", "appid": appid, "due_at": "2037-01-01"})
	}
	f.hold(t, `UPDATE send_request SET cancel = 1 WHERE id = ?`, held)
	begin := time.Now()
	s.maintain(t)
	if n := f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'pending'`); n != 4 || time.Since(begin) > 8*time.Second {
		t.Errorf("%d of 4 free rows were released, in %s", n, time.Since(begin))
	}
}

// TestOneProbe: one message finds out whether an account, or a template, works again, however
// slowly it is answered.
func TestOneProbe(t *testing.T) {
	for _, c := range []struct {
		name string
		code int
	}{{"account", 48001}, {"template", 43116}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			api := f.counting()
			scope := map[string]string{"account": "send", "template": "template:" + f.templateID}[c.name]
			f.exec(t, `INSERT INTO account_state (appid, scope, reason, paused_until) VALUES (?, ?, 'x', CURRENT_TIMESTAMP(3))`, appid, scope)
			f.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultErrcode, Code: c.code, Delay: 1500 * time.Millisecond, Path: wechat.EndpointSendTemplate})
			for i := range 50 {
				f.insert(t, columns{"unionid": f.unionid(i)})
			}
			f.start(t, "one")
			eventually(t, "the answer", func() bool {
				return f.count(t, `SELECT COUNT(*) FROM account_state WHERE paused_until > CURRENT_TIMESTAMP(3)`) == 1
			})
			if n := api.posts.Load(); n != 1 {
				t.Errorf("%d messages found out", n)
			}
		})
	}
}

// TestRefusalEndsThePause: an answer about the person proves that the account works.
func TestRefusalEndsThePause(t *testing.T) {
	f := newFixture(t)
	s := newStepper(t, f)
	f.exec(t, `INSERT INTO account_state (appid, scope, reason, paused_until) VALUES (?, 'send', 'x', CURRENT_TIMESTAMP(3))`, appid)
	if err := s.claims.refresh(t.Context()); err != nil || s.account.throttle.ClaimLimit(10) != 1 {
		t.Fatalf("the pause was not taken over: %v", err)
	}
	f.insert(t, columns{"unionid": f.unionid(1)})
	f.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultErrcode, Code: 43101, Path: wechat.EndpointSendTemplate})
	s.attempt(t)
	if s.account.throttle.ClaimLimit(10) != 10 || f.count(t, `SELECT COUNT(*) FROM account_state`) != 0 {
		t.Error("the account still counts as paused")
	}
}

// TestNothingAfterExpiry: a row whose expires_at passes between the claim and its turn is not sent.
func TestNothingAfterExpiry(t *testing.T) {
	f := newFixture(t)
	api := f.counting()
	f.config.Accounts[0].Concurrency = 1
	f.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultSlow, Delay: 300 * time.Millisecond, Path: wechat.EndpointSendTemplate})
	expires := time.Now().Add(2 * time.Second)
	for i := range 30 {
		f.insert(t, columns{"unionid": f.unionid(i), "expires_at": expires.UTC()})
	}
	f.start(t, "one")
	eventually(t, "the end of all rows", func() bool {
		return f.count(t, `SELECT COUNT(*) FROM send_request WHERE status IN ('sent', 'expired')`) == 30
	})
	if last := *api.last.Load(); last.After(expires.Add(100 * time.Millisecond)) {
		t.Errorf("a POST began %s after expires_at", last.Sub(expires))
	}
	if n := f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'expired' AND attempts > 0`); n != 0 {
		t.Errorf("%d expired rows count an attempt that was not made", n)
	}
}

// TestNothingRepeatedPastTheWindow: rows in doubt that were claimed within their window, and stand in
// the queue behind slow answers until it is over, are not repeated. With kill -9 in the middle of
// lost answers, one POST at a time and the greatest window, people were messaged twice.
func TestNothingRepeatedPastTheWindow(t *testing.T) {
	f := newFixture(t)
	api := f.counting()
	f.config.Accounts[0].Concurrency = 1
	f.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultSlow, Delay: 300 * time.Millisecond, Path: wechat.EndpointSendTemplate})
	over := time.Now().Add(2 * time.Second)
	for i := range 30 {
		f.insert(t, columns{"unionid": f.unionid(i), "appid": appid, "attempts": 1,
			"uncertain_at": over.Add(-f.config.Accounts[0].ResendWindow).UTC()})
	}
	f.start(t, "one")
	eventually(t, "the end of all rows", func() bool {
		return f.count(t, `SELECT COUNT(*) FROM send_request WHERE status IN ('sent', 'unknown')`) == 30
	})
	if last := *api.last.Load(); last.After(over.Add(100 * time.Millisecond)) {
		t.Errorf("a POST began %s after the window", last.Sub(over))
	}
	if n := f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'unknown' AND attempts > 1`); n != 0 {
		t.Errorf("%d rows count an attempt that was not made", n)
	}
}

// TestWindowEndsBetweenPosts: the second POST of an attempt, after a token died, has the same limit
// as the first.
func TestWindowEndsBetweenPosts(t *testing.T) {
	f := newFixture(t)
	clock := &movedClock{}
	f.setClock(clock.now)
	api := &deadToken{API: f.channel.API, then: func() { clock.move(10 * time.Second) }}
	f.channel.API = api
	s := newStepper(t, f)
	id := f.insert(t, columns{"unionid": f.unionid(1), "appid": appid, "attempts": 1,
		"uncertain_at": time.Now().Add(5*time.Second - 9*time.Minute).UTC()})
	s.attempt(t)
	if api.posts != 1 {
		t.Errorf("%d POSTs, the second after the window", api.posts)
	}
	if r := f.row(t, id); r.Status != "pending" || r.Attempts != 1 {
		t.Errorf("the row is %+v", r)
	}
}

// deadToken answers that the token is dead, and then does something.
type deadToken struct {
	oatemplate.API
	posts int
	then  func()
}

func (d *deadToken) SendTemplate(context.Context, wechat.TemplateMessage) (int64, error) {
	d.posts++
	d.then()
	return 0, &wechat.Error{Code: 40001, Message: "invalid credential", Policy: wechat.PolicyToken}
}

// TestUrgentPastASlowQueue: WeChat turns slow while a campaign is being sent; an urgent row does
// not wait for what has been claimed.
func TestUrgentPastASlowQueue(t *testing.T) {
	f := newFixture(t)
	f.bulk(t, 3000, "order", 2)
	f.start(t, "one")
	eventually(t, "the campaign", func() bool { return len(f.sim.Messages(appid)) > 500 })
	f.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultSlow, Delay: time.Second, Path: wechat.EndpointSendTemplate})
	urgent := f.insert(t, columns{"unionid": f.unionid(7), "priority": 0})
	begin := time.Now()
	eventually(t, "the claim", func() bool { return f.row(t, urgent).Attempts > 0 })
	// The campaign's queue alone would take a minute by now.
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("the urgent row was claimed after %s", took)
	}
}

// TestReserveEndsWithTheDay: rows that the reserve held back go on the next day.
func TestReserveEndsWithTheDay(t *testing.T) {
	options := wechatsim.Standard(100, 100, 0)
	clock := &movedClock{}
	options.Now = clock.now
	options.Accounts[0].DailyLimits = map[string]int64{wechat.EndpointSendTemplate: 40}
	f := newFixtureOf(t, options)
	f.setClock(clock.now)
	f.config.Accounts[0].UrgentReserve = 0.5
	for i := range 30 {
		f.insert(t, columns{"unionid": f.unionid(i)})
	}
	f.start(t, "one")
	eventually(t, "the first day", func() bool { return f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'sent'`) == 20 })
	clock.move(25 * time.Hour)
	eventually(t, "the second day", func() bool { return f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'sent'`) == 30 })
}

// TestUncertainInTheFuture: an attempt that lies ahead of the database's clock, which was set back,
// is of unknown age.
func TestUncertainInTheFuture(t *testing.T) {
	f := newFixture(t)
	s := newStepper(t, f)
	id := f.insert(t, columns{"appid": appid, "unionid": f.unionid(1), "uncertain_at": time.Now().UTC().Add(time.Hour), "attempts": 1})
	s.attempt(t)
	if r := f.row(t, id); r.Status != "unknown" || len(f.messagesTo(1)) != 0 {
		t.Errorf("the row is %s, %d messages", r.Status, len(f.messagesTo(1)))
	}
}

// TestBudgetAfterAnother: an instance that gets the account back on the same day knows what the
// other one sent.
func TestBudgetAfterAnother(t *testing.T) {
	f := newFixture(t)
	f.config.Accounts[0].DailyBudget = 20
	s := newStepper(t, f)
	for i := range 10 {
		f.insert(t, columns{"unionid": f.unionid(i)})
	}
	s.prepared(t)
	for i := range 30 {
		f.insert(t, columns{"unionid": f.unionid(i)})
	}
	f.exec(t, `INSERT INTO send_day (appid, day, sent) VALUES (?, ?, 5) ON DUPLICATE KEY UPDATE sent = sent + 5`, appid, wechat.QuotaDay(time.Now().Add(-time.Minute), 0).Format(time.DateOnly))
	s.claims.loaded = false // it lost the lease, and has it again
	for range 4 {
		s.prepared(t)
	}
	if n := len(f.sim.Messages(appid)); n != 15 {
		t.Errorf("%d messages, want 15 beside the other instance's 5", n)
	}
}

// TestHeldRecheckDelaysNoOutcome: a message is refused since its recipient has left, and somebody holds
// the row in which that is to be stored. The outcomes of the other messages do not wait for it.
func TestHeldRecheckDelaysNoOutcome(t *testing.T) {
	f := newFixture(t)
	openid := f.sim.OpenID(appid, 0)
	f.exec(t, `INSERT INTO follower_recheck (appid, openid, reason, due_at)
		VALUES (?, ?, 'followed', CURRENT_TIMESTAMP(3) + INTERVAL 1 DAY)`, appid, openid)
	f.sim.Unfollow(appid, 0)
	f.hold(t, `SELECT * FROM follower_recheck WHERE openid = ? FOR UPDATE`, openid)
	refused := f.insert(t, columns{"unionid": f.unionid(0), "due_at": "2020-01-01"})
	for i := range 500 {
		f.insert(t, columns{"unionid": f.unionid(1 + i%99)})
	}
	f.start(t, "one")
	begin := time.Now()
	eventually(t, "the other outcomes", func() bool {
		return f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'sent'`) == 500
	})
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("the outcomes of the others were written after %s", took)
	}
	eventually(t, "the slow retry", func() bool {
		r := f.row(t, refused)
		return r.Status == "pending" && r.reason() == "not_follower"
	})
}
