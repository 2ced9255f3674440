package minisubscribe

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/bridge/grants"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/channel/channeltest"
)

const miniID = wechatsim.StandardMiniAppID

var (
	orderID    = wechatsim.StandardSubscribeTemplates()[0].ID
	singleID   = wechatsim.StandardSubscribeTemplates()[1].ID // has the one keyword thing1
	longTermID = wechatsim.StandardSubscribeTemplates()[2].ID
	noID       = strings.Repeat("n", 43)
)

var (
	_ Identities = (*bridge.Map)(nil)
	_ Grants     = (*grants.Ledger)(nil)
)

// TestConformance holds the channel to the contract, with and without the pre-flight, a ledger and
// msgids.
func TestConformance(t *testing.T) {
	for name, tt := range map[string]struct{ preflight, counted bool }{
		"all": {true, true}, "no preflight": {false, true}, "no ledger": {true, false},
	} {
		t.Run(name, func(t *testing.T) {
			channeltest.Run(t, func(_ *testing.T, p *channeltest.Platform) channeltest.Subject {
				return subject(p, tt.preflight, tt.counted)
			})
		})
	}
}

func subject(p *channeltest.Platform, preflight, counted bool) channeltest.Subject {
	person := p.Sim.MiniUser(miniID, 3)
	p.Sim.Grant(miniID, person, singleID, 1000)
	target := func(r bridge.Recipient) channel.Target {
		return channel.Target{Recipient: r, TemplateID: singleID}
	}
	cfg := Config{
		AppID: miniID, Identities: identities{p.Sim}, Preflight: preflight,
		Aliases: map[string]Alias{"short": {ID: singleID,
			Keys: map[string]string{"what": "thing1"}}},
		Logger: slog.New(slog.DiscardHandler), Now: time.Now,
		API: wechat.New(wechat.Config{AppID: miniID, Secret: wechatsim.StandardMiniSecret,
			BaseURL: p.URL, Transport: p, MaxConnections: 16}),
	}
	if counted {
		cfg.Grants = &ledger{sim: p.Sim}
	}
	return channeltest.Subject{
		Path:    wechat.EndpointSendSubscribe,
		Secrets: []string{wechatsim.StandardMiniSecret},
		Content: channel.Content{Template: "short", TemplateID: singleID, Data: `{"what":"x"}`,
			Page: "pages/order?id=1", Lang: "zh_CN"},
		Targets: []channel.Target{
			target(bridge.Recipient{UnionID: p.Sim.UnionID(person)}),
			target(bridge.Recipient{UnionID: "nobody"}),
			target(bridge.Recipient{OpenID: p.Sim.OpenID(miniID, person)}),
		},
		Channel: New(cfg),
	}
}

// identities is a map of the simulated users.
type identities struct{ sim *wechatsim.Server }

func (m identities) ResolveMini(
	_ context.Context, appid string, to []bridge.Recipient,
) ([]bridge.Resolution, error) {
	out := make([]bridge.Resolution, len(to))
	for i, r := range to {
		out[i] = bridge.Resolution{Reachability: bridge.UnknownUser}
		if id, ok := m.sim.IdentifyUnion(appid, r.UnionID); ok {
			out[i] = bridge.Resolution{Reachability: bridge.Reachable, OpenID: id.OpenID}
		}
		if r.OpenID != "" {
			out[i] = bridge.Resolution{Reachability: bridge.Reachable, OpenID: r.OpenID,
				Unlisted: true}
		}
		out[i].Awaits = []bridge.Key{{Kind: bridge.KeyUnionID, AppID: appid, Value: r.UnionID}}
	}
	return out, nil
}

// ledger knows what the simulator knows.
type ledger struct {
	sim   *wechatsim.Server
	calls atomic.Int32
	uses  []grants.Use
	err   error
}

func (l *ledger) Available(_ context.Context, appid string, asked []grants.Grant) ([]int, error) {
	l.calls.Add(1)
	counts := make([]int, len(asked))
	for _, g := range l.sim.Grants(appid) {
		for i := range asked {
			if asked[i] == (grants.Grant{OpenID: g.OpenID, TemplateID: g.TemplateID}) {
				counts[i] = g.Left
			}
		}
	}
	return counts, l.err
}

func (l *ledger) AcceptedAt(
	_ context.Context, _ string, asked []grants.Grant,
) ([]time.Time, error) {
	return make([]time.Time, len(asked)), l.err
}

