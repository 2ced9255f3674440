package wechat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// echo is all that a request carried, as a careless server or proxy would quote it.
func echo(r *http.Request) string {
	body, _ := io.ReadAll(r.Body)
	query, _ := url.QueryUnescape(r.URL.RawQuery)
	return fmt.Sprintf("%s %s %s %s %s %s session_key=%s", r.RequestURI, query, body,
		r.URL.Query().Get("js_code"),
		r.URL.Query().Get("key"), r.Header.Get("Authorization"), testSessionKey)
}

// failures are ways for a call to end badly; nil handler: the server is gone.
func failures() map[string]http.HandlerFunc {
	errmsg := func(r *http.Request) string { return strings.ReplaceAll(echo(r), `"`, `'`) }
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			text := echo(r)
			w.WriteHeader(code)
			fmt.Fprint(w, text)
		}
	}
	raw := func(text func(r *http.Request) string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			answer := text(r)
			conn := takeConn(w, r)
			fmt.Fprint(conn, answer)
			_ = conn.Close()
		}
	}
	m := map[string]http.HandlerFunc{
		"refused": nil,
		"reset":   func(w http.ResponseWriter, r *http.Request) { resetConn(takeConn(w, r)) },
		"closed":  func(w http.ResponseWriter, r *http.Request) { _ = takeConn(w, r).Close() },
		"timeout": func(_ http.ResponseWriter, r *http.Request) {
			_,
				_ = io.ReadAll(r.Body)
			<-r.Context().Done()
		},
		"500": status(500), "502": status(502), "403": status(403), "412": status(412),
		"200 text": status(200),
		"empty":    func(http.ResponseWriter, *http.Request) {},
		"html": func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "<html>%s</html>", echo(r))
		},
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere?"+r.URL.RawQuery, http.StatusMovedPermanently)
		},
		"redirect nowhere": raw(func(r *http.Request) string {
			return "HTTP/1.1 302 Found\r\nLocation: http://[" + r.RequestURI +
				"\r\nContent-Length: 0\r\n\r\n"
		}),
		"no http": raw(func(r *http.Request) string { return echo(r) + "\r\n\r\n" }),
		"bad status": raw(func(r *http.Request) string {
			return "HTTP/1.1 " + echo(r) + "\r\n\r\n"
		}),
		"bad header": raw(func(r *http.Request) string {
			return "HTTP/1.1 200 OK\r\n" + echo(r) + "\r\n\r\n"
		}),
		"truncated": raw(func(r *http.Request) string {
			return "HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n" + echo(r)
		}),
		"cut in the token": raw(func(r *http.Request) string {
			text := echo(r)
			if i := strings.Index(text, testTokenHead); i >= 0 {
				text = text[:i+40]
			}
			return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
		}),
		"too large": func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, strings.Repeat(echo(r), 1+(2<<20)/len(echo(r))))
		},
		"session without openid": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"session_key":%q,"access_token":%q}`, testSessionKey, testToken(1))
		},
	}
	for _, code := range []int{-1, 40001, 40003, 40125, 40164, 45009, 47001, 123456} {
		m[fmt.Sprint("errcode ", code)] = func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, `{"errcode":%d,"errmsg":"%s rid: 6188b812-3aeef59a-72d5fb8c"}`, code,
				errmsg(r))
		}
	}
	return m
}

// TestNoSecretLeaves calls every endpoint in every failure mode, once with the failure on its own
// path and once on that of the token, in every token mode, and searches errors, logs and
// observations.
func TestNoSecretLeaves(t *testing.T) {
	for path, call := range endpoints() {
		for name, failure := range failures() {
			t.Run(fmt.Sprintf("%s/%s", path, name), func(t *testing.T) {
				t.Parallel()
				leakCheck(t, leakCase{call: call, failing: path, failure: failure,
					mode: tokenModes()[0]})
			})
		}
	}
	for name, failure := range failures() {
		for _, mode := range tokenModes() {
			if name == "session without openid" && mode.path == testServerPath {
				continue // a token without expires_in is a good answer there
			}
			t.Run(fmt.Sprintf("%s/%s", mode.endpoint, name), func(t *testing.T) {
				t.Parallel()
				call := endpoints()[EndpointFollowers]
				leakCheck(t, leakCase{call: call, failing: mode.endpoint, failure: failure,
					mode: mode})
			})
		}
	}
}

type leakCase struct {
	call    func(context.Context, *Client) error
	failing string // the endpoint
	failure http.HandlerFunc
	mode    tokenMode
}

func leakCheck(t *testing.T, tt leakCase) {
	var out lockedBuffer
	fake := newFake(t, tt.failure)
	failing, failure := tt.failing, tt.failure
	if failing == tt.mode.endpoint {
		fake.onToken(failure)
	}
	c := fake.client(t, tt.mode.set(fake), func(cfg *Config) {
		cfg.Timeout, cfg.SendTimeout = 40*time.Millisecond, 40*time.Millisecond
		cfg.Logger = slog.New(slog.NewTextHandler(&out,
			&slog.HandlerOptions{Level: slog.LevelDebug}))
		cfg.Observe = func(call Call) { printAll(&out, call, call.Err) }
	})
	c.commandTimeout = 2 * time.Second
	if failure == nil {
		if failing != tt.mode.endpoint {
			c.tokens.current = &token{value: testToken(1), expires: time.Now().Add(time.Hour),
				renewAt: time.Now().Add(time.Hour)}
		}
		fake.Close()
	}
	err := tt.call(t.Context(), c)
	if err == nil {
		t.Fatal("no error")
	}
	e := mustError(t, err)
	if e.Endpoint != failing {
		t.Errorf("endpoint %s, failed was %s", e.Endpoint, failing)
	}
	if _, ok := errors.AsType[*url.Error](err); ok {
		t.Error("a *url.Error left the package")
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Error("failed", "error", err, "e", e)
	for err := err; err != nil; err = errors.Unwrap(err) {
		printAll(&out, err, err)
	}
	text := out.String()
	for _, secret := range secrets() {
		if i := strings.Index(text, secret); i >= 0 {
			t.Errorf("%s leaks:\n%s", secret, text[max(0, i-200):min(len(text), i+200)])
		}
	}
	if len(e.Message) > maxMessage {
		t.Errorf("message of %d bytes", len(e.Message))
	}
}

// secrets is what may leave in no way; of a token the first characters suffice.
func secrets() []string {
	return []string{
		testSecret, testToken(1)[:12], testJSCode, testSessionKey, url.QueryEscape(testSessionKey),
		testHeaderKey, testQueryKey, url.QueryEscape(testQueryKey), "pAtHpAtH",
	}
}

func printAll(out io.Writer, v any, err error) {
	fmt.Fprintf(out, "%v\n%+v\n%#v\n", v, v, v)
	if e, ok := errors.AsType[*Error](err); ok {
		fmt.Fprintf(out, "%+v\n%#v\n", *e, *e)
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// TestSessionKeyNeverPrints: the answer that goes well holds a secret too.
func TestSessionKeyNeverPrints(t *testing.T) {
	s := Session{OpenID: "o", SessionKey: testSessionKey}
	var out bytes.Buffer
	printAll(&out, s, nil)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "s", s, "k", s.SessionKey)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "s", s, "k", s.SessionKey)
	if strings.Contains(out.String(), testSessionKey) {
		t.Errorf("leaks: %s", out.String())
	}
	if s.SessionKey.Reveal() != testSessionKey {
		t.Error("Reveal does not")
	}
}

func TestClean(t *testing.T) {
	a := &attempt{client: New(Config{Secret: testSecret}),
		request: request{endpoint: followersEndpoint, token: testToken(1)}}
	tests := map[string]struct{ in, want string }{
		"plain":         {"invalid openid", "invalid openid"},
		"one line":      {"a\r\n\tb\x00\xff  c", "a b c"},
		"secret":        {"x" + testSecret + "y", "x[redacted]y"},
		"cut secret":    {"s=" + testSecret[:9], "s=[redacted]"},
		"escaped":       {"code " + url.QueryEscape("ok"), "code ok"},
		"foreign token": {"token " + strings.Repeat("Zz_9", 20) + ".", "token [redacted]."},
		"proxy":         {`parse "http://me:pw@proxy:x"`, `parse "http://[redacted]@proxy:x"`},
		"too long":      {strings.Repeat("信 ", 50), strings.Repeat("信 ", 14) + "信…"},
	}
	for name, tt := range tests {
		if got := a.clean(tt.in, 62); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
