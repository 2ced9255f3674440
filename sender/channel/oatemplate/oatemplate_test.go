package oatemplate

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/channel/channeltest"
)

const (
	appid  = wechatsim.StandardAppID
	miniID = wechatsim.StandardMiniAppID
)

var (
	orderID  = wechatsim.StandardTemplates()[0].ID
	singleID = wechatsim.StandardTemplates()[1].ID // has the one keyword thing1
	legacyID = wechatsim.StandardTemplates()[2].ID
	noID     = strings.Repeat("n", 43)
)

const orderData = `{"thing1":"咖啡 & 茶","time2":"2026-01-02 15:04","amount3":"39.80元",` +
	`"character_string4":"A-1024"}`

// TestConformance holds the channel to the contract, with and without the pre-flight.
func TestConformance(t *testing.T) {
	for name, preflight := range map[string]bool{"preflight": true, "no preflight": false} {
		t.Run(name, func(t *testing.T) {
			channeltest.Run(t, func(_ *testing.T, p *channeltest.Platform) channeltest.Subject {
				return subject(p, preflight)
			})
		})
	}
}

func subject(p *channeltest.Platform, preflight bool) channeltest.Subject {
	unionid := func(person int) string {
		id, _ := p.Sim.Identify(appid, p.Sim.OpenID(appid, person))
		return id.UnionID
	}
	target := func(r bridge.Recipient) channel.Target {
		return channel.Target{Recipient: r, TemplateID: singleID}
	}
	return channeltest.Subject{
		Path:    wechat.EndpointSendTemplate,
		Secrets: []string{wechatsim.StandardSecret},
		Content: channel.Content{Template: "short", TemplateID: singleID, Data: `{"thing1":"x"}`,
			URL: "https://example.com/", MiniPath: "pages/order", ClientMsgID: "abcdefghijkl-1"},
		Targets: []channel.Target{
			target(bridge.Recipient{UnionID: unionid(3)}),
			target(bridge.Recipient{UnionID: "nobody"}),
			target(bridge.Recipient{OpenID: p.Sim.OpenID(appid, 7)}),
		},
		Channel: New(Config{
			AppID: appid, Identities: &identities{sim: p.Sim}, Preflight: preflight,
			Aliases:  map[string]Alias{"short": {ID: singleID}},
			MiniApps: channel.MiniApps{miniID},
			Logger:   slog.New(slog.DiscardHandler), Now: time.Now,
			API: wechat.New(wechat.Config{AppID: appid, Secret: wechatsim.StandardSecret,
				BaseURL: p.URL, Transport: p, MaxConnections: 16}),
		}),
	}
}

// identities is a map of the simulated followers.
type identities struct {
	sim   *wechatsim.Server
	asked map[bridge.RecheckReason][]string
	err   error
}

func (m *identities) Resolve(
	_ context.Context, appid string, to []bridge.Recipient,
) ([]bridge.Resolution, error) {
	out := make([]bridge.Resolution, len(to))
	for i, r := range to {
		out[i] = bridge.Resolution{Reachability: bridge.NotFollowing}
		if id, ok := m.sim.IdentifyUnion(appid, r.UnionID); ok {
			out[i] = bridge.Resolution{Reachability: bridge.Reachable, OpenID: id.OpenID}
		}
		if r.OpenID != "" {
			out[i] = bridge.Resolution{Reachability: bridge.Reachable, OpenID: r.OpenID, Unlisted: true}
		}
		out[i].Awaits = []bridge.Key{{Kind: bridge.KeyUnionID, AppID: appid, Value: r.UnionID}}
	}
	return out, nil
}

func (m *identities) RequestRecheck(
	_ context.Context, _ string, openids []string, reason bridge.RecheckReason,
) error {
	if m.asked == nil {
		m.asked = make(map[bridge.RecheckReason][]string)
	}
	m.asked[reason] = append(m.asked[reason], openids...)
	return m.err
}

// api is WeChat's list of templates; nothing is sent to it.
type api struct{ API }

