package wechatsim

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const subscribeTarget = pathSubscribe + "?access_token=MINITOKEN"

var (
	oneTimeID  = StandardSubscribeTemplates()[1].ID
	longTermID = StandardSubscribeTemplates()[2].ID
)

// subscribeBody is a good subscribe/send of the one-time template, changed by "from>to" pairs.
func subscribeBody(s *Server, person int, changes ...string) string {
	body := fmt.Sprintf(`{"touser":%q,"template_id":%q,"page":"pages/a?id=1","lang":"en_US",`+
		`"miniprogram_state":"trial","data":{"thing1":{"value":"x"}}}`,
		s.OpenID(StandardMiniAppID, person), oneTimeID)
	for _, change := range changes {
		from, to, _ := strings.Cut(change, ">")
		body = strings.Replace(body, from, to, 1)
	}
	return body
}

func subscribeTo(t *testing.T, s *Server, person int, changes ...string) sendAnswer {
	t.Helper()
	return decodeJSON[sendAnswer](t,
		ask(t, s, subscribeTarget, subscribeBody(s, person, changes...)))
}

// TestSubscribeSend: one accept is one message, and only a message that WeChat takes uses it up.
func TestSubscribeSend(t *testing.T) {
	s, clock := newTest(t, func(o *Options) { o.Minis[0].Pages = []string{"pages/a"} })
	person := s.MiniUser(StandardMiniAppID, 0)
	if got := subscribeTo(t, s, person); got.Code != 43101 {
		t.Errorf("without an accept: %+v", got)
	}
	_, err := s.Subscribe(StandardMiniAppID, person, Tap{Templates: []string{oneTimeID}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, change string
		want         int
	}{
		{"empty value", `"x">""`, 47003}, {"missing key", "thing1>thing9", 47003},
		{"long value", `"x">"` + strings.Repeat("x", 21) + `"`, 47003},
		{"number as value", `"x">5`, 47001}, {"no JSON", "{>", 47001},
		{"another template", oneTimeID + ">" + strings.Repeat("t", 43), 40037},
		{"a template message's", oneTimeID + ">" + StandardTemplates()[0].ID, 40037},
		{"an official openid", s.OpenID(StandardMiniAppID, person) + ">" +
			s.OpenID(StandardAppID, person), 40003},
		{"another page", "pages/a>pages/b", 41030},
	} {
		if got := subscribeTo(t, s, person, tt.change); got.Code != tt.want {
			t.Errorf("%s: %+v, want %d", tt.name, got, tt.want)
		}
	}
	s.BanTemplate(StandardMiniAppID, oneTimeID, true)
	if got := subscribeTo(t, s, person); got.Code != 43116 {
		t.Errorf("a banned template: %+v", got)
	}
	s.BanTemplate(StandardMiniAppID, oneTimeID, false)
	sent := subscribeTo(t, s, person)
	if sent.Code != 0 || sent.MsgID < firstMsgID {
		t.Errorf("with an accept: %+v", sent)
	}
	if got := subscribeTo(t, s, person); got.Code != 43101 {
		t.Errorf("a second message: %+v", got)
	}
	want := []Message{{AppID: StandardMiniAppID, OpenID: s.OpenID(StandardMiniAppID, person),
		UnionID: s.UnionID(person), Person: person, TemplateID: oneTimeID,
		Data: []byte(`{"thing1":{"value":"x"}}`), Page: "pages/a?id=1", Lang: "en_US",
		State: "trial", MsgID: sent.MsgID, Time: clock.Now().UTC()}}
	if diff := cmp.Diff(want, s.Messages(StandardMiniAppID)); diff != "" {
		t.Errorf("read back, -want +got:\n%s", diff)
	}
}

// TestSubscribeKinds: who may send how much, by the wrong account, with no msgid, and beyond quota.
func TestSubscribeKinds(t *testing.T) {
	s, _ := newTest(t, func(o *Options) { o.Minis[0].NoMsgID = true })
	longTerm := []string{oneTimeID + ">" + longTermID,
		`"thing1":{"value":"x"}>"thing1":{"value":"x"},"amount2":{"value":"5元"}`}
	s.Grant(StandardMiniAppID, 1, longTermID, 1)
	for range 3 {
		if got := subscribeTo(t, s, 1, longTerm...); got.Code != 0 || got.MsgID != 0 {
			t.Errorf("a long-term template: %+v", got)
		}
	}
	if got := subscribeTo(t, s, 1, append(longTerm, "5元>12345678901")...); got.Code != 47003 {
		t.Errorf("an amount of eleven digits: %+v", got)
	}
	if got := subscribeTo(t, s, 2, longTerm...); got.Code != 43101 {
		t.Errorf("another person: %+v", got)
	}
	s.SetPerson(StandardMiniAppID, 1, Person{Refuses: true})
	if got := subscribeTo(t, s, 1, longTerm...); got.Code != 43101 {
		t.Errorf("switched off: %+v", got)
	}
	official := ask(t, s, pathSubscribe+"?access_token=TOKEN", subscribeBody(s, 1))
	if diff := cmp.Diff(fails(48001, "api unauthorized"), official); diff != "" {
		t.Error(diff)
	}
	s.SetDailyLimit(StandardMiniAppID, pathSubscribe, 1)
	if got := subscribeTo(t, s, 1, longTerm...); got.Code != 45009 {
		t.Errorf("beyond the day's quota: %+v", got)
	}
}

// TestTaps: what wx.requestSubscribeMessage answers, and what it earns.
func TestTaps(t *testing.T) {
	s, _ := newTest(t, nil)
	const person = 1
	left := func(id string) int {
		for _, g := range s.Grants(StandardMiniAppID) {
			if g.Person == person && g.TemplateID == id {
				return g.Left
			}
		}
		return 0
	}
	for i, tt := range []struct {
		tap    Tap
		answer string // for the one-time template
		left   int
	}{
		{Tap{}, "accept", 1},
		{Tap{Answer: "acceptWithAudio"}, "acceptWithAudio", 2}, // they add up
		{Tap{Answer: "reject"}, "reject", 2},                   // and are not revoked
		{Tap{Answer: "ban"}, "ban", 2},
		{Tap{Answer: "acceptWithForcePush", Keep: true}, "acceptWithForcePush", 3},
		{Tap{Answer: "reject"}, "acceptWithForcePush", 4}, // no pop-up: the kept answer counts
	} {
		tt.tap.Templates = []string{oneTimeID}
		results, err := s.Subscribe(StandardMiniAppID, person, tt.tap)
		if err != nil || results[oneTimeID] != tt.answer || left(oneTimeID) != tt.left {
			t.Errorf("tap %d: %v, %v, %d left; want %+v", i, results, err, left(oneTimeID), tt)
		}
	}
	tap := func() string {
		results, err := s.Subscribe(StandardMiniAppID, person, Tap{Templates: []string{oneTimeID}})
		if err != nil {
			t.Fatal(err)
		}
		return results[oneTimeID]
	}
	s.SwitchOff(StandardMiniAppID, person, oneTimeID)
	if answer := tap(); answer != "reject" || left(oneTimeID) != 0 {
		t.Errorf("switched off: %s, %d left", answer, left(oneTimeID))
	}
	s.SwitchOn(StandardMiniAppID, person, oneTimeID)
	if n := left(oneTimeID); n != 0 {
		t.Errorf("switching on earns %d", n)
	}
	if answer := tap(); answer != "accept" || left(oneTimeID) != 1 {
		t.Errorf("switched on: %s, %d left", answer, left(oneTimeID))
	}
	if _, err := s.Subscribe(StandardMiniAppID, person,
		Tap{Templates: []string{longTermID}}); err != nil || left(longTermID) != 1 {
		t.Errorf("long-term: %v, %d left", err, left(longTermID))
	}
	all := StandardSubscribeTemplates()
	for name, tt := range map[string]struct {
		templates []string
		code      string
	}{
		"none": {nil, "20003"}, "unknown": {[]string{"x"}, "20001"},
		"mixed": {[]string{oneTimeID, longTermID}, "20002"},
		"four":  {[]string{all[0].ID, all[1].ID, all[2].ID, all[3].ID}, "20003"},
	} {
		_, err := s.Subscribe(StandardMiniAppID, person, Tap{Templates: tt.templates})
		if err == nil || !strings.Contains(err.Error(), tt.code) {
			t.Errorf("%s: %v, want %s", name, err, tt.code)
		}
	}
}

// TestSameTitle: of two templates with one title the pop-up shows one.
func TestSameTitle(t *testing.T) {
	s, _ := newTest(t, func(o *Options) {
		o.Minis[0].Templates = StandardSubscribeTemplates()[:2]
		o.Minis[0].Templates[1].Title = o.Minis[0].Templates[0].Title
	})
	first := StandardSubscribeTemplates()[0].ID
	got, err := s.Subscribe(StandardMiniAppID, 1, Tap{Templates: []string{first, oneTimeID}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{first: "accept", oneTimeID: "filter"}, got); diff != "" {
		t.Error(diff)
	}
}

// TestConcurrentSends: while a message to a person is under way, another one to them is refused,
// and one to somebody else is not.
func TestConcurrentSends(t *testing.T) {
	s, _ := newTest(t, nil)
	s.Grant(StandardMiniAppID, 1, oneTimeID, 9)
	s.Grant(StandardMiniAppID, 2, oneTimeID, 9)
	token := fetchToken(t, s, StandardMiniAppID, StandardMiniSecret)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	post := func(ctx context.Context, person int) string {
		recorder := httptest.NewRecorder()
		s.ServeHTTP(recorder, httptest.NewRequestWithContext(ctx, http.MethodPost,
			pathSubscribe+"?access_token="+token, strings.NewReader(subscribeBody(s, person))))
		return recorder.Body.String()
	}
	s.SetFault(Fault{Kind: FaultSlow, Path: pathSubscribe, Delay: time.Hour, Next: 1})
	var slow sync.WaitGroup
	slow.Go(func() { post(ctx, 1) })
	for s.faults.any.Load() {
		runtime.Gosched() // until the slow one has met its fault
	}
	if got := post(t.Context(), 1); !strings.Contains(got, "43108") {
		t.Errorf("to the same person: %s", got)
	}
	if got := post(t.Context(), 2); !strings.Contains(got, `"errcode":0`) {
		t.Errorf("to somebody else: %s", got)
	}
	cancel()
	slow.Wait()
	if got := post(t.Context(), 1); !strings.Contains(got, `"errcode":0`) {
		t.Errorf("afterwards: %s", got)
	}
	if n := len(s.Messages(StandardMiniAppID)); n != 2 {
		t.Errorf("%d messages, want 2", n)
	}
}

// TestLostAnswer: a message whose answer is lost is delivered and has used the accept up.
func TestLostAnswer(t *testing.T) {
	s, _ := newTest(t, nil)
	s.Grant(StandardMiniAppID, 1, oneTimeID, 1)
	s.SetFault(Fault{Kind: FaultStatus, Path: pathSubscribe, After: true, Next: 1})
	answer := request(t, s, http.MethodPost, subscribeTarget, subscribeBody(s, 1))
	if answer.Code != http.StatusBadGateway || len(s.Messages(StandardMiniAppID)) != 1 {
		t.Errorf("status %d, %d messages", answer.Code, len(s.Messages(StandardMiniAppID)))
	}
	if got := subscribeTo(t, s, 1); got.Code != 43101 {
		t.Errorf("the repetition: %+v", got)
	}
}

func TestSubscribeTemplates(t *testing.T) {
	s, _ := newTest(t, func(o *Options) {
		o.Minis[0].Templates = StandardSubscribeTemplates()[2:]
	})
	const want = `{"data":[{"priTmplId":"9nLIlbOQZC5Y89AZteFEux3WCXRRRG5Wfzkpssu4bLI",` +
		`"title":"缴费提醒","content":"缴费项目:{{thing1.DATA}}\n金额:{{amount2.DATA}}\n",` +
		`"example":"缴费项目:水费\n金额:10元\n","type":3},` +
		`{"priTmplId":"BEwX0BO-T3MqK3Uc5oTU3CGBqzjpndk2jzUf7VfExd8","title":"取餐提醒",` +
		`"content":"餐品:{{thing1.DATA}}\n规格:{{enum2.DATA}}\n","example":"餐品:咖啡\n规格:大杯\n",` +
		`"type":2,"keywordEnumValueList":[{"keywordCode":"enum2.DATA",` +
		`"enumValueList":["大杯","中杯","小杯"]}]}],"errcode":0,"errmsg":"ok"}`
	const target = "/wxaapi/newtmpl/gettemplate?access_token="
	if diff := cmp.Diff(want, ask(t, s, target+"MINITOKEN", "")); diff != "" {
		t.Error(diff)
	}
	wrong := ask(t, s, target+"TOKEN", "")
	if diff := cmp.Diff(fails(48001, "api unauthorized"), wrong); diff != "" {
		t.Error(diff)
	}
}

// TestMiniControl: every switch of a mini program over HTTP does what the method does.
func TestMiniControl(t *testing.T) {
	s, _ := newTest(t, nil)
	openid := s.OpenID(StandardMiniAppID, 1)
	state := func(left int, kept string, accepts, sent int64) string {
		return mustJSON(t, []GrantState{{OpenID: openid, Person: 1, TemplateID: oneTimeID,
			Left: left, Kept: kept, Accepts: accepts, Sent: sent}})
	}
	for _, tt := range []struct{ call, want string }{
		{"POST /_sim/grant?n=2&person=1&template=" + oneTimeID, `{}`},
		{"GET /_sim/grants", state(2, "", 2, 0)},
		{"POST /_sim/subscribe?keep=1&answer=acceptWithAlert&openid=" + openid + "&template=" +
			oneTimeID, `{"` + oneTimeID + `":"acceptWithAlert"}`},
		{"GET /_sim/grants?openid=" + openid, state(3, "acceptWithAlert", 3, 0)},
		{"GET /_sim/grants?person=2", `[]`},
		{"POST /_sim/switch-off?person=1&template=" + oneTimeID, `{}`},
		{"GET /_sim/grants?person=1", state(0, "reject", 3, 0)},
		{"POST /_sim/switch-on?person=1&template=" + oneTimeID, `{}`},
		{"GET /_sim/grants?person=1", state(0, "accept", 3, 0)},
		{"POST /_sim/authorize?person=1&event=user_authorization_cancellation", `{}`},
		{"GET /_sim/grants", `[]`},
		{"POST /_sim/punish?type=4", `{}`},
	} {
		if status, got := control(t, s, tt.call, ""); status != http.StatusOK || got != tt.want {
			t.Errorf("%s: %d %s, want %s", tt.call, status, got, tt.want)
		}
	}
}
