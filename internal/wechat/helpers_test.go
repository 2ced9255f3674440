package wechat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"
)

// Values with the shapes of the real ones, each unlike any other text, so that a leak test can look
// for them.
const (
	testAppID      = "wx0123456789abcdef"
	testSecret     = "5ec7e75ec7e75ec7e75ec7e75ec7e7aa"
	testJSCode     = "0c3JsCodeJsCodeJsCodeJsCodeJsC3w"
	testSessionKey = "sKeYsKeYsKeYsKeYsKeYsA=="
	testTokenHead  = "103_ToKeN"
	testOpenID     = "oSYN0000000000000000000001-A"
	testHeaderKey  = "hEaDeRkEyHeAdErKeY"
	testQueryKey   = "qUeRyKeYqUeRyKeY&+"
	testServerPath = "/company/pAtHpAtHpAtH/token"
)

// commandWord as the first argument makes the test binary a token command: it prints what the
// address in the second one answers.
const commandWord = "act-as-token-command"

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == commandWord {
		os.Exit(printAnswer(os.Args[2]))
	}
	os.Exit(m.Run())
}

func printAnswer(address string) int {
	resp, err := http.Get(address)
	if err == nil {
		defer resp.Body.Close() //nolint:errcheck // only read
		if _, err = io.Copy(os.Stdout, resp.Body); err == nil && resp.StatusCode == http.StatusOK {
			return 0
		}
	}
	fmt.Fprintln(os.Stderr, "token command:", err)
	return 1
}

// tokenMode is a mode with the fake as the source of its tokens.
type tokenMode struct {
	TokenConfig
	path     string // where the fake is asked
	endpoint string // as errors name it
}

func tokenModes() []tokenMode {
	server := testServerPath + "?key=" + url.QueryEscape(testQueryKey)
	return []tokenMode{
		{TokenConfig{}, EndpointStableToken, EndpointStableToken},
		{TokenConfig{Mode: TokenClassic}, EndpointToken, EndpointToken},
		{TokenConfig{Mode: TokenURL, URL: server,
			Header: map[string]string{"Authorization": "Bearer " + testHeaderKey}},
			testServerPath, EndpointTokenServer},
		{TokenConfig{Mode: TokenCommand, Command: []string{os.Args[0], commandWord, server}},
			testServerPath, EndpointTokenCommand},
	}
}

// set points the mode at the fake.
func (m tokenMode) set(f *fakeWeChat) func(*Config) {
	return func(cfg *Config) {
		cfg.Token = m.TokenConfig
		switch m.Mode {
		case TokenURL:
			cfg.Secret, cfg.Token.URL = "", f.URL+m.URL
		case TokenCommand:
			cfg.Secret, cfg.Token.Command = "",
				[]string{m.Command[0], m.Command[1], f.URL + m.Command[2]}
		}
	}
}

// testToken is the n-th token of the fake: 140 characters that differ within the first twelve.
func testToken(n int) string {
	return fmt.Sprintf("%s%03d%s", testTokenHead, n, bytes.Repeat([]byte("tKn_"), 32))
}

// fakeWeChat serves tokens, and everything else by its handler.
type fakeWeChat struct {
	*httptest.Server
	mu     sync.Mutex
	calls  map[string]int
	token  func(w http.ResponseWriter, r *http.Request) // nil: always token 1
	answer http.HandlerFunc
}

func newFake(t testing.TB, answer http.HandlerFunc) *fakeWeChat {
	t.Helper()
	f := &fakeWeChat{calls: map[string]int{}, answer: answer}
	f.Server = httptest.NewUnstartedServer(http.HandlerFunc(f.serve))
	f.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	f.Start()
	t.Cleanup(f.Close)
	return f
}

func (f *fakeWeChat) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.calls[r.URL.Path]++
	token := f.token
	f.mu.Unlock()
	isToken := r.URL.Path == EndpointStableToken || r.URL.Path == EndpointToken ||
		r.URL.Path == testServerPath
	switch {
	case isToken && token != nil:
		token(w, r)
	case isToken:
		fmt.Fprintf(w, `{"access_token":%q,"expires_in":7200}`, testToken(1))
	default:
		f.answer(w, r)
	}
}

// onToken answers the token's fetches from now on. Under the lock, since a token command asks from
// another process, and the race detector sees no order between what happens here and there.
func (f *fakeWeChat) onToken(answer http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.token = answer
}

func (f *fakeWeChat) count(path string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[path]
}

// client has the waits of a test and a transport of its own.
func (f *fakeWeChat) client(t testing.TB, change ...func(*Config)) *Client {
	t.Helper()
	cfg := Config{AppID: testAppID, Secret: testSecret, BaseURL: f.URL, Timeout: 10 * time.Second}
	for _, c := range change {
		c(&cfg)
	}
	c := New(cfg)
	c.retryMin, c.retryMax = time.Millisecond, 2*time.Millisecond
	t.Cleanup(c.sends.CloseIdleConnections)
	return c
}

// endpoints is one call of each kind, for tests that hold for all.
func endpoints() map[string]func(ctx context.Context, c *Client) error {
	return map[string]func(ctx context.Context, c *Client) error{
		EndpointFollowers: func(ctx context.Context, c *Client) error {
			_, err := c.Followers(ctx, testOpenID)
			return err
		},
		EndpointUserInfo: func(ctx context.Context, c *Client) error {
			_, err := c.UserInfo(ctx, testOpenID)
			return err
		},
		EndpointBatchInfo: func(ctx context.Context, c *Client) error {
			_, err := c.BatchUserInfo(ctx, []string{testOpenID})
			return err
		},
		EndpointSendTemplate: func(ctx context.Context, c *Client) error {
			_, err := c.SendTemplate(ctx, TemplateMessage{ToUser: testOpenID, TemplateID: "t",
				ClientMsgID: "m"})
			return err
		},
		EndpointSendSubscribe: func(ctx context.Context, c *Client) error {
			_, err := c.SendSubscribe(ctx, SubscribeMessage{ToUser: testOpenID, TemplateID: "t"})
			return err
		},
		EndpointSubscribeTemplates: func(ctx context.Context, c *Client) error {
			_, err := c.SubscribeTemplates(ctx)
			return err
		},
		EndpointTemplates: func(ctx context.Context, c *Client) error {
			_, err := c.PrivateTemplates(ctx)
			return err
		},
		EndpointQuota: func(ctx context.Context, c *Client) error {
			_, err := c.Quota(ctx, EndpointFollowers)
			return err
		},
		EndpointSession: func(ctx context.Context, c *Client) error {
			_, err := c.Session(ctx, testJSCode)
			return err
		},
	}
}

// takeConn takes the connection over after the request was read whole: what a server does that
// processes and then dies.
func takeConn(w http.ResponseWriter, r *http.Request) net.Conn {
	_, _ = io.Copy(io.Discard, r.Body)
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	return conn
}

// resetConn ends a connection with RST instead of FIN.
func resetConn(conn net.Conn) {
	_ = conn.(*net.TCPConn).SetLinger(0)
	_ = conn.Close()
}

// mustError is the *Error in err.
func mustError(t testing.TB, err error) *Error {
	t.Helper()
	e, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("error %v (%T) is no *Error", err, err)
	}
	return e
}
