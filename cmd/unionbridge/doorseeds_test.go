package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

const (
	seedTemplate  = "seedTemplate-0000000000000000000000000000AA" // with a first line and a remark
	seedSubscribe = "seedSubscribe1-00000000000000000000000000AB" // of the push table's program
	seedTimed     = "seedSubscribe2-00000000000000000000000000AC" // with a time
)

// doorWorld is a daemon with open doors, and an application that may do everything.
type doorWorld struct {
	*world
	db     *sqlx.DB
	url    string
	secret string
	path   string // of the configuration
	other  string // the secret of an application with the same rights
	stop   context.CancelFunc
	ended  chan result
}

// newDoorWorld starts one, whose configuration is changed as strings.NewReplacer does. Everybody's first
// messages of each subscribe template are allowed.
func newDoorWorld(t *testing.T, changes ...string) *doorWorld {
	t.Helper()
	options := wechatsim.Standard(followers, miniUsers, 1.0/3)
	options.Accounts[0].Templates = append(wechatsim.StandardTemplates(), wechatsim.Template{
		ID: seedTemplate, Title: "seed", Content: "{{first.DATA}}\n{{keyword1.DATA}}\n{{keyword2.DATA}}\n{{keyword3.DATA}}\n{{remark.DATA}}",
	})
	options.Minis[0].Templates = append(wechatsim.StandardSubscribeTemplates(),
		wechatsim.SubscribeTemplate{ID: seedSubscribe, Title: "seed", Content: "{{thing1.DATA}}\n{{thing6.DATA}}\n" +
			"{{character_string2.DATA}}\n{{number3.DATA}}\n{{thing5.DATA}}"},
		wechatsim.SubscribeTemplate{ID: seedTimed, Title: "seed",
			Content: "{{thing1.DATA}}\n{{thing16.DATA}}\n{{thing14.DATA}}\n{{time15.DATA}}"})
	options.Minis[0].Granted = 5
	sim := wechatsim.New(options)
	t.Cleanup(sim.Close)
	server := httptest.NewServer(sim)
	t.Cleanup(server.Close)
	w := &doorWorld{world: &world{sim: sim, server: server, dsn: dbtest.Empty(t), listen: freePort(t), dir: t.TempDir()}}
	address := freePort(t)
	w.url = "http://" + address
	w.secret = applications.NewSecret()
	w.other = applications.NewSecret()
	path := w.writeConfig(t, w.dir)
	text := fmt.Sprintf(`
database: {dsn_file: database.dsn}
wechat: {base_url: %q, timeout: 5s, send_timeout: 5s}
http: {listen: %q, api_listen: %q}
state_dir: state
shutdown_timeout: 10s
official_accounts:
  - {appid: %[4]s, name: 服务号, secret_file: oa.secret}
mini_programs:
  - {appid: %[5]s, name: 小程序, secret_file: mini.secret, grants: none}
templates:
  progress:
    official: {id: %[6]q}
    mini: {id: %[7]q, keys: {keyword1: thing1}}
    route: [mini, official]
    replaces: [AT0002]
applications:
  - name: shop
    secret_hashes: ["%[8]x"]
    accounts:
      %[4]s: [template_send, uniform_send, identities]
      %[5]s: [subscribe_send, login, identities]
  - name: stock
    secret_hashes: ["%[9]x"]
    accounts:
      %[5]s: [subscribe_send, identities]
`, server.URL, w.listen, address, wechatsim.StandardAppID, wechatsim.StandardMiniAppID, template(),
		wechatsim.StandardSubscribeTemplates()[1].ID, applications.Hash(w.secret), applications.Hash(w.other))
	text = strings.NewReplacer(changes...).Replace(text)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := do(t.Context(), "", "-c", path, "migrate", "up"); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	w.db = dbtest.Open(t, w.dsn)
	w.path = path
	w.start(t)
	t.Cleanup(func() {
		w.stop()
		if got := <-w.ended; got.code != 0 || strings.Contains(got.stderr, w.secret) {
			t.Errorf("the daemon ended with %d: %s", got.code, got.stderr)
		}
	})
	await(t, "the first sweep", func() error {
		var n int
		err := w.db.Get(&n, `SELECT COUNT(*) FROM sync_run WHERE kind = 'sweep' AND state = 'done'`)
		if err == nil && n == 0 {
			err = errors.New("it has not ended")
		}
		return err
	})
	return w
}

