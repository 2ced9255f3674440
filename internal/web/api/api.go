// Package api is the native door, /v1: JSON for programs that need not speak WeChat's. It owns the
// forms of requests and answers, which openapi.json describes. Who calls and what they may do is
// decided by package applications, and what becomes of messages by package intake.
package api

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/intake"
	"github.com/unionbridge/unionbridge/internal/web"
)

const (
	// answerTimeout is how long an answer may take, but for one that the caller waits for.
	answerTimeout = 2500 * time.Millisecond
	// maxWait is how long a caller may wait for an outcome.
	maxWait = 30 * time.Second
	// maxBody is of one message, and of calls that are no messages; maxBatchBody of 500.
	maxBody      = 1 << 20
	maxBatchBody = 8 << 20
)

// Prefix is what the paths of this door begin with.
const Prefix = "/v1/"

// Registry knows the applications.
type Registry interface {
	Bearer(ctx context.Context, credential string, from netip.Addr) (applications.Session, error)
	Allow(s applications.Session, call applications.Call, appid, template string) error
}

// Messages takes messages in, and says what has become of them.
type Messages interface {
	Accept(ctx context.Context, s applications.Session, messages []intake.Message) []intake.Result
	Statuses(ctx context.Context, s applications.Session, ids []int64) ([]intake.Status, error)
	Cancel(ctx context.Context, s applications.Session, id int64) (intake.Status, error)
}

// People is what the map knows of people, for the accounts that are named.
type People interface {
	People(ctx context.Context, appids, ids []string) ([]Person, error)
}

// Grants takes reports of what people have allowed.
type Grants interface {
	// Report stores reports of one mini program. A report whose key is there already changes nothing.
	Report(ctx context.Context, appid string, reports []Report) error
}

// Logins exchanges login codes.
type Logins interface {
	Login(ctx context.Context, s applications.Session, appid, code string) (Login, error)
}

// Config is what an API needs. Every field is required but Proxies.
type Config struct {
	Proxies    []netip.Prefix // whose X-Forwarded-For counts
	Bodies     *web.Bodies
	Registry   Registry
	Messages   Messages
	People     People
	Grants     Grants
	Logins     Logins
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// API answers requests. Make it with New.
type API struct {
	cfg      Config
	waiting  *waiting
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
}

// New returns an API.
func New(cfg Config) *API {
	a := &API{cfg: cfg, waiting: newWaiting(cfg.Messages),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unionbridge_api_requests_total",
			Help: `Requests to /v1 by method, path and HTTP status; path "other" is unknown.`,
		}, []string{"method", "path", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "unionbridge_api_request_seconds",
			Help:    "Time of requests to /v1, without those that wait for an outcome.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5},
		}, []string{"path"}),
	}
	cfg.Registerer.MustRegister(a.requests, a.seconds)
	return a
}

// call is a request of an application.
type call struct {
	*http.Request
	session applications.Session
	id      int64 // of the message that the path names
	body    []byte
}

// operation answers the one method of a path.
type operation struct {
	path   string // as openapi.json has it
	method string
	open   bool // for everybody
	most   int  // bytes of body; 0: none is read
	serve  func(a *API, ctx context.Context, c *call) (answer, error)
}

// The paths that are not literal.
const (
	messagePath = "/v1/messages/{id}"
	cancelPath  = messagePath + "/cancel"
)

// operations are all, by their paths.
func operations() map[string]operation {
	const get, post = http.MethodGet, http.MethodPost
	return map[string]operation{
		"/v1/openapi.json": {method: get, open: true, serve: (*API).document},
		"/v1/messages":     {method: post, most: maxBatchBody, serve: (*API).post},
		messagePath:        {method: get, serve: (*API).get},
		cancelPath:         {method: post, serve: (*API).cancel},
		"/v1/identities":   {method: post, most: maxBody, serve: (*API).identities},
		"/v1/login":        {method: post, most: maxBody, serve: (*API).login},
		"/v1/grants":       {method: post, most: maxBody, serve: (*API).grants},
	}
}

// find returns the operation of a path, and the message that it names; the zero value: there is none.
// The path has to be exact: a mux would redirect one that is not clean.
func find(path string) (op operation, id int64) {
	if rest, under := strings.CutPrefix(path, "/v1/messages/"); under {
		text, cancel := strings.CutSuffix(rest, "/cancel")
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n <= 0 || text != strconv.FormatInt(n, 10) {
			return operation{}, 0
		}
		if path, id = messagePath, n; cancel {
			path = cancelPath
		}
	}
	if strings.Contains(path, "{") && id == 0 {
		return operation{}, 0
	}
	op = operations()[path]
	op.path = path
	if op.serve == nil {
		return operation{}, 0
	}
	return op, id
}

// ServeHTTP answers a request. Nothing here logs its query, its headers or its body.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := a.cfg.Now()
	op, id := find(r.URL.Path)
	path := cmp.Or(op.path, "other")
	reply := a.handle(w, r, op, id)
	a.requests.WithLabelValues(method(r.Method), path, strconv.Itoa(reply.status)).Inc()
	if reply.waited == 0 {
		a.seconds.WithLabelValues(path).Observe(a.cfg.Now().Sub(began).Seconds())
	}
	reply.write(w)
}

// method is a label: callers may send any word.
func method(m string) string {
	switch m {
	case http.MethodGet, http.MethodPost:
		return m
	}
	return "other"
}

func (a *API) handle(
	w http.ResponseWriter, r *http.Request, op operation, id int64,
) (reply answer) {
	defer func() {
		if p := recover(); p != nil {
			words := "a panic"
			if err, ok := p.(runtime.Error); ok { // any other may quote a request
				words = err.Error()
			}
			a.cfg.Logger.Error("the native door panicked", "panic", words, "stack", string(debug.Stack()))
			reply = problemOf(problem{Status: http.StatusInternalServerError, Type: typeUnknown,
				Title: "Something went wrong here", Detail: "whether anything was accepted is unknown"})
		}
	}()
	switch {
	case op.serve == nil:
		return problemOf(problem{Status: http.StatusNotFound, Type: typeNotFound, Title: "There is no such path",
			Detail: "GET /v1/openapi.json lists the paths"})
	case r.Method != op.method:
		reply = problemOf(problem{Status: http.StatusMethodNotAllowed, Type: typeMethod,
			Title: "The path takes " + op.method + " alone"})
		reply.header("Allow", op.method)
		return reply
	}
	c := &call{Request: r, id: id}
	if !op.open {
		if err := a.authenticate(c); err != nil {
			return a.failed(err)
		}
	}
	release, err := a.read(c, op.most)
	defer release()
	if err != nil {
		return a.failed(err)
	}
	timeout := answerTimeout
	if wait := c.wait(); wait > 0 && op.path == messagePath {
		timeout += wait
		// The listener's own would cut the answer off. A caller who is gone is noticed by the context.
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(timeout + answerTimeout))
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	reply, err = op.serve(a, ctx, c)
	if err != nil {
		return a.failed(err)
	}
	return reply
}

// authenticate takes "Authorization: Bearer …", a secret or a token of ours.
func (a *API) authenticate(c *call) (err error) {
	ctx, cancel := context.WithTimeout(c.Context(), answerTimeout)
	defer cancel()
	scheme, credential, _ := strings.Cut(c.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		credential = ""
	}
	from := applications.Source(c.Request, a.cfg.Proxies)
	c.session, err = a.cfg.Registry.Bearer(ctx, strings.TrimSpace(credential), from)
	return err
}
