package compat

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/intake"
	"github.com/unionbridge/unionbridge/internal/web"
)

const (
	appid    = official
	official = "wx0a00000000000001"
	mini     = "wx0b00000000000001"
	secret   = "0123456789abcdef0123456789abcdef"
	token    = "ub1_token"
)

// fake knows one application.
type fake struct {
	mu   sync.Mutex
	from netip.Addr
	then func(ctx context.Context) error // nil: it answers

	messages []intake.Message // accepted
	refused  error            // what Accept and Login say instead
	unionid  string           // of everybody who logs in
	slow     time.Duration    // how long Accept takes

	forwarded []Forwarding
}

func (f *fake) Token(ctx context.Context, c applications.Credentials) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.from = c.From
	switch {
	case f.then != nil:
		return "", f.then(ctx)
	case c.AppID != appid:
		return "", &applications.Refusal{Code: 40013, Message: "invalid appid"}
	case c.Secret != secret:
		return "", &applications.Refusal{Code: 40125, Message: "invalid appsecret"}
	}
	return token, nil
}

func (f *fake) Authenticate(c applications.Credentials) (applications.Session, error) {
	if _, err := f.Token(context.Background(), c); err != nil {
		return applications.Session{}, err
	}
	return applications.Session{AppID: c.AppID, From: c.From, Application: &applications.Application{Name: "shop"}}, nil
}

// Login knows one code.
func (f *fake) Login(_ context.Context, _ applications.Session, _, code string) (Login, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refused != nil {
		return Login{}, f.refused
	}
	return Login{OpenID: "o" + code, UnionID: f.unionid, SessionKey: "key+/=="}, nil
}

func (*fake) Knows(path string) bool {
	return path == "/wxa/getwxacode" || path == "/wxa/msg_sec_check"
}

// Forward answers with what it was asked.
func (f *fake) Forward(_ context.Context, call Forwarding) (*Forwarded, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.forwarded = append(f.forwarded, call)
	if f.refused != nil {
		return nil, f.refused
	}
	return &Forwarded{Status: 200, ContentType: "image/jpeg", Body: io.NopCloser(strings.NewReader("a picture"))}, nil
}

// Verify knows one token, for every account that the tests name by it.
func (f *fake) Verify(ctx context.Context, given string, from netip.Addr) (applications.Session, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.from = from
	account, ours := strings.CutPrefix(given, token+"_")
	switch {
	case f.then != nil:
		return applications.Session{}, f.then(ctx)
	case given == "":
		return applications.Session{}, &applications.Refusal{Code: 41001, Message: "access_token missing"}
	case !ours:
		return applications.Session{}, &applications.Refusal{Code: 40001, Message: "invalid credential"}
	}
	return applications.Session{AppID: account, From: from, Application: &applications.Application{
		Name: "shop", Forward: []string{"/wxa/getwxacode"}, Limit: applications.Limit{Day: 100}, Accounts: map[string][]applications.Call{
			official: {applications.TemplateSend}, mini: {applications.SubscribeSend},
		},
	}}, nil
}

func (f *fake) Used(context.Context, string) (applications.Limit, error) {
	return applications.Limit{Day: 30}, nil
}

// Accept keeps the messages.
func (f *fake) Accept(ctx context.Context, _ applications.Session, messages []intake.Message) []intake.Result {
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-time.After(f.slow):
	case <-ctx.Done():
		return []intake.Result{{Err: intake.ErrUnknown}}
	}
	f.messages = append(f.messages, messages...)
	return []intake.Result{{ID: int64(len(f.messages)), Err: f.refused}}
}

func (*fake) Kind(appid string) Kind {
	return map[string]Kind{official: Official, mini: Mini}[appid]
}

func (*fake) Official() string { return official }

func (*fake) IsUser(_ context.Context, _, openid string) (bool, error) { return openid == "oUser", nil }

func (*fake) IsFollower(_ context.Context, _, openid string) (bool, error) {
	return openid == "oFollower" || openid == "oUser", nil
}

func (*fake) Successor(id string) string { return map[string]string{"old": "order_paid"}[id] }

func (*fake) Templates(appid string) []Template {
	return []Template{{ID: "id of " + appid, Title: "order_paid", Keys: []string{"thing1", "time2"}}}
}

