package wechat

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
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
		_ = again.SetBody(r.body) // fails for other types only
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
	status  int         // HTTP status of the answer, 0: none yet
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
	a.started, a.status = a.client.cfg.Now(), 0
	a.wrote.Store(false)
}

func (a *attempt) finish(resp *http.Response, err error) {
	a.err = a.judge(resp, err)
	a.observe()
}

func (a *attempt) observe() {
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
	return a.err != nil && a.err.Policy == PolicyRetry && (!a.request.single || !a.wrote.Load())
}

// newTransport is the connection handling towards WeChat, each option with its reason.
func newTransport(connections int) *http.Transport {
	// HTTP/1.1 only: the rules for replaying a request are known and tested (a POST of which a byte
	// was written is never replayed), and a hundred sends spread over connections.
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		// Many companies let servers out through a proxy only.
		Proxy: http.ProxyFromEnvironment,
		// A dial that takes 5 s will not succeed, and after a dial error nothing was sent.
		DialContext: (&net.Dialer{Timeout: 5 * time.Second,
			KeepAlive: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout: 5 * time.Second,
		Protocols:           protocols,
		// All calls go to one host: the default of 2 idle connections would re-dial on every burst.
		MaxIdleConns:        connections,
		MaxIdleConnsPerHost: connections,
		// No MaxConnsPerHost: callers bound their concurrency; a token must not queue behind sends.

		// Well below the usual 60 to 75 s of web servers. A server that closes an idle connection
		// as a send is written leaves that send in doubt, so we close first.
		IdleConnTimeout: 30 * time.Second,
		// Answers to sends are 60 bytes; inflating 30 KB a hundred times a second costs the sweep
		// more than a data-centre line saves. And the bytes read are the bytes bounded.
		DisableCompression: true,
	}
}

// newHTTPClient does not follow redirects: the token and the secret stand in the URL and would
// travel along. WeChat redirects only plain http.
func newHTTPClient(transport http.RoundTripper, timeout time.Duration) *http.Client {
	return &http.Client{
		Transport:     transport,
		Timeout:       timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

type roundTripperFunc func(*http.Request) (*http.Response, error)

func (f roundTripperFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
