// Package compat is the door for programs that were written against WeChat's API: WeChat's own
// paths at the root of a listener of ours, so that an SDK needs another host and the application's
// secret, and nothing else. It owns the forms of requests and answers. Who calls and what they may
// do is decided by package applications, and what becomes of messages by package intake.
//
// Errors have HTTP status 200, because many SDKs throw the body of any other away. That nothing was
// decided, because the database is away, is 503 with 61450: SDKs repeat a POST on −1, and one takes
// a negative code for success.
package compat

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/intake"
	"github.com/unionbridge/unionbridge/internal/web"
)

const (
	// answerTimeout is how long an answer may take once the request has been read. SDKs give up
	// after three seconds, and those that give up repeat a POST.
	answerTimeout = 2500 * time.Millisecond
	// warnPause keeps a database that is away from filling the log.
	warnPause = 10 * time.Second
)

// Registry knows the applications.
type Registry interface {
	Token(ctx context.Context, c applications.Credentials) (string, error)
	Verify(ctx context.Context, token string, from netip.Addr) (applications.Session, error)
	Used(ctx context.Context, application string) (applications.Limit, error)
	Authenticate(c applications.Credentials) (applications.Session, error)
}

// Messages takes messages in.
type Messages interface {
	Accept(ctx context.Context, s applications.Session, messages []intake.Message) []intake.Result
}

// Accounts says what the accounts of the configuration are.
type Accounts interface {
	// Kind is of an account that sends; "": it does not.
	Kind(appid string) Kind
	// Official is the official account that messages without one go from; "": there is none.
	Official() string
	// IsUser and IsFollower report whether an openid is known at an account.
	IsUser(ctx context.Context, appid, openid string) (bool, error)
	IsFollower(ctx context.Context, appid, openid string) (bool, error)
	// Successor returns the template that has taken the place of one whose messages WeChat has
	// withdrawn; "": none is configured.
	Successor(templateID string) string
	// Templates are those of an account that the configuration knows.
	Templates(appid string) []Template
}

// Kind is what kind an account is of.
type Kind string

// The kinds.
const (
	Official Kind = "official"
	Mini     Kind = "mini"
)

// Template is a template with its keys, as far as they are known.
type Template struct {
	ID, Title string
	Keys      []string
}

// Config is what a Door needs. Every field is required but Proxies.
type Config struct {
	Proxies    []netip.Prefix // whose X-Forwarded-For counts
	Bodies     *web.Bodies
	Registry   Registry
	Messages   Messages
	Accounts   Accounts
	Logins     Logins
	Forwarder  Forwarder
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// Door answers requests. Make it with New.
type Door struct {
	cfg       Config
	endpoints map[string]endpoint
	requests  *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	warn      pause
}

// endpoint answers one path. Its answer is written as JSON.
type endpoint struct {
	method string // "": any, and the body is not read
	open   bool   // it takes no token
	// timeout is how long the answer may take; 0: answerTimeout.
	timeout time.Duration
	serve   func(ctx context.Context, c *call) (any, error)
}

// call is a request whose body has been read.
type call struct {
	*http.Request
	from    netip.Addr
	session applications.Session // of the token; nobody's where the endpoint is open
	body    []byte               // without what JSON does not need around it
	raw     []byte               // as it came
}

// New returns a Door.
func New(cfg Config) *Door {
	d := &Door{cfg: cfg, warn: pause{now: cfg.Now},
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unionbridge_door_requests_total",
			Help: `Requests of applications by path and errcode; code "0" is success, path "other" unknown.`,
		}, []string{"path", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "unionbridge_door_request_seconds",
			Help:    "Time from the end of a request to its answer.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5},
		}, []string{"path"}),
	}
	cfg.Registerer.MustRegister(d.requests, d.seconds)
	d.endpoints = map[string]endpoint{
		"/cgi-bin/token":        {method: http.MethodGet, open: true, serve: d.token},
		"/cgi-bin/stable_token": {method: http.MethodPost, open: true, serve: d.stableToken},
		"/sns/jscode2session":   {method: http.MethodGet, open: true, serve: d.session},

		"/cgi-bin/message/template/send":                {method: http.MethodPost, serve: d.sendTemplate},
		"/cgi-bin/message/subscribe/send":               {method: http.MethodPost, serve: d.sendSubscribe},
		"/cgi-bin/message/wxopen/template/uniform_send": {method: http.MethodPost, serve: d.sendUniform},
		"/cgi-bin/message/wxopen/template/send":         {method: http.MethodPost, serve: d.sendForm},
		"/cgi-bin/message/device/subscribe/send":        {method: http.MethodPost, serve: notOffered},

		"/cgi-bin/template/get_all_private_template": {serve: d.privateTemplates},
		"/wxaapi/newtmpl/gettemplate":                {serve: d.subscribeTemplates},
		"/cgi-bin/getcallbackip":                     {serve: ownAddress},
		"/cgi-bin/get_api_domain_ip":                 {serve: ownAddress},
		"/cgi-bin/openapi/quota/get":                 {method: http.MethodPost, serve: d.quota},
	}
	return d
}

