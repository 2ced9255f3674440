package wechat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// scripted is a token source under a test's clock whose fetches are listed.
type scripted struct {
	*tokenSource
	clock   time.Time
	fetches []string // "normal" or "forced"
	value   string   // what WeChat takes for current
	life    time.Duration
	err     error
}

// newScripted is in stable mode.
func newScripted() *scripted {
	return newScriptedAs(func(fetch fetcher) tokenProvider { return newStable(fetch) })
}

func newScriptedAs(as func(fetcher) tokenProvider) *scripted {
	s := &scripted{clock: time.Unix(1_700_000_000, 0), value: "a", life: 2 * time.Hour}
	s.tokenSource = &tokenSource{
		now: func() time.Time { return s.clock },
		log: slog.New(slog.DiscardHandler),
		provider: as(func(_ context.Context, force bool) (grant, error) {
			s.fetches = append(s.fetches, map[bool]string{false: "normal", true: "forced"}[force])
			if force {
				s.value += "+"
			}
			return newGrant(s.value, s.life), s.err
		}),
	}
	return s
}

func (s *scripted) expect(t *testing.T, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, s.fetches); diff != "" {
		t.Errorf("fetches (-want +got):\n%s", diff)
	}
	s.fetches = nil
}

func (s *scripted) mustGet(t *testing.T, want string) *token {
	t.Helper()
	got, err := s.get(t.Context())
	if err != nil || got.value != want {
		t.Fatalf("token %v, %v, want %s", got, err, want)
	}
	return got
}

func TestTokenLife(t *testing.T) {
	s := newScripted()
	s.mustGet(t, "a")
	s.clock = s.clock.Add(2*time.Hour - renewBefore - time.Second)
	s.mustGet(t, "a")
	s.expect(t, "normal")

	// In the last minutes it is swapped, and until that works the old one serves, to its end and
	// not beyond.
	s.clock = s.clock.Add(2 * time.Second)
	s.err = &Error{Reason: ReasonTimeout, Policy: PolicyRetry}
	s.mustGet(t, "a")
	s.mustGet(t, "a")
	s.expect(t, "normal") // held: one try, not one for each caller
	s.clock = s.clock.Add(renewBefore)
	if _, err := s.get(t.Context()); !errors.Is(err, s.err) {
		t.Errorf("dead token: %v, want the fetch's error", err)
	}
	s.expect(t, "normal")
	s.clock = s.clock.Add(tokenFailureHold)
	s.value, s.err = "b", nil
	s.mustGet(t, "b")
	s.expect(t, "normal")
}

// TestTokenShortLife: normal mode tells what is left, which may be seconds; that must not become a
// fetch for every call.
func TestTokenShortLife(t *testing.T) {
	s := newScripted()
	s.life = 100 * time.Second
	s.mustGet(t, "a")
	s.clock = s.clock.Add(49 * time.Second)
	s.mustGet(t, "a")
	s.expect(t, "normal")
	s.clock = s.clock.Add(2 * time.Second)
	s.mustGet(t, "a")
	s.expect(t, "normal")
}

func TestTokenRefusals(t *testing.T) {
	s := newScripted()
	first := s.mustGet(t, "a")
	s.expect(t, "normal")

	// First refusal, of as many calls as were under way: ask what is current. It is the same: try
	// it again.
	s.reject(first)
	s.reject(first)
	second := s.mustGet(t, "a")
	s.expect(t, "normal")

	// Late refusals of calls made with the first answer are old news.
	s.reject(first)
	if got := s.mustGet(t, "a"); got != second {
		t.Error("a late refusal renewed the token")
	}
	s.expect(t)

	// Taken once, so the next refusal is a first one again.
	s.accept(second)
	s.reject(second)
	third := s.mustGet(t, "a")
	s.expect(t, "normal")

	// Refused twice in a row: forced.
	s.reject(third)
	fourth := s.mustGet(t, "a+")
	s.expect(t, "forced")

	// And again at once: no second forced one within 30 s, no call at all, an error that says when.
	s.reject(fourth)
	fifth := s.mustGet(t, "a+")
	s.reject(fifth)
	s.expect(t, "normal")
	_, err := s.get(t.Context())
	if e := mustError(t, err); e.Reason != ReasonTokenRefused || e.Policy != PolicyToken ||
		e.Uncertain {
		t.Errorf("error %+v", e)
	}
	s.expect(t)
	s.clock = s.clock.Add(forcedInterval)
	s.mustGet(t, "a++")
	s.expect(t, "forced")
}