func (api) PrivateTemplates(context.Context) ([]wechat.Template, error) {
	var list []wechat.Template
	for _, t := range wechatsim.StandardTemplates() {
		list = append(list, wechat.Template{ID: t.ID, Content: t.Content})
	}
	return list, nil
}

func newChannel(preflight bool, aliases map[string]Alias) (*Channel, *identities) {
	m := &identities{}
	return New(Config{
		AppID: appid, API: api{}, Identities: m, Aliases: aliases, Preflight: preflight,
		MiniApps: channel.MiniApps{miniID}, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	}), m
}

// prepared is what became of a row.
type prepared struct {
	Data    string
	Warning string
	Why     channel.Rejection
}

func (c *Channel) prepared(row channel.Content) prepared {
	d, why := c.Prepare(context.Background(), row)
	if why != nil {
		return prepared{Why: *why}
	}
	return prepared{Data: string(d.(*draft).message.Data), Warning: d.Warning()}
}

func TestPreflight(t *testing.T) {
	c, _ := newChannel(true, nil)
	t.Cleanup(c.Wait)
	long := strings.Repeat("啡", 25)
	for _, tt := range []struct {
		name, template, data string
		redelivery           bool
		want                 prepared
	}{
		{name: "fine", template: orderID, data: orderData, want: prepared{
			Data: `{"amount3":{"value":"39.80元"},"character_string4":{"value":"A-1024"},` +
				`"thing1":{"value":"咖啡 & 茶"},"time2":{"value":"2026-01-02 15:04"}}`}},
		{name: "wrong values", template: orderID,
			data: `{"thing1":"` + long + `","time2":"机密","character_string4":"A-1024"}`,
			want: prepared{Why: channel.Rejection{Reason: "bad_keyword", Field: "data.thing1",
				Message: "data.thing1 has 25 characters, thing takes at most 20; " +
					"data.time2 has 2 characters, time takes a 24-hour time such as 15:01 or " +
					"2026-01-02 15:01, a range with a half-width ~; data.amount3 is missing"}}},
		{name: "a key too many", template: singleID, data: `{"thing1":"x","thing2":"y","first":"z"}`,
			want: prepared{Data: `{"thing1":{"value":"x"}}`,
				Warning: "data.first is not shown any more, since 2023-05-04; " +
					"data.thing2 is no keyword of the template and was left out"}},
		{name: "legacy", template: legacyID,
			data: `{"first":"您好","keyword1":"` + long + `","keyword2":"x"}`,
			want: prepared{
				Data: `{"first":{"value":"您好"},"keyword1":{"value":"` + long + `"},` +
					`"keyword2":{"value":"x"}}`,
				Warning: "data.first is not shown any more, since 2023-05-04; " +
					"data.keyword1 has 25 characters, of which WeChat shows 20"}},
		{name: "a redelivery", template: orderID, data: `{"thing1":"` + long + `"}`, redelivery: true,
			want: prepared{Data: `{"thing1":{"value":"` + long + `"}}`}},
		{name: "a redelivery with a template that is gone", template: noID, data: `{"thing1":"x"}`,
			redelivery: true, want: prepared{Data: `{"thing1":{"value":"x"}}`}},
		{name: "no such template", template: noID, data: `{"thing1":"x"}`,
			want: prepared{Why: channel.Rejection{Reason: "unknown_template", After: 2 * time.Minute,
				Message: "the official account's list has no template " + noID +
					" (console, 模板消息, 我的模板); it is looked for again, and then WeChat is asked"}}},
	} {
		row := channel.Content{Template: tt.template, TemplateID: tt.template, Data: tt.data,
			Redelivery: tt.redelivery}
		if diff := cmp.Diff(tt.want, c.prepared(row)); diff != "" {
			t.Errorf("%s, -want +got:\n%s", tt.name, diff)
		}
		if tt.redelivery {
			continue
		}
		why := c.Preview(row)
		if final := tt.want.Why.Reason != "" && tt.want.Why.After == 0; final != (why != nil) ||
			final && *why != tt.want.Why {
			t.Errorf("%s: before there is a row it is rejected by %+v", tt.name, why)
		}
	}
}