type fixture struct {
	*fake
	door *Door
	url  string
	addr string
	log  *bytes.Buffer
	reg  *prometheus.Registry
}

func newDoor(t testing.TB, change func(*Config, *http.Server)) *fixture {
	t.Helper()
	f := &fixture{fake: new(fake), log: new(bytes.Buffer), reg: prometheus.NewRegistry()}
	logger := slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	cfg := Config{Bodies: web.NewBodies(), Registry: f.fake, Messages: f.fake, Accounts: f.fake, Logins: f.fake, Forwarder: f.fake,
		Registerer: f.reg, Now: time.Now, Logger: logger}
	server := &http.Server{ReadTimeout: 10 * time.Second, ReadHeaderTimeout: 10 * time.Second}
	if change != nil {
		change(&cfg, server)
	}
	f.door = New(cfg)
	server.Handler = f.door
	listener := web.NewListener(web.ListenerConfig{Listen: "127.0.0.1:0", Key: "http.api_listen",
		Logger: logger, Server: server})
	if err := listener.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := listener.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	f.addr = listener.Addr()
	f.url = "http://" + f.addr
	return f
}

// reply is an answer with what SDKs look at.
type reply struct {
	status      int
	contentType string
	ErrCode     *int   `json:"errcode"`
	ErrMsg      string `json:"errmsg"`
	AccessToken string `json:"access_token"`
	ExpiresIn   int    `json:"expires_in"`
}

func send(t *testing.T, req *http.Request) reply {
	t.Helper()
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	got := reply{status: resp.StatusCode, contentType: resp.Header.Get("Content-Type")}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Errorf("%s %s: not JSON: %q", req.Method, req.URL.Path, text)
	}
	return got
}

