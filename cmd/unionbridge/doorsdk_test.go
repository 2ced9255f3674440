//go:build sdk

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// sdkFolder has the clients; `make test-sdk` installs what they need.
const sdkFolder = "../../internal/web/compat/sdktest"

// doorway stands between an SDK and the door, counts what passes, and answers in its place.
type doorway struct {
	*httptest.Server
	mu      sync.Mutex
	calls   map[string]int // by path
	instead func(path, token string) (status int, body string)
}

func newDoorway(t *testing.T, to string) *doorway {
	t.Helper()
	target, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	d := &doorway{calls: map[string]int{}}
	proxy := httputil.NewSingleHostReverseProxy(target)
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		d.calls[r.URL.Path]++
		instead := d.instead
		d.mu.Unlock()
		if instead != nil {
			if status, body := instead(r.URL.Path, r.URL.Query().Get("access_token")); status != 0 {
				w.Header().Set("Content-Type", "application/json; charset=utf-8")
				w.WriteHeader(status)
				_, _ = io.WriteString(w, body)
				return
			}
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(d.Close)
	return d
}

// answer sets what is answered in the door's place, and counts from zero.
func (d *doorway) answer(instead func(path, token string) (int, string)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.instead, d.calls = instead, map[string]int{}
}

func (d *doorway) counted() (all int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, n := range d.calls {
		all += n
	}
	return all
}

// sdkClient is a process that uses an SDK.
type sdkClient struct {
	t   *testing.T
	in  io.WriteCloser
	out *bufio.Reader
}

// sdkAnswer is what an SDK's call came to.
type sdkAnswer struct {
	OK     bool            `json:"ok"`
	Code   any             `json:"code"`
	Error  string          `json:"error"`
	Result json.RawMessage `json:"result"`
}

func startSDK(t *testing.T, name, base, secret string) *sdkClient {
	t.Helper()
	args := []string{base, secret, wechatsim.StandardAppID, wechatsim.StandardMiniAppID}
	folder, err := filepath.Abs(sdkFolder)
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(os.Getenv("UNIONBRIDGE_SDKTEST"), "sdktest")
	if name != "silenceper" {
		program, args = "node", append([]string{filepath.Join(folder, "client.js"), name}, args...)
	}
	command := exec.CommandContext(t.Context(), program, args...)
	command.Dir = t.TempDir() // node-easywechat keeps its tokens in files there
	command.Stderr = os.Stderr
	in, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = command.Wait()
	})
	return &sdkClient{t, in, bufio.NewReader(out)}
}

func (c *sdkClient) do(command map[string]any) (a sdkAnswer) {
	c.t.Helper()
	text, err := json.Marshal(command)
	if err != nil {
		c.t.Fatal(err)
	}
	if _, err := c.in.Write(append(text, '\n')); err != nil {
		c.t.Fatal(err)
	}
	line, err := c.out.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &a)
	}
	if err != nil {
		c.t.Fatalf("%v: %s", err, line)
	}
	return a
}

// phones counts what has arrived, once nothing is on its way any more.
func (w *doorWorld) phones(t *testing.T) int {
	t.Helper()
	await(t, "the messages", func() error {
		var open int
		err := w.db.Get(&open, `SELECT COUNT(*) FROM send_request WHERE status IN ('pending', 'waiting')`)
		if err == nil && open > 0 {
			err = fmt.Errorf("%d are open", open)
		}
		return err
	})
	return len(w.sim.Messages(wechatsim.StandardAppID)) + len(w.sim.Messages(wechatsim.StandardMiniAppID))
}

// TestSDKs: real SDKs, unmodified but for the host, do their calls through the door. None sends
// twice, loops, or loses a message without an error.
func TestSDKs(t *testing.T) {
	w := newDoorWorld(t)
	for _, name := range []string{"silenceper", "co-wechat-api", "wechat-api", "node-easywechat"} {
		t.Run(name, func(t *testing.T) { w.driveSDK(t, name) })
	}
}