func (w *doorWorld) start(t *testing.T) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	w.stop, w.ended = stop, make(chan result, 1)
	go func() { w.ended <- do(ctx, "", "-c", w.path, "run") }()
	await(t, "readiness", w.ready)
}

// call makes a request, and returns the status and the answer.
func (w *doorWorld) call(t *testing.T, method, path, body string) (int, map[string]any) {
	t.Helper()
	return w.callAs(t, w.secret, method, path, body)
}

func (w *doorWorld) callAs(t *testing.T, credential, method, path, body string) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, w.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+credential)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer map[string]any
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatalf("%s %s: %q", method, path, text)
	}
	return resp.StatusCode, answer
}

// token is what an SDK fetches for an account.
func (w *doorWorld) token(t *testing.T, appid string) string {
	t.Helper()
	_, answer := w.call(t, "GET", "/cgi-bin/token?grant_type=client_credential&appid="+appid+"&secret="+w.secret, "")
	token, _ := answer["access_token"].(string)
	if token == "" {
		t.Fatalf("no token: %v", answer)
	}
	return token
}

// arrived waits for a message on a person's phone, and returns it.
func (w *doorWorld) arrived(t *testing.T, appid, openid, templateID string) (found wechatsim.Message) {
	t.Helper()
	await(t, "a message to "+openid, func() error {
		for _, m := range w.sim.Messages(appid) {
			if m.OpenID == openid && m.TemplateID == templateID {
				found = m
				return nil
			}
		}
		var rows []string
		if err := w.db.Select(&rows, `SELECT CONCAT_WS(' ', id, appid, status, reason, errmsg) FROM v_send_status`); err != nil {
			return err
		}
		return fmt.Errorf("rows: %v", rows)
	})
	return found
}