func request(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func check(t *testing.T, what string, got reply, status, code int) {
	t.Helper()
	if got.contentType != "application/json; charset=utf-8" {
		t.Errorf("%s: Content-Type %q: some SDKs take it for something else", what, got.contentType)
	}
	if code == 0 {
		if got.status != status || got.ErrCode != nil || got.AccessToken != token || got.ExpiresIn != 7200 {
			t.Errorf("%s: %+v, want a token for 7200 s", what, got)
		}
		return
	}
	if got.status != status || got.ErrCode == nil || *got.ErrCode != code || got.ErrMsg == "" || got.AccessToken != "" {
		t.Errorf("%s: %+v, want %d with errcode %d", what, got, status, code)
	}
}

func TestToken(t *testing.T) {
	f := newDoor(t, nil)
	const good = "/cgi-bin/token?grant_type=client_credential&appid=" + appid + "&secret=" + secret
	for name, test := range map[string]struct {
		method, path string
		status, code int
	}{
		"in WeChat's order":        {"GET", good, 200, 0},
		"in another order":         {"GET", "/cgi-bin/token?secret=" + secret + "&appid=" + appid + "&grant_type=client_credential", 200, 0},
		"with an SDK's own":        {"GET", good + "&neededText=&access_token=x", 200, 0},
		"escaped":                  {"GET", strings.Replace(good, "wx0a", "%77x0a", 1), 200, 0},
		"an unknown appid":         {"GET", strings.Replace(good, appid, "wx0b", 1), 200, 40013},
		"a wrong secret":           {"GET", strings.Replace(good, secret, "x", 1), 200, 40125},
		"no grant type":            {"GET", "/cgi-bin/token?appid=" + appid + "&secret=" + secret, 200, 40002},
		"another grant type":       {"GET", strings.Replace(good, "client_credential", "authorization_code", 1), 200, 40002},
		"no appid":                 {"GET", "/cgi-bin/token?grant_type=client_credential&secret=" + secret, 200, 41002},
		"no secret":                {"GET", "/cgi-bin/token?grant_type=client_credential&appid=" + appid, 200, 41004},
		"nothing":                  {"GET", "/cgi-bin/token", 200, 40002},
		"POST":                     {"POST", good, 200, 43001},
		"a slash behind it":        {"GET", strings.Replace(good, "token?", "token/?", 1), 404, 40066},
		"two slashes":              {"GET", "/" + good, 404, 40066},
		"dots":                     {"GET", strings.Replace(good, "/cgi-bin", "/x/../cgi-bin", 1), 404, 40066},
		"an escaped slash":         {"GET", strings.Replace(good, "/token", "%2ftoken", 1), 200, 0}, // the same path
		"capitals":                 {"GET", strings.Replace(good, "/token", "/Token", 1), 404, 40066},
		"the root":                 {"GET", "/", 404, 40066},
		"another path of WeChat's": {"GET", "/cgi-bin/user/get?access_token=" + token, 404, 40066},
		"a native path":            {"GET", "/healthz", 404, 40066},
	} {
		got := send(t, request(t, test.method, f.url+test.path, nil))
		check(t, name, got, test.status, test.code)
		if test.code == 40066 && strings.Contains(got.ErrMsg, secret) {
			t.Errorf("%s: the error shows the query: %s", name, got.ErrMsg)
		}
	}
}

func TestStableToken(t *testing.T) {
	f := newDoor(t, nil)
	const good = `{"grant_type":"client_credential","appid":"` + appid + `","secret":"` + secret + `"}`
	chunked := func(text string) io.Reader { return io.MultiReader(strings.NewReader(text)) } // no length
	for name, test := range map[string]struct {
		method       string
		body         io.Reader
		header       string // name: value
		status, code int
	}{
		"JSON":                   {"POST", strings.NewReader(good), "Content-Type: application/json", 200, 0},
		"with a charset":         {"POST", strings.NewReader(good), "Content-Type: application/json;charset=utf-8", 200, 0},
		"no type":                {"POST", strings.NewReader(good), "", 200, 0},
		"as a form":              {"POST", strings.NewReader(good), "Content-Type: application/x-www-form-urlencoded", 200, 0},
		"a BOM and a newline":    {"POST", strings.NewReader("\ufeff" + good + "\r\n"), "", 200, 0},
		"escaped":                {"POST", strings.NewReader(strings.Replace(good, "appid", `\u0061ppid`, 1)), "", 200, 0},
		"in chunks":              {"POST", chunked(good), "", 200, 0},
		"forced":                 {"POST", strings.NewReader(good[:len(good)-1] + `,"force_refresh":true}`), "", 200, 0},
		"forced, as text":        {"POST", strings.NewReader(good[:len(good)-1] + `,"force_refresh":"x"}`), "", 200, 0},
		"expected":               {"POST", strings.NewReader(good), "Expect: 100-continue", 200, 0},
		"GET":                    {"GET", nil, "", 200, 43002},
		"PUT":                    {"PUT", strings.NewReader(good), "", 200, 43002},
		"empty":                  {"POST", nil, "", 200, 44002},
		"blanks":                 {"POST", strings.NewReader(" \n"), "", 200, 44002},
		"a form":                 {"POST", strings.NewReader("appid=" + appid), "", 200, 47001},
		"cut":                    {"POST", strings.NewReader(good[:20]), "", 200, 47001},
		"two documents":          {"POST", strings.NewReader(good + good), "", 200, 47001},
		"a list":                 {"POST", strings.NewReader("[" + good + "]"), "", 200, 47001},
		"null":                   {"POST", strings.NewReader("null"), "", 200, 40002},
		"a number for the appid": {"POST", strings.NewReader(`{"appid":7}`), "", 200, 47001},
		"GBK":                    {"POST", strings.NewReader(strings.Replace(good, appid, "\xb7\xfe", 1)), "", 200, 47001},
		"gzip":                   {"POST", strings.NewReader(good), "Content-Encoding: gzip", 200, 40221},
		"too large":              {"POST", strings.NewReader(strings.Repeat(" ", maxBody) + good), "", 413, 47001},
		"too large in chunks":    {"POST", chunked(strings.Repeat(" ", maxBody) + good), "", 413, 47001},
		"deep":                   {"POST", strings.NewReader(strings.Repeat("[", 100_000)), "", 200, 47001},
		"a wrong secret":         {"POST", strings.NewReader(strings.Replace(good, secret, "x", 1)), "", 200, 40125},
	} {
		req := request(t, test.method, f.url+"/cgi-bin/stable_token", test.body)
		if key, value, ok := strings.Cut(test.header, ": "); ok {
			req.Header.Set(key, value)
		}
		got := send(t, req)
		check(t, name, got, test.status, test.code)
		if strings.Contains(got.ErrMsg, secret) {
			t.Errorf("%s: the error quotes the body: %s", name, got.ErrMsg)
		}
	}
}

// TestNothingDecided: never an error of the token, never −1, and in time.
func TestNothingDecided(t *testing.T) {
	const path = "/cgi-bin/token?grant_type=client_credential&appid=" + appid + "&secret=" + secret
	for name, then := range map[string]func(ctx context.Context) error{
		"the database is away": func(context.Context) error { return errors.New("connection refused") },
		"it hangs": func(ctx context.Context) error {
			<-ctx.Done()
			return ctx.Err()
		},
		"a panic": func(context.Context) error { panic(secret) },
	} {
		f := newDoor(t, nil)
		f.then = then
		check(t, name, send(t, request(t, "GET", f.url+path, nil)), 503, 61450)
		for _, one := range []string{secret, appid} {
			if strings.Contains(f.log.String(), one) {
				t.Errorf("%s: the log shows the query: %s", name, f.log)
			}
		}
		if f.log.Len() == 0 {
			t.Errorf("%s: nothing is logged", name)
		}
	}
}

func TestSource(t *testing.T) {
	f := newDoor(t, func(c *Config, _ *http.Server) { c.Proxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} })
	req := request(t, "GET", f.url+"/cgi-bin/token?grant_type=client_credential&appid=a&secret=s", nil)
	req.Header.Set("X-Forwarded-For", "192.0.2.7")
	send(t, req)
	if want := netip.MustParseAddr("192.0.2.7"); f.from != want {
		t.Errorf("the caller is %s, want %s", f.from, want)
	}
}