func TestLink(t *testing.T) {
	badURL := "url must be a whole address that begins with https:// or http://"
	for _, tt := range []struct {
		row      channel.Content
		want     *wechat.MiniProgramLink
		rejected string
	}{
		{channel.Content{URL: "https://example.com/x"}, nil, ""},
		{channel.Content{URL: "example.com/x"}, nil, badURL},
		{channel.Content{URL: "https:///x"}, nil, badURL},
		{channel.Content{URL: "ftp://example.com/x"}, nil, badURL},
		{channel.Content{MiniPath: "a?b=c"},
			&wechat.MiniProgramLink{AppID: miniID, PagePath: "a?b=c"}, ""},
		{channel.Content{MiniAppID: "wx00000000000000ff"}, nil, ""},
		{channel.Content{JumpAppID: "wx00000000000000ff", MiniPath: "a"},
			&wechat.MiniProgramLink{AppID: "wx00000000000000ff", PagePath: "a"}, ""},
		{channel.Content{JumpAppID: "wx00000000000000ff"},
			&wechat.MiniProgramLink{AppID: "wx00000000000000ff"}, ""},
		{channel.Content{MiniAppID: "wx00000000000000ff", MiniPath: "a"}, nil,
			"mini_appid wx00000000000000ff is not configured under mini_programs"},
	} {
		c, _ := newChannel(false, nil)
		row := tt.row
		row.Template, row.TemplateID, row.Data, row.ClientMsgID = orderID, orderID, `{"a":"b"}`, "id"
		d, why := c.Prepare(t.Context(), row)
		if tt.rejected != "" {
			want := channel.RejectField("bad_link", "url", tt.rejected)
			if tt.row.URL == "" {
				want.Field = "mini_path"
			}
			if diff := cmp.Diff(want, why); diff != "" {
				t.Errorf("%+v, -want +got:\n%s", tt.row, diff)
			}
			continue
		}
		want := wechat.TemplateMessage{TemplateID: orderID, URL: row.URL, MiniProgram: tt.want,
			Data: []byte(`{"a":{"value":"b"}}`), ClientMsgID: "id"}
		if diff := cmp.Diff(want, d.(*draft).message); diff != "" {
			t.Errorf("%+v, -want +got:\n%s", tt.row, diff)
		}
	}
}

