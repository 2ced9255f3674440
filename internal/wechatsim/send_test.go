package wechatsim

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type sendAnswer struct {
	Code  int    `json:"errcode"`
	Text  string `json:"errmsg"`
	MsgID int64  `json:"msgid"`
}

func sendTo(t testing.TB, s *Server, person int, clientID string) sendAnswer {
	t.Helper()
	return decodeJSON[sendAnswer](t, ask(t, s, sendTarget, sendBody(s, person, clientID)))
}

func TestTemplateSend(t *testing.T) {
	s, clock := newTest(t, nil)
	body := sendBody(s, 5, "id-1")
	first := decodeJSON[sendAnswer](t, ask(t, s, sendTarget, body))
	second := sendTo(t, s, 6, "")
	if first.Code != 0 || first.Text != "ok" || first.MsgID <= 1<<53 ||
		second.MsgID <= first.MsgID {
		t.Fatalf("answers %+v and %+v", first, second)
	}
	_, data, _ := strings.Cut(body, `"data":`)
	got := s.Messages(StandardAppID)
	want := Message{
		AppID: StandardAppID, OpenID: s.OpenID(StandardAppID, 5), UnionID: s.UnionID(5), Person: 5,
		TemplateID: StandardTemplates()[0].ID, Data: []byte(strings.TrimSuffix(data, "}")),
		ClientMsgID: "id-1", MsgID: first.MsgID, Time: clock.Now().UTC(),
	}
	if len(got) != 2 {
		t.Fatalf("%d messages", len(got))
	}
	if diff := cmp.Diff(want, got[0]); diff != "" {
		t.Error(diff)
	}
}

func TestTemplateSendErrors(t *testing.T) {
	s, _ := newTest(t, func(o *Options) {
		o.Accounts = append(o.Accounts, Account{AppID: "wx0a00000000000002", Followers: 10})
	})
	s.SetPerson(StandardAppID, 1, Person{Refuses: true})
	s.SetPerson(StandardAppID, 2, Person{Blacklisted: true})
	s.SetPerson(StandardAppID, 3, Person{Throttled: true})
	s.BanTemplate(StandardAppID, StandardTemplates()[1].ID, true)
	good := sendBody(s, 0, "")
	replace := func(old, with string) string { return strings.Replace(good, old, with, 1) }
	openid, template := s.OpenID(StandardAppID, 0), StandardTemplates()[0].ID
	for _, test := range []struct{ name, body, want string }{
		{"not a follower", sendBody(s, 30000, ""), fails(43004, "require subscribe")},
		{"refuses", sendBody(s, 1, ""), fails(43101, "user refuse to accept the msg")},
		{"blacklisted", sendBody(s, 2, ""), fails(43019, "require remove blacklist")},
		{"too many", sendBody(s, 3, ""),
			fails(43117, "Sending messages to this openid too frequently,please try later")},
		{"mini program's openid", replace(openid, s.OpenID(StandardMiniAppID, 0)),
			fails(40003, "invalid openid")},
		{"other account's openid", replace(openid, s.OpenID("wx0a00000000000002", 0)),
			fails(40003, "invalid openid")},
		{"no openid", replace(`"touser"`, `"to"`), fails(40003, "invalid openid")},
		{"template missing", replace(`"template_id"`, `"template"`),
			fails(40036, "invalid template_id size")},
		{"template unknown", replace(template, strings.Repeat("x", 43)),
			fails(40037, "invalid template_id")},
		{"template banned", replace(template, StandardTemplates()[1].ID),
			fails(43116, "This template_id is banned")},
		{"not JSON", "touser=" + openid, fails(47001, "data format error")},
		{"cut", good[:100], fails(47001, "data format error")},
		{"trailing garbage", good + "x", fails(47001, "data format error")},
		{"not UTF-8", replace("A-1024", "A\xff"), fails(47001, "data format error")},
		{"touser a number", replace(fmt.Sprintf("%q", openid), "5"),
			fails(47001, "data format error")},
		{"value a number", replace(`"A-1024"`, "1024"), fails(47001, "data format error")},
		{"key missing", replace(`"time2"`, `"time9"`),
			fails(47003, "argument invalid! data.time2.value is empty")},
		{"value empty", replace("A-1024", ""),
			fails(47003, "argument invalid! data.character_string4.value is empty")},
		{"value only of unsupported symbols", replace("A-1024", "①"),
			fails(47003, "argument invalid! data.character_string4.value is empty")},
		{"value not in an object", replace(`{"value":"A-1024"}`, `"A-1024"`),
			fails(47003, "argument invalid! data.character_string4.value is empty")},
		{"21 characters", replace("示例 & 文字", strings.Repeat("字", 21)),
			fails(47003, "argument invalid! data.thing1.value invalid")},
		{"data a string", replace(`"data":{`, `"data":"{}","x":{`),
			fails(47003, "argument invalid! data.thing1.value is empty")},
		{"data missing", replace(`"data"`, `"dat"`),
			fails(47003, "argument invalid! data.thing1.value is empty")},
		{"link to an unknown mini program",
			replace(`"data"`, `"miniprogram":{"appid":"wx1","pagepath":"a"},"data"`),
			fails(40166, "invalid weapp appid")},
		{"url too long", replace(`"data"`, `"url":"https://example.com/`+strings.Repeat("x",
			3000)+`","data"`), fails(40039, "invalid url size")},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, ask(t, s, sendTarget, test.body)); diff != "" {
				t.Error(diff)
			}
		})
	}
	if got := s.Messages(StandardAppID); len(got) != 0 {
		t.Errorf("%d messages were delivered", len(got))
	}
	want := map[string]int64{"43004": 1, "47001": 6}
	got := s.Stats().Errors[pathSend]
	if got["43004"] != want["43004"] || got["47001"] != want["47001"] {
		t.Errorf("counted errors %v, want among them %v", got, want)
	}
	if calls := s.Calls()[pathSend]; calls != 25 {
		t.Errorf("%d calls counted, want 25", calls)
	}
}