func (l *ledger) Settle(_ context.Context, _ *sqlx.Tx, _ string, uses []grants.Use) error {
	l.uses = append(l.uses, uses...)
	return l.err
}

// api is WeChat's list of templates; nothing is sent to it.
type api struct{ API }

func (api) SubscribeTemplates(context.Context) ([]wechat.SubscribeTemplate, error) {
	var list []wechat.SubscribeTemplate
	for _, t := range wechatsim.StandardSubscribeTemplates() {
		list = append(list, wechat.SubscribeTemplate{ID: t.ID, Content: t.Content,
			LongTerm: t.LongTerm, Enums: t.Values})
	}
	return list, nil
}

func newChannel(grants Grants, aliases map[string]Alias) *Channel {
	sim := wechatsim.NewStandard(10, 10, 0)
	return New(Config{AppID: miniID, API: api{}, Identities: identities{sim}, Grants: grants,
		Aliases: aliases, Preflight: true, Logger: slog.New(slog.DiscardHandler), Now: time.Now})
}

// prepared is what became of a row.
type prepared struct {
	Message wechat.SubscribeMessage
	Data    string
	Warning string
	Why     channel.Rejection
}

func (c *Channel) prepared(row channel.Content) prepared {
	d, why := c.Prepare(context.Background(), row)
	if why != nil {
		return prepared{Why: *why}
	}
	m := d.(*draft).message
	p := prepared{Message: m, Data: string(m.Data), Warning: d.Warning()}
	p.Message.Data = nil
	return p
}

func TestPrepare(t *testing.T) {
	alias := Alias{ID: singleID, Keys: map[string]string{"what": "thing1"}, Page: "pages/a",
		State: "trial", Lang: "en_US", Truncate: true}
	c := newChannel(nil, map[string]Alias{"short": alias})
	t.Cleanup(c.Wait)
	const trial = "mini_state is trial: only the mini program's testers can open the page"
	reject := func(reason, field, message string) prepared {
		return prepared{Why: *channel.RejectField(reason, field, message)}
	}
	for _, tt := range []struct {
		name string
		row  channel.Content
		want prepared
	}{
		{"what the alias presets", channel.Content{Template: "short", Data: `{"what":"x"}`},
			prepared{Message: wechat.SubscribeMessage{TemplateID: singleID, Page: "pages/a",
				State: "trial", Lang: "en_US"}, Data: `{"thing1":{"value":"x"}}`, Warning: trial}},
		{"the row's own word", channel.Content{Template: "short", Data: `{"thing1":"x"}`,
			Page: "pages/web?url=https://example.com/", State: "formal", Lang: "zh_TW"},
			prepared{Message: wechat.SubscribeMessage{TemplateID: singleID,
				Page: "pages/web?url=https://example.com/", State: "formal", Lang: "zh_TW"},
				Data: `{"thing1":{"value":"x"}}`}},
		{"by the id, without an alias", channel.Content{Template: singleID, Data: `{"thing1":"x"}`},
			prepared{Message: wechat.SubscribeMessage{TemplateID: singleID, State: "formal"},
				Data: `{"thing1":{"value":"x"}}`}},
		{"an official account's columns", channel.Content{Template: singleID,
			Data: `{"thing1":"x"}`, URL: "example", MiniPath: "p", MiniAppID: "wx1",
			ClientMsgID: "id"},
			prepared{Message: wechat.SubscribeMessage{TemplateID: singleID, State: "formal"},
				Data: `{"thing1":{"value":"x"}}`}},
		{"all values are wrong", channel.Content{Template: singleID, TemplateID: orderID,
			Data: `{"thing1":"","amount3":"12345678901","character_string4":"中"}`},
			reject("bad_keyword", "data.thing1", "data.thing1 is empty; data.time2 is missing; data.amount3 has 11 "+
				"characters, amount takes one currency symbol or none, at most 10 digits, and perhaps 元; "+
				"data.character_string4 has 1 characters, character_string takes digits, letters and "+
				"symbols, no Chinese characters")},
		{"long, cut and not known", channel.Content{Template: "short",
			Data: `{"what":"` + strings.Repeat("啡", 25) + `","other":"x"}`, State: "formal"},
			prepared{Message: wechat.SubscribeMessage{TemplateID: singleID, Page: "pages/a",
				State: "formal", Lang: "en_US"},
				Data: `{"thing1":{"value":"` + strings.Repeat("啡", 19) + `…"}}`,
				Warning: "data.thing1 has 25 characters, shortened to 20; " +
					"data.other is no keyword of the template and was left out"}},
		{"one key twice", channel.Content{Template: "short", Data: `{"what":"x","thing1":"y"}`},
			reject("bad_data", "data.what", "data.thing1 and data.what are both the template's thing1: give one of "+
				"them")},
		{"no such template", channel.Content{Template: noID, TemplateID: noID, Data: `{"a":"x"}`},
			prepared{Why: channel.Rejection{Reason: "unknown_template", After: 2 * time.Minute,
				Message: "the mini program's list has no template " + noID + " (console, 订阅消息, " +
					"我的模板); it is looked for again, and then WeChat is asked"}}},
		{"a whole address", channel.Content{Template: "short", Data: `{"what":"x"}`,
			Page: "https://example.com/a"}, reject("bad_link", "page", "page must be a path in this mini "+
			"program such as pages/order?id=1, without a host")},
		{"a version that does not exist", channel.Content{Template: "short", Data: `{"what":"x"}`,
			State: "release"}, reject("bad_option", "mini_state", `mini_state "release" is none of formal, trial and `+
			`developer`)},
		{"a language that does not exist", channel.Content{Template: "short", Data: `{"what":"x"}`,
			Lang: "de"}, reject("bad_option", "lang", `lang "de" is none of zh_CN, en_US, zh_HK, zh_TW`)},
	} {
		if tt.row.TemplateID == "" {
			tt.row.TemplateID = singleID
		}
		if diff := cmp.Diff(tt.want, c.prepared(tt.row)); diff != "" {
			t.Errorf("%s, -want +got:\n%s", tt.name, diff)
		}
		why := c.Preview(tt.row)
		if final := tt.want.Why.Reason != "" && tt.want.Why.After == 0; final != (why != nil) ||
			final && *why != tt.want.Why {
			t.Errorf("%s: before there is a row it is rejected by %+v", tt.name, why)
		}
	}
}

