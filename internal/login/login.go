// Package login exchanges the codes of wx.login for applications, with the mini program's own secret,
// which they do not know. Each login fills the map. The package must not keep or log a session_key or
// a code, and it asks WeChat once for each code: a code works once.
package login

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/wechat"
)

const (
	// wechatTimeout leaves time to store the user and to answer within 2.5 s.
	wechatTimeout = 1900 * time.Millisecond
	storeTimeout  = 400 * time.Millisecond
	// alarmPause is how often the log says again that something is wrong with an account.
	alarmPause = 10 * time.Minute
)

// Registry says what applications may do.
type Registry interface {
	Allow(s applications.Session, call applications.Call, appid, template string) error
}

// Sessions asks WeChat, a *wechat.Client.
type Sessions interface {
	Session(ctx context.Context, code string) (wechat.Session, error)
}

// Users is the map of mini-program users.
type Users interface {
	UpsertMiniUser(ctx context.Context, appid, openid, unionid string) error
	// HasUnionIDs reports whether a mini program gives unionids: another user of it has one.
	HasUnionIDs(ctx context.Context, appid string) (bool, error)
}

// Config is what an Exchange needs.
type Config struct {
	Registry Registry
	Sessions map[string]Sessions // by the appid of a mini program whose secret is known
	Users    Users
	// Alarm is told, once in a while, of a mini program whose users come without a unionid though others
	// have one; nil: the log alone is.
	Alarm      func(ctx context.Context, appid string)
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// Person is who logged in.
type Person struct {
	OpenID     string
	UnionID    string            // "": the mini program is bound to no Open Platform account
	SessionKey wechat.SessionKey // for the caller alone
}

// Refusal is WeChat's own word on a code, for the caller.
type Refusal struct {
	Code    int
	Message string
}

// Error returns the message with its code.
func (r *Refusal) Error() string { return fmt.Sprintf("%d %s", r.Code, r.Message) }

// ErrAgain means that nobody knows whether the code is used up: the person has to log in again.
var ErrAgain = errors.New("the person has to log in again")

// Exchange exchanges codes. It is safe for concurrent use.
type Exchange struct {
	cfg    Config
	logins *prometheus.CounterVec

	mu     sync.Mutex
	warned map[string]time.Time // by account and what is wrong
}

// New returns an Exchange.
func New(cfg Config) *Exchange {
	e := &Exchange{cfg: cfg, warned: make(map[string]time.Time),
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unionbridge_logins_total",
			Help: "Logins by outcome: ok, no_unionid (a user of a bound mini program came without one), " +
				"refused (WeChat's word on the code), again, misconfigured.",
		}, []string{"appid", "outcome"}),
	}
	cfg.Registerer.MustRegister(e.logins)
	return e
}

// callersFault are WeChat's codes that speak of the code or its user: invalid, used, too often asked,
// blocked as a risk. Their callers understand them.
func callersFault(code int) bool { return slices.Contains([]int{40029, 40163, 45011, 40226}, code) }

// Login exchanges a code, if the application may do so for the mini program. Besides [*Refusal] and
// [*applications.Refusal] its errors are ErrAgain.
func (e *Exchange) Login(
	ctx context.Context, s applications.Session, appid, code string,
) (Person, error) {
	if err := e.cfg.Registry.Allow(s, applications.Login, appid, ""); err != nil {
		return Person{}, err
	}
	sessions := e.cfg.Sessions[appid]
	if sessions == nil {
		e.warn(appid, "misconfigured", "a login cannot be exchanged: the mini program has no secret here")
		return Person{}, ErrAgain
	}
	asking, cancel := context.WithTimeout(ctx, wechatTimeout)
	defer cancel()
	found, err := sessions.Session(asking, code)
	if err != nil {
		return Person{}, e.failed(appid, err)
	}
	outcome := "ok"
	if found.UnionID == "" && e.misses(ctx, appid) {
		outcome = "no_unionid"
		told := e.warn(appid, outcome, "a user logged in without a unionid, though others of the mini "+
			"program have one: was it unbound from the Open Platform account?")
		if told && e.cfg.Alarm != nil {
			e.cfg.Alarm(ctx, appid)
		}
	}
	e.store(ctx, appid, found)
	e.logins.WithLabelValues(appid, outcome).Inc()
	return Person{OpenID: found.OpenID, UnionID: found.UnionID, SessionKey: found.SessionKey}, nil
}

// failed is what the caller learns of WeChat's error.
func (e *Exchange) failed(appid string, err error) error {
	outcome := "again"
	defer func() { e.logins.WithLabelValues(appid, outcome).Inc() }()
	answer, ok := errors.AsType[*wechat.Error](err)
	switch {
	case ok && callersFault(answer.Code):
		outcome = "refused"
		return &Refusal{answer.Code, answer.Message}
	case ok && answer.Policy == wechat.PolicyConfig:
		outcome = "misconfigured"
		e.warn(appid, outcome, "logins cannot be exchanged", "err", err)
	default:
		e.warn(appid, outcome, "a login was not exchanged", "err", err)
	}
	return ErrAgain
}

// misses reports whether a user without a unionid is one too few. A database that cannot say is no
// reason to say it.
func (e *Exchange) misses(ctx context.Context, appid string) bool {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	has, err := e.cfg.Users.HasUnionIDs(ctx, appid)
	return has && err == nil
}

// store writes the user into the map. Where that fails the person is logged in nevertheless: the code
// is used up, and the next login stores them.
func (e *Exchange) store(ctx context.Context, appid string, found wechat.Session) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storeTimeout)
	defer cancel()
	if err := e.cfg.Users.UpsertMiniUser(ctx, appid, found.OpenID, found.UnionID); err != nil {
		e.warn(appid, "store", "a login was exchanged, and its user not stored", "err", err)
	}
}

// warn logs something about an account, once in a while. It reports whether it did.
func (e *Exchange) warn(appid, what, words string, args ...any) bool {
	e.mu.Lock()
	now := e.cfg.Now()
	last, before := e.warned[appid+" "+what]
	again := !before || now.Sub(last) >= alarmPause || now.Before(last)
	if again {
		e.warned[appid+" "+what] = now
	}
	e.mu.Unlock()
	if again {
		e.cfg.Logger.Error(words, append([]any{"appid", appid}, args...)...)
	}
	return again
}
