package doctor

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat"
)

const appid = "wx00000000000000aa"

// api answers as it is told to, and counts.
type api struct {
	mu       sync.Mutex
	err      error // of the quota call
	listErr  error
	list     []wechat.Template
	takes    time.Duration
	quotas   int
	listings int
}

func (a *api) Quota(ctx context.Context, path string) (wechat.Quota, error) {
	a.mu.Lock()
	a.quotas++
	err, takes := a.err, a.takes
	a.mu.Unlock()
	if path != wechat.EndpointSendTemplate {
		return wechat.Quota{}, errors.New("another path")
	}
	select {
	case <-time.After(takes):
		return wechat.Quota{DailyLimit: 100, Remain: 7}, err
	case <-ctx.Done():
		return wechat.Quota{}, &wechat.Error{Policy: wechat.PolicyRetry, Err: ctx.Err()}
	}
}

func (a *api) PrivateTemplates(context.Context) ([]wechat.Template, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.listings++
	return a.list, a.listErr
}

func (a *api) account() Account {
	return Account{AppID: appid, API: a, QuotaPath: wechat.EndpointSendTemplate,
		Templates: map[string]string{"order": "id-1", "gone": "id-2"}}
}

var (
	wrongSecret = &wechat.Error{Endpoint: wechat.EndpointStableToken, Code: 40125,
		Reason: "wrong_secret", Policy: wechat.PolicyConfig, Message: "invalid appsecret"}
	busy = &wechat.Error{Endpoint: wechat.EndpointQuota, Code: -1, Reason: "system_error",
		Policy: wechat.PolicyRetry}
)

// TestJudge: what the answer to a quota call shows.
func TestJudge(t *testing.T) {
	quota := func(code int, reason wechat.Reason, policy wechat.Policy) error {
		return &wechat.Error{Endpoint: wechat.EndpointQuota, Code: code, Reason: reason, Policy: policy}
	}
	for name, c := range map[string]struct {
		err     error
		taken   bool
		problem string
	}{
		"answered":              {nil, true, ""},
		"may not ask":           {quota(48001, "no_permission", wechat.PolicyConfig), true, ""},
		"asks too often":        {quota(45009, "quota_day", wechat.PolicyQuotaDay), true, ""},
		"unknown path":          {quota(76021, "unknown_path", wechat.PolicyRequest), true, ""},
		"wrong secret":          {wrongSecret, false, "wrong_secret"},
		"address":               {quota(40164, "ip_not_allowed", wechat.PolicyConfig), false, "ip_not_allowed"},
		"frozen":                {quota(50007, "account_frozen", wechat.PolicyConfig), false, "account_frozen"},
		"token refused":         {quota(40001, "invalid_token", wechat.PolicyToken), false, "invalid_token"},
		"no more tokens today":  {&wechat.Error{Endpoint: wechat.EndpointToken, Code: 45009, Reason: "quota_day", Policy: wechat.PolicyQuotaDay}, false, "quota_day"},
		"token server is wrong": {&wechat.Error{Endpoint: wechat.EndpointTokenServer, Reason: wechat.ReasonTokenSupply, Policy: wechat.PolicyConfig}, false, "token_supply"},
		"proxy":                 {&wechat.Error{Endpoint: wechat.EndpointQuota, HTTPStatus: 403, Reason: "http_refused", Policy: wechat.PolicyConfig}, false, "http_refused"},
		"busy":                  {busy, false, ""},
		"unreachable":           {&wechat.Error{Endpoint: wechat.EndpointStableToken, Reason: "unreachable", Policy: wechat.PolicyRetry}, false, ""},
		"of another kind":       {errors.New("x"), false, ""},
	} {
		r := Check(t.Context(), Account{AppID: appid, API: &api{err: c.err}, QuotaPath: wechat.EndpointSendTemplate})
		if r.TokenTaken != c.taken || len(r.Problems) > 1 || (r.Err != nil) != (!c.taken && c.problem == "") {
			t.Errorf("%s: %+v", name, r)
		}
		problem := ""
		for _, p := range r.Problems {
			problem = p.Reason
			if p.Cure == "" || !strings.HasPrefix(p.String(), appid+": "+p.Reason+": ") {
				t.Errorf("%s: %s", name, p)
			}
		}
		if problem != c.problem {
			t.Errorf("%s: the problem is %q, want %q", name, problem, c.problem)
		}
	}
}