// TestHalfRequests: callers that break off, or say nothing, leave nothing behind.
func TestHalfRequests(t *testing.T) {
	f := newDoor(t, nil)
	for _, text := range []string{
		"", "GET", "GET /cgi-bin/token HTTP/1.1\r\n",
		"POST /cgi-bin/stable_token HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
		"POST /cgi-bin/stable_token HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"POST /cgi-bin/stable_token HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET /cgi-bin/token HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n",
	} {
		conn, err := net.Dial("tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, text)
		_ = conn.(*net.TCPConn).CloseWrite()
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		answer, err := io.ReadAll(conn)
		if err != nil && !errors.Is(err, net.ErrClosed) && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%.40q: %v", text, err)
		}
		if bytes.Contains(answer, []byte("access_token\"")) {
			t.Errorf("%.40q: a token", text)
		}
		_ = conn.Close()
	}
	const good = "/cgi-bin/token?grant_type=client_credential&appid=" + appid + "&secret=" + secret
	check(t, "a whole one", send(t, request(t, "GET", f.url+good, nil)), 200, 0)
}

// TestTLS serves the certificate of an httptest server.
func TestTLS(t *testing.T) {
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	f := newDoor(t, func(_ *Config, s *http.Server) {
		s.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: server.TLS.Certificates}
	})
	const good = "/cgi-bin/token?grant_type=client_credential&appid=" + appid + "&secret=" + secret
	resp, err := server.Client().Do(request(t, "GET", "https://"+f.addr+good, nil))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.TLS == nil {
		t.Errorf("answered %s", resp.Status)
	}
}

// FuzzStableToken: whatever arrives, the answer is one of WeChat's, and no body is quoted.
func FuzzStableToken(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"appid":"a","secret":"s","grant_type":"client_credential"}`, "\ufeff[", `{"appid":{}}`} {
		f.Add([]byte(seed), "application/json")
	}
	door := New(Config{Bodies: web.NewBodies(), Registry: new(fake), Messages: new(fake), Accounts: new(fake), Logins: new(fake), Forwarder: new(fake),
		Registerer: prometheus.NewRegistry(), Now: time.Now,
		Logger: slog.New(slog.DiscardHandler)})
	f.Fuzz(func(t *testing.T, body []byte, contentType string) {
		req := httptest.NewRequest(http.MethodPost, "/cgi-bin/stable_token", bytes.NewReader(body))
		req.Header["Content-Type"] = []string{contentType}
		rec := httptest.NewRecorder()
		door.ServeHTTP(rec, req)
		var got reply
		if err := json.Unmarshal(rec.Body.Bytes(), &got); err != nil || got.ErrCode == nil && got.AccessToken == "" {
			t.Errorf("%d %q: %v", rec.Code, rec.Body, err)
		}
		if rec.Code >= 500 {
			t.Errorf("%d for %q", rec.Code, body)
		}
	})
}
