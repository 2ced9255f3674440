package wechat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// deadToken is a WeChat whose token dies: token 1 is refused from the start, a fetch yields the
// next.
func deadToken(t *testing.T, arrive func()) *fakeWeChat {
	var fetched atomic.Int32
	fake := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("access_token") == testToken(1) {
			arrive() // so that all hundred used the dead token before the first refusal
			fmt.Fprint(w, `{"errcode":42001,"errmsg":"access_token expired rid: `+
				`6188b812-3aeef59a-72d5fb8c"}`)
			return
		}
		fmt.Fprint(w, `{"total":0,"count":0,"next_openid":"","errcode":0,"errmsg":"ok","msgid":7}`)
	})
	fake.onToken(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"access_token":%q,"expires_in":7200}`, testToken(int(fetched.Add(1))))
	})
	return fake
}

// TestDeadTokenIsRenewedOnce lets a hundred goroutines meet a dead token, in every mode.
func TestDeadTokenIsRenewedOnce(t *testing.T) {
	const callers = 100
	calls := map[string]func(*Client) error{
		"reads": func(c *Client) error {
			_, err := c.Followers(t.Context(), "")
			return err
		},
		"sends": func(c *Client) error {
			_, err := c.SendTemplate(t.Context(), TemplateMessage{ToUser: "o"})
			if e, ok := errors.AsType[*Error](err); !ok || e.Policy != PolicyToken || e.Uncertain {
				return fmt.Errorf("first send: %w, want a token error", err)
			}
			_, err = c.SendTemplate(t.Context(), TemplateMessage{ToUser: "o"})
			return err
		},
	}
	for _, mode := range tokenModes() {
		for name, call := range calls {
			t.Run(string(mode.Mode)+"/"+name, func(t *testing.T) {
				var all sync.WaitGroup
				all.Add(callers)
				fake := deadToken(t, func() { all.Done(); all.Wait() })
				c := fake.client(t, mode.set(fake), func(cfg *Config) {
					cfg.MaxConnections = callers
				})
				for _, err := range together(callers, func() error { return call(c) }) {
					if err != nil {
						t.Fatal(err)
					}
				}
				if n := fake.count(mode.path); n != 2 {
					t.Errorf("%d token calls, want the first and one renewal", n)
				}
			})
		}
	}
}

func scriptedClassic() *scripted {
	return newScriptedAs(func(fetch fetcher) tokenProvider { return newClassic(fetch) })
}

func scriptedExternal() *scripted {
	return newScriptedAs(func(fetch fetcher) tokenProvider {
		return newExternal(EndpointTokenServer, func(ctx context.Context) (grant, error) {
			return fetch(ctx, false)
		})
	})
}

func TestClassicRefusals(t *testing.T) {
	s := scriptedClassic()
	first := s.mustGet(t, "a")

	// Kept till shortly before its end: a fetch would end it, and other programs' with it.
	s.clock = s.clock.Add(2*time.Hour - renewBefore - time.Second)
	if s.mustGet(t, "a") != first {
		t.Error("fetched again before its time")
	}
	s.expect(t, "normal")

	// Refused: fetched at once, however many callers say so.
	s.value = "b"
	s.reject(first)
	s.reject(first)
	second := s.mustGet(t, "b")
	s.expect(t, "normal")

	// Refused seconds later: the same once more, then nothing for half a minute, and an error that
	// says so.
	s.reject(second)
	third := s.mustGet(t, "b")
	s.reject(second)
	s.reject(third)
	_, err := s.get(t.Context())
	if e := mustError(t, err); e.Reason != ReasonTokenRefused || e.Endpoint != EndpointToken {
		t.Errorf("error %+v", e)
	}
	s.expect(t)
	s.clock = s.clock.Add(classicInterval)
	s.value = "c"
	s.mustGet(t, "c")
	s.expect(t, "normal")
}

// TestClassicBudget lets WeChat refuse everything for a day: the fetches stay far below the 2,000
// of the day.
func TestClassicBudget(t *testing.T) {
	s := scriptedClassic()
	for start := s.clock; s.clock.Sub(start) < 24*time.Hour; s.clock = s.clock.Add(time.Second) {
		s.value = s.clock.String()
		if token, err := s.get(t.Context()); err == nil {
			s.reject(token)
		}
	}
	// Besides the budget: the first one, and one at the end of each token once the budget is gone.
	if n := len(s.fetches); n < classicPerDay || n > classicPerDay+1+12 {
		t.Errorf("%d fetches in a day, want about %d", n, classicPerDay)
	}
}

func TestExternalRefusals(t *testing.T) {
	s := scriptedExternal()
	first := s.mustGet(t, "a")
	s.expect(t, "normal")

	// Asked now and then, though the token is good for two hours.
	s.clock = s.clock.Add(externalEvery - time.Second)
	s.mustGet(t, "a")
	s.expect(t)
	s.clock = s.clock.Add(time.Second)
	second := s.mustGet(t, "a")
	s.expect(t, "normal")
	if second == first {
		t.Error("the second answer was not taken")
	}

	// Refused: asked at once, and the answer is the same.
	s.reject(second)
	third := s.mustGet(t, "a")
	s.expect(t, "normal")

	// Refused again: whose fault it is is said, and it is not asked more than every 5 seconds.
	s.reject(third)
	for range 50 {
		_, err := s.get(t.Context())
		e := mustError(t, err)
		if e.Reason != ReasonTokenSupply || e.Policy != PolicyConfig ||
			!strings.Contains(e.Message, "the token server hands out a dead token") {
			t.Fatalf("error %+v", e)
		}
		s.clock = s.clock.Add(externalPace / 51)
	}
	s.expect(t)
	s.clock = s.clock.Add(externalPace)
	s.value = "b"
	s.mustGet(t, "b")
	s.expect(t, "normal")
}

// TestExternalPace: in an hour of refusals the token server is asked every 5 seconds at most.
func TestExternalPace(t *testing.T) {
	s := scriptedExternal()
	var last time.Time
	for start := s.clock; s.clock.Sub(start) < time.Hour; s.clock = s.clock.Add(500 * time.Millisecond) {
		before := len(s.fetches)
		if token, err := s.get(t.Context()); err == nil {
			s.reject(token)
		}
		if len(s.fetches) == before {
			continue
		}
		if since := s.clock.Sub(last); before > 1 && since < externalPace {
			t.Fatalf("asked twice within %v", since)
		}
		last = s.clock
	}
	if n := len(s.fetches); n < 400 {
		t.Errorf("asked %d times in an hour: it would notice a new token late", n)
	}
}

// TestHangingTokenServer: while a token is good, a token server that hangs costs one caller 5
// seconds, not every one.
func TestHangingTokenServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		s := &tokenSource{now: time.Now, log: slog.New(slog.DiscardHandler)}
		s.provider = newExternal(EndpointTokenServer, func(ctx context.Context) (grant, error) {
			if asked++; asked == 1 {
				return newGrant("a", maxTokenLife), nil
			}
			<-ctx.Done()
			return grant{}, ctx.Err()
		})
		get := func() (waited time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			begin := time.Now()
			token, err := s.get(ctx)
			if err != nil || token.value != "a" || ctx.Err() != nil {
				t.Fatalf("token %v, %v", token, err)
			}
			return time.Since(begin)
		}
		get()
		time.Sleep(externalEvery)
		if waited := get(); waited != earlyRenewTimeout {
			t.Errorf("the first caller waited %v, want %v", waited, earlyRenewTimeout)
		}
		if waited := get(); waited != 0 || asked != 2 {
			t.Errorf("the next caller waited %v, asked %d times", waited, asked)
		}
		time.Sleep(renewRetry / 2)
		if waited := get(); waited != 0 || asked != 2 {
			t.Errorf("15 s later a caller waited %v, asked %d times", waited, asked)
		}
		time.Sleep(renewRetry)
		if get(); asked != 3 {
			t.Errorf("asked %d times, want another try after %v", asked, renewRetry)
		}
	})
}

func TestClassicQuotaAdvice(t *testing.T) {
	fake := newFake(t, nil)
	fake.onToken(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"errcode":45009,"errmsg":"reach max api daily quota limit, could get `+
			`access_token by getStableAccessToken"}`)
	})
	_, err := fake.client(t, func(cfg *Config) { cfg.Token.Mode = TokenClassic }).Followers(t.Context(), "")
	e := mustError(t, err)
	if e.Policy != PolicyQuotaDay || e.Endpoint != EndpointToken ||
		!strings.Contains(e.Message, "set token mode stable") {
		t.Errorf("error %+v", e)
	}
	_, err = fake.client(t).Followers(t.Context(), "")
	if e := mustError(t, err); strings.Contains(e.Message, "set token mode stable") {
		t.Errorf("stable mode is told to be stable: %v", e)
	}
}