// TestTemplates: an alias whose template the account does not have is a problem that names it; a list
// that cannot be read is none.
func TestTemplates(t *testing.T) {
	list := []wechat.Template{{ID: "id-1"}, {ID: "id-9"}}
	r := Check(t.Context(), (&api{list: list}).account())
	if r.Templates != 1 || len(r.Problems) != 1 || !strings.Contains(r.Problems[0].String(), "templates.gone") {
		t.Errorf("%+v", r)
	}
	for name, a := range map[string]*api{"error": {listErr: busy}, "empty": {}} {
		r := Check(t.Context(), a.account())
		if r.Templates != -1 || len(r.Problems) != 0 || r.ListErr == nil || !r.TokenTaken {
			t.Errorf("%s: %+v", name, r)
		}
	}
	without := &api{}
	account := without.account()
	account.Templates = nil
	if r := Check(t.Context(), account); without.listings != 0 || r.ListErr != nil {
		t.Errorf("%d calls for no alias: %+v", without.listings, r)
	}
}

// TestWatch: one check for all who ask at once, another while there is a problem, one line in the log
// for each, and none after the last is gone.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &api{err: wrongSecret, list: []wechat.Template{{ID: "id-1"}, {ID: "id-2"}}, takes: time.Second}
		var log bytes.Buffer
		w := NewWatch([]Account{a.account()}, slog.New(slog.NewTextHandler(&log, nil)), time.Now)
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { w.Run(ctx) })
		for range 3 {
			running.Go(func() {
				if r := w.Check(ctx, appid); len(r.Problems) != 1 {
					t.Errorf("%+v", r)
				}
			})
		}
		set := func(change func()) {
			a.mu.Lock()
			defer a.mu.Unlock()
			change()
		}
		expect := func(what string, calls, problems, lines int) {
			t.Helper()
			synctest.Wait()
			set(func() {
				if a.quotas != calls || len(w.Problems()) != problems {
					t.Errorf("%s: %d calls and %v, want %d and %d", what, a.quotas, w.Problems(), calls, problems)
				}
			})
			if n := strings.Count(log.String(), "level="); n != lines {
				t.Errorf("%s: %d lines, want %d:\n%s", what, n, lines, &log)
			}
		}
		time.Sleep(2 * time.Second)
		expect("begun", 1, 1, 1)
		time.Sleep(problemInterval + 2*time.Second)
		expect("still wrong", 2, 1, 1)
		w.Answered(appid) // another call went well
		time.Sleep(freshFor + 2*time.Second)
		expect("asked at once", 3, 1, 1)
		set(func() { a.err = busy })
		time.Sleep(problemInterval + 2*time.Second)
		expect("busy: nobody has said that it is gone", 4, 1, 2)
		set(func() { a.err = nil })
		time.Sleep(unknownInterval + 2*time.Second)
		expect("fixed", 5, 0, 3)
		w.Answered(appid)
		time.Sleep(24 * time.Hour)
		expect("nothing to do", 5, 0, 3)
		if r := w.Check(ctx, appid); !r.TokenTaken || a.quotas != 6 {
			t.Errorf("an old result was returned: %+v", r)
		}
		if w.Check(ctx, "another").Err == nil {
			t.Error("an unknown account works")
		}
		cancel()
		running.Wait()
	})
}

// TestWatchStops: a stop interrupts a slow call, and says nothing about the account.
func TestWatchStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &api{takes: time.Hour}
		w := NewWatch([]Account{a.account()}, slog.New(slog.DiscardHandler), time.Now)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		w.Run(ctx)
		if len(w.Problems()) != 0 {
			t.Errorf("%v", w.Problems())
		}
	})
}