// ServeHTTP answers a request. Secrets and tokens stand in the query, so that nothing here logs
// one. No mux: it would redirect a path that is not clean, with the query, and SDKs would follow.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	e, known := d.endpoints[path]
	if !known {
		if e, known = d.forwarding(r.Method, path); !known {
			path = "other"
		}
	}
	a, began := d.handle(r, e, known)
	if a.end != nil {
		defer a.end() // a forwarded answer is read until it has been written
	}
	d.requests.WithLabelValues(path, strconv.Itoa(a.code())).Inc()
	if !began.IsZero() {
		d.seconds.WithLabelValues(path).Observe(d.cfg.Now().Sub(began).Seconds())
	}
	if f, ok := a.body.(*Forwarded); ok {
		d.pass(w, f)
		return
	}
	body, err := json.Marshal(a.body)
	if err != nil {
		d.cfg.Logger.Error("encoding an answer", "path", path, "err", err)
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(a.status)
	// No newline behind it: co-wechat-api reads such a body as text. The caller may be gone.
	_, _ = w.Write(body)
}

// handle returns the answer, and when the request had been read.
func (d *Door) handle(r *http.Request, e endpoint, known bool) (a answer, began time.Time) {
	defer func() {
		if p := recover(); p != nil {
			d.cfg.Logger.Error("a door panicked", "panic", described(p), "stack", string(debug.Stack()))
			a = unavailable()
		}
	}()
	if !known {
		return notServed(r.URL.Path), began
	}
	c := &call{Request: r, from: applications.Source(r, d.cfg.Proxies)}
	if err := c.checkMethod(e.method); err != nil {
		return d.failed(err), began
	}
	if !e.open {
		// Before the body is read: whoever has no token takes no memory.
		if err := d.verify(c); err != nil {
			return d.failed(err), began
		}
	}
	release, err := c.read(e.method, d.cfg.Bodies)
	defer release()
	if err != nil {
		return d.failed(err), began
	}
	began = d.cfg.Now()
	// The request's own context ends where a caller has closed its half of the connection, and such a
	// one still reads the answer.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), cmp.Or(e.timeout, answerTimeout))
	body, err := e.serve(ctx, c)
	if err != nil {
		cancel()
		return d.failed(err), began
	}
	return answer{status: http.StatusOK, body: body, end: cancel}, began
}

func (d *Door) verify(c *call) (err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context()), answerTimeout)
	defer cancel()
	c.session, err = d.cfg.Registry.Verify(ctx, c.URL.Query().Get("access_token"), c.from)
	return err
}

// failed returns the answer for an error: the caller's own, or that nothing was decided.
func (d *Door) failed(err error) answer {
	if f, ok := errors.AsType[*failure](err); ok {
		return answer{status: f.status, body: problem{f.code, f.message}}
	}
	if r, ok := errors.AsType[*applications.Refusal](err); ok {
		return answer{status: http.StatusOK, body: problem{r.Code, r.Message}}
	}
	if r, ok := errors.AsType[*intake.Rejection](err); ok {
		return answer{status: http.StatusOK, body: problem{r.Code, r.Message}}
	}
	if d.warn.over(warnPause) {
		d.cfg.Logger.Warn("a door cannot answer", "err", err)
	}
	if errors.Is(err, intake.ErrUnknown) {
		return unknown()
	}
	return unavailable()
}