// TestSeeds: the bodies of five programs as they are found in companies become messages on phones, or
// the errors that their code understands.
func TestSeeds(t *testing.T) {
	t.Parallel()
	w := newDoorWorld(t)
	const oa, mini = wechatsim.StandardAppID, wechatsim.StandardMiniAppID
	users := w.sim.MiniUsers(mini, 0, miniUsers)
	var person wechatsim.Identity // who follows the official account, and is named by the mini program's openid
	for _, u := range users {
		if w.sim.IsFollower(oa, u.Person) {
			person = u
		}
	}
	official := w.sim.OpenID(oa, person.Person)
	send := func(call, appid, body string) map[string]any {
		t.Helper()
		status, answer := w.call(t, "POST", "/cgi-bin/message/"+call+"?access_token="+w.token(t, appid), body)
		if status != http.StatusOK {
			t.Errorf("%s: HTTP %d", call, status)
		}
		return answer
	}
	want := func(what string, answer map[string]any, code float64, words string) {
		t.Helper()
		if message, _ := answer["errmsg"].(string); answer["errcode"] != code || !strings.Contains(message, words) {
			t.Errorf("%s: %v, want %v %s", what, answer, code, words)
		}
	}

	// Its login, as the mini program's backend makes it.
	_, session := w.call(t, "GET", "/sns/jscode2session?appid="+mini+"&secret="+w.secret+"&js_code=mini-"+
		fmt.Sprint(indexOf(users, person))+"-x&grant_type=authorization_code", "")
	if session["openid"] != person.OpenID || session["unionid"] != person.UnionID || session["session_key"] == "" ||
		session["errcode"] != nil {
		t.Fatalf("the login of %+v: %v", person, session)
	}
	_, again := w.call(t, "GET", "/sns/jscode2session?appid="+mini+"&secret="+w.secret+"&js_code=mini-"+
		fmt.Sprint(indexOf(users, person))+"-x&grant_type=authorization_code", "")
	want("a code that is used up", again, 40163, "code been used")

	// 000: a uniform message with the mini program's token.
	want("000", send("wxopen/template/uniform_send", mini, `{"touser":"`+person.OpenID+`","mp_template_msg":{"appid":"`+oa+
		`","template_id":"`+seedTemplate+`","url":"http://weixin.qq.com/download","miniprogram":{"appid":"`+mini+
		`","pagepath":"index"},"data":{"first":{"value":"恭喜"},"keyword1":{"value":"巧克力"},"keyword2":{"value":"39.8元"},`+
		`"keyword3":{"value":"2014年9月22日"},"remark":{"value":"欢迎"}}}}`), 0, "ok")
	m := w.arrived(t, oa, official, seedTemplate)
	if !bytes.Contains(m.MiniProgram, []byte(`"index"`)) || m.URL == "" {
		t.Errorf("000 arrived as %+v", m)
	}

	// 001: WxJava's subscribe message, and its template message by form_id.
	want("001", send("subscribe/send", mini, `{"touser":"`+person.OpenID+`","template_id":"`+seedSubscribe+
		`","page":"pages/index/index","data":{"thing1":{"value":"茶"},"thing6":{"value":"杯"},"character_string2":{"value":"A1"},`+
		`"number3":{"value":3},"thing5":{"value":"谢谢"}}}`), 0, "ok")
	if m := w.arrived(t, mini, person.OpenID, seedSubscribe); m.Page != "pages/index/index" {
		t.Errorf("001 arrived as %+v", m)
	}
	form := `{"touser":"` + person.OpenID + `","template_id":"%s","page":"index","form_id":"f","data":{"keyword1":{"value":"快了"}},` +
		`"emphasis_keyword":"keyword1.DATA"}`
	want("001's form", send("wxopen/template/send", mini, fmt.Sprintf(form, "AT9999")), 45103, "This API has been unsupported")

	// 002: a subscribe message with a token of its own, and the three errors that its questions are about.
	timed := `{"touser":"%s","template_id":"` + seedTimed + `","miniprogram_state":"developer","data":{"thing1":{"value":"a"},` +
		`"thing16":{"value":"b"},"thing14":{"value":"c"},"time15":{"value":"%s"}}}`
	want("002", send("subscribe/send", mini, fmt.Sprintf(timed, person.OpenID, "2026-01-02 15:04")), 0, "ok")
	if m := w.arrived(t, mini, person.OpenID, seedTimed); m.State != "developer" {
		t.Errorf("002 arrived as %+v", m)
	}
	want("002's time", send("subscribe/send", mini, fmt.Sprintf(timed, person.OpenID, "soon")), 47003,
		"argument invalid! data.time15.value invalid")
	_, unknown := w.call(t, "GET", "/cgi-bin/token?grant_type=client_credential&appid=wx00000000000000ff&secret="+w.secret, "")
	want("002's appid", unknown, 40013, "invalid appid")

	// 003: by form_id, for which a subscribe message is configured.
	want("003", send("wxopen/template/send", mini, fmt.Sprintf(form, "AT0002")), 0, "ok")
	if m := w.arrived(t, mini, person.OpenID, wechatsim.StandardSubscribeTemplates()[1].ID); !bytes.Contains(m.Data, []byte("快了")) {
		t.Errorf("003 arrived as %+v", m)
	}

	// 004: a template message to the official account's own openid.
	before := len(w.sim.Messages(oa))
	want("004", send("template/send", oa, `{"touser":"`+official+`","template_id":"`+seedTemplate+`","url":"http://weixin.qq.com/download",
		"miniprogram":{"appid":"xiaochengxuappid12345","pagepath":"index?foo=bar"},"data":{"first":{"value":"你好","color":"#173177"},
		"keyword1":{"value":"x","color":"#173177"},"keyword2":{"value":"y"},"keyword3":{"value":"z"},"remark":{"value":"再见"}}}`), 0, "ok")
	await(t, "004's outcome", func() error {
		var status string
		if err := w.db.Get(&status, `SELECT CONCAT_WS(' ', status, errcode) FROM send_request ORDER BY id DESC LIMIT 1`); err != nil {
			return err
		}
		if status != "sent" && status != "failed 40166" {
			return fmt.Errorf("%s, %d messages after %d", status, len(w.sim.Messages(oa)), before)
		}
		return nil
	})
}

func indexOf(users []wechatsim.Identity, who wechatsim.Identity) int {
	for i, u := range users {
		if u.Person == who.Person {
			return i
		}
	}
	return -1
}

