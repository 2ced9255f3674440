package login

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/wechat"
)

const (
	mini = "wx0b00000000000001"
	key  = "c2Vzc2lvbiBrZXk="
	code = "0a1CodeOfALogin"
)

// bed is an exchange whose WeChat, map and registry do as the test says.
type bed struct {
	*Exchange
	asked    int
	answer   wechat.Session
	err      error
	slow     time.Duration
	refused  error
	stored   []string
	storeErr error
	has      bool
	alarms   int
	log      bytes.Buffer
}

func (b *bed) Session(ctx context.Context, _ string) (wechat.Session, error) {
	b.asked++
	select {
	case <-time.After(b.slow):
	case <-ctx.Done():
		return wechat.Session{}, &wechat.Error{Endpoint: wechat.EndpointSession, Reason: "network", Err: ctx.Err()}
	}
	return b.answer, b.err
}

func (b *bed) UpsertMiniUser(_ context.Context, appid, openid, unionid string) error {
	b.stored = append(b.stored, appid+" "+openid+" "+unionid)
	return b.storeErr
}

func (b *bed) HasUnionIDs(context.Context, string) (bool, error) { return b.has, nil }

func (b *bed) Allow(_ applications.Session, call applications.Call, appid, template string) error {
	if call != applications.Login || appid != mini || template != "" {
		return fmt.Errorf("asked for %s at %s of %q", call, appid, template)
	}
	return b.refused
}

func newBed() *bed {
	b := &bed{answer: wechat.Session{OpenID: "o1", UnionID: "u1", SessionKey: key}}
	b.Exchange = New(Config{Registry: b, Sessions: map[string]Sessions{mini: b}, Users: b, Now: time.Now,
		Alarm:  func(context.Context, string) { b.alarms++ },
		Logger: slog.New(slog.NewJSONHandler(&b.log, nil)), Registerer: prometheus.NewRegistry()})
	return b
}

func (b *bed) login(t *testing.T) (Person, error) {
	t.Helper()
	return b.Login(t.Context(), applications.Session{}, mini, code)
}

// outcome is how often an outcome was counted.
func (b *bed) outcome(name string) float64 {
	return testutil.ToFloat64(b.logins.WithLabelValues(mini, name))
}

func TestLogin(t *testing.T) {
	b := newBed()
	who, err := b.login(t)
	if err != nil || who.OpenID != "o1" || who.UnionID != "u1" || who.SessionKey.Reveal() != key {
		t.Errorf("%+v, %v", who, err)
	}
	if want := mini + " o1 u1"; len(b.stored) != 1 || b.stored[0] != want || b.outcome("ok") != 1 {
		t.Errorf("stored %v, counted %v", b.stored, b.outcome("ok"))
	}
	b.storeErr = errors.New("gone away")
	if who, err := b.login(t); err != nil || who.SessionKey == "" {
		t.Errorf("without a database: %+v, %v", who, err)
	}
}

// TestNoUnionID: a user without a unionid is an alarm only where others have one.
func TestNoUnionID(t *testing.T) {
	b := newBed()
	b.answer.UnionID = ""
	for _, has := range []bool{false, true} {
		b.has = has
		want := map[bool]float64{true: 1}[has]
		who, err := b.login(t)
		if err != nil || who.UnionID != "" || b.outcome("no_unionid") != want {
			t.Errorf("others have one %t: %+v, %v, %v alarms", has, who, err, b.outcome("no_unionid"))
		}
	}
	if _, err := b.login(t); err != nil || b.alarms != 1 {
		t.Errorf("%d alarms, %v; want one in a while", b.alarms, err)
	}
}

// TestErrors: what WeChat says of the code is the caller's; everything else is a new login, and no
// code is shown to WeChat twice.
func TestErrors(t *testing.T) {
	for name, tc := range map[string]struct {
		err     error
		slow    time.Duration
		code    int // of a Refusal; 0: ErrAgain
		outcome string
	}{
		"used":       {&wechat.Error{Code: 40163, Message: "code been used"}, 0, 40163, "refused"},
		"invalid":    {&wechat.Error{Code: 40029, Message: "invalid code"}, 0, 40029, "refused"},
		"risky":      {&wechat.Error{Code: 40226, Message: "code blocked"}, 0, 40226, "refused"},
		"too often":  {&wechat.Error{Code: 45011, Message: "api minute-quota"}, 0, 45011, "refused"},
		"busy":       {&wechat.Error{Code: -1, Message: "system error"}, 0, 0, "again"},
		"our secret": {&wechat.Error{Code: 40125, Message: "invalid appsecret", Policy: wechat.PolicyConfig}, 0, 0, "misconfigured"},
		"no network": {errors.New("connection refused"), 0, 0, "again"},
		"slow":       {nil, time.Minute, 0, "again"},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBed()
			b.err, b.slow = tc.err, tc.slow
			began := time.Now()
			_, err := b.login(t)
			refusal, refused := errors.AsType[*Refusal](err)
			if refused != (tc.code != 0) || refused && refusal.Code != tc.code || !refused && !errors.Is(err, ErrAgain) {
				t.Errorf("%s: %v", name, err)
			}
			if b.asked != 1 || b.outcome(tc.outcome) != 1 || len(b.stored) > 0 {
				t.Errorf("%s: asked %d times, stored %v", name, b.asked, b.stored)
			}
			if took := time.Since(began); took > 2500*time.Millisecond {
				t.Errorf("%s took %s", name, took)
			}
			if tc.code == 0 && b.log.Len() == 0 {
				t.Errorf("%s: nothing is logged", name)
			}
		})
	}
	b := newBed()
	b.refused = &applications.Refusal{Code: 48001}
	if _, err := b.login(t); !errors.Is(err, b.refused) || b.asked > 0 {
		t.Errorf("without the right: %v, asked %d times", err, b.asked)
	}
	if _, err := b.Login(t.Context(), applications.Session{}, "wx1", code); err == nil {
		t.Error("an unknown account logs people in")
	}
}

// TestNothingLeaks: neither code nor session_key is in the log or in any form of a result, whatever
// the real client makes of WeChat's answer.
func TestNothingLeaks(t *testing.T) {
	for _, answer := range []string{
		`{"openid":"o1","session_key":"` + key + `"}`, `{"session_key":"` + key + `"}`, `{"session_key":"` + key,
		`{"errcode":40163,"errmsg":"code been used ` + code + `"}`, `<html>` + code + key, "",
	} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(answer))
		}))
		b := newBed()
		b.cfg.Sessions[mini] = wechat.New(wechat.Config{AppID: mini, Secret: "secretOfTheMiniProgram", BaseURL: server.URL,
			Timeout: time.Second, SendTimeout: time.Second, MaxConnections: 1, Logger: b.cfg.Logger})
		who, err := b.login(t)
		asJSON, _ := json.Marshal(who)
		printed := fmt.Sprintf("%v %+v %#v %s %v %s", who, who, who, asJSON, err, b.log.String())
		for _, secret := range []string{key, code, "secretOfTheMiniProgram"} {
			if strings.Contains(printed, secret) {
				t.Errorf("%q is shown: %s", secret, printed)
			}
		}
		server.Close()
	}
}
