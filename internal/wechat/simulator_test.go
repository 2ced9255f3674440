package wechat_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechat/keyword"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// simulated is a simulator with two and a half pages of followers, and clients for its two
// accounts. It was written apart from this package, with wire structs of its own: what both agree
// on is the reference.
func simulated(t *testing.T) (sim *wechatsim.Server, official, mini *wechat.Client) {
	t.Helper()
	sim = wechatsim.NewStandard(25_000, 100, 0.3)
	server := httptest.NewServer(sim)
	t.Cleanup(func() { server.Close(); sim.Close() })
	official = wechat.New(wechat.Config{AppID: wechatsim.StandardAppID,
		Secret: wechatsim.StandardSecret, BaseURL: server.URL + "/"})
	mini = wechat.New(wechat.Config{AppID: wechatsim.StandardMiniAppID,
		Secret: wechatsim.StandardMiniSecret, BaseURL: server.URL})
	return sim, official, mini
}

// everybody reads the whole list.
func everybody(t *testing.T, c *wechat.Client) []string {
	t.Helper()
	var all []string
	cursor := ""
	for {
		page, err := c.Followers(t.Context(), cursor)
		if err != nil {
			t.Fatal(err)
		}
		if page.End() {
			return all
		}
		all, cursor = append(all, page.OpenIDs...), page.NextOpenID
	}
}

func TestAgainstSimulator(t *testing.T) {
	sim, official, mini := simulated(t)
	all := everybody(t, official)
	if len(all) != 25_000 {
		t.Fatalf("%d followers, want 25,000", len(all))
	}
	if n := sim.Calls()[wechat.EndpointFollowers]; n != 4 {
		t.Errorf("%d calls for three pages and the end, want 4", n)
	}

	users, err := official.BatchUserInfo(t.Context(), all[:wechat.MaxBatch])
	if err != nil {
		t.Fatal(err)
	}
	for i, user := range users {
		who, ok := sim.Identify(wechatsim.StandardAppID, user.OpenID)
		if !ok || user.OpenID != all[i] || user.UnionID != who.UnionID || !user.Subscribed {
			t.Fatalf("user %d: %+v, is %+v", i, user, who)
		}
	}
	single, err := official.UserInfo(t.Context(), all[0])
	if err != nil || single.UnionID != users[0].UnionID {
		t.Errorf("user/info: %+v, %v", single, err)
	}

	templates, err := official.PrivateTemplates(t.Context())
	if err != nil || len(templates) == 0 || len(keyword.Parse(templates[0].Content).Names()) != 4 {
		t.Errorf("templates: %+v, %v", templates, err)
	}
	quota, err := official.Quota(t.Context(), wechat.EndpointFollowers)
	if err != nil || quota.Used != 4 || quota.DailyLimit != 500 {
		t.Errorf("quota: %+v, %v", quota, err)
	}
	session, err := mini.Session(t.Context(), "mini-7-x")
	person := sim.MiniUser(wechatsim.StandardMiniAppID, 7)
	if err != nil || session.UnionID != sim.UnionID(person) ||
		session.OpenID != sim.OpenID(wechatsim.StandardMiniAppID, person) {
		t.Errorf("session: %+v, %v", session, err)
	}
	_, err = mini.Session(t.Context(), "mini-7-x")
	expect(t, "used code", err, 40163, wechat.PolicyRequest)
}

