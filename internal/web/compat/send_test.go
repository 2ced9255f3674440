package compat

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/intake"
)

const (
	templatePath  = "/cgi-bin/message/template/send"
	subscribePath = "/cgi-bin/message/subscribe/send"
	uniformPath   = "/cgi-bin/message/wxopen/template/uniform_send"
	formPath      = "/cgi-bin/message/wxopen/template/send"
)

// post sends a body with the token of an account, and returns the status and the whole answer.
func (f *fixture) post(t *testing.T, path, account, body string) (int, string) {
	t.Helper()
	req := request(t, http.MethodPost, f.url+path+"?access_token="+token+"_"+account, strings.NewReader(body))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func data(text string) json.RawMessage { return json.RawMessage(text) }

// TestSends: each form becomes the message that it means, and the answer is what SDKs read.
func TestSends(t *testing.T) {
	const values = `{"thing1":{"value":"茶","color":"#173177"},"number2":{"value":7},"k":"v"}`
	for name, tc := range map[string]struct {
		path, account, body string
		want                intake.Message
	}{
		"a template message": {templatePath, official, `{"touser":"o1","template_id":"t1","url":"https://e.com",
			"miniprogram":{"appid":"wx1","pagepath":"a?b=c"},"topcolor":"#fff","client_msg_id":"id","data":` + values + `}`,
			intake.Message{Call: applications.TemplateSend, AppID: official, Recipient: intake.Recipient{OpenID: "o1"},
				Template: "t1", Data: data(values), URL: "https://e.com", JumpAppID: "wx1", MiniPath: "a?b=c", Key: "id"}},
		"silenceper's empty jump": {templatePath, official,
			`{"touser":"o1","template_id":"t1","url":"","miniprogram":{"appid":"","pagepath":""},"data":` + values + "}\n",
			intake.Message{Call: applications.TemplateSend, AppID: official, Recipient: intake.Recipient{OpenID: "o1"},
				Template: "t1", Data: data(values)}},
		"a mini program's user": {templatePath, mini, `{"touser":"o1","template_id":"t1","data":` + values + `}`,
			intake.Message{Call: applications.TemplateSend, AppID: official,
				Recipient: intake.Recipient{MiniAppID: mini, MiniOpenID: "o1"}, Template: "t1", Data: data(values)}},
		"a subscribe message": {subscribePath, mini, `{"touser":"o1","template_id":"t1","page":"pages/a","lang":"en_US",
			"miniprogram_state":"trial","data":` + values + `}`,
			intake.Message{Call: applications.SubscribeSend, AppID: mini, Recipient: intake.Recipient{OpenID: "o1"},
				Template: "t1", Data: data(values), Options: intake.Options{Page: "pages/a", Lang: "en_US", MiniState: "trial"}}},
		"silenceper's empty options": {subscribePath, mini,
			`{"touser":"o1","template_id":"t1","page":"","lang":"","miniprogram_state":"","data":` + values + `}`,
			intake.Message{Call: applications.SubscribeSend, AppID: mini, Recipient: intake.Recipient{OpenID: "o1"},
				Template: "t1", Data: data(values)}},
		"a uniform message to a user": {uniformPath, mini, `{"touser":"oUser","weapp_template_msg":{"template_id":"","data":null},
			"mp_template_msg":{"appid":"` + official + `","template_id":"t1","url":"https://e.com",
			"miniprogram":{"appid":"wx1","pagePath":"p"},"data":` + values + `}}`,
			intake.Message{Call: applications.UniformSend, AppID: official,
				Recipient: intake.Recipient{MiniAppID: mini, MiniOpenID: "oUser"}, Template: "t1", Data: data(values),
				URL: "https://e.com", JumpAppID: "wx1", MiniPath: "p"}},
		"a uniform message to a follower": {uniformPath, mini, `{"touser":"oFollower",
			"mp_template_msg":{"template_id":"t1","miniprogram":{"appid":"wx1","path":"p"},"data":` + values + `}}`,
			intake.Message{Call: applications.UniformSend, AppID: official, Recipient: intake.Recipient{OpenID: "oFollower"},
				Template: "t1", Data: data(values), JumpAppID: "wx1", MiniPath: "p"}},
		"a uniform message to nobody known": {uniformPath, mini, `{"touser":"oNew","mp_template_msg":{"template_id":"t1","data":` + values + `}}`,
			intake.Message{Call: applications.UniformSend, AppID: official,
				Recipient: intake.Recipient{MiniAppID: mini, MiniOpenID: "oNew"}, Template: "t1", Data: data(values)}},
		"a form's successor": {formPath, mini, `{"touser":"o1","template_id":"old","page":"index","form_id":"f","data":` + values +
			`,"emphasis_keyword":"keyword1.DATA"}`,
			intake.Message{Recipient: intake.Recipient{MiniAppID: mini, MiniOpenID: "o1"}, Template: "order_paid", Data: data(values),
				Options: intake.Options{Page: "index"}}},
	} {
		f := newDoor(t, nil)
		status, got := f.post(t, tc.path, tc.account, tc.body)
		if want := `{"errcode":0,"errmsg":"ok","msgid":1}`; status != 200 || got != want {
			t.Errorf("%s: %d %q, want %s", name, status, got, want)
		}
		if len(f.messages) != 1 {
			t.Fatalf("%s: %d messages", name, len(f.messages))
		}
		if diff := cmp.Diff(tc.want, f.messages[0]); diff != "" {
			t.Errorf("%s, -want +got:\n%s", name, diff)
		}
	}
}

// TestNotSent: what cannot be sent is an error that the SDK reports, and never one that makes it fetch
// a token or repeat the POST.
func TestNotSent(t *testing.T) {
	const good = `{"touser":"o1","template_id":"t1","data":{"a":"b"}}`
	for name, tc := range map[string]struct {
		path, account, body string
		refused             error
		status, code        int
	}{
		"a subscribe message of an official account": {subscribePath, official, good, nil, 200, 48001},
		"a form":              {formPath, mini, good, nil, 200, 45103},
		"half a uniform one":  {uniformPath, mini, `{"touser":"o1","weapp_template_msg":{"template_id":"t1"}}`, nil, 200, 45103},
		"to a device":         {"/cgi-bin/message/device/subscribe/send", mini, good, nil, 200, 48001},
		"a path not served":   {"/cgi-bin/user/get", mini, good, nil, 404, 40066},
		"touser is a number":  {templatePath, official, `{"touser":7}`, nil, 200, 47001},
		"empty":               {templatePath, official, "", nil, 200, 44002},
		"a rejection":         {templatePath, official, good, &intake.Rejection{Code: 47003, Message: "argument invalid!"}, 200, 47003},
		"a refusal":           {templatePath, official, good, &applications.Refusal{Code: 45009, Message: "quota"}, 200, 45009},
		"nothing accepted":    {templatePath, official, good, intake.ErrUnavailable, 503, 61450},
		"nobody knows":        {templatePath, official, good, intake.ErrUnknown, 503, 61450},
		"another fault of us": {templatePath, official, good, errors.New("x"), 503, 61450},
	} {
		f := newDoor(t, nil)
		f.refused = tc.refused
		status, got := f.post(t, tc.path, tc.account, tc.body)
		var r reply
		if err := json.Unmarshal([]byte(got), &r); err != nil || status != tc.status || r.ErrCode == nil || *r.ErrCode != tc.code ||
			r.ErrMsg == "" {
			t.Errorf("%s: %d %s, want %d with %d", name, status, got, tc.status, tc.code)
		}
		if strings.HasSuffix(got, "\n") {
			t.Errorf("%s: a newline behind the JSON, which co-wechat-api does not read", name)
		}
	}
}

func TestNoToken(t *testing.T) {
	f := newDoor(t, nil)
	for query, code := range map[string]int{"": 41001, "?access_token=": 41001, "?access_token=of_wechat": 40001} {
		got := send(t, request(t, "POST", f.url+templatePath+query, strings.NewReader("not even JSON")))
		if got.ErrCode == nil || *got.ErrCode != code {
			t.Errorf("%q: %+v, want %d", query, got, code)
		}
	}
	if len(f.messages) > 0 || strings.Contains(f.log.String(), "of_wechat") {
		t.Errorf("%v, %s", f.messages, f.log)
	}
}

// TestExtras: what SDKs ask when they start.
func TestExtras(t *testing.T) {
	f := newDoor(t, nil)
	for path, want := range map[string]string{
		"/cgi-bin/template/get_all_private_template": `{"errcode":0,"errmsg":"ok","template_list":[{"template_id":"id of ` + official +
			`","title":"order_paid","content":"{{thing1.DATA}}\n{{time2.DATA}}\n"}]}`,
		"/cgi-bin/getcallbackip":     `{"ip_list":["127.0.0.1"]}`,
		"/cgi-bin/get_api_domain_ip": `{"ip_list":["127.0.0.1"]}`,
	} {
		if status, got := f.post(t, path, official, "null"); status != 200 || got != want {
			t.Errorf("%s: %d %s, want %s", path, status, got, want)
		}
	}
	if _, got := f.post(t, "/wxaapi/newtmpl/gettemplate", mini, ""); !strings.Contains(got, `"priTmplId":"id of `+mini) {
		t.Errorf("a mini program's templates: %s", got)
	}
	if _, got := f.post(t, "/wxaapi/newtmpl/gettemplate", official, ""); !strings.Contains(got, `"data":[]`) {
		t.Errorf("templates that it may not send: %s", got)
	}
	const quota = "/cgi-bin/openapi/quota/get"
	want := `{"errcode":0,"errmsg":"ok","quota":{"daily_limit":100,"used":30,"remain":70}}`
	if _, got := f.post(t, quota, official, `{"cgi_path":"`+templatePath+`"}`); got != want {
		t.Errorf("the quota: %s, want %s", got, want)
	}
	if _, got := f.post(t, quota, official, `{"cgi_path":"/cgi-bin/user/get"}`); !strings.Contains(got, "76021") {
		t.Errorf("the quota of what is not served: %s", got)
	}
}

// TestSession: the login answers as WeChat does, without an errcode; where nobody knows whether the code
// is used up, it is never −1.
func TestSession(t *testing.T) {
	f := newDoor(t, nil)
	const good = "/sns/jscode2session?appid=" + appid + "&secret=" + secret + "&js_code=C1&grant_type=authorization_code&access_token=x"
	get := func(path string) (int, string) {
		t.Helper()
		resp, err := http.DefaultClient.Do(request(t, "GET", f.url+path, nil))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		text, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(text)
	}
	if status, got := get(good); status != 200 || got != `{"session_key":"key+/==","openid":"oC1"}` {
		t.Errorf("%d %s", status, got)
	}
	f.unionid = "u1"
	if _, got := get(good); !strings.Contains(got, `"unionid":"u1"`) {
		t.Errorf("without the unionid: %s", got)
	}
	for path, code := range map[string]string{
		strings.Replace(good, "js_code=C1", "js_code=", 1):                  "41008",
		strings.Replace(good, "authorization_code", "client_credential", 1): "40002",
		strings.Replace(good, appid, "wx0b", 1):                             "40013",
		strings.Replace(good, secret, "x", 1):                               "40125",
	} {
		if status, got := get(path); status != 200 || !strings.Contains(got, `"errcode":`+code) {
			t.Errorf("%s: %d %s", path, status, got)
		}
	}
	f.refused = &intake.Rejection{Code: 40163, Message: "code been used"}
	if status, got := get(good); status != 200 || !strings.Contains(got, `"errcode":40163`) {
		t.Errorf("a used code: %d %s", status, got)
	}
	f.refused = errors.New("timeout")
	if status, got := get(good); status != 503 || !strings.Contains(got, `"errcode":61450`) || !strings.Contains(got, "wx.login") {
		t.Errorf("nobody knows: %d %s", status, got)
	}
	if strings.Contains(f.log.String(), "C1") || strings.Contains(f.log.String(), "key+") {
		t.Errorf("the log shows the login: %s", f.log)
	}
}
