package sender

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/bridge/grants"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechat/push"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/channel/minisubscribe"
	"github.com/unionbridge/unionbridge/sender/lanes"
	"github.com/unionbridge/unionbridge/sender/queue"
	"github.com/unionbridge/unionbridge/sender/requests"
	"github.com/unionbridge/unionbridge/sender/route"
)

// duo is an official account and a mini program that do not run: its tests let one after the other
// make an attempt. The alias "order" is of both, the official account first.
type duo struct {
	*miniFixture
	official, mini *stepper
}

func newDuo(t *testing.T, source grants.Source, change ...func(*miniFixture)) *duo {
	t.Helper()
	f := newMiniFixture(t, source)
	mini := f.config.Accounts[0]
	mini.Default, f.official.Default = false, true
	f.config.Accounts = []Account{f.official, mini}
	f.config.Templates["order"][appid] = wechatsim.StandardTemplates()[0].ID
	f.config.Routes = map[string][]route.Kind{"order": {route.Official, route.Mini}}
	for _, c := range change {
		c(f)
	}
	p := &duo{miniFixture: f, official: newStepper(t, f.fixture)}
	lease, err := p.official.leases.TryAcquire(t.Context(), queue.LeaseName(miniID))
	if err != nil || lease == nil {
		t.Fatal(lease, err)
	}
	second := *p.official
	second.lease, second.account = lease, second.svc.accounts[1]
	second.claims = &claimer{account: second.account, size: initialClaim,
		deferred: map[int64]time.Time{}, fair: lanes.Divider{Named: second.account.configured}}
	p.mini = &second
	p.running = second.svc
	return p
}

// miniFirst gives the alias the other order.
func miniFirst(f *miniFixture) {
	f.config.Routes["order"] = []route.Kind{route.Mini, route.Official}
}

// person is a user as the simulator counts.
func (p *duo) person(user int) int { return p.sim.MiniUser(miniID, user) }

// leaves is a user who does not follow the official account any more, as the map knows.
func (p *duo) leaves(t *testing.T, user int) {
	t.Helper()
	p.sim.Unfollow(appid, p.person(user))
	if err := p.identities.NoteUnfollow(t.Context(), appid, p.follower(user), time.Now()); err != nil {
		t.Fatal(err)
	}
}

