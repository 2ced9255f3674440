package wechatsim

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestPopupShapes: the same answers in XML and in each shape of JSON.
func TestPopupShapes(t *testing.T) {
	one := []string{oneTimeID}
	two := []string{StandardSubscribeTemplates()[0].ID, oneTimeID}
	item := func(id string) string {
		return `{"TemplateId":"` + id + `","SubscribeStatusString":"accept","PopupScene":"2"}`
	}
	array := func(ids []string) string { return "[" + item(ids[0]) + "," + item(ids[1]) + "]" }
	element := func(id string) string {
		return "<List>\n<TemplateId><![CDATA[" + id + "]]></TemplateId>\n<SubscribeStatusString>" +
			"<![CDATA[accept]]></SubscribeStatusString>\n<PopupScene>2</PopupScene>\n</List>\n"
	}
	const wrapper = `"SubscribeMsgPopupEvent":`
	for _, tt := range []struct {
		format    Format
		templates []string
		want      string // behind the common members
	}{
		{FormatArray, one, wrapper + "[" + item(one[0]) + "]"},
		{FormatArray, two, wrapper + array(two)},
		{FormatObject, one, wrapper + `{"List":` + item(one[0]) + "}"},
		{FormatObject, two, wrapper + `{"List":` + array(two) + "}"},
		{FormatList, one, `"List":` + item(one[0])},
		{FormatList, two, `"List":` + array(two)},
		{FormatListArray, one, `"List":[` + item(one[0]) + "]"},
		{FormatListArray, two, `"List":` + array(two)},
		{FormatXML, two, "<SubscribeMsgPopupEvent>\n" + element(two[0]) + element(two[1]) +
			"</SubscribeMsgPopupEvent>\n</xml>"},
	} {
		s, _ := newTest(t, nil)
		url, pushes := receiver(t, 0)
		s.SetCallback(StandardMiniAppID, &Callback{URL: url, Format: tt.format})
		_, err := s.Subscribe(StandardMiniAppID, 1, Tap{Templates: tt.templates, Scene: 2})
		if err != nil {
			t.Fatal(err)
		}
		body := next(t, pushes).body
		_, rest, _ := strings.Cut(body, "subscribe_msg_popup_event]]></Event>\n")
		if tt.format != FormatXML {
			_, rest, _ = strings.Cut(body, `"Event":"subscribe_msg_popup_event",`)
			rest = strings.TrimSuffix(rest, "}")
			if !json.Valid([]byte(body)) {
				t.Errorf("no JSON: %s", body)
			}
		}
		if diff := cmp.Diff(tt.want, rest); diff != "" {
			t.Errorf("%s:\n%s", tt.format, diff)
		}
	}
}