func TestTruncates(t *testing.T) {
	c, _ := newChannel(false, map[string]Alias{"order": {ID: orderID, Truncate: true}})
	want := prepared{
		Data: `{"character_string4":{"value":"` + strings.Repeat("9", 40) + `"},` +
			`"thing1":{"value":"` + strings.Repeat("啡", 19) + `…"}}`,
		Warning: "data.thing1 has 30 characters, shortened to 20",
	}
	got := c.prepared(channel.Content{Template: "order", TemplateID: orderID,
		Data: `{"thing1":"` + strings.Repeat("啡", 30) + `",` +
			`"character_string4":"` + strings.Repeat("9", 40) + `"}`})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestTruncateByID: a row that names the template by its id is cut as its alias says.
func TestTruncateByID(t *testing.T) {
	for _, tt := range []struct {
		name, row string
		aliases   map[string]Alias
		want      bool
	}{
		{"by the alias", "order", map[string]Alias{"order": {orderID, true}}, true},
		{"by the id", orderID, map[string]Alias{"order": {orderID, true}}, true},
		{"not wanted", orderID, map[string]Alias{"order": {orderID, false}}, false},
		{"another template's alias", orderID, map[string]Alias{"order": {noID, true}}, false},
		{"another account's", orderID, nil, false},
		{"any alias of it", orderID,
			map[string]Alias{"order": {orderID, false}, "cut": {orderID, true}}, true},
		{"the alias's own word", "order",
			map[string]Alias{"order": {orderID, false}, "cut": {orderID, true}}, false},
	} {
		c, _ := newChannel(false, tt.aliases)
		got := c.prepared(channel.Content{Template: tt.row, TemplateID: orderID,
			Data: `{"thing1":"` + strings.Repeat("啡", 30) + `"}`})
		if cut := strings.HasSuffix(got.Data, `啡…"}}`); cut != tt.want {
			t.Errorf("%s: cut %t, want %t: %s", tt.name, cut, tt.want, got.Data)
		}
	}
}

// TestLearn: doubtful people are rechecked in one call a doubt, and the catalog hears what
// concerns it.
func TestLearn(t *testing.T) {
	c, m := newChannel(true, nil)
	t.Cleanup(c.Wait)
	delivery := func(openid string, o channel.Outcome) channel.Delivery {
		return channel.Delivery{Draft: &draft{message: wechat.TemplateMessage{TemplateID: noID}},
			Address: channel.Address{Reachability: bridge.Reachable, OpenID: openid}, Outcome: o}
	}
	unreachable := func(reason wechat.Reason) channel.Outcome {
		return channel.Outcome{Verdict: channel.Unreachable, Reason: string(reason)}
	}
	done := []channel.Delivery{
		delivery("a", unreachable(wechat.ReasonNotFollower)),
		delivery("b", unreachable(wechat.ReasonInvalidOpenID)),
		delivery("c", unreachable(wechat.ReasonNotFollower)),
		delivery("d", channel.Outcome{Verdict: channel.Rejected, Reason: "invalid_openid"}),
		delivery("e", channel.Outcome{Verdict: channel.Sent}),
	}
	if err := c.Learn(t.Context(), done); err != nil {
		t.Fatal(err)
	}
	want := map[bridge.RecheckReason][]string{
		bridge.RecheckSendRefused: {"a", "c"}, bridge.RecheckSendInvalid: {"b"},
	}
	if diff := cmp.Diff(want, m.asked); diff != "" {
		t.Errorf("people who are rechecked, -want +got:\n%s", diff)
	}
	m.err = errors.New("gone away")
	if err := c.Learn(t.Context(), done); !errors.Is(err, m.err) {
		t.Errorf("the map fails: %v", err)
	}
	if err := c.Learn(t.Context(), done[3:]); err != nil {
		t.Errorf("the map is not asked: %v", err)
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
		"another refusal": {[]channel.Outcome{{Verdict: channel.Rejected, Reason: "invalid_url"}}, false},
		"taken, then denied": {[]channel.Outcome{{Verdict: channel.Sent},
			{Verdict: channel.Retry, Reason: "invalid_template"}}, false},
		"taken, then busy": {[]channel.Outcome{{Verdict: channel.Sent},
			{Verdict: channel.Retry, Reason: "system_busy"}}, true},
	} {
		c, _ := newChannel(true, nil)
		row := channel.Content{Template: noID, TemplateID: noID, Data: `{"thing1":"x"}`}
		c.prepared(row) // loads the list
		var done []channel.Delivery
		for _, o := range tt.outcomes {
			d := &draft{message: wechat.TemplateMessage{TemplateID: noID}}
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

// BenchmarkPrepare measures what stands between a claim and its POSTs, with and without the
// pre-flight.
func BenchmarkPrepare(b *testing.B) {
	row := channel.Content{Template: "order", TemplateID: orderID, Data: orderData,
		URL: "https://example.com/orders/1024"}
	for _, preflight := range []string{"off", "on"} {
		b.Run("preflight="+preflight, func(b *testing.B) {
			c, _ := newChannel(preflight == "on", nil)
			b.ReportAllocs()
			for b.Loop() {
				if _, why := c.Prepare(b.Context(), row); why != nil {
					b.Fatal(*why)
				}
			}
		})
	}
}

// TestTraits: an engine that knew less would send twice, or ask for no quota.
func TestTraits(t *testing.T) {
	c, _ := newChannel(false, nil)
	want := channel.Traits{Idempotency: 10 * time.Minute, Waits: true, WaitOver: "no_follower", Receipts: true,
		QuotaPath: "/cgi-bin/message/template/send"}
	if c.Traits() != want || c.Name() != "oa_template" || c.AppID() != appid {
		t.Errorf("%+v of %s", c.Traits(), c.Name())
	}
}