func (w *doorWorld) driveSDK(t *testing.T, name string) {
	const oa, mini = wechatsim.StandardAppID, wechatsim.StandardMiniAppID
	door := newDoorway(t, w.url)
	client := startSDK(t, name, door.URL, w.secret)
	users := w.sim.MiniUsers(mini, 0, miniUsers)
	at := 0
	for !w.sim.IsFollower(oa, users[at].Person) {
		at++
	}
	user, follower := users[at], w.sim.OpenID(oa, users[at].Person)
	progress := map[string]any{"thing1": map[string]string{"value": "好了 " + name}}
	template := map[string]any{"do": "template", "openid": follower, "template": template(), "data": progress}
	subscribe := map[string]any{"do": "subscribe", "openid": user.OpenID,
		"template": wechatsim.StandardSubscribeTemplates()[1].ID, "data": progress}
	uniform := map[string]any{"do": "uniform", "body": map[string]any{
		"touser": user.OpenID, "mp_template_msg": map[string]any{"appid": oa, "template_id": template["template"],
			"url": "https://example.com", "miniprogram": map[string]string{"appid": mini, "pagepath": "index"}, "data": progress},
	}}
	// arrives does a command, and holds what arrived against what the SDK said.
	arrives := func(what string, c *sdkClient, command map[string]any, most int) bool {
		t.Helper()
		before := w.phones(t)
		a := c.do(command)
		got := w.phones(t) - before
		if want := map[bool]int{true: 1}[a.OK]; got != want {
			t.Errorf("%s: the SDK said %+v, and %d messages arrived", what, a, got)
		}
		if n := door.counted(); n > most {
			t.Errorf("%s: %d requests, more than %d", what, n, most)
		}
		return a.OK
	}
	must := func(what string, ok bool) {
		t.Helper()
		if !ok {
			t.Errorf("%s: the SDK reports an error", what)
		}
	}

	if a := client.do(map[string]any{"do": "token"}); !a.OK || !strings.Contains(string(a.Result), "ub1_") {
		t.Fatalf("a token: %+v", a)
	}
	login := client.do(map[string]any{"do": "login", "code": fmt.Sprintf("mini-%d-%s", at, name)})
	if !login.OK || !strings.Contains(string(login.Result), user.OpenID) || !strings.Contains(string(login.Result), user.UnionID) {
		t.Errorf("the login: %+v", login)
	}
	for what, command := range map[string]map[string]any{"template": template, "subscribe": subscribe, "uniform": uniform} {
		door.answer(nil)
		must(what, arrives(what, client, command, 4))
	}

	w.stop()
	if got := <-w.ended; got.code != 0 {
		t.Errorf("the daemon ended with %d: %s", got.code, got.stderr)
	}
	w.start(t)
	door.answer(nil)
	must("after a restart", arrives("after a restart", client, template, 1))

	second := startSDK(t, name, door.URL, w.secret)
	if a := second.do(map[string]any{"do": "token"}); !a.OK {
		t.Errorf("the token of a second process: %+v", a)
	}
	door.answer(nil)
	must("beside a second process", arrives("beside a second process", client, template, 1))
	must("the second process", arrives("the second process", second, template, 2))

	var first string
	door.answer(func(path, token string) (int, string) {
		if first == "" {
			first = token
		}
		if token != "" && token == first {
			return http.StatusOK, `{"errcode":42001,"errmsg":"access_token expired"}`
		}
		return 0, ""
	})
	arrives("an expired token", client, template, 10)

	door.answer(func(path, _ string) (int, string) {
		if strings.Contains(path, "message") {
			return http.StatusServiceUnavailable, `{"errcode":61450,"errmsg":"system busy, not accepted"}`
		}
		return 0, ""
	})
	began := time.Now()
	if arrives("an overloaded door", second, template, 4) {
		t.Error("an overloaded door: the SDK reports success")
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("an overloaded door: it took %s", took)
	}
	door.answer(nil)
	must("afterwards", arrives("afterwards", second, template, 3))
}