func TestParseExternal(t *testing.T) {
	bare := testToken(1)
	for name, tt := range map[string]struct {
		body string
		want grant
		err  string
	}{
		"wechat's": {`{"access_token":"T","expires_in":7200}`, newGrant("T", 2*time.Hour),
			""},
		"quoted number": {`{"access_token":"T","expires_in":"600","refreshed_at":1}`,
			newGrant("T", 10*time.Minute), ""},
		"no expires_in": {`{"access_token":"T","errcode":0,"errmsg":"ok"}`,
			newGrant("T", 2*time.Hour), ""},
		"a moment in it": {`{"access_token":"T","expires_in":1795233600}`,
			newGrant("T", 2*time.Hour), ""},
		"bare":            {bare, newGrant(bare, 2*time.Hour), ""},
		"bare, blanks":    {"\r\n " + bare + "\n", newGrant(bare, 2*time.Hour), ""},
		"ended":           {`{"access_token":"T","expires_in":0}`, grant{}, "has ended"},
		"nested":          {`{"data":{"access_token":"T"}}`, grant{}, "top level"},
		"errcode":         {`{"errcode":40013,"access_token":"T"}`, grant{}, "an errcode"},
		"empty":           {"", grant{}, "neither"},
		"word":            {"unauthorized", grant{}, "neither"},
		"page":            {"<html>" + bare, grant{}, "neither"},
		"two lines":       {bare + "\n" + bare, grant{}, "neither"},
		"JSON string":     {`"` + bare + `"`, grant{}, "neither"},
		"half of a token": {`{"access_token":"T`, grant{}, "JSON that ends early"},
	} {
		got, err := parseExternal([]byte(tt.body))
		if got != tt.want || (err == nil) != (tt.err == "") || err != nil &&
			!strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
		if err != nil && strings.Contains(err.Error(), testTokenHead) {
			t.Errorf("%s: the error quotes the token: %v", name, err)
		}
	}
}

