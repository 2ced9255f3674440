package wechat

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestTokenFight: two programs that fetch classic tokens in turn. Each of our tokens lives ten
// minutes, since WeChat keeps the former one for five after each fetch.
func TestTokenFight(t *testing.T) {
	for name, tt := range map[string]struct {
		source *scripted
		want   string
	}{
		"stable":  {newScripted(), "force_refresh"},
		"classic": {scriptedClassic(), "another program fetches classic tokens for this appid"},
		"url":     {scriptedExternal(), "beside the token server"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			s := tt.source
			s.log = slog.New(slog.NewTextHandler(&out,
				&slog.HandlerOptions{Level: slog.LevelError}))
			die := func(after time.Duration) {
				t.Helper()
				token := s.mustGet(t, s.value)
				s.accept(token)
				s.clock = s.clock.Add(after)
				s.mustGet(t, s.value) // an external one is asked for again, and is the same
				// so the other program's fetch, or somebody's force, replaces it
				s.value += "x"
				s.reject(s.mustGet(t, s.value[:len(s.value)-1]))
				s.mustGet(t, s.value)
			}
			die(10 * time.Minute)
			die(time.Hour) // a ripe one does not count
			die(10 * time.Minute)
			if s.contended() || out.Len() > 0 {
				t.Fatalf("alarm after two losses: %s", &out)
			}
			for range 4 {
				die(10 * time.Minute)
			}
			if !s.contended() {
				t.Error("no contention after four early losses")
			}
			if n := strings.Count(out.String(), "level=ERROR"); n != 1 ||
				!strings.Contains(out.String(), tt.want) {
				t.Errorf("%d alarms: %s", n, &out)
			}
			e := s.refusedError(s.clock)
			if e.Reason != ReasonTokenFight || !strings.Contains(e.Message, "Cure: ") {
				t.Errorf("error %+v", e)
			}
			s.clock = s.clock.Add(contentionWindow)
			if s.contended() {
				t.Error("the contention goes on for ever")
			}
		})
	}
}

// TestRipeTokensAreNoFight: stable mode hands out tokens whose end is near, and WeChat swaps them
// then.
func TestRipeTokensAreNoFight(t *testing.T) {
	var f contention
	now := time.Unix(1_700_000_000, 0)
	for range 2 * contentionLosses {
		f.recordLoss(&token{born: now, expires: now.Add(5 * time.Minute)}, now.Add(time.Minute))
		now = now.Add(time.Minute)
	}
	if f.active(now) {
		t.Error("tokens in their last minutes count as killed")
	}
}

// TestTokenFightShows: refused calls carry the reason while the fight lasts, for metrics and stored
// columns.
func TestTokenFightShows(t *testing.T) {
	var fetched atomic.Int32
	fake := newFake(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"errcode":40001,"errmsg":"invalid credential, access_token is invalid or `+
			`not latest"}`)
	})
	fake.onToken(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"access_token":%q,"expires_in":7200}`, testToken(int(fetched.Add(1))))
	})
	var observed []Reason
	c := fake.client(t, func(cfg *Config) {
		cfg.Token.Mode = TokenClassic
		cfg.Observe = func(call Call) {
			if e, ok := errors.AsType[*Error](call.Err); ok {
				observed = append(observed, e.Reason)
			}
		}
	})
	clock := time.Now()
	c.tokens.now = func() time.Time { return clock }
	for range 3 {
		_, _ = c.Followers(t.Context(), "")
		clock = clock.Add(classicInterval)
	}
	if !c.tokens.contended() {
		t.Fatal("no contention")
	}
	_, err := c.Followers(t.Context(), "")
	e := mustError(t, err)
	if e.Reason != ReasonTokenFight || !strings.Contains(e.Message, "token mode stable") {
		t.Errorf("error %v", e)
	}
	if first, last := observed[0], observed[len(observed)-1]; first != "invalid_token" ||
		last != ReasonTokenFight {
		t.Errorf("observed %v", observed)
	}
}
