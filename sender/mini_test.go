package sender

import (
	"slices"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/bridge/grants"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/channel/minisubscribe"
	"github.com/unionbridge/unionbridge/sender/channel/oatemplate"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// miniFixture is a fixture whose only account is the mini program.
type miniFixture struct {
	*fixture
	ledger *grants.Ledger
	mini   minisubscribe.Config

	official Account // not configured
}

// newMiniFixture makes a mini program with 100 users, who follow the official account too; nothing
// is configured of that. Source says how grants are counted.
func newMiniFixture(t *testing.T, source grants.Source) *miniFixture {
	t.Helper()
	return newMiniFixtureOf(t, source, wechatsim.Standard(100, 100, 0))
}

// newMiniFixtureOf is newMiniFixture with other options, of the same people.
func newMiniFixtureOf(
	t *testing.T, source grants.Source, options wechatsim.Options,
) *miniFixture {
	t.Helper()
	f := &miniFixture{fixture: newFixtureOf(t, options)}
	f.templateID = wechatsim.StandardSubscribeTemplates()[0].ID
	f.otherTemplate = wechatsim.StandardSubscribeTemplates()[1].ID
	client := wechat.New(wechat.Config{
		AppID: miniID, Secret: wechatsim.StandardMiniSecret, BaseURL: f.server.URL,
		Timeout: 2 * time.Second, SendTimeout: 2 * time.Second, MaxConnections: 16,
	})
	f.ledger = grants.New(grants.Config{
		DB: f.db, Sources: map[string]grants.Source{miniID: source}, Logger: f.config.Logger,
	})
	f.mini = minisubscribe.Config{
		AppID: miniID, API: client, Identities: f.identities, Logger: f.config.Logger,
		Aliases:  map[string]minisubscribe.Alias{"order": {ID: f.templateID, Page: "pages/order"}},
		Attempts: f.ledger, Now: time.Now,
	}
	if source != grants.None {
		f.mini.Grants = f.ledger
	}
	f.official = f.config.Accounts[0]
	f.official.Channels, f.official.Default = []channel.Channel{oatemplate.New(f.channel)}, false
	f.config.Templates = channel.Templates{"order": {miniID: f.templateID}}
	f.config.Accounts = []Account{{
		AppID: miniID, Rate: 5000, Concurrency: 8, MaxAttempts: 4, Wait: time.Hour, Default: true,
		Calls: Calls{Quota: quotaOf(client)},
	}}
	f.rebuild()
	return f
}

// rebuild makes the account's channel once more.
func (f *miniFixture) rebuild() {
	f.config.Accounts[0].Channels = []channel.Channel{minisubscribe.New(f.mini)}
}

// openid of a user at the mini program.
func (f *miniFixture) openid(user int) string {
	return f.sim.MiniUsers(miniID, user, 1)[0].OpenID
}

func (f *miniFixture) unionidOf(user int) string {
	return f.sim.MiniUsers(miniID, user, 1)[0].UnionID
}

// grant lets a user accept messages, whom WeChat and the ledger then count alike.
func (f *miniFixture) grant(t *testing.T, user int, messages int) {
	t.Helper()
	f.sim.Grant(miniID, f.sim.MiniUser(miniID, user), f.templateID, messages)
	for range messages {
		f.exec(t, `INSERT INTO grant_event (appid, openid, template_id, event_key, kind, source)
			VALUES (?, ?, ?, UUID(), 'accept', 'event')`, miniID, f.openid(user), f.templateID)
	}
	f.exec(t, `INSERT INTO subscription_grant (appid, openid, template_id, remaining)
		VALUES (?, ?, ?, ?) ON DUPLICATE KEY UPDATE remaining = remaining + VALUES(remaining)`,
		miniID, f.openid(user), f.templateID, messages)
}

// received is what a user got.
func (f *miniFixture) received(user int) (got []wechatsim.Message) {
	for _, m := range f.sim.Messages(miniID) {
		if m.Person == f.sim.MiniUser(miniID, user) {
			got = append(got, m)
		}
	}
	return got
}

// TestMiniAccount: a mini program is an account of its own, and the default one where there is no
// official account. Its people are named by their openid there or by their unionid.
func TestMiniAccount(t *testing.T) {
	f := newMiniFixture(t, grants.None)
	ids := make(map[int]int64)
	for user, row := range []columns{
		{"openid": f.openid(0)},
		{"appid": miniID, "openid": f.openid(1)},
		{"mini_openid": f.openid(2)},
		{"mini_appid": miniID, "mini_openid": f.openid(3)},
		{"unionid": f.unionidOf(4), "page": "pages/other?id=1", "lang": "en_US", "mini_state": "trial"},
		{"openid": f.openid(5), "template": f.templateID},
	} {
		f.sim.Grant(miniID, f.sim.MiniUser(miniID, user), f.templateID, 1)
		ids[user] = f.insert(t, row)
	}
	f.start(t, "a")
	for user, id := range ids {
		row := f.await(t, id, queue.Sent)
		if *row.AppID != miniID || *row.Channel != "mini_subscribe" || *row.OpenID != f.openid(user) ||
			row.MsgID == nil {
			t.Errorf("request %d: %+v", id, row)
		}
		if got := f.received(user); len(got) != 1 {
			t.Errorf("user %d got %d messages", user, len(got))
		}
	}
	special := f.received(4)[0]
	if special.Page != "pages/other?id=1" || special.Lang != "en_US" || special.State != "trial" {
		t.Errorf("the row's own options are not in the message: %+v", special)
	}
	if ordinary := f.received(0)[0]; ordinary.Page != "pages/order" || ordinary.State != "formal" {
		t.Errorf("the alias's options are not in the message: %+v", ordinary)
	}
	var held []string
	if err := f.db.SelectContext(t.Context(), &held, `SELECT name FROM lease`); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(held, "send:"+miniID) {
		t.Errorf("no lease of the mini program: %v", held)
	}
}

// TestBothAccounts: an official account and a mini program send side by side, each the rows of its
// own queue, and a row without appid goes by the official account.
func TestBothAccounts(t *testing.T) {
	f := newMiniFixture(t, grants.None)
	mini := f.config.Accounts[0]
	mini.Default, f.official.Default = false, true
	f.config.Accounts = []Account{f.official, mini}
	f.config.Templates["order"][appid] = wechatsim.StandardTemplates()[0].ID
	f.sim.Grant(miniID, f.sim.MiniUser(miniID, 1), f.templateID, 1)
	follower := f.insert(t, columns{"unionid": f.unionid(1)})
	user := f.insert(t, columns{"appid": miniID, "unionid": f.unionidOf(1)})
	nobody := f.insert(t, columns{"appid": "wx00000000000000ff", "unionid": f.unionidOf(1)})
	f.start(t, "a")
	if r := f.await(t, follower, queue.Sent); *r.Channel != "oa_template" || *r.AppID != appid {
		t.Errorf("%+v", r)
	}
	if r := f.await(t, user, queue.Sent); *r.Channel != "mini_subscribe" || *r.AppID != miniID {
		t.Errorf("%+v", r)
	}
	if r := f.await(t, nobody, queue.Failed); r.reason() != "unknown_account" {
		t.Errorf("%+v", r)
	}
}
