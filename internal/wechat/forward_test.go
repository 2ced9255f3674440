package wechat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestForward: another program's call is made with the account's token, in the place of the caller's.
func TestForward(t *testing.T) {
	for name, tc := range map[string]struct {
		answers []string // to the call, one after the other; the last stays
		want    string   // "": an error
		calls   int
	}{
		"a picture":           {[]string{"\xff\xd8picture"}, "\xff\xd8picture", 1},
		"JSON":                {[]string{`{"errcode":0,"url":"x"}`}, `{"errcode":0,"url":"x"}`, 1},
		"the caller's error":  {[]string{`{"errcode":40029,"errmsg":"x"}`}, `{"errcode":40029,"errmsg":"x"}`, 1},
		"a token that ended":  {[]string{`{"errcode":42001,"errmsg":"access_token expired"}`, "ok"}, "ok", 2},
		"no token is right":   {[]string{`{"errcode":40001,"errmsg":"invalid credential"}`}, "", 2},
		"elsewhere":           {[]string{"redirect"}, "", 1},
		"a large one":         {[]string{strings.Repeat("x", 100<<10)}, strings.Repeat("x", 100<<10), 1},
		"more than is passed": {[]string{strings.Repeat("x", maxForwarded+10)}, strings.Repeat("x", maxForwarded), 1},
	} {
		var mu sync.Mutex
		calls, tokens := 0, 0
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			if r.URL.Path == EndpointStableToken {
				tokens++
				_, _ = fmt.Fprintf(w, `{"access_token":"theRealToken%d","expires_in":7200}`, tokens)
				return
			}
			body, _ := io.ReadAll(r.Body)
			if !strings.HasPrefix(r.URL.Query().Get("access_token"), "theRealToken") || string(body) != "body" ||
				r.URL.Query().Get("a") != "b" || r.Header.Get("Content-Type") != "text/x" || r.ContentLength != 4 {
				t.Errorf("%s: %s %q %v", name, r.URL, body, r.Header)
			}
			answer := tc.answers[min(calls, len(tc.answers)-1)]
			calls++
			if answer == "redirect" {
				http.Redirect(w, r, "https://example.com/", http.StatusFound)
				return
			}
			w.Header().Set("Content-Type", "x/y")
			_, _ = io.WriteString(w, answer)
		}))
		c := New(Config{AppID: "wx0a00000000000001", Secret: "theSecret", BaseURL: server.URL, Timeout: 5 * time.Second})
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		got, err := c.Forward(ctx, Forwarded{Method: http.MethodPost, Path: "/wxa/getwxacode", ContentType: "text/x",
			Query: url.Values{"a": {"b"}, "access_token": {"ub1_ours"}}, Body: []byte("body")})
		switch {
		case tc.want == "":
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Errorf("%s: %v, %v", name, got, err)
			}
		case err != nil:
			t.Errorf("%s: %v", name, err)
		default:
			text, err := io.ReadAll(got.Body)
			if err != nil || string(text) != tc.want || got.ContentType != "x/y" || got.Status != http.StatusOK || got.Body.Close() != nil {
				t.Errorf("%s: %d %s, %d bytes, %v", name, got.Status, got.ContentType, len(text), err)
			}
		}
		if calls != tc.calls {
			t.Errorf("%s: %d calls, want %d", name, calls, tc.calls)
		}
		if err != nil && (strings.Contains(err.Error(), "theRealToken") || strings.Contains(err.Error(), "theSecret")) {
			t.Errorf("%s: %v", name, err)
		}
		cancel()
		server.Close()
	}
}
