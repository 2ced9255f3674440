package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/intake"
	"github.com/unionbridge/unionbridge/internal/web"
)

const (
	official = "wx0a00000000000001"
	mini     = "wx0b00000000000001"
	secret   = "0123456789abcdef0123456789abcdef"
	token    = "ub1_token"

	sessionKey = "c2Vzc2lvbiBrZXkgMTIzNA=="
	loginCode  = "0a1b2c3d4e5f6071829304a5b6c7d8e9"
)

// fake is what an API needs, for one application. Set its functions before the first request.
type fake struct {
	bearer   func(credential string) (applications.Session, error) // nil: secret and token are right
	allow    error
	accept   func(m intake.Message) intake.Result // nil: it is accepted
	cancel   func(id int64) (intake.Status, error)
	statuses func(ids []int64) ([]intake.Status, error) // nil: those of messages that were accepted
	people   func(appids, ids []string) ([]Person, error)
	report   error
	login    func(appid, code string) (Login, error)

	mu       sync.Mutex
	messages []intake.Message
	reports  []Report
	from     netip.Addr
	queries  atomic.Int64 // of statuses
}

var shop = &applications.Application{Name: "shop", Accounts: map[string][]applications.Call{
	official: {applications.TemplateSend, applications.Identities},
	mini:     {applications.SubscribeSend, applications.Login, applications.Grants},
}}

func (f *fake) Bearer(
	_ context.Context, credential string, from netip.Addr,
) (applications.Session, error) {
	f.mu.Lock()
	f.from = from
	f.mu.Unlock()
	s := applications.Session{Application: shop, From: from}
	switch {
	case f.bearer != nil:
		return f.bearer(credential)
	case credential == token:
		s.AppID = mini
	case credential == "":
		return applications.Session{}, &applications.Refusal{Code: 41001, Message: "access_token missing"}
	case credential != secret:
		return applications.Session{}, &applications.Refusal{Reason: applications.ReasonSecret,
			Code: 40125, Message: "invalid appsecret"}
	}
	return s, nil
}

func (f *fake) Allow(applications.Session, applications.Call, string, string) error { return f.allow }

// Accept keeps the messages.
func (f *fake) Accept(
	_ context.Context, _ applications.Session, messages []intake.Message,
) []intake.Result {
	f.mu.Lock()
	defer f.mu.Unlock()
	results := make([]intake.Result, len(messages))
	for i, m := range messages {
		if f.accept != nil {
			if results[i] = f.accept(m); results[i].Err != nil || results[i].ID != 0 {
				continue
			}
		}
		f.messages = append(f.messages, m)
		results[i] = intake.Result{ID: int64(len(f.messages))}
	}
	return results
}

func (f *fake) Statuses(
	_ context.Context, _ applications.Session, ids []int64,
) (found []intake.Status, err error) {
	f.mu.Lock()
	f.queries.Add(1)
	own := int64(len(f.messages))
	f.mu.Unlock()
	if f.statuses != nil {
		return f.statuses(ids)
	}
	for _, id := range ids {
		if id <= own {
			found = append(found, intake.Status{ID: id, Status: "pending", CreatedAt: time.Unix(1e9, 0)})
		}
	}
	return found, nil
}

func (f *fake) Cancel(_ context.Context, _ applications.Session, id int64) (intake.Status, error) {
	if f.cancel != nil {
		return f.cancel(id)
	}
	return intake.Status{ID: id, Status: "cancelled"}, nil
}

func (f *fake) People(_ context.Context, appids, ids []string) ([]Person, error) {
	if f.people != nil {
		return f.people(appids, ids)
	}
	return nil, nil
}

func (f *fake) Report(_ context.Context, _, _ string, reports []Report) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reports = append(f.reports, reports...)
	return f.report
}

func (f *fake) Login(
	_ context.Context, _ applications.Session, appid, code string,
) (Login, error) {
	if f.login != nil {
		return f.login(appid, code)
	}
	return Login{OpenID: "oUser", UnionID: "oUnion", SessionKey: sessionKey}, nil
}

// printed is a log.
type printed struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (p *printed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.buf.Write(b)
}

func (p *printed) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.buf.String()
}

// fixture is an API that listens. Every answer that it gives through do is held against openapi.json.
type fixture struct {
	*fake
	api  *API
	url  string
	addr string
	log  *printed
	reg  *prometheus.Registry
	doc  *contract
}

// newConfig is what an API needs, with fakes.
func newConfig(f *fake, log io.Writer, reg prometheus.Registerer) Config {
	return Config{
		Bodies: web.NewBodies(), Registry: f, Messages: f, People: f, Grants: f, Logins: f,
		Registerer: reg, Now: time.Now,
		Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

func newAPI(t *testing.T, f *fake) *fixture {
	t.Helper()
	return newAPIOn(t, f, &http.Server{ReadTimeout: 10 * time.Second, ReadHeaderTimeout: 10 * time.Second,
		WriteTimeout: 20 * time.Second})
}

func newAPIOn(t *testing.T, fk *fake, server *http.Server) *fixture {
	t.Helper()
	f := &fixture{fake: fk, log: new(printed), reg: prometheus.NewRegistry(), doc: newContract(t)}
	cfg := newConfig(fk, f.log, f.reg)
	f.api = New(cfg)
	server.Handler = f.api
	server.RegisterOnShutdown(f.api.Release)
	listener := web.NewListener(web.ListenerConfig{Listen: "127.0.0.1:0", Key: "http.api_listen",
		Logger: cfg.Logger, Server: server})
	if err := listener.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := listener.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	f.addr, f.url = listener.Addr(), "http://"+listener.Addr()
	return f
}

// reply is an answer.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// problem is the answer's, or one without anything.
func (r reply) problem() (p problem) {
	_ = json.Unmarshal(r.body, &p)
	return p
}

// field is the first field that a problem names.
func (r reply) field() string {
	if p := r.problem(); len(p.Errors) > 0 {
		return p.Errors[0].Field
	}
	return ""
}

// decode reads the answer.
func (r reply) decode(t *testing.T, v any) {
	t.Helper()
	if err := json.Unmarshal(r.body, v); err != nil {
		t.Fatalf("%v: %s", err, r.body)
	}
}

// request makes a request with the secret and, of a POST, as JSON.
func (f *fixture) request(t *testing.T, method, path string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, f.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+secret)
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	return req
}

// do sends a request, follows nothing, and holds the answer against the document.
func (f *fixture) do(t *testing.T, req *http.Request) reply {
	t.Helper()
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error {
		return http.ErrUseLastResponse
	}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	got := reply{resp.StatusCode, resp.Header, body}
	f.doc.check(t, req.Method, req.URL.Path, got)
	return got
}

func (f *fixture) post(t *testing.T, path, body string) reply {
	t.Helper()
	return f.do(t, f.request(t, http.MethodPost, path, strings.NewReader(body)))
}

func (f *fixture) get(t *testing.T, path string) reply {
	t.Helper()
	return f.do(t, f.request(t, http.MethodGet, path, nil))
}

const order = `{"recipient":{"openid":"oPerson"},"template":"order_paid","data":{"thing1":"茶"}}`
