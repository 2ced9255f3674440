package wechat

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func subscribeMessage() SubscribeMessage {
	return SubscribeMessage{
		ToUser:     testOpenID,
		TemplateID: "hD-ixGOhYmUfjOnI8MCzQMPshzGVeux_2vzyvQu7O68",
		Page:       "pages/order?id=1&from=<wx>",
		State:      "trial",
		Lang:       "en_US",
		Data:       json.RawMessage(`{"thing1":{"value":"订单 & <b>"}}`),
	}
}

func TestSendSubscribeRequest(t *testing.T) {
	const head = `{"touser":"oSYN0000000000000000000001-A",` +
		`"template_id":"hD-ixGOhYmUfjOnI8MCzQMPshzGVeux_2vzyvQu7O68"`
	full := subscribeMessage()
	bare := SubscribeMessage{ToUser: full.ToUser, TemplateID: full.TemplateID}
	for want, m := range map[string]SubscribeMessage{
		head + `,"page":"pages/order?id=1&from=<wx>","miniprogram_state":"trial","lang":"en_US",` +
			`"data":{"thing1":{"value":"订单 & <b>"}}}`: full,
		head + `,"data":{}}`: bare,
	} {
		fake := newFake(t, func(w http.ResponseWriter, r *http.Request) {
			got, _ := io.ReadAll(r.Body)
			if diff := cmp.Diff(want, string(got)); diff != "" {
				t.Errorf("body (-want +got):\n%s", diff)
			}
			checkBodyHeaders(t, r, len(got))
			fmt.Fprint(w, `{"errcode":0,"errmsg":"ok"}`)
		})
		if msgid, err := fake.client(t).SendSubscribe(t.Context(), m); err != nil || msgid != 0 {
			t.Errorf("msgid %d, %v", msgid, err)
		}
	}
}

// TestSubscribeMsgID: the msgid is optional. Whatever stands in its place, an accepted message is
// accepted.
func TestSubscribeMsgID(t *testing.T) {
	for answer, want := range map[string]int64{
		`{"errcode":0,"errmsg":"ok"}`:                                0,
		`{"errcode":0,"errmsg":"ok","msgid":1864323726461255680}`:    1864323726461255680,
		`{"errcode":"0","errmsg":"ok","msgid":1864323726461255680}`:  1864323726461255680,
		`{"errcode":0,"errmsg":"ok","msgid":"1864323726461255680"}`:  1864323726461255680,
		`{"msgid":"7","errmsg":"ok","errcode":"0","new":{"x":[1]}}`:  7,
		`{"errcode":0,"errmsg":"ok","msgid":null}`:                   0,
		`{"errcode":0,"errmsg":"ok","msgid":""}`:                     0,
		`{"errcode":0,"errmsg":"ok","msgid":1.8e18}`:                 0,
		`{"errcode":0,"errmsg":"ok","msgid":-5}`:                     0,
		`{"errcode":0,"errmsg":"ok","msgid":"99999999999999999999"}`: 0,
		`{"errcode":0,"errmsg":"ok","msgid":{"id":[1]}}`:             0,
	} {
		fake := newFake(t, body(answer))
		got, err := fake.client(t).SendSubscribe(t.Context(), subscribeMessage())
		if err != nil || got != want {
			t.Errorf("%s: msgid %d, %v; want %d", answer, got, err, want)
		}
	}
}