// TestResolve: who is not known, who has not allowed enough, and who comes first.
func TestResolve(t *testing.T) {
	sim := wechatsim.NewStandard(10, 10, 0)
	rich, poor := sim.MiniUser(miniID, 1), sim.MiniUser(miniID, 2)
	sim.Grant(miniID, rich, singleID, 2)
	sim.Grant(miniID, poor, longTermID, 1)
	target := func(person int, template string) channel.Target {
		return channel.Target{TemplateID: template,
			Recipient: bridge.Recipient{OpenID: sim.OpenID(miniID, person)}}
	}
	targets := []channel.Target{
		target(rich, singleID), target(poor, singleID), target(rich, singleID),
		target(poor, longTermID), target(rich, singleID), target(rich, orderID),
		{TemplateID: singleID, Recipient: bridge.Recipient{UnionID: "nobody"}},
	}
	resolve := func(grants Grants) []bridge.Reachability {
		c := newChannel(grants, nil)
		c.cfg.Identities = identities{sim}
		found, err := c.Resolve(t.Context(), targets)
		if err != nil || len(found) != len(targets) {
			t.Fatalf("%+v, %v", found, err)
		}
		var got []bridge.Reachability
		for _, a := range found {
			got = append(got, a.Reachability)
			if (a.OpenID != "") != (a.Reachability == bridge.Reachable) {
				t.Errorf("%+v", a)
			}
		}
		return got
	}
	const yes, no, who = bridge.Reachable, channel.NoGrant, bridge.UnknownUser
	l := &ledger{sim: sim}
	want := []bridge.Reachability{yes, no, yes, yes, no, no, who}
	if diff := cmp.Diff(want, resolve(l)); diff != "" || l.calls.Load() != 1 {
		t.Errorf("in %d calls, -want +got:\n%s", l.calls.Load(), diff)
	}
	want = []bridge.Reachability{yes, yes, yes, yes, yes, yes, who}
	if diff := cmp.Diff(want, resolve(nil)); diff != "" {
		t.Errorf("without a ledger, -want +got:\n%s", diff)
	}
	l.err = errors.New("gone away")
	c := newChannel(l, nil)
	if _, err := c.Resolve(t.Context(), targets[:1]); !errors.Is(err, l.err) {
		t.Errorf("the ledger fails: %v", err)
	}
	if _, err := c.Resolve(t.Context(), targets[6:]); err != nil {
		t.Errorf("the ledger is not asked: %v", err)
	}
}