// TestMiniEvents: which event comes when, and that an official account's events come as JSON, too.
func TestMiniEvents(t *testing.T) {
	s, _ := newTest(t, nil)
	url, pushes := receiver(t, 0)
	openid := s.OpenID(StandardMiniAppID, 1)
	// queued are the events that were not sent yet: all of the case's, since they are delayed.
	names := func(callback Callback, do func()) string {
		callback.URL, callback.Format, callback.Delay = url, FormatArray, time.Hour
		s.SetCallback(StandardMiniAppID, &callback)
		do()
		s.pushes.mu.Lock()
		defer s.pushes.mu.Unlock()
		var got []string
		for _, job := range s.pushes.queue {
			_, rest, _ := strings.Cut(job.body, `"Event":"`)
			name, rest, _ := strings.Cut(rest, `"`)
			if !strings.Contains(job.body, openid) {
				t.Errorf("an event about somebody else: %s", job.body)
			}
			for _, word := range []string{"accept", "reject", `"ErrorCode":"0"`,
				`"ErrorCode":"20001"`, `"RevokeInfo":"8"`} {
				if strings.Contains(rest, word) {
					name += "/" + strings.Trim(word[strings.IndexByte(word, ':')+1:], `"`)
				}
			}
			got = append(got, name)
		}
		s.pushes.queue = nil
		return strings.Join(got, " ")
	}
	tap := func(answer string, keep bool) func() {
		return func() {
			tap := Tap{Templates: []string{oneTimeID}, Answer: answer, Keep: keep}
			if _, err := s.Subscribe(StandardMiniAppID, 1, tap); err != nil {
				t.Error(err)
			}
		}
	}
	send := func() { subscribeTo(t, s, 1) }
	const popup, sent = "subscribe_msg_popup_event", "subscribe_msg_sent_event"
	for i, tt := range []struct {
		callback Callback
		do       func()
		want     string
	}{
		{Callback{}, tap("reject", false), popup + "/reject"},
		{Callback{}, tap("", true), popup + "/accept"},
		{Callback{}, tap("reject", false), popup + "/accept"},
		{Callback{Subscribe: SubscribeEvents{KeptSilent: true}}, tap("", false), ""},
		{Callback{Lost: 1}, tap("", false), ""},
		{Callback{}, send, ""},
		{Callback{Subscribe: SubscribeEvents{SentSuccess: true}}, send, sent + "/0"},
		{Callback{Subscribe: SubscribeEvents{SentFailed: 1}}, send, sent + "/20001"},
		{Callback{}, func() { s.SwitchOff(StandardMiniAppID, 1, oneTimeID) },
			"subscribe_msg_change_event/reject"},
		{Callback{}, func() { s.SwitchOn(StandardMiniAppID, 1, oneTimeID) }, ""},
		{Callback{}, func() { s.Authorize(StandardMiniAppID, 1, "user_authorization_revoke", "8") },
			"user_authorization_revoke/8"},
	} {
		if got := names(tt.callback, tt.do); got != tt.want {
			t.Errorf("case %d: %q, want %q", i, got, tt.want)
		}
	}
	if n := len(s.Messages(StandardMiniAppID)); n != 2 {
		t.Errorf("%d messages have reached the phone, want 2: the third one failed", n)
	}
	s.SetCallback(StandardMiniAppID, &Callback{URL: url, Format: FormatArray})
	s.Punish(StandardMiniAppID, 2, "结束")
	if body := next(t, pushes).body; !strings.Contains(body, `"event_type":2`) ||
		!strings.Contains(body, `\"结束\"`) || strings.Contains(body, openid) {
		t.Errorf("a punishment: %s", body)
	}
	s.SetCallback(StandardAppID, &Callback{URL: url, Format: FormatMixed})
	receipt := sendTo(t, s, 1, "")
	if body := next(t, pushes).body; !json.Valid([]byte(body)) ||
		!strings.Contains(body, fmt.Sprintf(`"MsgID":"%d"`, receipt.MsgID)) {
		t.Errorf("a receipt: %s", body)
	}
}

// TestSecureJSON: the envelopes of JSON.
func TestSecureJSON(t *testing.T) {
	const key = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
	for _, compatible := range []bool{false, true} {
		s, _ := newTest(t, nil)
		url, pushes := receiver(t, 0)
		s.SetCallback(StandardAppID, &Callback{URL: url, Token: "t", AESKey: key,
			Secure: !compatible, Compatible: compatible, Format: FormatList})
		s.Follow(StandardAppID, 50000)
		push := next(t, pushes)
		outer := decodeJSON[struct{ ToUserName, Event, Encrypt string }](t, push.body)
		if (outer.Event != "") != compatible || outer.ToUserName == "" ||
			push.query["msg_signature"] != sign("t", push.query["timestamp"], push.query["nonce"],
				outer.Encrypt) {
			t.Errorf("%s", push.body)
		}
		if _, err := base64.StdEncoding.DecodeString(outer.Encrypt); err != nil {
			t.Error(err)
		}
		inner := decodeJSON[struct{ Event string }](t, decrypt(t, key, outer.Encrypt))
		if inner.Event != "subscribe" {
			t.Errorf("inside: %+v", inner)
		}
	}
}