func TestSendAgainstSimulator(t *testing.T) {
	sim, official, _ := simulated(t)
	to := everybody(t, official)[0]
	m := wechat.TemplateMessage{
		ToUser: to, TemplateID: wechatsim.StandardTemplates()[1].ID, ClientMsgID: "c1",
		Data: json.RawMessage(`{"thing1":{"value":"a & <b> 完"}}`),
		URL:  "https://example.com/?a=1&b=2",
	}
	msgid, err := official.SendTemplate(t.Context(), m)
	if err != nil || msgid <= 1<<53 {
		t.Fatalf("msgid %d, %v", msgid, err)
	}
	got := sim.Messages(wechatsim.StandardAppID)
	if len(got) != 1 || got[0].OpenID != to {
		t.Fatalf("delivered %+v", got)
	}
	text := fmt.Sprintf("%+v %s", got[0], got[0].Data)
	for _, part := range []string{"a & <b> 完", m.URL, "c1"} {
		if !strings.Contains(text, part) {
			t.Errorf("delivered %s, without %s", text, part)
		}
	}

	// The token dies: the send says so and was not made, the next one goes.
	sim.InvalidateTokens(wechatsim.StandardAppID)
	m.ClientMsgID = "c2"
	_, err = official.SendTemplate(t.Context(), m)
	expect(t, "dead token", err, 0, wechat.PolicyToken)
	if e, ok := errors.AsType[*wechat.Error](err); ok && e.Uncertain {
		t.Error("a refused token leaves the send uncertain")
	}
	if _, err = official.SendTemplate(t.Context(), m); err != nil {
		t.Errorf("after the renewal: %v", err)
	}
	if n, repeats := sim.Delivered(wechatsim.StandardAppID); n != 2 || repeats != 0 {
		t.Errorf("%d delivered, %d repeats", n, repeats)
	}

	wrong := m
	wrong.TemplateID = "iPk5sOIt5X_flOVKn5GrTFpncEYTojx6ddbt8WYoV5x"
	_, err = official.SendTemplate(t.Context(), wrong)
	expect(t, "template", err, 40037, wechat.PolicyRetry)
	wrong = m
	wrong.ToUser = "o-not-an-openid"
	_, err = official.SendTemplate(t.Context(), wrong)
	expect(t, "openid", err, 40003, wechat.PolicyRecipient)
	wrong = m
	wrong.Data = json.RawMessage(`{"thing1":{"value":""}}`)
	_, err = official.SendTemplate(t.Context(), wrong)
	expect(t, "value", err, 47003, wechat.PolicyRequest)
	wrong = m
	sim.Unfollow(wechatsim.StandardAppID, mustPerson(t, sim, to))
	_, err = official.SendTemplate(t.Context(), wrong)
	expect(t, "follower", err, 43004, wechat.PolicyRecipient)
}

func mustPerson(t *testing.T, sim *wechatsim.Server, openid string) int {
	t.Helper()
	who, ok := sim.Identify(wechatsim.StandardAppID, openid)
	if !ok {
		t.Fatalf("nobody is %s", openid)
	}
	return who.Person
}

// expect checks code (0: any) and policy.
func expect(t *testing.T, what string, err error, code int, policy wechat.Policy) {
	t.Helper()
	e, ok := errors.AsType[*wechat.Error](err)
	if !ok || code != 0 && e.Code != code || e.Policy != policy {
		t.Errorf("%s: %v, want code %d, policy %s", what, err, code, policy)
	}
}

func TestSubscribeAgainstSimulator(t *testing.T) {
	sim, official, mini := simulated(t)
	templates, err := mini.SubscribeTemplates(t.Context())
	if err != nil || len(templates) != 4 || !templates[2].LongTerm || templates[1].LongTerm ||
		len(templates[3].Enums["enum2"]) != 3 {
		t.Fatalf("templates: %+v, %v", templates, err)
	}
	person := sim.MiniUser(wechatsim.StandardMiniAppID, 0)
	m := wechat.SubscribeMessage{
		ToUser:     sim.OpenID(wechatsim.StandardMiniAppID, person),
		TemplateID: templates[1].ID, Page: "pages/a?b=c&d", State: "trial", Lang: "zh_HK",
		Data: json.RawMessage(`{"thing1":{"value":"a & <b> 完"}}`),
	}
	_, err = mini.SendSubscribe(t.Context(), m)
	expect(t, "without an accept", err, 43101, wechat.PolicyRecipient)
	sim.Grant(wechatsim.StandardMiniAppID, person, m.TemplateID, 2)
	wrong := m
	wrong.Data = json.RawMessage(`{"thing1":{"value":""}}`)
	_, err = mini.SendSubscribe(t.Context(), wrong)
	expect(t, "value", err, 47003, wechat.PolicyRequest)
	if e, _ := errors.AsType[*wechat.Error](err); !strings.Contains(e.Message, "data.thing1") {
		t.Errorf("the key is not named: %v", err)
	}
	if msgid, err := mini.SendSubscribe(t.Context(), m); err != nil || msgid <= 1<<53 {
		t.Errorf("msgid %d, %v", msgid, err)
	}
	sim.InvalidateTokens(wechatsim.StandardMiniAppID)
	_, err = mini.SendSubscribe(t.Context(), m)
	expect(t, "dead token", err, 0, wechat.PolicyToken)
	if _, err = mini.SendSubscribe(t.Context(), m); err != nil {
		t.Errorf("after the renewal: %v", err)
	}
	_, err = official.SendSubscribe(t.Context(), m)
	expect(t, "an official account", err, 48001, wechat.PolicyConfig)
	got := sim.Messages(wechatsim.StandardMiniAppID)
	if len(got) != 2 || got[0].OpenID != m.ToUser || got[0].Page != m.Page ||
		got[0].Lang != m.Lang || got[0].State != m.State ||
		!strings.Contains(string(got[0].Data), "a & <b> 完") {
		t.Errorf("delivered %+v", got)
	}
}
