// Package wechat is the client of WeChat's server API: one method per endpoint, access tokens that
// renew themselves, and errors that say what to do.
//
// It owns the connections, the token of one account, the bounded and defensive reading of answers,
// and the one table that maps an errcode to a [Reason] and a [Policy]. It makes no decisions: it
// never repeats a send, never pauses an account and never touches the database.
//
// Secret, token, js_code and session_key stand in URLs and bodies here. None of them may occur in
// an error, a log line or a Call that Observe receives, however a call fails; *url.Error, which
// prints whole URLs, never leaves the package.
package wechat

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"
)

// defaultBaseURL is WeChat's nearest-site address. Others with the same paths: api2 (disaster
// recovery), sh.api, sz.api and hk.api under weixin.qq.com.
const defaultBaseURL = "https://api.weixin.qq.com"

// Config is what a [Client] needs. AppID is required, Secret too unless Token names another place
// to get tokens from and [Client.Session] is not called; everything else has a default.
type Config struct {
	AppID  string // of the official account or mini program, "wx" and 16 hex digits
	Secret string // its AppSecret

	Token TokenConfig // where access tokens come from; default: WeChat's stable_token

	BaseURL string // default https://api.weixin.qq.com

	// Timeout bounds one attempt of a read, from dialling to the last byte. Default 30 s.
	Timeout time.Duration
	// SendTimeout bounds the one attempt of a send. Default 10 s: a claim on a row must outlive it.
	SendTimeout time.Duration

	// MaxConnections is how many idle connections are kept; set it to the number of calls that run
	// at once, or every burst pays for new TLS handshakes. Default 100.
	MaxConnections int

	Transport http.RoundTripper // default: an own transport, see newTransport
	Logger    *slog.Logger      // default: discards
	Now       func() time.Time  // default time.Now

	// Observe is called at the end of each HTTP call, token calls and retries included. It must be
	// safe for concurrent use and quick. Default: none.
	Observe func(Call)

	// ObserveQuota is called with each answer of [Client.Quota], under the same rules. Default: none.
	ObserveQuota func(ctx context.Context, path string, q Quota)
}

// Call is one HTTP call as [Config.Observe] sees it.
type Call struct {
	Endpoint string        // the path, such as "/cgi-bin/user/get"
	Duration time.Duration // until the answer was read and decoded
	Err      error         // nil, or an *Error
}

// Client speaks to WeChat for one account. It is safe for concurrent use; make one per account,
// since it holds the account's token.
type Client struct {
	cfg    Config
	reads  *http.Client
	sends  *http.Client
	tokens *tokenSource

	// Fields so that tests can change them.
	retryMin, retryMax time.Duration // waits between the attempts of a read
	commandTimeout     time.Duration
	commandDelay       time.Duration
}

// New makes the client. It makes no call.
func New(cfg Config) *Client {
	cfg = cfg.withDefaults()
	c := &Client{
		cfg: cfg,
		// The wrapper hides CloseIdleConnections: go-retryablehttp calls it whenever it gives a
		// read up, and that would cost the sends their warm connections.
		reads:    newHTTPClient(roundTripperFunc(cfg.Transport.RoundTrip), cfg.Timeout),
		sends:    newHTTPClient(cfg.Transport, cfg.SendTimeout),
		retryMin: 200 * time.Millisecond,
		retryMax: 3 * time.Second,

		commandTimeout: commandTimeout,
		commandDelay:   commandDelay,
	}
	c.tokens = &tokenSource{
		provider: c.newTokenProvider(),
		now:      cfg.Now,
		log:      cfg.Logger.With("appid", cfg.AppID),
	}
	return c
}

func (cfg Config) withDefaults() Config {
	cfg.BaseURL = strings.TrimRight(cmp.Or(cfg.BaseURL, defaultBaseURL), "/")
	cfg.Timeout = cmp.Or(cfg.Timeout, 30*time.Second)
	cfg.SendTimeout = cmp.Or(cfg.SendTimeout, 10*time.Second)
	cfg.MaxConnections = cmp.Or(cfg.MaxConnections, 100)
	cfg.Logger = cmp.Or(cfg.Logger, slog.New(slog.DiscardHandler))
	if cfg.Transport == nil {
		cfg.Transport = newTransport(cfg.MaxConnections)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Observe == nil {
		cfg.Observe = func(Call) {}
	}
	return cfg
}

// maxTokenTries bounds how often one read is tried when its token was refused: with the token in
// hand, with the same one again (a refusal inside the validity is often spurious), with a forced
// new one.
const maxTokenTries = 3

// authorised makes a read with the access token, and again if the token was refused.
func (c *Client) authorised(ctx context.Context, r request) error {
	var err error
	for range maxTokenTries {
		token, tokenErr := c.tokens.get(ctx)
		if tokenErr != nil {
			return tokenErr
		}
		r.token = token.value
		if err = c.read(ctx, r); !c.settleToken(token, err) {
			return err
		}
	}
	return err
}

// settleToken hands the token source what a call's outcome says about its token, and reports
// whether it was refused. A network error says nothing.
func (c *Client) settleToken(token *token, err error) (refused bool) {
	e, ok := errors.AsType[*Error](err)
	switch {
	case err == nil:
		c.tokens.accept(token)
	case ok && e.Policy == PolicyToken:
		c.tokens.reject(token)
		return true
	case ok && e.Code != 0:
		c.tokens.accept(token)
	}
	return false
}
