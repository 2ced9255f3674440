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
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/intake"
	"github.com/unionbridge/unionbridge/internal/web"
)

const (
	// answerTimeout is how long an answer may take, but for one that the caller waits for.
	answerTimeout = 2500 * time.Millisecond
	// warnPause keeps a database that is away from filling the log.
	warnPause = 10 * time.Second
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
	// Report stores reports of an application about one mini program. One whose key the application has
	// used already, for the same person and template, changes nothing.
	Report(ctx context.Context, application, appid string, reports []Report) error
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
	cfg        Config
	operations map[string]operation
	waiting    *waiting
	requests   *prometheus.CounterVec
	seconds    *prometheus.HistogramVec
	warned     atomic.Int64 // when an error of ours was logged last, in Unix nanoseconds
}

// New returns an API.
func New(cfg Config) *API {
	a := &API{cfg: cfg, operations: operations(), waiting: newWaiting(cfg.Messages),
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

// Release answers all who wait for an outcome, and lets nobody wait any more: a listener that stops
// must not wait for them.
func (a *API) Release() { a.waiting.release() }

// call is a request of an application.
type call struct {
	*http.Request
	answer  *http.ResponseController
	session applications.Session
	id      int64         // of the message that the path names
	wait    time.Duration // for an outcome
	body    []byte
}

// application names the caller, for the log; "": nobody.
func (c *call) application() string {
	if c.session.Application == nil {
		return ""
	}
	return c.session.Application.Name
}

// operation answers the one method of a path.
type operation struct {
	path   string // as openapi.json has it
	method string
	open   bool // for everybody
	most   int  // bytes of body; 0: none is read
	waits  bool // takes ?wait=
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
	all := map[string]operation{
		"/v1/openapi.json": {method: get, open: true, serve: (*API).document},
		"/v1/messages":     {method: post, most: maxBatchBody, serve: (*API).post},
		messagePath:        {method: get, waits: true, serve: (*API).get},
		cancelPath:         {method: post, serve: (*API).cancel},
		"/v1/identities":   {method: post, most: maxBody, serve: (*API).identities},
		"/v1/login":        {method: post, most: maxBody, serve: (*API).login},
		"/v1/grants":       {method: post, most: maxBody, serve: (*API).grants},
	}
	for path, op := range all {
		op.path = path
		all[path] = op
	}
	return all
}

// find returns the operation of a path, and the message that it names. The path has to be exact: a
// mux would redirect one that is not clean.
func (a *API) find(path string) (op operation, id int64, known bool) {
	if strings.Contains(path, "{") {
		return operation{}, 0, false
	}
	if rest, under := strings.CutPrefix(path, "/v1/messages/"); under {
		text, cancel := strings.CutSuffix(rest, "/cancel")
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n <= 0 || text != strconv.FormatInt(n, 10) {
			return operation{}, 0, false
		}
		if path, id = messagePath, n; cancel {
			path = cancelPath
		}
	}
	op, known = a.operations[path]
	return op, id, known
}

// ServeHTTP answers a request. Nothing here logs its query, its headers or its body.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := a.cfg.Now()
	op, id, known := a.find(r.URL.Path)
	path := cmp.Or(op.path, "other")
	c := &call{Request: r, id: id, answer: http.NewResponseController(w)}
	var reply answer
	switch {
	case !known:
		reply = problemOf(problem{Type: typeNotFound, Title: "There is no such path",
			Status: http.StatusNotFound, Detail: "GET /v1/openapi.json lists the paths"})
	case r.Method != op.method:
		reply = problemOf(problem{Type: typeMethod, Title: "The path takes " + op.method + " alone",
			Status: http.StatusMethodNotAllowed})
		reply.header("Allow", op.method)
	default:
		reply = a.handle(c, op)
	}
	took := a.cfg.Now().Sub(began)
	a.requests.WithLabelValues(method(r.Method), path, strconv.Itoa(reply.status)).Inc()
	if c.wait == 0 {
		a.seconds.WithLabelValues(path).Observe(took.Seconds())
	}
	a.cfg.Logger.Debug("request of an application", "method", method(r.Method), "path", path,
		"status", reply.status, "application", c.application(), "took", took)
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

// handle answers a request that the door knows. Whatever was begun before a panic may be committed.
func (a *API) handle(c *call, op operation) (reply answer) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}
		words := "a panic"
		if err, ok := p.(runtime.Error); ok { // any other may quote a request
			words = err.Error()
		}
		a.cfg.Logger.Error("the native door panicked", "panic", words, "stack", string(debug.Stack()))
		reply = problemOf(outcomeUnknown("repeat it with the same key"))
	}()
	reply, err := a.serve(c, op)
	if err != nil {
		return problemOf(a.problem(err))
	}
	return reply
}

func (a *API) serve(c *call, op operation) (answer, error) {
	if !op.open {
		// Before the body is read: whoever is nobody takes no memory.
		if err := a.authenticate(c); err != nil {
			return answer{}, err
		}
	}
	if err := c.readWait(op); err != nil {
		return answer{}, err
	}
	release, err := a.read(c, op.most)
	defer release()
	if err != nil {
		return answer{}, err
	}
	ctx := c.Context()
	if op.most > 0 {
		// The context ends where a caller has closed its half of the connection, and such a one may
		// still read. What is written is written in any case, so that it gets the true answer.
		ctx = context.WithoutCancel(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout+c.wait)
	defer cancel()
	return op.serve(a, ctx, c)
}

// authenticate takes "Authorization: Bearer …", a secret or a token of ours. Of two of them nobody
// knows which one a proxy has looked at.
func (a *API) authenticate(c *call) (err error) {
	ctx, cancel := context.WithTimeout(c.Context(), answerTimeout)
	defer cancel()
	credential := ""
	if given := c.Header.Values("Authorization"); len(given) == 1 {
		scheme, rest, _ := strings.Cut(given[0], " ")
		if strings.EqualFold(scheme, "Bearer") {
			credential = strings.TrimSpace(rest)
		}
	}
	from := applications.Source(c.Request, a.cfg.Proxies)
	c.session, err = a.cfg.Registry.Bearer(ctx, credential, from)
	return err
}