// TestTokenForcedBudget lets WeChat refuse everything for a day and a half: never a loop, never
// over the budget.
func TestTokenForcedBudget(t *testing.T) {
	s := newScripted()
	var forced []time.Time
	start := s.clock
	for s.clock.Sub(start) < 36*time.Hour {
		before := len(s.fetches)
		if token, err := s.get(t.Context()); err == nil {
			s.reject(token)
		}
		for _, kind := range s.fetches[before:] {
			if kind == "forced" {
				forced = append(forced, s.clock)
			}
		}
		s.clock = s.clock.Add(time.Second)
	}
	for i := range forced {
		if i > 0 && forced[i].Sub(forced[i-1]) < forcedInterval {
			t.Errorf("forced twice within %v", forced[i].Sub(forced[i-1]))
		}
		if i >= forcedPerDay && forced[i].Sub(forced[i-forcedPerDay]) < 24*time.Hour {
			t.Errorf("more than %d forced in a day", forcedPerDay)
		}
	}
	if len(forced) != 2*forcedPerDay {
		t.Errorf("%d forced refreshes in 36 hours, want %d", len(forced), 2*forcedPerDay)
	}
	if perDay := len(s.fetches) * 24 / 36; perDay > 20_000 {
		t.Errorf("%d fetches a day", perDay)
	}
}

// TestTokenBudgetGoneAndTokenGood: when forcing is over for today a refused token is still tried
// again now and then.
func TestTokenBudgetGoneAndTokenGood(t *testing.T) {
	s := newScripted()
	for range forcedPerDay {
		s.provider.(*stableProvider).forced.take(s.clock)
		s.clock = s.clock.Add(forcedInterval)
	}
	s.reject(s.mustGet(t, "a"))
	s.reject(s.mustGet(t, "a"))
	if _, err := s.get(t.Context()); err == nil {
		t.Fatal("a token refused twice was handed out at once")
	}
	s.clock = s.clock.Add(forcedInterval)
	s.accept(s.mustGet(t, "a"))
	s.expect(t, "normal", "normal", "normal")
}

// TestTokenFailureHeld: a wrong secret costs one call, not one for each of a hundred goroutines.
func TestTokenFailureHeld(t *testing.T) {
	fake := newFake(t, nil)
	fake.onToken(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"errcode":40125,"errmsg":"invalid appsecret rid: `+
			`6188b812-3aeef59a-72d5fb8c"}`)
	})
	var now atomic.Int64
	c := fake.client(t, func(cfg *Config) {
		cfg.Now = func() time.Time {
			return time.Unix(now.Load(), 0)
		}
	})
	errs := together(100, func() error {
		_, err := c.Followers(t.Context(), "")
		return err
	})
	for _, err := range errs {
		if e := mustError(t, err); e.Code != 40125 || e.Policy != PolicyConfig ||
			e.Endpoint != EndpointStableToken {
			t.Fatalf("error %+v", e)
		}
	}
	if n := fake.count(EndpointStableToken); n != 1 {
		t.Errorf("%d token calls, want 1", n)
	}
	now.Add(int64(tokenFailureHold / time.Second))
	_, _ = c.Followers(t.Context(), "")
	if n := fake.count(EndpointStableToken); n != 2 {
		t.Errorf("%d token calls after the hold, want 2", n)
	}
}