// follows is a user who follows the official account again, of which the service is told.
func (p *duo) follows(t *testing.T, user int, at time.Time) {
	t.Helper()
	p.sim.Follow(appid, p.person(user))
	p.exec(t, `DELETE FROM follower_recheck WHERE openid = ?`, p.follower(user))
	info := wechat.UserInfo{OpenID: p.follower(user), UnionID: p.unionidOf(user), Subscribed: true,
		SubscribeTime: at.Unix()}
	err := p.official.watched().Store(t.Context(), appid, []wechat.UserInfo{info}, time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
}

// follower is a user's openid at the official account.
func (p *duo) follower(user int) string { return p.sim.OpenID(appid, p.person(user)) }

// refusesOfficial lets WeChat answer 43101 to template messages to a user.
func (p *duo) refusesOfficial(user int) {
	p.sim.SetPerson(appid, p.person(user), wechatsim.Person{Refuses: true})
}

// deceive makes the ledger believe that a user allows messages, which WeChat does not.
func (p *duo) deceive(t *testing.T, user int) {
	t.Helper()
	p.exec(t, `INSERT INTO grant_event (appid, openid, template_id, event_key, kind, source, happened_at)
		VALUES (?, ?, ?, UUID(), 'accept', 'event', CURRENT_TIMESTAMP(3) - INTERVAL 1 MINUTE)`,
		miniID, p.openid(user), p.templateID)
	p.exec(t, `INSERT INTO subscription_grant (appid, openid, template_id, remaining)
		VALUES (?, ?, ?, 1) ON DUPLICATE KEY UPDATE remaining = remaining + 1`,
		miniID, p.openid(user), p.templateID)
}

// way is what a row says of its way.
type way struct {
	AppID    string `db:"appid"`
	Status   string `db:"status"`
	Reason   string `db:"reason"`
	ErrCode  int    `db:"errcode"`
	Route    string `db:"route"`
	From     string `db:"fallback_from"`
	Why      string `db:"fallback_reason"`
	WhyCode  int    `db:"fallback_errcode"`
	Attempts int    `db:"attempts"`
}

func (p *duo) way(t *testing.T, id int64) (w way) {
	t.Helper()
	err := p.db.GetContext(t.Context(), &w, `
		SELECT COALESCE(appid, '') AS appid, status, COALESCE(reason, '') AS reason,
		       COALESCE(errcode, 0) AS errcode, COALESCE(route, '') AS route,
		       COALESCE(fallback_from, '') AS fallback_from,
		       COALESCE(fallback_reason, '') AS fallback_reason,
		       COALESCE(fallback_errcode, 0) AS fallback_errcode, attempts
		  FROM v_send_status WHERE id = ?`, id)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (p *duo) wantWay(t *testing.T, id int64, want way) {
	t.Helper()
	if want.Route == "" {
		want.Route = "official,mini"
	}
	if got := p.way(t, id); got != want {
		t.Errorf("request %d:\n got %+v\nwant %+v", id, got, want)
	}
}

// wantMessages compares how many messages a user got from each account.
func (p *duo) wantMessages(t *testing.T, user, official, mini int) {
	t.Helper()
	if got := len(p.messagesTo(p.person(user))); got != official {
		t.Errorf("user %d got %d messages from the official account, want %d", user, got, official)
	}
	if got := len(p.received(user)); got != mini {
		t.Errorf("user %d got %d messages from the mini program, want %d", user, got, mini)
	}
}

// hints is how many things a row waits for, of each kind.
func (p *duo) hints(t *testing.T, id int64) (kinds string) {
	t.Helper()
	err := p.db.GetContext(t.Context(), &kinds, `
		SELECT COALESCE(GROUP_CONCAT(CONCAT(kind, '@', appid) ORDER BY kind, appid), '')
		  FROM send_wait WHERE request_id = ?`, id)
	if err != nil {
		t.Fatal(err)
	}
	return kinds
}

const bothHints = "grant@" + miniID + ",unionid@" + appid + ",unionid@" + miniID

// TestRouteWrittenOut: the first claim writes the route out, of rows without an appid; an appid that
// the producer gives is the only channel, unless the row's own route names more.
func TestRouteWrittenOut(t *testing.T) {
	p := newDuo(t, grants.Events)
	for user, c := range map[int]struct {
		columns columns
		want    way
	}{
		1: {columns{}, way{Status: "sent", AppID: appid, Route: "official,mini", Attempts: 1}},
		2: {columns{"appid": ""}, way{Status: "sent", AppID: appid, Route: "official,mini", Attempts: 1}},
		3: {columns{"appid": appid}, way{Status: "sent", AppID: appid, Attempts: 1}},
		4: {columns{"appid": appid, "route": "mini,official"},
			way{Status: "sent", AppID: appid, Route: "mini,official", Attempts: 1}},
		5: {columns{"route": "official"}, way{Status: "sent", AppID: appid, Route: "official", Attempts: 1}},
		6: {columns{"route": "mini"}, way{Status: "pending", AppID: miniID, Route: "mini"}},
		7: {columns{"route": "sms"}, way{Status: "failed", Reason: "bad_option", AppID: appid, Route: "sms"}},
		8: {columns{"template": wechatsim.StandardTemplates()[0].ID},
			way{Status: "sent", AppID: appid, Attempts: 1}},
	} {
		c.columns["unionid"] = p.unionidOf(user)
		id := p.insert(t, c.columns)
		p.official.attempt(t)
		if got := p.way(t, id); got != c.want {
			t.Errorf("%v:\n got %+v\nwant %+v", c.columns, got, c.want)
		}
	}
}

// TestMiniFirst: rows without appid of an alias whose route begins with the mini program are claimed
// by that one.
func TestMiniFirst(t *testing.T) {
	p := newDuo(t, grants.Events, miniFirst)
	p.grant(t, 1, 1)
	id := p.insert(t, columns{"unionid": p.unionidOf(1)})
	p.official.attempt(t)
	p.wantMessages(t, 1, 0, 0)
	p.mini.attempt(t)
	p.wantMessages(t, 1, 0, 1)
	p.wantWay(t, id, way{Status: "sent", AppID: miniID, Route: "mini,official", Attempts: 1})
}

// TestMove: where the first account cannot reach the person for certain and the second can, the
// row goes there, with the first one's reason, and is sent once.
func TestMove(t *testing.T) {
	for name, c := range map[string]struct {
		happens func(p *duo)
		reason  string
		code    int
	}{
		"does not follow": {func(p *duo) { p.leaves(t, 1) }, "not_following", 0},
		"refused, they left": {
			func(p *duo) { p.sim.Unfollow(appid, p.person(1)) }, "not_follower", 43004},
		"refused, switched off": {func(p *duo) { p.refusesOfficial(1) }, "refused_by_user", 43101},
		"blocked": {func(p *duo) {
			block := bridge.Block{AppID: appid, OpenID: p.follower(1), At: time.Now()}
			if err := p.identities.RecordBlock(t.Context(), block, time.Hour); err != nil {
				t.Fatal(err)
			}
		}, "blocked_by_user", 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := newDuo(t, grants.Events)
			c.happens(p)
			p.grant(t, 1, 1)
			id := p.insert(t, columns{"unionid": p.unionidOf(1)})
			p.official.attempt(t)
			moved := way{Status: "pending", AppID: miniID, From: appid, Why: c.reason, WhyCode: c.code}
			p.wantWay(t, id, moved)
			if n := p.official.metric(t, "unionbridge_send_moves_total", appid, miniID, c.reason); n != 1 {
				t.Errorf("%v moves are counted", n)
			}
			p.official.attempt(t) // it is not this one's any more
			p.wantWay(t, id, moved)
			p.mini.attempt(t)
			moved.Status, moved.Attempts = "sent", 1
			p.wantWay(t, id, moved)
			p.wantMessages(t, 1, 0, 1)
		})
	}
}

// TestMoveFromMini: 43101 on a subscribe message moves a row to the official account, whether the
// grants are counted or not; so does a person who is no user, or has accepted nothing.
func TestMoveFromMini(t *testing.T) {
	for name, c := range map[string]struct {
		source  grants.Source
		happens func(p *duo)
		reason  string
		code    int
	}{
		"43101":                         {grants.Events, func(p *duo) { p.deceive(t, 1) }, "no_grant", 43101},
		"43101, and nothing is counted": {grants.None, func(*duo) {}, "no_grant", 43101},
		"nothing accepted":              {grants.Events, func(*duo) {}, "no_grant", 0},
		"no user": {grants.Events, func(p *duo) {
			p.exec(t, `DELETE FROM mini_user WHERE openid = ?`, p.openid(1))
		}, "unknown_user", 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := newDuo(t, c.source, miniFirst)
			c.happens(p)
			id := p.insert(t, columns{"unionid": p.unionidOf(1)})
			p.mini.attempt(t)
			moved := way{Status: "pending", AppID: appid, Route: "mini,official", From: miniID,
				Why: c.reason, WhyCode: c.code}
			p.wantWay(t, id, moved)
			p.official.attempt(t)
			moved.Status, moved.Attempts = "sent", 1
			p.wantWay(t, id, moved)
			p.wantMessages(t, 1, 1, 0)
			if n := p.count(t, `SELECT COUNT(*) FROM send_attempt`); n != 0 {
				t.Errorf("%d attempts are left", n)
			}
		})
	}
}

