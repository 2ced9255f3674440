package push

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// withdrawalXML has the mistake of the official example: no XML parser takes < OpenPID>.
var withdrawalXML = fmt.Sprintf("<xml>\n<ToUserName><![CDATA[gh_1]]></ToUserName>\n"+
	"<FromUserName><![CDATA[oPlatform]]></FromUserName>\n<CreateTime>%d</CreateTime>\n"+
	"<MsgType><![CDATA[event]]></MsgType>\n<Event><![CDATA[user_authorization_revoke]]></Event>\n"+
	"<OpenID><![CDATA[oTheUser]]></OpenID>\n<AppID><![CDATA[wx13974bf780d3dc89]]></AppID>\n"+
	"<RevokeInfo><![CDATA[8]]></RevokeInfo>\n<PluginID><![CDATA[wx1]]></PluginID>\n"+
	"< OpenPID><![CDATA[o Plugin]]></ OpenPID>\n</xml>", pushTime)

const punishmentJSON = `{"ToUserName":"gh_1","FromUserName":"oPlatform","CreateTime":1727187000,` +
	`"MsgType":"event","Event":"wxa_punish_event","punish_id":"13577492",` +
	`"appid":"wx54a8eaa26606test","punish_time":1727186999,"illegal_reason":"存在诱导分享行为",` +
	`"illegal_content":["测试"],"detail":"{\"banned_days\":[1,1],` +
	`\"banned_function_names\":[\"分享朋友圈\",\"订阅消息\"]}","event_type":2}`

func TestAuthorizations(t *testing.T) {
	person := func(a Authorization) *Authorization {
		a.At = at(pushTime)
		return &a
	}
	for name, tt := range map[string]struct {
		body string
		want Message
	}{
		"revoke, with the official mistake": {withdrawalXML, Message{Event: EventRevoked,
			OpenID: "oTheUser", Authorization: person(Authorization{OpenID: "oTheUser",
				AppID: "wx13974bf780d3dc89", Revoked: "8", PluginID: "wx1"})}},
		"cancellation": {`{"FromUserName":"oPlatform","CreateTime":1727187000,"MsgType":"event",` +
			`"Event":"user_authorization_cancellation","OpenID":"oTheUser","UnionID":"oU","AppID":"wx1"}`,
			Message{Event: EventCancelled, OpenID: "oTheUser",
				Authorization: person(Authorization{OpenID: "oTheUser", UnionID: "oU", AppID: "wx1"})}},
		"number as RevokeInfo": {`{"FromUserName":"oP","CreateTime":"1727187000","MsgType":"event",` +
			`"Event":"user_authorization_revoke","OpenID":"oTheUser","RevokeInfo":13}`,
			Message{Event: EventRevoked, OpenID: "oTheUser",
				Authorization: person(Authorization{OpenID: "oTheUser", Revoked: "13"})}},
		"modified, by the unionid alone": {`{"FromUserName":"oP","CreateTime":1727187000,` +
			`"MsgType":"event","Event":"user_info_modified","UnionID":"oU"}`,
			Message{Event: EventInfoModified, Authorization: person(Authorization{UnionID: "oU"})}},
		"of nobody": {`{"FromUserName":"oP","CreateTime":1727187000,"MsgType":"event",` +
			`"Event":"user_authorization_cancellation","OpenID":"o'; DROP"}`,
			Message{Event: EventCancelled}},
	} {
		got := inEveryMode(t, name, tt.body)
		got.Key = ""
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestAuthorizationKeys: two permissions withdrawn in one second are two events.
func TestAuthorizationKeys(t *testing.T) {
	keys := map[string]bool{}
	for _, info := range []string{"8", "13", "8"} {
		body := strings.Replace(withdrawalXML, "[8]", "["+info+"]", 1)
		keys[inEveryMode(t, info, body).Key] = true
	}
	if len(keys) != 2 {
		t.Errorf("%d keys for two events", len(keys))
	}
}

func TestPunishments(t *testing.T) {
	punished := func(change func(p *Punishment)) Message {
		p := Punishment{ID: "13577492", Type: PunishmentFunctions, AppID: "wx54a8eaa26606test",
			Reason: "存在诱导分享行为", Functions: []string{"分享朋友圈", "订阅消息"}, At: at(pushTime)}
		change(&p)
		return Message{Event: EventPunished, Punishment: &p}
	}
	none := func(*Punishment) {}
	object := strings.NewReplacer(`\"`, `"`, `"{`, `{`, `}"`, `}`).Replace(punishmentJSON)
	inXML := event(EventPunished, "<punish_id>13577492</punish_id><appid>wx54a8eaa26606test</appid>"+
		"<event_type>2</event_type><illegal_reason>存在诱导分享行为</illegal_reason><detail><![CDATA["+
		`{"banned_function_names":["分享朋友圈","订阅消息"]}]]></detail>`)
	nested := event(EventPunished, "<punish_id>13577492</punish_id><appid>wx54a8eaa26606test</appid>"+
		"<event_type>2</event_type><illegal_reason>存在诱导分享行为</illegal_reason><detail>"+
		"<banned_function_names>分享朋友圈</banned_function_names>"+
		"<banned_function_names>订阅消息</banned_function_names></detail>")
	many := strings.Replace(punishmentJSON, `[\"分享朋友圈\",\"订阅消息\"]`,
		`[`+strings.Repeat(`\"x\",`, 100)+`\"y\"]`, 1)
	for name, tt := range map[string]struct {
		body string
		want Message
	}{
		"detail as a text":    {punishmentJSON, punished(none)},
		"detail as an object": {object, punished(none)},
		"XML with JSON in it": {inXML, punished(none)},
		"XML":                 {nested, punished(none)},
		"off the shelf": {strings.Replace(punishmentJSON, `"event_type":2`, `"event_type":"3"`, 1),
			punished(func(p *Punishment) { p.Type = PunishmentShelf })},
		"no type, broken detail": {strings.NewReplacer(`"event_type":2`, `"x":2`, `]}"`, `]"`).
			Replace(punishmentJSON), punished(func(p *Punishment) { p.Type, p.Functions = 0, nil })},
		"a long list": {many, punished(func(p *Punishment) {
			p.Functions = strings.Split(strings.Repeat("x", maxFunctions), "")
		})},
		"long words": {strings.Replace(punishmentJSON, "存在", strings.Repeat("存", 300), 1),
			punished(func(p *Punishment) { p.Reason = strings.Repeat("存", maxWords) })},
	} {
		got := inEveryMode(t, name, tt.body)
		got.Key = ""
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