// TestNativeDoor: a message by /v1 reaches a phone, and its sender learns of that and of no other's.
func TestNativeDoor(t *testing.T) {
	t.Parallel()
	w := newDoorWorld(t)
	const oa, mini = wechatsim.StandardAppID, wechatsim.StandardMiniAppID
	person := w.sim.MiniUsers(mini, 0, 1)[0]
	message := `{"recipient":{"mini_openid":"` + person.OpenID + `"},"template":"progress","data":{"thing1":"好了"},"key":"order 1"}`
	status, answer := w.call(t, "POST", "/v1/messages", message)
	id, _ := answer["id"].(float64)
	if status != http.StatusCreated || id <= 0 {
		t.Fatalf("%d %v", status, answer)
	}
	if status, again := w.call(t, "POST", "/v1/messages", message); status != http.StatusOK || again["id"] != id || again["repeated"] != true {
		t.Errorf("repeated: %d %v", status, again)
	}
	began := time.Now()
	status, outcome := w.call(t, "GET", fmt.Sprintf("/v1/messages/%d?wait=20", int64(id)), "")
	if status != http.StatusOK || outcome["status"] != "sent" || outcome["appid"] != mini || outcome["final"] != true {
		t.Errorf("%d %v after %s", status, outcome, time.Since(began))
	}
	w.arrived(t, mini, person.OpenID, wechatsim.StandardSubscribeTemplates()[1].ID)
	status, batch := w.call(t, "POST", "/v1/messages", `{"messages":[`+message+`,{"recipient":{"openid":"o1"},"template":"nothing like it","data":{"a":"b"}},
		{"recipient":{"unionid":"`+person.UnionID+`"},"appid":"`+oa+`","template":"progress","data":{"thing1":"x"},"due_at":"2037-01-01T00:00:00+08:00"},
		{"recipient":{},"temp":1}]}`)
	results, _ := batch["results"].([]any)
	if status != http.StatusOK || len(results) != 4 {
		t.Fatalf("%d %v", status, batch)
	}
	text := fmt.Sprint(results...)
	for _, words := range []string{"repeated:true", "template", "messages[3].temp"} {
		if !strings.Contains(text, words) {
			t.Errorf("the batch's answer lacks %q: %s", words, text)
		}
	}
	later, _ := results[2].(map[string]any)
	if status, got := w.call(t, "POST", fmt.Sprintf("/v1/messages/%.0f/cancel", later["id"]), ""); status != http.StatusOK || got["status"] != "cancelled" {
		t.Errorf("cancelled: %d %v", status, got)
	}
	if status, got := w.call(t, "GET", "/v1/messages/999999", ""); status != http.StatusNotFound || got["type"] == nil {
		t.Errorf("another's: %d %v", status, got)
	}
	status, people := w.call(t, "POST", "/v1/identities", `{"ids":["`+person.OpenID+`","oNobody"]}`)
	if list, _ := people["people"].([]any); status != http.StatusOK || len(list) > 1 {
		t.Errorf("%d %v", status, people)
	}
	if status, got := w.call(t, "POST", "/v1/login", `{"appid":"`+mini+`","code":"mini-0-y"}`); status != http.StatusOK || got["openid"] != person.OpenID {
		t.Errorf("login: %d %v", status, got)
	}
	status, people = w.call(t, "POST", "/v1/identities", `{"ids":["`+person.OpenID+`"]}`)
	if list, _ := people["people"].([]any); status != http.StatusOK || len(list) != 1 || !strings.Contains(fmt.Sprint(list...), person.UnionID) {
		t.Errorf("%d %v", status, people)
	}
	if status, got := w.call(t, "POST", "/v1/grants", `{"appid":"`+mini+`","reports":[{"openid":"o1","template":"progress","result":"accept","key":"k"}]}`); status != http.StatusForbidden {
		t.Errorf("grants without the right: %d %v", status, got)
	}
	if status, got := w.call(t, "GET", "/v1/openapi.json", ""); status != http.StatusOK || got["openapi"] != "3.1.0" {
		t.Errorf("%d %v", status, got["openapi"])
	}
}
