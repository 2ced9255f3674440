package wechat

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-retryablehttp"
)

const maxReadRetries = 3

type request struct {
	endpoint endpoint
	query    string   // encoded, without the access token
	token    string   // access token, goes into the query
	body     []byte   // JSON; nil for none
	into     answer   // where the answer goes
	secrets  []string // values of this call that may not occur in an error
	single   bool     // not repeated once it was written: it spends something

	// A call to somewhere else than WeChat, the company's token server.
	address string // the whole URL; "": WeChat's address, path and query
	header  map[string]string
}

// build turns the request into HTTP. The body is a bytes.Reader on purpose: WeChat refuses chunked
// bodies with an empty HTTP 412, and only a body of known length gets a Content-Length.
func (c *Client) build(ctx context.Context, r request) (*http.Request, error) {
	query := r.query
	if r.token != "" {
		if query != "" {
			query += "&"
		}
		query += "access_token=" + url.QueryEscape(r.token)
	}
	var body io.Reader = unreplayable{}
	if r.body != nil {
		body = bytes.NewReader(r.body)
	}
	address := r.address
	if address == "" {
		address = c.cfg.BaseURL + r.endpoint.path + "?" + query
	}
	h, err := http.NewRequestWithContext(ctx, r.endpoint.method, address, body)
	if err != nil {
		return nil, err
	}
	setHeader(h, r.header)
	if r.body != nil {
		h.Header.Set("Content-Type", "application/json;charset=utf-8")
	}
	return h, nil
}

// unreplayable is the empty body of a GET. net/http silently repeats a GET when a kept connection
// ends before the answer: uncounted, and fatal to a single-use login code. It does not repeat a
// request whose body it cannot get again, and sends no empty body of a GET.
type unreplayable struct{}

func (unreplayable) Read([]byte) (int, error) { return 0, io.EOF }

func (c *Client) once(ctx context.Context, r request) error {
	a := &attempt{client: c, request: r}
	h, err := c.build(a.traced(ctx), r)
	if err != nil {
		return a.failure(verdict{"bad_address", PolicyConfig}, err)
	}
	a.begin()
	a.finish(c.sends.Do(h)) //nolint:bodyclose // finish closes it
	return a.result()
}

// read makes attempts until one answers, the error is of a kind that stays, or the retries are used
// up. The decision needs the errcode, which stands in the body of an HTTP 200, so the whole answer
// is read and decoded inside CheckRetry.
func (c *Client) read(ctx context.Context, r request) error {
	a := &attempt{client: c, request: r}
	h, err := c.build(a.traced(ctx), r)
	if err != nil {
		return a.failure(verdict{"bad_address", PolicyConfig}, err)
	}
	retry := &retryablehttp.Client{
		HTTPClient:   c.reads,
		Logger:       nil, // it would log URLs
		RetryMax:     maxReadRetries,
		RetryWaitMin: c.retryMin,
		RetryWaitMax: c.retryMax,
		Backoff:      jitteredBackoff,
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
		RequestLogHook: func(retryablehttp.Logger, *http.Request, int) {
			a.begin()
		},
		CheckRetry: func(ctx context.Context, resp *http.Response, err error) (bool, error) {
			a.finish(resp, err)
			return ctx.Err() == nil && a.repeatable(), nil
		},
	}
	again := &retryablehttp.Request{Request: h}
	if r.body != nil {
		if err := again.SetBody(r.body); err != nil {
			return a.failure(verdict{"bad_address", PolicyConfig}, err)
		}
	}
	resp, err := retry.Do(again)
	if resp != nil {
		_ = resp.Body.Close() // finish closed it; this is for readers and go vet
	}
	if a.err != nil && err != nil && ctx.Err() != nil {
		return a.interrupted(ctx.Err())
	}
	return a.result()
}

// jitteredBackoff doubles the wait each time and spreads it over the upper half, so that the
// sweep's workers, which were all told "busy" at once, do not come back at once.
func jitteredBackoff(low, high time.Duration, n int, _ *http.Response) time.Duration {
	wait := min(low<<n, high)
	return wait/2 + rand.N(wait/2+1)
}

// attempt is the state of the HTTP call under way. All tries of a read use one.
type attempt struct {
	client  *Client
	request request

	started time.Time
	wrote   atomic.Bool // set by the transport's goroutine: the request's headers began to leave
	err     *Error
}

// traced notes whether anything of the request was written. GetConn resets the note: the transport
// takes another connection only if nothing was written, or for idempotent requests.
func (a *attempt) traced(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:      func(string) { a.wrote.Store(false) },
		WroteHeaders: func() { a.wrote.Store(true) },
	})
}

func (a *attempt) begin() {
	a.started = a.client.cfg.Now()
	a.wrote.Store(false)
}

func (a *attempt) finish(resp *http.Response, err error) {
	a.err = a.judge(resp, err)
	a.client.cfg.Observe(Call{
		Endpoint: a.request.endpoint.path,
		Duration: a.client.cfg.Now().Sub(a.started),
		Err:      a.result(),
	})
}

// result keeps a nil *Error from becoming a non-nil error.
func (a *attempt) result() error {
	if a.err == nil {
		return nil
	}
	return a.err
}

func (a *attempt) repeatable() bool {
	if a.err == nil || a.err.Policy != PolicyRetry {
		return false
	}
	return !a.request.single || !a.wrote.Load()
}