// TestSettle: a message that was taken uses a grant, 43101 ends it, and nothing else touches it.
func TestSettle(t *testing.T) {
	l := &ledger{}
	c := newChannel(l, nil)
	t.Cleanup(c.Wait)
	c.prepared(channel.Content{Template: singleID, TemplateID: singleID, Data: `{"thing1":"x"}`})
	delivery := func(id int64, template string, o channel.Outcome) channel.Delivery {
		return channel.Delivery{Attempt: channel.Attempt{RequestID: id, At: time.Unix(id, 0)},
			Draft:   &draft{message: wechat.SubscribeMessage{TemplateID: template}},
			Address: channel.Address{OpenID: "o"}, Outcome: o}
	}
	noGrant := channel.Outcome{Verdict: channel.Unreachable, Reason: "no_grant"}
	done := []channel.Delivery{
		delivery(1, singleID, channel.Outcome{Verdict: channel.Sent}),
		delivery(2, longTermID, channel.Outcome{Verdict: channel.Sent}),
		delivery(3, noID, noGrant),
		delivery(4, singleID, channel.Outcome{Verdict: channel.InDoubt, Reason: "timeout"}),
		delivery(5, singleID, channel.Outcome{Verdict: channel.Rejected, Reason: "invalid_openid"}),
		delivery(6, singleID, channel.Outcome{Verdict: channel.Retry, Reason: "concurrent_send"}),
		delivery(7, singleID, channel.Outcome{Verdict: channel.PauseAccount, Reason: "quota_day"}),
	}
	if err := c.Settle(t.Context(), nil, done); err != nil {
		t.Fatal(err)
	}
	use := func(id int64, template string, refused, longTerm, known bool) grants.Use {
		return grants.Use{Grant: grants.Grant{OpenID: "o", TemplateID: template}, Refused: refused,
			LongTerm: longTerm, Known: known, RequestID: id, At: time.Unix(id, 0)}
	}
	want := []grants.Use{use(1, singleID, false, false, true), use(2, longTermID, false, true, true),
		use(3, noID, true, false, false)}
	if diff := cmp.Diff(want, l.uses); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	l.err = errors.New("gone away")
	if err := c.Settle(t.Context(), nil, done); !errors.Is(err, l.err) {
		t.Errorf("the ledger fails: %v", err)
	}
	if err := c.Settle(t.Context(), nil, done[3:]); err != nil {
		t.Errorf("nothing is used: %v", err)
	}
	if err := newChannel(nil, nil).Settle(t.Context(), nil, done); err != nil {
		t.Errorf("without a ledger: %v", err)
	}
}

// TestLearnTemplates: what WeChat says of a template decides what becomes of its next message,
// which the list alone puts off.
func TestLearnTemplates(t *testing.T) {
	for name, tt := range map[string]struct {
		outcomes []channel.Outcome
		sends    bool
	}{
		"nothing": {nil, false},
		"taken":   {[]channel.Outcome{{Verdict: channel.Sent}}, true},
		"a bad value": {[]channel.Outcome{
			{Verdict: channel.Rejected, Reason: "invalid_keyword_value"}}, true},
		"another refusal": {[]channel.Outcome{
			{Verdict: channel.Rejected, Reason: "invalid_page"}}, false},
		"taken, then denied": {[]channel.Outcome{{Verdict: channel.Sent},
			{Verdict: channel.Retry, Reason: "invalid_template"}}, false},
	} {
		c := newChannel(nil, nil)
		row := channel.Content{Template: noID, TemplateID: noID, Data: `{"thing1":"x"}`}
		c.prepared(row) // loads the list
		var done []channel.Delivery
		for _, o := range tt.outcomes {
			d := &draft{message: wechat.SubscribeMessage{TemplateID: noID}}
			done = append(done, channel.Delivery{Draft: d, Outcome: o})
		}
		if err := c.Learn(t.Context(), done); err != nil {
			t.Fatal(err)
		}
		if got := c.prepared(row); (got.Data != "") != tt.sends {
			t.Errorf("%s: %+v", name, got)
		}
		c.Wait()
	}
}

// TestTraits: an engine that knew less would send twice, or two at once.
func TestTraits(t *testing.T) {
	c := newChannel(nil, nil)
	want := channel.Traits{SerialPerPerson: true, Waits: true,
		QuotaPath: "/cgi-bin/message/subscribe/send", Ledger: c.cfg.Grants != nil}
	if c.Traits() != want || c.Name() != "mini_subscribe" || c.AppID() != miniID {
		t.Errorf("%+v of %s", c.Traits(), c.Name())
	}
}