// TestSubscribeOutcomes: one POST each, and in doubt whatever is not a definite answer.
func TestSubscribeOutcomes(t *testing.T) {
	inDoubt := func(reason Reason, code int) outcome {
		return outcome{reason, PolicyUncertain, true, code}
	}
	for name, tt := range map[string]struct {
		answer http.HandlerFunc
		want   outcome
	}{
		"reset after processing": {func(w http.ResponseWriter, r *http.Request) {
			resetConn(takeConn(w, r))
		}, inDoubt(ReasonConnectionLost, 0)},
		"timeout": {func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadAll(r.Body)
			<-r.Context().Done()
		}, inDoubt(ReasonTimeout, 0)},
		"502":        {status(502), inDoubt(ReasonServerError, 0)},
		"no errcode": {body(`{"errmsg":"ok","msgid":5}`), inDoubt(ReasonBadAnswer, 0)},
		"cut":        {body(`{"errcode":0,"errm`), inDoubt(ReasonBadAnswer, 0)},
		"-1":         {body(`{"errcode":-1}`), inDoubt(ReasonSystemError, -1)},
		"20001":      {body(`{"errcode":"20001"}`), inDoubt(ReasonSystemError, 20001)},
		"412":        {status(412), outcome{"http_refused", PolicyRequest, false, 0}},
		"43101": {body(`{"errcode":"43101","errmsg":"user refuse to accept the msg"}`),
			outcome{ReasonNoGrant, PolicyRecipient, false, 43101}},
		"40001": {body(`{"errcode":40001}`), outcome{"invalid_token", PolicyToken, false, 40001}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := newFake(t, tt.answer)
			c := fake.client(t, func(cfg *Config) { cfg.SendTimeout = 100 * time.Millisecond })
			_, err := c.SendSubscribe(t.Context(), subscribeMessage())
			if diff := cmp.Diff(tt.want, outcomeOf(t, err)); diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
			if n := fake.count(EndpointSendSubscribe); n != 1 {
				t.Errorf("%d requests, want exactly 1", n)
			}
		})
	}
}

// TestKeywordIsNamed: the producer learns which key is wrong, however WeChat spells the rest.
func TestKeywordIsNamed(t *testing.T) {
	for _, text := range []string{
		"argument invalid! data.thing1.value invalid", "argument invalid! data.thing1.value is " +
			"empty",
		"argument invalid! data.thing1.value is " + "em" + "tpy", // WeChat's own spelling of 2020
	} {
		fake := newFake(t, body(`{"errcode":47003,"errmsg":"`+text+
			` rid: 6188b812-3aeef59a-72d5fb8c"}`))
		_, err := fake.client(t).SendSubscribe(t.Context(), subscribeMessage())
		if e := mustError(t, err); e.Message != text || e.Policy != PolicyRequest {
			t.Errorf("%+v, want the message %q", e, text)
		}
	}
}

// TestSubscribeTemplates: the types and the enumerations are read in each form, and an odd record
// costs only what is odd about it.
func TestSubscribeTemplates(t *testing.T) {
	const answer = `{"errcode":0,"errmsg":"ok","data":[
		{"priTmplId":"a","title":"t","content":"名称:{{thing1.DATA}}\n","example":"e","type":2},
		{"priTmplId":"b","content":"{{enum3.DATA}}","type":"3","keywordEnumValueList":
			[{"keywordCode":"enum3.DATA","enumValueList":["大","小"]}]},
		{"priTmplId":"c","content":"x","type":3,"keywordEnumValueList":[]},
		{"priTmplId":"d","content":"x","keywordEnumValueList":{"keywordCode":1}},
		{"priTmplId":"e","content":"x","type":null,"keywordEnumValueList":null}]}`
	want := []SubscribeTemplate{
		{ID: "a", Content: "名称:{{thing1.DATA}}\n"},
		{ID: "b", Content: "{{enum3.DATA}}", LongTerm: true,
			Enums: map[string][]string{"enum3": {"大", "小"}}},
		{ID: "c", Content: "x", LongTerm: true},
		{ID: "d", Content: "x"}, {ID: "e", Content: "x"},
	}
	fake := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/wxaapi/newtmpl/gettemplate" {
			t.Errorf("%s %s", r.Method, r.URL.Path)
		}
		fmt.Fprint(w, answer)
	})
	got, err := fake.client(t).SubscribeTemplates(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
