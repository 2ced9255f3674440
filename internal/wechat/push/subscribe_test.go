package push

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	firstTemplate  = "VRR0UEO9VJOLs0MHlU0OilqX6MVFDwH3_3gz3Oc0NIc"
	secondTemplate = "9nLIlbOQZC5Y89AZteFEux3WCXRRRG5Wfzkpssu4bLI"
)

// TestFixtures: what the documentation shows is read.
func TestFixtures(t *testing.T) {
	const person, jsonPerson = "otFpruAK8D-E6EfStSYonYSBZ8_4", "o7esq5OI1Uej6Xixw1lA2H7XDVbc"
	choice := func(c Choice, second int64) Choice {
		c.At = at(second)
		return c
	}
	for name, want := range map[string]Message{
		"subscribe_msg_popup_event.xml": {Event: EventPopup, OpenID: person, Popup: []Choice{
			choice(Choice{OpenID: person, TemplateID: firstTemplate, Result: "accept", Scene: "2",
				Key: "popup:1610969440:" + person + ":" + firstTemplate + ":2"}, 1610969440),
			choice(Choice{OpenID: person, TemplateID: secondTemplate, Result: "reject", Scene: "2",
				Key: "popup:1610969440:" + person + ":" + secondTemplate + ":2"}, 1610969440),
		}},
		"subscribe_msg_popup_event.json": {Event: EventPopup, OpenID: jsonPerson, Popup: []Choice{
			choice(Choice{OpenID: jsonPerson, Result: "accept", Scene: "0",
				TemplateID: "hD-ixGOhYmUfjOnI8MCzQMPshzGVeux_2vzyvQu7O68",
				Key: "popup:1620973045:" + jsonPerson +
					":hD-ixGOhYmUfjOnI8MCzQMPshzGVeux_2vzyvQu7O68:0"}, 1620973045),
		}},
		"subscribe_msg_change_event.xml": {Event: EventChange, OpenID: person, Change: []Choice{
			choice(Choice{OpenID: person, TemplateID: firstTemplate, Result: "reject",
				Key: "change:1610969440:" + person + ":" + firstTemplate + ":reject"}, 1610969440),
		}},
		"subscribe_msg_change_event.json": {Event: EventChange, OpenID: jsonPerson, Change: []Choice{
			choice(Choice{OpenID: jsonPerson, Result: "reject",
				TemplateID: "BEwX0BOT3MqK3Uc5oTU3CGBqzjpndk2jzUf7VfExd8",
				Key: "change:1610968440:" + jsonPerson +
					":BEwX0BOT3MqK3Uc5oTU3CGBqzjpndk2jzUf7VfExd8:reject"}, 1610968440),
		}},
		"subscribe_msg_sent_event.xml": {Event: EventSent, OpenID: person, Sent: []SentReport{{
			OpenID: person, TemplateID: firstTemplate, MsgID: 1700827132819554304,
			Status: "success", At: at(1610969468),
			Key: "sent:1610969468:" + person + ":" + firstTemplate + ":1700827132819554304"}}},
		"subscribe_msg_sent_event.json": {Event: EventSent, OpenID: "o7esq5PHRGBQYmeNyfG064wEFVpQ",
			Sent: []SentReport{{OpenID: "o7esq5PHRGBQYmeNyfG064wEFVpQ",
				TemplateID: "BEwX0BO-T3MqK3Uc5oTU3CGBqzjpndk2jzUf7VfExd8",
				MsgID:      1864323726461255680, Status: "success", At: at(1620963428),
				Key: "sent:1620963428:o7esq5PHRGBQYmeNyfG064wEFVpQ:" +
					"BEwX0BO-T3MqK3Uc5oTU3CGBqzjpndk2jzUf7VfExd8:1864323726461255680"}}},
		"user_authorization_revoke.xml": {Event: EventRevoked,
			OpenID: "owAqB1nqaOYYWl0Ng484G2z5NIwU", Authorization: &Authorization{
				OpenID: "owAqB1nqaOYYWl0Ng484G2z5NIwU", AppID: "wx13974bf780d3dc89", Revoked: "1",
				At: at(1626857200)}},
	} {
		got := inEveryMode(t, name, fixtures(t)[name])
		got.Key = ""
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// inEveryMode decodes a content in plaintext, compatible and secure mode, and wants the same of
// each.
func inEveryMode(t *testing.T, name, body string) Message {
	t.Helper()
	encrypt := sealWith(t, pushKey, pushAppID, body)
	secure := secureBody(encrypt)
	compatible := strings.TrimSuffix(strings.TrimSpace(body), "</xml>") +
		"<Encrypt>" + encrypt + "</Encrypt></xml>"
	if strings.HasPrefix(strings.TrimPrefix(body, "\ufeff"), "{") {
		secure = `{"ToUserName":"gh_123456789abc","Encrypt":"` + encrypt + `"}`
		compatible = strings.TrimSuffix(strings.TrimSpace(body), "}") + `,"Encrypt":"` + encrypt + `"}`
	}
	var first Message
	for i, push := range []struct {
		query url.Values
		body  string
	}{
		{signed(pushTime, ""), body}, {signed(pushTime, encrypt), compatible},
		{signed(pushTime, encrypt), secure},
	} {
		got, err := newTestCallback(t, Config{AESKey: pushKey}).Decode(push.query, []byte(push.body))
		if err != nil {
			t.Fatalf("%s, mode %d: %v\n%s", name, i, err, push.body)
		}
		if i == 0 {
			first = got
		}
		if diff := cmp.Diff(first, got); diff != "" {
			t.Errorf("%s, mode %d (-plaintext +got):\n%s", name, i, diff)
		}
	}
	return first
}

// item is one template's part of an event, by field.
type item map[string]any

// shapes are the ways in which an event's items come, in JSON and XML.
func shapes(t *testing.T, name, wrapper string, items []item) map[string]string {
	t.Helper()
	body := func(more map[string]any) string {
		more["ToUserName"], more["FromUserName"] = "gh_123456789abc", "oA_1-b"
		more["MsgType"], more["Event"] = "event", name
		if _, set := more["CreateTime"]; !set {
			more["CreateTime"] = fmt.Sprint(pushTime)
		}
		text, err := json.Marshal(more)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	var elements, lists strings.Builder
	for _, i := range items {
		elements.WriteString("<List>")
		lists.WriteString("<" + wrapper + "><List>")
		for field, value := range i {
			fmt.Fprintf(&elements, "\n<%s><![CDATA[%v]]></%s>", field, value, field)
			fmt.Fprintf(&lists, "<%s>%v</%s>", field, value, field)
		}
		elements.WriteString("\n</List>")
		lists.WriteString("</List></" + wrapper + ">")
	}
	made := map[string]string{
		"XML":                  event(name, "<"+wrapper+">"+elements.String()+"</"+wrapper+">\n"),
		"XML, wrapper repeats": event(name, lists.String()),
		"array":                body(map[string]any{wrapper: items}),
		"array in List":        body(map[string]any{wrapper: map[string]any{"List": items}}),
		"List array":           body(map[string]any{"List": items}),
		"number as time":       body(map[string]any{"List": items, "CreateTime": pushTime}),
		"empty event, List":    body(map[string]any{wrapper: "", "List": items}),
		"null event, List":     body(map[string]any{wrapper: nil, "List": items}),
		"byte order mark":      "\ufeff" + body(map[string]any{"List": items}),
		"spaced": strings.ReplaceAll(body(map[string]any{wrapper: items}), `,"`, ",\n\t\"") +
			"\n",
	}
	if len(items) == 1 {
		made["object"] = body(map[string]any{wrapper: map[string]any{"List": items[0]}})
		made["List object"] = body(map[string]any{"List": items[0]})
		made["bare object"] = body(map[string]any{wrapper: items[0]})
	}
	return made
}

// TestShapes: every shape of an event says the same, with numbers as numbers or as text.
func TestShapes(t *testing.T) {
	for name, tt := range map[string]struct {
		event, wrapper string
		items          []item
		want           []string // by template, in order
	}{
		"one popup": {EventPopup, "SubscribeMsgPopupEvent", []item{
			{"TemplateId": "t1", "SubscribeStatusString": "accept", "PopupScene": "0"},
		}, []string{"t1 accept 0"}},
		"three popups": {EventPopup, "SubscribeMsgPopupEvent", []item{
			{"TemplateId": "t1", "SubscribeStatusString": "acceptWithAudio", "PopupScene": 1},
			{"TemplateId": "t2", "SubscribeStatusString": "reject", "PopupScene": "2"},
			{"TemplateId": "t3", "SubscribeStatusString": "acceptWithForcePush"},
		}, []string{"t1 acceptWithAudio 1", "t2 reject 2", "t3 acceptWithForcePush "}},
		"an item that cannot be read": {EventPopup, "SubscribeMsgPopupEvent", []item{
			{"TemplateId": "t'1", "SubscribeStatusString": "accept"},
			{"TemplateId": "t2", "SubscribeStatusString": "it's"},
			{"TemplateId": "t3", "SubscribeStatusString": "accept", "PopupScene": "x"},
		}, []string{"t3 accept "}},
		"change": {EventChange, "SubscribeMsgChangeEvent", []item{
			{"TemplateId": "t1", "SubscribeStatusString": "reject"},
			{"TemplateId": "t2", "SubscribeStatusString": "reject"},
		}, []string{"t1 reject ", "t2 reject "}},
		"sent": {EventSent, "SubscribeMsgSentEvent", []item{
			{"TemplateId": "t1", "MsgID": "1864323726461255680", "ErrorCode": "0",
				"ErrorStatus": "success"},
		}, []string{"t1 1864323726461255680 0 success"}},
		"failed": {EventSent, "SubscribeMsgSentEvent", []item{
			{"TemplateId": "t1", "MsgID": json.Number("1864323726461255680"), "ErrorCode": -1,
				"ErrorStatus": " system  error "},
		}, []string{"t1 1864323726461255680 -1 system error"}},
		"sent without msgid": {EventSent, "SubscribeMsgSentEvent", []item{
			{"TemplateId": "t1", "ErrorCode": 20001, "ErrorStatus": ""},
			{"TemplateId": "t2", "ErrorCode": "many"},
		}, []string{"t1 0 20001 "}},
	} {
		keys := map[string]bool{}
		for shape, body := range shapes(t, tt.event, tt.wrapper, tt.items) {
			got := inEveryMode(t, name+" as "+shape, body)
			if diff := cmp.Diff(tt.want, summary(got)); diff != "" {
				t.Errorf("%s as %s (-want +got):\n%s", name, shape, diff)
			}
			checkBounds(t, got)
			keys[got.Key] = true
		}
		if len(keys) != 1 {
			t.Errorf("%s: %d keys for one push", name, len(keys))
		}
	}
}

func summary(p Message) (lines []string) {
	for _, c := range append(p.Popup[:len(p.Popup):len(p.Popup)], p.Change...) {
		lines = append(lines, c.TemplateID+" "+c.Result+" "+c.Scene)
	}
	for _, s := range p.Sent {
		lines = append(lines, fmt.Sprintf("%s %d %d %s", s.TemplateID, s.MsgID, s.Code, s.Status))
	}
	return lines
}

func TestAccepted(t *testing.T) {
	for result, want := range map[string]bool{"accept": true, "acceptWithAudio": true,
		"acceptWithAlert": true, "acceptWithForcePush": true, "reject": false, "ban": false,
		"filter": false, "": false} {
		if got := (Choice{Result: result}).Accepted(); got != want {
			t.Errorf("%q: %t", result, got)
		}
	}
}

// TestSubscribeUnreadable: an event that says nothing for certain counts for nothing.
func TestSubscribeUnreadable(t *testing.T) {
	good := shapes(t, EventPopup, "SubscribeMsgPopupEvent",
		[]item{{"TemplateId": "t1", "SubscribeStatusString": "accept"}})["List array"]
	for name, body := range map[string]string{
		"no list":     strings.Replace(good, "List", "Lost", 1),
		"no template": strings.Replace(good, "TemplateId", "Template", 1),
		"no result":   strings.Replace(good, "SubscribeStatusString", "Status", 1),
		"no person":   strings.Replace(good, "oA_1-b", "", 1),
		"odd person":  strings.Replace(good, "oA_1-b", "o'; DROP", 1),
		"no time":     strings.Replace(good, fmt.Sprint(pushTime), "", 1),
		"long template": strings.Replace(good, `"t1"`, `"`+strings.Repeat("t", 65)+`"`,
			1),
		"deep": strings.Replace(good, `{"SubscribeStatusString"`,
			strings.Repeat("[", 500)+`{"SubscribeStatusString"`, 1),
	} {
		if name == "deep" {
			body = strings.Replace(body, `"TemplateId":"t1"}`,
				`"TemplateId":"t1"}`+strings.Repeat("]", 500), 1)
		}
		_, err := newTestCallback(t, Config{}).Decode(signed(pushTime, ""), []byte(body))
		if !errors.Is(err, ErrUnreadable) {
			t.Errorf("%s: %v, want ErrUnreadable\n%s", name, err, body)
		}
	}
}

// TestJSONOfOfficialAccounts: an account whose console is set to JSON is read alike.
func TestJSONOfOfficialAccounts(t *testing.T) {
	for name, tt := range map[string]struct {
		body string
		want Message
	}{
		"receipt": {`{"ToUserName":"gh_1","FromUserName":"oA","CreateTime":1727187000,` +
			`"MsgType":"event","Event":"TEMPLATESENDJOBFINISH","MsgID":3487542469355618313,` +
			`"Status":"failed: system failed"}`,
			Message{Event: EventReceipt, OpenID: "oA", Receipt: &Receipt{OpenID: "oA",
				MsgID: 3487542469355618313, Status: ReceiptSystemFailed, At: at(pushTime)}}},
		"subscribe": {`{"FromUserName":"oA","CreateTime":"1727187000","MsgType":"event",` +
			`"Event":"subscribe","EventKey":"qrscene_1","Ticket":"T"}`,
			Message{Event: "subscribe", OpenID: "oA",
				Follow: &FollowEvent{OpenID: "oA", Followed: true, At: at(pushTime)}}},
		"unsubscribe": {`{"FromUserName":"oA","CreateTime":1727187000,"MsgType":"event",` +
			`"Event":"unsubscribe","EventKey":null}`,
			Message{Event: "unsubscribe", OpenID: "oA",
				Follow: &FollowEvent{OpenID: "oA", At: at(pushTime)}}},
		"message": {`{"FromUserName":"oA","MsgType":"text","Content":"` + "\x02" + `{","MsgId":1}`,
			Message{OpenID: "oA"}},
	} {
		got := inEveryMode(t, name, tt.body)
		got.Key = ""
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