// TestServerToken: the request is ours, the forms are both taken, and errors have the meaning that
// WeChat gives them.
func TestServerToken(t *testing.T) {
	answer := `{"access_token":"` + testToken(7) + `","expires_in":7200}`
	fake := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("access_token") != testToken(7) {
			fmt.Fprint(w, `{"errcode":40001,"errmsg":"invalid credential"}`)
			return
		}
		fmt.Fprint(w, `{"total":0,"count":0,"next_openid":""}`)
	})
	fake.onToken(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.Header.Get("Authorization") != "Bearer "+testHeaderKey ||
			r.URL.Query().Get("key") != testQueryKey || r.Host != "tokens.example" {
			t.Errorf("asked with %s %s, Host %s, %v", r.Method, r.RequestURI, r.Host, r.Header)
		}
		fmt.Fprint(w, answer)
	})
	mode := tokenModes()[2]
	call := func() error {
		_, err := fake.client(t, mode.set(fake), func(cfg *Config) {
			cfg.Token.Header = map[string]string{"authorization": "Bearer " + testHeaderKey,
				"host": "tokens.example"}
		}).Followers(t.Context(), "")
		return err
	}
	if err := call(); err != nil {
		t.Error(err)
	}
	answer = testToken(7) + "\n"
	if err := call(); err != nil {
		t.Error(err)
	}
	type verdict struct {
		Code   int
		Reason Reason
		Policy Policy
	}
	for body, want := range map[string]verdict{
		`{"errcode":40164,"errmsg":"invalid ip"}`: {40164, "ip_not_allowed", PolicyConfig},
		`{"errcode":45009,"errmsg":"quota"}`:      {45009, "quota_day", PolicyQuotaDay},
		`please log in`:                           {0, ReasonBadAnswer, PolicyRetry},
		strings.Repeat("a", smallAnswer+1):        {0, ReasonBadAnswer, PolicyRetry},
	} {
		answer = body
		e := mustError(t, call())
		if diff := cmp.Diff(want, verdict{e.Code, e.Reason, e.Policy}); diff != "" ||
			e.Endpoint != EndpointTokenServer {
			t.Errorf("%.20s: %v, -want +got:\n%s", body, e, diff)
		}
	}
}

func TestUnknownTokenMode(t *testing.T) {
	fake := newFake(t, nil)
	_, err := fake.client(t, func(cfg *Config) { cfg.Token.Mode = "stabel" }).Followers(t.Context(),
		"")
	if e := mustError(t, err); e.Policy != PolicyConfig || errors.Is(err, context.Canceled) {
		t.Errorf("error %v", e)
	}
}
