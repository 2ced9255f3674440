package sender

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/channel/oatemplate"
	"github.com/unionbridge/unionbridge/sender/lanes"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// bulk inserts n rows of one template and priority, all due.
func (f *fixture) bulk(t *testing.T, n int, template string, priority int) {
	t.Helper()
	for ; n > 0; n -= 500 { // servers bound the recursion
		f.exec(t, `INSERT INTO send_request (unionid, template, data, priority)
			WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)
			SELECT ?, ?, ?, ? FROM n`, min(n, 500), f.unionid(1), template, f.data("A-1"), priority)
	}
}

// TestTemplatesShare: a campaign of one template does not stand in the way of another of the same
// priority.
func TestTemplatesShare(t *testing.T) {
	f := newFixture(t)
	f.config.Accounts[0].Rate = 200
	f.bulk(t, 900, "order", 2)
	late := f.insert(t, columns{"unionid": f.unionid(2), "template": f.otherTemplate, "data": `{"thing1":"x"}`, "priority": 2})
	f.start(t, "one")
	f.await(t, late, queue.Sent)
	if waiting := f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'pending' AND attempts = 0`); waiting < 500 {
		t.Errorf("%d rows of the campaign are still waiting: the other template's row came last", waiting)
	}
}

// TestUrgentOvertakes: an urgent row overtakes a campaign that is being sent, the part of it too
// that has been claimed, and does so at a rate of few messages a second.
func TestUrgentOvertakes(t *testing.T) {
	f := newFixture(t)
	f.config.Accounts[0].Rate, f.config.Accounts[0].Concurrency = 50, 64
	f.bulk(t, 1000, "order", 2)
	f.start(t, "one")
	eventually(t, "the campaign", func() bool { return len(f.sim.Messages(appid)) >= 20 })
	for i := range 5 {
		begin := time.Now()
		urgent := f.insert(t, columns{"unionid": f.unionid(50 + i), "priority": 0})
		eventually(t, "the urgent message", func() bool { return len(f.messagesTo(50+i)) == 1 })
		// Generous for a loaded machine; in the order of claims it would take twenty seconds.
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("urgent request %d took %s", urgent, took)
		}
	}
}

// TestLanesTakeTurns: more templates than a claim looks at all get their turn.
func TestLanesTakeTurns(t *testing.T) {
	f := newFixture(t)
	s := newStepper(t, f)
	const templates = 3*lanes.MaxLanes + 7
	for i := range templates {
		f.insert(t, columns{"unionid": f.unionid(1), "template": "nonsense-" + string(rune('a'+i%26)) + string(rune('a'+i/26))})
	}
	for range 5 {
		s.attempt(t)
	}
	if n := f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'failed' AND reason = ?`, channel.ReasonUnknownTemplate); n != templates {
		t.Errorf("%d of %d rows were looked at in five claims", n, templates)
	}
}

// TestBannedTemplateHeals: the messages of a banned template wait without burning attempts while
// others go on, one message finds out that the ban is over, and then all go.
func TestBannedTemplateHeals(t *testing.T) {
	f := newFixture(t)
	clock := &movedClock{}
	f.setClock(clock.now)
	s := newStepper(t, f)
	banned := make([]int64, 5)
	for i := range banned {
		banned[i] = f.insert(t, columns{"unionid": f.unionid(i)})
	}
	f.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultErrcode, Code: 43116, Path: wechat.EndpointSendTemplate})
	s.attempt(t)
	f.sim.ClearFaults()
	other := f.insert(t, columns{"unionid": f.unionid(9), "template": f.otherTemplate, "data": `{"thing1":"x"}`})
	s.attempt(t)
	if r := f.row(t, other); r.Status != "sent" {
		t.Errorf("the other template's row is %s", r.Status)
	}
	for _, id := range banned {
		if r := f.row(t, id); r.Status != "pending" || r.Attempts != 0 {
			t.Errorf("row %d of the banned template is %s after %d attempts", id, r.Status, r.Attempts)
		}
	}
	clock.move(6 * time.Minute)
	before := len(f.sim.Messages(appid))
	s.attempt(t)
	if n := len(f.sim.Messages(appid)) - before; n != 1 {
		t.Errorf("%d messages found out whether the ban is over, want 1", n)
	}
	s.attempt(t)
	for _, id := range banned {
		if r := f.row(t, id); r.Status != "sent" || r.Attempts != 1 {
			t.Errorf("row %d is %s after %d attempts, the ban is over", id, r.Status, r.Attempts)
		}
	}
	if n := f.count(t, `SELECT COUNT(*) FROM account_state`); n != 0 {
		t.Errorf("account_state still has %d rows", n)
	}
}

// TestOperatorResumes: deleting the row of account_state ends a pause that would last until
// tomorrow.
func TestOperatorResumes(t *testing.T) {
	f := newFixture(t)
	s := newStepper(t, f)
	id := f.insert(t, columns{"unionid": f.unionid(1)})
	f.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultErrcode, Code: 45009, Path: wechat.EndpointSendTemplate, Next: 1})
	s.attempt(t)
	if err := s.account.throttle.Reload(t.Context()); err != nil || s.claimableNow(t) != 0 {
		t.Fatalf("a paused account claims (%v)", err)
	}
	f.exec(t, `DELETE FROM account_state`)
	if err := s.account.throttle.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.attempt(t)
	if r := f.row(t, id); r.Status != "sent" {
		t.Errorf("the row is %s (%s)", r.Status, r.reason())
	}
}