func TestTemplateSendAccepts(t *testing.T) {
	s, _ := newTest(t, nil)
	good := sendBody(s, 0, "")
	for name, body := range map[string]string{
		"20 Chinese characters": strings.Replace(good, "示例 & 文字", strings.Repeat("字", 20), 1),
		"escapes":               strings.Replace(good, "示例 & 文字", `\u0026 \"x\"`, 1),
		"an extra key": strings.Replace(good, `"thing1"`,
			`"thing7":{"value":"x"},"thing1"`, 1),
		"link": strings.Replace(good, `"data"`,
			`"miniprogram":{"appid":"`+StandardMiniAppID+`","pagepath":"a?b=c"},"data"`, 1),
		"legacy, anything goes": fmt.Sprintf(`{"touser":%q,"template_id":%q,"data":{"first":{"value":%q}}}`,
			s.OpenID(StandardAppID, 0), StandardTemplates()[2].ID, strings.Repeat("长", 300)),
	} {
		if got := decodeJSON[sendAnswer](t, ask(t, s, sendTarget, body)); got.Code != 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
	s.SetQuirks(StandardAppID, Quirks{RefuseEscapes: true, ExtraKeysRefused: true})
	escaped := strings.Replace(good, "示例 & 文字", `\u0026`, 1)
	if got := decodeJSON[sendAnswer](t, ask(t, s, sendTarget, escaped)); got.Code != 47002 {
		t.Errorf("RefuseEscapes: %+v", got)
	}
	extra := strings.Replace(good, `"thing1"`, `"thing7":{"value":"x"},"thing1"`, 1)
	if got := ask(t, s, sendTarget, extra); got != fails(47003,
		"argument invalid! data.thing7.value invalid") {
		t.Errorf("ExtraKeysRefused: %s", got)
	}
}

func TestRepeatedClientMsgID(t *testing.T) {
	for _, test := range []struct {
		repeat    Repeat
		code      int
		sameID    bool
		delivered int64
	}{
		{RepeatSameID, 0, true, 1},
		{RepeatNewID, 0, false, 1},
		{RepeatError, 44007, false, 1},
		{RepeatSends, 0, false, 2},
	} {
		t.Run("answer "+string(test.repeat), func(t *testing.T) {
			s, clock := newTest(t, nil)
			s.SetQuirks(StandardAppID, Quirks{Repeat: test.repeat})
			first := sendTo(t, s, 1, "id")
			clock.advance(10*time.Minute - time.Second)
			again := sendTo(t, s, 1, "id")
			if again.Code != test.code || (again.MsgID == first.MsgID) != test.sameID {
				t.Errorf("repeated: %+v after %+v", again, first)
			}
			if got, _ := s.Delivered(StandardAppID); got != test.delivered {
				t.Errorf("%d delivered, want %d", got, test.delivered)
			}
			if other := sendTo(t, s, 2, "id"); other.Code != 0 || other.MsgID == first.MsgID {
				t.Errorf("another person: %+v", other)
			}
		})
	}
}

func TestClientMsgIDIsForgotten(t *testing.T) {
	for set, half := range map[time.Duration]time.Duration{
		0: 5 * time.Minute, time.Minute: 30 * time.Second,
	} {
		s, clock := newTest(t, func(o *Options) { o.RepeatWindow = set })
		for range 4 {
			sendTo(t, s, 1, "id")
			clock.advance(half)
			sendTo(t, s, 1, "id")
			clock.advance(half)
		}
		if delivered, repeats := s.Delivered(StandardAppID); delivered != 4 || repeats != 4 {
			t.Errorf("%s: %d delivered and %d repeats, want 4 and 4", set, delivered, repeats)
		}
	}
}

// TestHeldUpRepetition: a repetition that arrives within the window, and is processed after it, is
// a second message.
func TestHeldUpRepetition(t *testing.T) {
	s := New(Options{
		Accounts:     []Account{{AppID: StandardAppID, Secret: StandardSecret, Followers: 2}},
		RepeatWindow: 20 * time.Millisecond,
	})
	t.Cleanup(s.Close)
	sendTo(t, s, 1, "id")
	s.SetFault(Fault{Kind: FaultSlow, Path: pathSend, Delay: 30 * time.Millisecond})
	sendTo(t, s, 1, "id")
	if delivered, _ := s.Delivered(StandardAppID); delivered != 2 {
		t.Errorf("%d delivered, want 2", delivered)
	}
}

func TestDuplicateWithin60Seconds(t *testing.T) {
	s, clock := newTest(t, nil)
	s.SetQuirks(StandardAppID, Quirks{Duplicate60: true})
	for _, step := range []struct {
		wait time.Duration
		code int
	}{{0, 0}, {59 * time.Second, 40241}, {time.Second, 0}} {
		clock.advance(step.wait)
		if got := sendTo(t, s, 1, ""); got.Code != step.code {
			t.Errorf("after %s more: %+v, want %d", step.wait, got, step.code)
		}
	}
}

func TestRefuseShare(t *testing.T) {
	s, _ := newTest(t, nil)
	s.SetQuirks(StandardAppID, Quirks{RefuseShare: 0.25})
	refused := 0
	for person := range 1000 {
		if sendTo(t, s, person, "").Code == 43101 {
			refused++
		}
	}
	if refused < 200 || refused > 300 {
		t.Errorf("%d of 1000 refuse, want about 250", refused)
	}
}

func TestKeep(t *testing.T) {
	for keep, want := range map[Keep]string{KeepAll: "id:true", KeepHeads: "id:false",
		KeepCounts: ""} {
		s, _ := newTest(t, func(o *Options) { o.Keep = keep })
		sendTo(t, s, 1, "id")
		got := ""
		for _, m := range s.Messages(StandardAppID) {
			got += fmt.Sprintf("%s:%v", m.ClientMsgID, m.Data != nil)
		}
		if count, _ := s.Delivered(StandardAppID); got != want || count != 1 {
			t.Errorf("%s: read back %q, count %d", keep, got, count)
		}
	}
}

func TestKeywordRules(t *testing.T) {
	for kind, values := range map[string]struct{ good, bad []string }{
		"thing": {[]string{"a", strings.Repeat("字", 20)},
			[]string{strings.Repeat("字", 21), "a\nb"}},
		"number": {[]string{"12", "-1.5", strings.Repeat("1", 32)},
			[]string{"1.", "a", strings.Repeat("1", 33)}},
		"letter":           {[]string{"abC"}, []string{"a1", strings.Repeat("a", 33)}},
		"symbol":           {[]string{"+-*/&"}, []string{"a", "++++++"}},
		"character_string": {[]string{"A-1024/x"}, []string{"订单1", strings.Repeat("x", 33)}},
		"time": {[]string{"15:01", "2019年10月1日 15:01", "2026-01-02 15:04:05", "09:00~10:00",
			"2026-01-02 09:00~2026-01-02 10:00"},
			[]string{"09:00～10:00", "24:00", "2026-01-02", "tomorrow", "2026-13-02 10:00"}},
		"date": {[]string{"2019年10月1日", "2026-01-02", "2026-01-02 15:04", "2026-01", "2026年1月",
			"01-02", "1月2日", "2026.01~2026.03"},
			[]string{"2026", "15:04", "2026-01-32", "2026-13", "13-01"}},
		"amount": {[]string{"¥39.80", "39.80元", "100", "￥1元"},
			[]string{"39,80", "元", "1234567890123", "¥¥1"}},
		"phone_number": {[]string{"+86-13800138000"}, []string{"138a", strings.Repeat("1", 18)}},
		"car_number":   {[]string{"粤A8Z888挂"}, []string{"粤A8Z888挂挂"}},
		"name": {[]string{"张三", "Christopher Robinson"},
			[]string{"欧阳欧阳欧阳欧阳欧阳欧", strings.Repeat("a", 21)}},
		"phrase": {[]string{"已支付"}, []string{"已经支付完成", "paid"}},
	} {
		for _, value := range values.good {
			if !newKeyword(kind+"1", nil).accepts(value) {
				t.Errorf("%s: %q is refused", kind, value)
			}
		}
		for _, value := range values.bad {
			if newKeyword(kind+"1", nil).accepts(value) {
				t.Errorf("%s: %q is accepted", kind, value)
			}
		}
	}
	listed := newKeyword("const1", []string{"已完成"})
	if !listed.accepts("已完成") || listed.accepts("未完成") {
		t.Error("listed values are not told apart")
	}
}

func TestPrivateTemplates(t *testing.T) {
	s, _ := newTest(t, nil)
	target := "/cgi-bin/template/get_all_private_template?access_token=TOKEN"
	type answer struct {
		List []Template `json:"template_list"`
	}
	got := decodeJSON[answer](t, ask(t, s, target, "")).List
	if diff := cmp.Diff(StandardTemplates(), got); diff != "" {
		t.Error(diff)
	}
	s.SetQuirks(StandardAppID, Quirks{SpacedBraces: true})
	spaced := decodeJSON[answer](t, ask(t, s, target, "")).List
	if !slices.ContainsFunc(spaced, func(t Template) bool {
		return strings.Contains(t.Content,
			"{ {thing1.DATA} }")
	}) {
		t.Errorf("spaced braces: %q", spaced[0].Content)
	}
}

func TestRetiredAPIs(t *testing.T) {
	s, _ := newTest(t, nil)
	for path, want := range map[string]string{
		"/cgi-bin/message/wxopen/template/send": fails(45103, "This API has been unsupported"),
		"/cgi-bin/message/wxopen/template/uniform_send": fails(45109,
			"This API has been unsupported. For more details, please view "+
				"https://developers.weixin.qq.com/community/develop/doc/000ae8d6348af08e7030bc2546bc01?blockType=1"),
		"/cgi-bin/no/such": fails(40066, "invalid url"),
	} {
		if diff := cmp.Diff(want, ask(t, s, path+"?access_token=MINITOKEN", "{}")); diff != "" {
			t.Error(path, diff)
		}
	}
	if got := decodeJSON[sendAnswer](t,
		ask(t, s, pathSend+"?access_token=MINITOKEN", sendBody(s, 1, ""))); got.Code != 45109 {
		t.Errorf("template/send with the mini program's token: %+v", got)
	}
}