// together runs f in n goroutines and collects what they return.
func together(n int, f func() error) []error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = f() })
	}
	wg.Wait()
	return errs
}

// TestSpuriousRefusal: 40001 inside the validity, and the same token works again: no forced
// refresh, and the read succeeds.
func TestSpuriousRefusal(t *testing.T) {
	var n atomic.Int32
	fake := newFake(t, func(w http.ResponseWriter, _ *http.Request) {
		if n.Add(1) == 1 {
			fmt.Fprint(w, `{"errcode":40001,"errmsg":"invalid credential, access_token is `+
				`invalid or not latest"}`)
			return
		}
		fmt.Fprint(w, `{"total":0,"count":0,"next_openid":""}`)
	})
	c := fake.client(t)
	if _, err := c.Followers(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	if n := fake.count(EndpointStableToken); n != 2 {
		t.Errorf("%d token calls, want 2", n)
	}
}

// TestRefusedForGood: a token that is never taken ends after three tries of the call, the last with
// a forced token.
func TestRefusedForGood(t *testing.T) {
	var modes []bool
	fake := newFake(t, func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"errcode":40001,"errmsg":"invalid credential"}`)
	})
	fake.onToken(func(w http.ResponseWriter, r *http.Request) {
		var body struct {
			Force bool `json:"force_refresh"`
		}
		raw, _ := io.ReadAll(r.Body)
		if err := json.Unmarshal(raw, &body); err != nil || r.ContentLength != int64(len(raw)) {
			t.Errorf("token request %q, Content-Length %d: %v", raw, r.ContentLength, err)
		}
		modes = append(modes, body.Force)
		fmt.Fprintf(w, `{"access_token":%q,"expires_in":7200}`, testToken(1))
	})
	_, err := fake.client(t).Followers(t.Context(), "")
	if e := mustError(t, err); e.Code != 40001 || e.Policy != PolicyToken {
		t.Errorf("error %v", err)
	}
	if n := fake.count(EndpointFollowers); n != maxTokenTries {
		t.Errorf("%d calls, want %d", n, maxTokenTries)
	}
	if diff := cmp.Diff([]bool{false, false, true}, modes); diff != "" {
		t.Errorf("forced (-want +got):\n%s", diff)
	}
}

// TestWaitersHonourTheirContext: a caller that waits for another's fetch leaves when its own time is up,
// and when the fetching one leaves, a waiting one takes over.
func TestWaitersHonourTheirContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fetches := 0
		s := &tokenSource{now: time.Now, log: slog.New(slog.DiscardHandler)}
		s.provider = newStable(func(ctx context.Context, _ bool) (grant, error) {
			fetches++
			if fetches == 1 {
				<-ctx.Done()
				return grant{}, ctx.Err()
			}
			return newGrant("b", time.Hour), nil
		})
		leader, leave := context.WithCancel(t.Context())
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		results := map[string]chan error{"leader": make(chan error, 1),
			"impatient": make(chan error, 1), "patient": make(chan error, 1)}
		start := func(name string, ctx context.Context) {
			go func() { _, err := s.get(ctx); results[name] <- err }()
			synctest.Wait()
		}
		start("leader", leader)
		start("impatient", impatient)
		start("patient", t.Context())
		if err := <-results["impatient"]; !errors.Is(err, context.DeadlineExceeded) ||
			mustError(t, err).Reason != ReasonTimeout {
			t.Errorf("impatient caller: %v", err)
		}
		leave()
		if err := <-results["leader"]; !errors.Is(err, context.Canceled) {
			t.Errorf("leader: %v", err)
		}
		if err := <-results["patient"]; err != nil {
			t.Errorf("patient caller: %v", err)
		}
		if fetches != 2 {
			t.Errorf("%d fetches, want 2", fetches)
		}
	})
}