// movedClock runs with the real one, some time ahead or behind.
type movedClock struct{ by atomic.Int64 }

func (c *movedClock) now() time.Time       { return time.Now().Add(time.Duration(c.by.Load())) }
func (c *movedClock) move(d time.Duration) { c.by.Add(int64(d)) }

// TestPausedAccountDelaysNoOther: while one account is paused, with many rows due, another one
// sends at once.
func TestPausedAccountDelaysNoOther(t *testing.T) {
	const otherAppID = "wx0a00000000000002"
	options := wechatsim.Standard(100, 100, 0)
	options.Accounts = append(options.Accounts, wechatsim.Account{AppID: otherAppID, Secret: wechatsim.StandardSecret, Followers: 100})
	f := newFixtureOf(t, options)
	other := f.config.Accounts[0]
	other.AppID, other.Default = otherAppID, false
	otherChannel := f.channel
	otherChannel.AppID = otherAppID
	otherChannel.API = wechat.New(wechat.Config{
		AppID: otherAppID, Secret: wechatsim.StandardSecret, BaseURL: f.server.URL,
		Timeout: 2 * time.Second, SendTimeout: 2 * time.Second, MaxConnections: 16,
	})
	other.Channels = []channel.Channel{oatemplate.New(otherChannel)}
	f.config.Accounts = append(f.config.Accounts, other)
	f.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultErrcode, Code: 48001, AppID: appid, Path: wechat.EndpointSendTemplate})
	f.bulk(t, 500, "order", 0)
	f.start(t, "one")
	eventually(t, "the pause", func() bool { return f.count(t, `SELECT COUNT(*) FROM account_state WHERE appid = ?`, appid) == 1 })
	for i := range 5 {
		begin := time.Now()
		id := f.insert(t, columns{"appid": otherAppID, "openid": f.sim.OpenID(otherAppID, i), "template": f.templateID, "priority": 2})
		f.await(t, id, queue.Sent)
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("the other account's row took %s", took)
		}
	}
	if n := f.count(t, `SELECT COUNT(*) FROM send_request WHERE appid = ? AND status = 'sent'`, appid); n != 0 {
		t.Errorf("%d rows of the paused account were sent", n)
	}
}

// TestInventedTemplates: where somebody invents a template for each row, the good ones are sent as
// if they were alone, and the others fail as what they are.
func TestInventedTemplates(t *testing.T) {
	f := newFixture(t)
	f.config.Accounts[0].Rate = 10_000
	const invented, good = 4000, 200
	for i := 0; i < invented; i += 500 { // servers bound the recursion
		f.exec(t, `INSERT INTO send_request (unionid, template, data)
			WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
			SELECT ?, CONCAT('invented ', n.i + ?), '{}' FROM n`, f.unionid(1), i)
	}
	f.bulk(t, good, "order", 1)
	f.start(t, "one")
	begin := time.Now()
	eventually(t, "the good ones", func() bool { return len(f.sim.Messages(appid)) == good })
	t.Logf("the good ones took %s", time.Since(begin))
	eventually(t, "the others", func() bool {
		return f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'failed' AND reason = ?
			AND attempts = 0 AND errmsg LIKE CONCAT('template "', template, '" is neither an alias%')`,
			channel.ReasonUnknownTemplate) == invented
	})
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("all of it took %s", took)
	}
}

// TestVariantOfPausedTemplate: the row that another spelling names does not speak for the rows of a
// paused template, on any server.
func TestVariantOfPausedTemplate(t *testing.T) {
	f := newFixture(t)
	f.exec(t, `INSERT INTO account_state (appid, scope, reason, paused_until)
		VALUES (?, ?, 'x', CURRENT_TIMESTAMP(3) + INTERVAL 1 HOUR)`, appid, "template:"+f.templateID)
	s := newStepper(t, f)
	if err := s.claims.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	variant := f.insert(t, columns{"unionid": f.unionid(1), "template": "ORDER"})
	var paused []int64
	for _, name := range []string{"order", "order ", "order"} {
		paused = append(paused, f.insert(t, columns{"unionid": f.unionid(1), "template": name}))
	}
	s.attempt(t)
	if r := f.row(t, variant); r.Status != "failed" || r.reason() != channel.ReasonUnknownTemplate {
		t.Errorf("the variant is %s (%s)", r.Status, r.reason())
	}
	for _, id := range paused {
		if r := f.row(t, id); r.Status != "pending" || r.Attempts != 0 {
			t.Errorf("row %d of the paused template is %s", id, r.Status)
		}
	}
	f.exec(t, `DELETE FROM account_state`)
	if err := s.account.throttle.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.attempt(t) // one finds out whether the pause is over
	s.attempt(t)
	for _, id := range paused {
		if r := f.row(t, id); r.Status != "sent" {
			t.Errorf("row %d is %s (%s) after the pause", id, r.Status, r.reason())
		}
	}
}