// TestRefusedWithoutSecond: 43101 fails a template message, and a subscribe message whose grants are
// not counted, where no other account can reach the person.
func TestRefusedWithoutSecond(t *testing.T) {
	p := newDuo(t, grants.Events)
	p.refusesOfficial(1)
	id := p.insert(t, columns{"unionid": p.unionidOf(1)})
	p.official.attempt(t)
	p.wantWay(t, id, way{Status: "failed", AppID: appid, Reason: "refused_by_user", ErrCode: 43101, Attempts: 1})

	p = newDuo(t, grants.None, miniFirst)
	p.leaves(t, 1)
	id = p.insert(t, columns{"unionid": p.unionidOf(1)})
	p.mini.attempt(t)
	p.wantWay(t, id, way{Status: "failed", AppID: miniID, Route: "mini,official", Reason: "no_grant",
		ErrCode: 43101, Attempts: 1})
}

// TestNoMove: pauses, quotas and doubt never move a row, nor does a receipt of one that is sent, nor
// anything where the producer named one account or a template's id.
func TestNoMove(t *testing.T) {
	id43 := wechatsim.StandardTemplates()[0].ID
	for name, c := range map[string]struct {
		happens func(p *duo)
		columns columns
		want    way
	}{
		"quota": {func(p *duo) {
			p.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultErrcode, Code: 45009, Path: wechat.EndpointSendTemplate})
		}, columns{}, way{Status: "pending", AppID: appid, Reason: "quota_day", ErrCode: 45009, Route: "official,mini"}},
		"a person must act": {func(p *duo) {
			p.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultErrcode, Code: 48001, Path: wechat.EndpointSendTemplate})
		}, columns{}, way{Status: "pending", AppID: appid, Reason: "no_permission", ErrCode: 48001, Route: "official,mini"}},
		"doubt": {func(p *duo) {
			p.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultErrcode, Code: -1, Path: wechat.EndpointSendTemplate})
		}, columns{}, way{Status: "pending", AppID: appid, Reason: "system_error", ErrCode: -1, Route: "official,mini", Attempts: 1}},
		"named": {func(p *duo) { p.leaves(t, 1) }, columns{"appid": appid},
			way{Status: "waiting", AppID: appid, Reason: "not_following"}},
		"a template's id": {func(p *duo) { p.leaves(t, 1) }, columns{"template": id43, "route": "official,mini"},
			way{Status: "waiting", AppID: appid, Reason: "not_following", Route: "official,mini"}},
		"nobody who can be certain": {func(p *duo) {
			p.exec(t, `INSERT INTO follower (appid, openid, unionid, subscribed) VALUES (?, 'oTwin', ?, 1)`, appid, p.unionidOf(1))
		}, columns{}, way{Status: "waiting", AppID: appid, Reason: "ambiguous", Route: "official,mini"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newDuo(t, grants.Events)
			p.grant(t, 1, 1)
			c.happens(p)
			c.columns["unionid"] = p.unionidOf(1)
			id := p.insert(t, c.columns)
			p.official.attempt(t)
			if got := p.way(t, id); got != c.want {
				t.Errorf("got %+v\nwant %+v", got, c.want)
			}
			p.mini.attempt(t)
			p.wantMessages(t, 1, 0, 0)
		})
	}
	t.Run("a receipt", func(t *testing.T) {
		p := newDuo(t, grants.Events)
		p.grant(t, 1, 1)
		id := p.insert(t, columns{"unionid": p.unionidOf(1)})
		p.official.attempt(t)
		r := p.row(t, id)
		err := p.official.receipt(t.Context(), appid, queue.Receipt{OpenID: *r.OpenID, MsgID: *r.MsgID,
			Status: push.ReceiptUserBlock, At: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		p.official.maintain(t)
		p.mini.attempt(t)
		p.wantWay(t, id, way{Status: "sent", AppID: appid, Attempts: 1})
		p.wantMessages(t, 1, 1, 0)
	})
}

// TestDoubtfulRowStays: a row whose earlier attempt may have been delivered is moved by no later
// refusal.
func TestDoubtfulRowStays(t *testing.T) {
	p := newDuo(t, grants.Events)
	p.grant(t, 1, 1)
	id := p.insert(t, columns{"unionid": p.unionidOf(1), "appid": appid, "route": "official,mini",
		"attempts": 1, "attempted_at": time.Now().UTC().Add(-time.Minute),
		"uncertain_at": time.Now().UTC().Add(-time.Minute)})
	p.leaves(t, 1)
	p.official.attempt(t)
	p.mini.attempt(t)
	if w := p.way(t, id); w.AppID != appid || w.From != "" {
		t.Errorf("%+v", w)
	}
	p.official.look(t)
	p.mini.attempt(t)
	p.wantMessages(t, 1, 0, 0)
}

// TestTargets: a row goes only to an account whose lease is alive, and for which nobody has to act
// first. A pause that ends is no obstacle.
func TestTargets(t *testing.T) {
	state := func(p *duo, scope, reason string) {
		p.exec(t, `INSERT INTO account_state (appid, scope, reason) VALUES (?, ?, ?)`, miniID, scope, reason)
	}
	for name, c := range map[string]struct {
		happens func(p *duo)
		moves   bool
	}{
		"nobody sends": {func(p *duo) {
			p.exec(t, `UPDATE lease SET expires_at = CURRENT_TIMESTAMP(3) - INTERVAL 1 SECOND WHERE name = ?`,
				queue.LeaseName(miniID))
		}, false},
		"credentials":        {func(p *duo) { state(p, "send", "wrong_secret") }, false},
		"paused by people":   {func(p *duo) { state(p, "operator", "x") }, false},
		"the template":       {func(p *duo) { state(p, "template:"+p.templateID, "template_banned") }, false},
		"another template":   {func(p *duo) { state(p, "template:other", "template_banned") }, true},
		"the day's quota":    {func(p *duo) { state(p, "send", "quota_day") }, true},
		"nothing in its way": {func(*duo) {}, true},
		"another one's pause": {func(p *duo) {
			p.exec(t, `INSERT INTO account_state (appid, scope, reason) VALUES ('wxx', 'send', 'x')`)
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := newDuo(t, grants.Events, func(f *miniFixture) {
				f.config.NeedsPerson = func(reason string) bool { return reason != "quota_day" }
			})
			p.grant(t, 1, 1)
			p.leaves(t, 1)
			c.happens(p)
			id := p.insert(t, columns{"unionid": p.unionidOf(1)})
			p.official.attempt(t)
			want := way{Status: "waiting", AppID: appid, Reason: "not_following"}
			if c.moves {
				want = way{Status: "pending", AppID: miniID, From: appid, Why: "not_following"}
			}
			p.wantWay(t, id, want)
		})
	}
}

// TestWaitsForBoth: with neither account able to reach the person, the row waits in the first, on
// two things at once; an acceptance moves it, a follow lets it go where it is.
func TestWaitsForBoth(t *testing.T) {
	for _, accept := range []bool{true, false} {
		t.Run(fmt.Sprint("accept ", accept), func(t *testing.T) {
			p := newDuo(t, grants.Events)
			p.leaves(t, 1)
			id := p.insert(t, columns{"unionid": p.unionidOf(1)})
			p.official.attempt(t)
			p.official.look(t)
			p.wantWay(t, id, way{Status: "waiting", AppID: appid, Reason: "not_following"})
			if got := p.hints(t, id); got != bothHints {
				t.Errorf("it waits for %s", got)
			}
			want := way{Status: "pending", AppID: appid}
			if accept {
				p.accepts(t, 1, time.Now())
				want = way{Status: "pending", AppID: miniID, From: appid, Why: "not_following"}
			} else {
				p.follows(t, 1, time.Now())
			}
			p.wantWay(t, id, want)
			kept := "" // what the row takes from others that wait for the same acceptance
			if accept {
				kept = "grant@" + miniID
			}
			if got := p.hints(t, id); got != kept {
				t.Errorf("released, it waits for %q, want %q", got, kept)
			}
			p.official.attempt(t)
			p.mini.attempt(t)
			if w := p.way(t, id); w.Status != "sent" || w.AppID != want.AppID {
				t.Errorf("%+v", w)
			}
			if got := p.hints(t, id); got != "" {
				t.Errorf("sent, it waits for %s", got)
			}
		})
	}
}

// bothRefuse is a row that both accounts have refused: by WeChat's answer.
func (p *duo) bothRefuse(t *testing.T, user int) (id int64) {
	t.Helper()
	p.deceive(t, user)
	id = p.insert(t, columns{"unionid": p.unionidOf(user)})
	p.official.attempt(t)
	p.mini.attempt(t)
	p.official.look(t)
	return id
}

// TestBothTried: a row that both have refused waits in the first. fallback_from stays. Only a follow
// or an accept that came after the refusal opens an account again, and no row bounces.
func TestBothTried(t *testing.T) {
	after := time.Now().Add(time.Minute)
	t.Run("waits", func(t *testing.T) {
		p := newDuo(t, grants.Events)
		p.refusesOfficial(1)
		id := p.bothRefuse(t, 1)
		tried := way{Status: "waiting", AppID: appid, Reason: "no_grant", ErrCode: 43101, From: appid,
			Why: "refused_by_user", WhyCode: 43101}
		p.wantWay(t, id, tried)
		if got := p.hints(t, id); got != bothHints {
			t.Errorf("it waits for %s", got)
		}
		// The map takes the person for a follower all the time: that opens nothing.
		for range 3 {
			p.official.maintain(t)
			p.follows(t, 1, time.Now().Add(-time.Hour))
			p.official.attempt(t)
			p.mini.attempt(t)
		}
		p.wantWay(t, id, tried)
		p.wantMessages(t, 1, 0, 0)
	})
	t.Run("follow", func(t *testing.T) {
		p := newDuo(t, grants.Events)
		p.refusesOfficial(1)
		id := p.bothRefuse(t, 1)
		p.sim.SetPerson(appid, p.person(1), wechatsim.Person{})
		p.follows(t, 1, after)
		p.official.attempt(t)
		p.wantWay(t, id, way{Status: "sent", AppID: appid, From: appid, Why: "refused_by_user",
			WhyCode: 43101, Attempts: 1})
		p.wantMessages(t, 1, 1, 0)
	})
	t.Run("accept", func(t *testing.T) {
		p := newDuo(t, grants.Events)
		p.refusesOfficial(1)
		id := p.bothRefuse(t, 1)
		p.accepts(t, 1, after)
		p.official.attempt(t)
		p.mini.attempt(t)
		p.wantWay(t, id, way{Status: "sent", AppID: miniID, From: appid, Why: "refused_by_user",
			WhyCode: 43101, Attempts: 1})
		p.wantMessages(t, 1, 0, 1)
	})
	t.Run("a follow, and refused again", func(t *testing.T) {
		p := newDuo(t, grants.Events)
		p.refusesOfficial(1)
		id := p.bothRefuse(t, 1)
		p.follows(t, 1, time.Now().Add(-time.Second)) // within what clocks may differ
		p.exec(t, `UPDATE send_request SET first_refused_at = first_refused_at - INTERVAL 10 SECOND WHERE id = ?`, id)
		p.follows(t, 1, time.Now())
		p.wantWay(t, id, way{Status: "pending", AppID: appid, From: appid, Why: "refused_by_user", WhyCode: 43101})
		p.official.attempt(t)
		p.mini.attempt(t)
		if w := p.way(t, id); w.AppID != appid || w.Status != "failed" && w.Status != "waiting" {
			t.Errorf("%+v", w)
		}
		p.wantMessages(t, 1, 0, 0)
	})
}

// TestBothTriedNothingCounted: without a count of grants no accept is noticed, so only a follow lets
// the row go; where the official account was refused for good, it fails.
func TestBothTriedNothingCounted(t *testing.T) {
	p := newDuo(t, grants.None)
	p.leaves(t, 1)
	id := p.insert(t, columns{"unionid": p.unionidOf(1)})
	p.official.attempt(t)
	p.mini.attempt(t)
	p.official.look(t)
	p.wantWay(t, id, way{Status: "waiting", AppID: appid, Reason: "no_grant", ErrCode: 43101, From: appid, Why: "not_following"})
	p.official.maintain(t)
	p.mini.attempt(t)
	p.wantMessages(t, 1, 0, 0)
	p.follows(t, 1, time.Now())
	p.official.attempt(t)
	p.wantMessages(t, 1, 1, 0)

	p.refusesOfficial(2)
	id = p.insert(t, columns{"unionid": p.unionidOf(2)})
	p.official.attempt(t)
	p.mini.attempt(t)
	p.wantWay(t, id, way{Status: "failed", AppID: appid, Reason: "no_grant", ErrCode: 43101, From: appid,
		Why: "refused_by_user", WhyCode: 43101})
}

// TestWaitCountsOnce: the end of the wait counts from its first beginning, however often the row
// was on its way meanwhile.
func TestWaitCountsOnce(t *testing.T) {
	p := newDuo(t, grants.Events)
	p.leaves(t, 1)
	id := p.insert(t, columns{"unionid": p.unionidOf(1)})
	p.official.attempt(t)
	const end = `SELECT TIMESTAMPDIFF(SECOND, CURRENT_TIMESTAMP(3), due_at) FROM send_request WHERE id = ?`
	p.exec(t, `UPDATE send_request SET due_at = CURRENT_TIMESTAMP(3) + INTERVAL 10 MINUTE WHERE id = ?`, id)
	p.deceive(t, 1)
	p.official.svc.Changed(t.Context(), []bridge.Key{bridge.GrantKey(miniID, p.openid(1), p.templateID)})
	p.wantWay(t, id, way{Status: "pending", AppID: miniID, From: appid, Why: "not_following"})
	p.mini.attempt(t)
	p.wantWay(t, id, way{Status: "waiting", AppID: appid, Reason: "no_grant", ErrCode: 43101, From: appid, Why: "not_following"})
	if left := p.count(t, end, id); left > 600 || left < 500 {
		t.Errorf("its wait ends in %d s, want 600", left)
	}
	p.follows(t, 1, time.Now())
	p.sim.Unfollow(appid, p.person(1))
	p.official.attempt(t)
	if left := p.count(t, end, id); left > 600 || left < 500 || p.way(t, id).Status != "waiting" {
		t.Errorf("after a second refusal its wait ends in %d s, want 600: %+v", left, p.way(t, id))
	}
	p.exec(t, `UPDATE send_request SET due_at = CURRENT_TIMESTAMP(3) WHERE id = ?`, id)
	p.official.maintain(t)
	if w := p.way(t, id); w.Status != "failed" || w.Why != "not_following" {
		t.Errorf("%+v", w)
	}
}

// TestOpenIDOfTheNamed: openid belongs to the account that the producer named; another one reaches
// the person through the unionid only.
func TestOpenIDOfTheNamed(t *testing.T) {
	p := newDuo(t, grants.Events)
	p.leaves(t, 1)
	p.grant(t, 1, 1)
	id := p.insert(t, columns{"appid": appid, "route": "official,mini", "openid": p.follower(1)})
	p.official.attempt(t)
	p.mini.attempt(t)
	if r := p.row(t, id); r.Status != "sent" || *r.OpenID != p.openid(1) || *r.AppID != miniID {
		t.Errorf("%+v", r)
	}
	other := p.insert(t, columns{"appid": miniID, "route": "mini,official", "openid": p.openid(2)})
	p.mini.attempt(t)
	p.official.attempt(t)
	if r := p.row(t, other); r.Status != "sent" || *r.OpenID != p.follower(2) || *r.AppID != appid {
		t.Errorf("%+v", r)
	}
	// Nobody knows this person's unionid.
	p.exec(t, `UPDATE follower SET unionid = NULL, subscribed = 0 WHERE openid = ?`, p.follower(3))
	p.grant(t, 3, 1)
	nameless := p.insert(t, columns{"appid": appid, "route": "official,mini", "openid": p.follower(3)})
	p.official.attempt(t)
	p.wantWay(t, nameless, way{Status: "waiting", AppID: appid, Reason: "not_following"})
}

// TestRetryBeginsAnew: an operator's retry begins at the first account, and forgets what was tried.
func TestRetryBeginsAnew(t *testing.T) {
	p := newDuo(t, grants.Events)
	p.leaves(t, 1)
	p.grant(t, 1, 1)
	id := p.insert(t, columns{"unionid": p.unionidOf(1)})
	p.official.attempt(t)
	p.mini.attempt(t)
	p.wantMessages(t, 1, 0, 1)
	store := requests.Store{DB: p.db, DefaultAppID: appid}
	changes, err := store.Retry(t.Context(), []int64{id}, requests.RetryOptions{Force: true})
	if err != nil || changes[0].Refused != "" {
		t.Fatal(changes, err)
	}
	p.wantWay(t, id, way{Status: "pending", AppID: appid})
	p.follows(t, 1, time.Now())
	p.official.attempt(t)
	p.wantWay(t, id, way{Status: "sent", AppID: appid, Attempts: 1})
}

// TestLateSent: that a message was sent is written by whoever sent it, with its account and channel,
// although the row stands elsewhere by now; so its receipt joins.
func TestLateSent(t *testing.T) {
	p := newDuo(t, grants.Events)
	p.leaves(t, 1)
	p.grant(t, 1, 1)
	id := p.insert(t, columns{"unionid": p.unionidOf(1)})
	p.official.attempt(t)
	p.mini.claimed = func() {
		store := requests.Store{DB: p.db, DefaultAppID: appid}
		p.exec(t, `UPDATE send_request SET status = 'unknown' WHERE id = ?`, id)
		if _, err := store.Retry(t.Context(), []int64{id}, requests.RetryOptions{Force: true}); err != nil {
			t.Fatal(err)
		}
	}
	// The attempt cannot be written down any more, so the message of a channel that writes none is
	// taken.
	p.mini.account.attempts = nil
	p.mini.attempt(t)
	if r := p.row(t, id); r.Status != "sent" || *r.AppID != miniID || *r.Channel != "mini_subscribe" {
		t.Errorf("%+v", r)
	}
}

// TestMovedRowEnds: a moved row is cancelled and expires as any other.
func TestMovedRowEnds(t *testing.T) {
	p := newDuo(t, grants.Events)
	p.leaves(t, 1)
	p.grant(t, 1, 2)
	withdrawn := p.insert(t, columns{"unionid": p.unionidOf(1)})
	expired := p.insert(t, columns{"unionid": p.unionidOf(1), "expires_at": time.Now().UTC().Add(time.Hour)})
	p.official.attempt(t)
	p.exec(t, `UPDATE send_request SET cancel = 1 WHERE id = ?`, withdrawn)
	p.exec(t, `UPDATE send_request SET expires_at = CURRENT_TIMESTAMP(3) WHERE id = ?`, expired)
	p.mini.attempt(t)
	p.wantWay(t, withdrawn, way{Status: "cancelled", AppID: miniID, From: appid, Why: "not_following"})
	p.wantWay(t, expired, way{Status: "expired", AppID: miniID, From: appid, Why: "not_following", Reason: "expired"})
	p.wantMessages(t, 1, 0, 0)
}

// levels is what the instances of a database can do.
type levels struct{ lowest int }

func (l *levels) Lowest(context.Context) (int, string, error) { return l.lowest, "old-host:1", nil }

// TestOlderInstance: routes, moves and mini programs wait for the last older instance, and the rows
// say for which. What one account can deliver goes.
func TestOlderInstance(t *testing.T) {
	l := &levels{}
	p := newDuo(t, grants.Events, func(f *miniFixture) { f.config.Levels = l })
	p.leaves(t, 1)
	p.grant(t, 1, 5)
	move := p.insert(t, columns{"unionid": p.unionidOf(1)})
	own := p.insert(t, columns{"unionid": p.unionidOf(1), "route": "mini"})
	mini := p.insert(t, columns{"unionid": p.unionidOf(1), "appid": miniID})
	plain := p.insert(t, columns{"unionid": p.unionidOf(2)})
	p.official.attempt(t)
	p.mini.attempt(t)
	p.wantWay(t, move, way{Status: "pending", AppID: appid, Reason: "older_instance"})
	if w := p.way(t, own); w != (way{Status: "pending", Route: "mini", Reason: "older_instance"}) {
		t.Errorf("%+v", w)
	}
	if w := p.way(t, mini); w != (way{Status: "pending", AppID: miniID, Reason: "older_instance"}) {
		t.Errorf("%+v", w)
	}
	if r := p.row(t, mini); r.ErrMsg == nil || *r.ErrMsg == "" {
		t.Error("the row does not say which instance")
	}
	p.wantWay(t, plain, way{Status: "sent", AppID: appid, Attempts: 1})
	l.lowest = database.FeatureLevel
	p.exec(t, `UPDATE send_request SET due_at = CURRENT_TIMESTAMP(3) WHERE status = 'pending'`)
	p.official.attempt(t)
	p.mini.attempt(t)
	for _, id := range []int64{move, own, mini} {
		if w := p.way(t, id); w.Status != "sent" || w.AppID != miniID {
			t.Errorf("%+v", w)
		}
	}
}

// TestAcceptReleasesFairly: an acceptance lets go the row whose turn it is, in whichever queue it
// waits, and no more rows than are accepted.
func TestAcceptReleasesFairly(t *testing.T) {
	p := newDuo(t, grants.Events)
	p.leaves(t, 1)
	second := p.insert(t, columns{"unionid": p.unionidOf(1)})
	third := p.insert(t, columns{"unionid": p.unionidOf(1), "appid": miniID})
	first := p.insert(t, columns{"unionid": p.unionidOf(1), "priority": 0})
	p.official.attempt(t)
	p.mini.attempt(t)
	p.official.look(t)
	begin := time.Now().Add(-time.Minute)
	for i, id := range []int64{first, second, third} {
		p.accepts(t, 1, begin.Add(time.Duration(i)*time.Second))
		if n := p.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'waiting'`); n != 2-i {
			t.Errorf("after %d acceptances %d rows wait", i+1, n)
		}
		p.mini.attempt(t)
		if w := p.way(t, id); w.Status != "sent" || w.AppID != miniID {
			t.Errorf("%+v", w)
		}
	}
}

// TestMoveRunning: the same with all that runs: who does not follow gets the subscribe message,
// whoever accepts later then, and nobody both.
func TestMoveRunning(t *testing.T) {
	f := newMiniFixture(t, grants.Events)
	mini := f.config.Accounts[0]
	mini.Default, f.official.Default = false, true
	mini.Channels = []channel.Channel{minisubscribe.New(f.mini)}
	f.config.Accounts = []Account{f.official, mini}
	f.config.Templates["order"][appid] = wechatsim.StandardTemplates()[0].ID
	f.config.Routes = map[string][]route.Kind{"order": {route.Official, route.Mini}}
	const people = 60
	p := &duo{miniFixture: f}
	ids := make([]int64, people)
	for user := range people {
		if user%3 > 0 {
			p.sim.Unfollow(appid, p.person(user)) // the map does not know
		}
		if user%3 == 1 {
			p.grant(t, user, 1)
		}
		ids[user] = f.insert(t, columns{"unionid": f.unionidOf(user)})
	}
	f.start(t, "a")
	for user, id := range ids {
		want := queue.Sent
		if user%3 == 2 {
			want = queue.Waiting
		}
		f.await(t, id, want)
	}
	for user, id := range ids {
		if user%3 == 2 {
			f.accepts(t, user, time.Now())
			f.await(t, id, queue.Sent)
		}
		if user%3 == 0 {
			p.wantMessages(t, user, 1, 0)
		} else {
			p.wantMessages(t, user, 0, 1)
		}
	}
}

// TestMovesNeverDouble: whatever people do between the steps of both accounts, each request is one
// message over both channels if it is sent, and none if it is not; and the account that it was
// moved from first stays.
func TestMovesNeverDouble(t *testing.T) {
	const people, rounds = 40, 12
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(uint64(seed), 0)) //nolint:gosec // of a test
	p := newDuo(t, grants.Events)
	ids, from := make([]int64, people), make(map[int64]string)
	for user := range people {
		row := []columns{{}, {"route": "mini,official"}, {"route": "official,mini"},
			{"appid": miniID, "route": "official,mini"}, {"appid": appid}}[random.IntN(5)]
		if user == 0 { // waits, whatever the others do
			row = columns{"appid": appid}
			p.leaves(t, user)
		}
		row["unionid"] = p.unionidOf(user)
		ids[user] = p.insert(t, row)
	}
	for range rounds {
		for range people / 2 {
			user, at := 1+random.IntN(people-1), time.Now()
			switch random.IntN(7) {
			case 0:
				p.leaves(t, user)
			case 1:
				p.sim.Unfollow(appid, p.person(user))
			case 2:
				p.follows(t, user, at)
			case 3:
				p.sim.SetPerson(appid, p.person(user), wechatsim.Person{Refuses: random.IntN(2) == 0})
			case 4:
				p.accepts(t, user, at)
			case 5:
				p.deceive(t, user)
			case 6:
				p.sim.SwitchOff(miniID, p.person(user), p.templateID)
			}
		}
		p.official.attempt(t)
		p.mini.attempt(t)
		p.official.look(t)
		p.exec(t, `UPDATE send_request SET due_at = CURRENT_TIMESTAMP(3) WHERE status = 'pending' AND lease IS NULL`)
		for user, id := range ids {
			w := p.way(t, id)
			got, want := len(p.messagesTo(p.person(user)))+len(p.received(user)), 0
			if w.Status == "sent" {
				want = 1
			}
			if got != want || from[id] != "" && w.From != from[id] {
				t.Fatalf("request %d came from %q and has %d messages: %+v", id, from[id], got, w)
			}
			from[id] = w.From
		}
	}
	if p.count(t, `SELECT COUNT(*) FROM send_request WHERE fallback_from IS NOT NULL`) == 0 {
		t.Error("no request was moved: the test has no effect")
	}
}
