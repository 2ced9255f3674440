// Package compat is the door for programs that were written against WeChat's API: WeChat's own
// paths at the root of a listener of ours, so that an SDK needs another host and the application's
// secret, and nothing else. It owns the forms of requests and answers. Who calls and what they may
// do is decided by package applications; nothing is passed on to WeChat.
//
// Errors have HTTP status 200, because many SDKs throw the body of any other away. That nothing was
// decided, because the database is away, is 503 with 61450: SDKs repeat a POST on −1, and one takes
// a negative code for success.
package compat

import (
	"context"
	"crypto/tls"
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
	"github.com/unionbridge/unionbridge/internal/web"
)

const (
	// answerTimeout is how long an answer may take once the request has been read. SDKs give up
	// after three seconds, and those that give up repeat a POST.
	answerTimeout = 2500 * time.Millisecond
	readTimeout   = 10 * time.Second
	writeTimeout  = 10 * time.Second
	// idleTimeout exceeds the default of nginx and others, which must close first.
	idleTimeout = 90 * time.Second
	// warnPause keeps a database that is away from filling the log.
	warnPause = 10 * time.Second
)

// Registry knows the applications.
type Registry interface {
	Token(ctx context.Context, c applications.Credentials) (string, error)
}

// Config is what a Listener needs. Every field is required but TLS and Proxies.
type Config struct {
	Listen     string         // host:port; port 0 takes a free one
	TLS        *tls.Config    // nil: plain HTTP
	Proxies    []netip.Prefix // whose X-Forwarded-For counts
	Registry   Registry
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// Listener is the door. Make it with New.
type Listener struct {
	*web.Listener
	cfg       Config
	endpoints map[string]endpoint
	requests  *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	warn      pause
}

// endpoint answers one path. Its answer is written as JSON.
type endpoint struct {
	method string
	serve  func(ctx context.Context, c *call) (any, error)
}

// call is a request whose body has been read.
type call struct {
	*http.Request
	from netip.Addr
	body []byte
}

// New returns a Listener that does nothing until Start.
func New(cfg Config) *Listener {
	l := &Listener{cfg: cfg, warn: pause{now: cfg.Now},
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
	cfg.Registerer.MustRegister(l.requests, l.seconds)
	l.endpoints = map[string]endpoint{
		"/cgi-bin/token":        {http.MethodGet, l.token},
		"/cgi-bin/stable_token": {http.MethodPost, l.stableToken},
	}
	l.Listener = web.NewListener(web.ListenerConfig{
		Listen: cfg.Listen, Key: "http.api_listen", Logger: cfg.Logger, Server: &http.Server{
			Handler: l, TLSConfig: cfg.TLS, ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout,
			WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		},
	})
	return l
}

// ServeHTTP answers a request. Secrets and tokens stand in the query, so that nothing here logs
// one. No mux: it would redirect a path that is not clean, with the query, and SDKs would follow.
func (l *Listener) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := r.URL.Path
	e, known := l.endpoints[path]
	if !known {
		path = "other"
	}
	a, began := l.handle(r, e, known)
	l.requests.WithLabelValues(path, strconv.Itoa(a.code())).Inc()
	if !began.IsZero() {
		l.seconds.WithLabelValues(path).Observe(l.cfg.Now().Sub(began).Seconds())
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(a.status)
	_ = json.NewEncoder(w).Encode(a.body) // the caller may be gone
}

// handle returns the answer, and when the request had been read.
func (l *Listener) handle(r *http.Request, e endpoint, known bool) (a answer, began time.Time) {
	defer func() {
		if p := recover(); p != nil {
			l.cfg.Logger.Error("a door panicked", "panic", described(p), "stack", string(debug.Stack()))
			a = unavailable()
		}
	}()
	if !known {
		return notServed(r.URL.Path), began
	}
	c := &call{Request: r, from: applications.Source(r, l.cfg.Proxies)}
	err := c.read(e.method)
	if err != nil {
		return l.failed(err), began
	}
	began = l.cfg.Now()
	ctx, cancel := context.WithTimeout(r.Context(), answerTimeout)
	defer cancel()
	body, err := e.serve(ctx, c)
	if err != nil {
		return l.failed(err), began
	}
	return answer{http.StatusOK, body}, began
}

// failed returns the answer for an error: the caller's own, or that nothing was decided.
func (l *Listener) failed(err error) answer {
	if f, ok := errors.AsType[*failure](err); ok {
		return answer{f.status, problem{f.code, f.message}}
	}
	if r, ok := errors.AsType[*applications.Refusal](err); ok {
		return answer{http.StatusOK, problem{r.Code, r.Message}}
	}
	if l.warn.over(warnPause) {
		l.cfg.Logger.Warn("a door cannot answer", "err", err)
	}
	return unavailable()
}
