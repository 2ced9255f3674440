package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/bridge/grants"
	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/doctor"
	"github.com/unionbridge/unionbridge/internal/intake"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/sender"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/channel/oatemplate"
	"github.com/unionbridge/unionbridge/sender/erasure"
	"github.com/unionbridge/unionbridge/sender/retention"
	"github.com/unionbridge/unionbridge/sync"
)

// parts turns the configuration into the packages' own settings. The daemon and the commands build
// the same things of it, so that "unionbridge sync" does what the schedule does.
type parts struct {
	cfg     *config.Config
	log     *slog.Logger
	reg     prometheus.Registerer
	db      *sqlx.DB
	leases  *database.Leases
	clients map[string]*wechat.Client // by the appid of an account that sends
	// channels are those of the accounts that send, once there is a sender.
	channels map[string]channel.Channel
	ledger   *grants.Ledger
	eraser   *erasure.Eraser
	watch    *doctor.Watch
	sending  atomic.Pointer[sender.Service] // nil: this process does not send
	holder   string
}

// newParts needs an open database. It starts nothing.
func newParts(cfg *config.Config, log *slog.Logger, reg prometheus.Registerer, db *sqlx.DB) *parts {
	p := &parts{cfg: cfg, log: log, reg: reg, db: db, holder: holderName(),
		clients: make(map[string]*wechat.Client), channels: make(map[string]channel.Channel)}
	p.leases = database.NewLeases(db, database.LeaseConfig{Holder: p.holder, Logger: log})
	p.ledger = grants.New(grants.Config{
		DB: db, Sources: grantSources(cfg), Watcher: grantWatcher{&p.sending, bridge.New(db)}, Logger: log,
	})
	p.eraser = p.newEraser()
	observe := callMetrics(reg)
	client := func(own wechat.Config) {
		own.ObserveQuota = p.keepQuota(own.AppID)
		own.BaseURL, own.Timeout = cfg.WeChat.BaseURL, cfg.WeChat.Timeout.Std()
		own.SendTimeout, own.Logger = cfg.WeChat.SendTimeout.Std(), log
		own.Observe = func(call wechat.Call) {
			observe(own.AppID, call)
			p.answered(own.AppID, call)
		}
		p.clients[own.AppID] = wechat.New(own)
	}
	for _, a := range cfg.OfficialAccounts {
		client(wechat.Config{
			AppID: a.AppID, Secret: a.Secret.Reveal(), Token: tokenConfig(a.Token),
			// Sends and batches run at the same time; 4 for the list, tokens, rechecks.
			MaxConnections: a.Send.Concurrency + a.Sync.Concurrency + 4,
		})
	}
	for _, m := range sendingMinis(cfg) {
		client(wechat.Config{
			AppID: m.AppID, Secret: m.Secret.Reveal(), Token: tokenConfig(m.Token),
			MaxConnections: m.Send.Concurrency + 4, // for the list of templates, tokens, quotas
		})
	}
	p.watch = doctor.NewWatch(p.checkedAccounts(), log, time.Now)
	p.watch.Keep(p.keepProblems)
	return p
}

// answered passes it on that WeChat has taken an account's token: a sweep may be the first to see that
// somebody has corrected the whitelist. Messages say so themselves, and are too many.
func (p *parts) answered(appid string, call wechat.Call) {
	if call.Err != nil || !wechat.TakesToken(call.Endpoint) ||
		call.Endpoint == wechat.EndpointSendTemplate || call.Endpoint == wechat.EndpointSendSubscribe {
		return
	}
	p.watch.Answered(appid)
	if s := p.sending.Load(); s != nil {
		s.TokenTaken(appid)
	}
}

// checkedAccounts are what the configuration says of the accounts that WeChat can confirm.
func (p *parts) checkedAccounts() []doctor.Account {
	var accounts []doctor.Account
	for _, a := range p.cfg.OfficialAccounts {
		checked := doctor.Account{
			AppID: a.AppID, API: p.clients[a.AppID], QuotaPath: wechat.EndpointSendTemplate,
			Templates: make(map[string]string),
		}
		for alias, t := range p.cfg.Templates {
			if id := t.Official.IDs[a.AppID]; id != "" {
				checked.Templates[alias] = id
			}
		}
		accounts = append(accounts, checked)
	}
	for _, m := range sendingMinis(p.cfg) {
		checked := doctor.Account{
			AppID: m.AppID, API: miniProgramAPI{p.clients[m.AppID]}, Mini: true,
			QuotaPath: wechat.EndpointSendSubscribe,
			Templates: make(map[string]string), Keys: make(map[string][]string),
		}
		for alias, t := range p.cfg.Templates {
			if t.Mini != nil && t.Mini.IDs[m.AppID] != "" {
				checked.Templates[alias] = t.Mini.IDs[m.AppID]
				checked.Keys[alias] = slices.Sorted(maps.Values(t.Mini.Keys))
			}
		}
		accounts = append(accounts, checked)
	}
	return accounts
}

// checkOf returns what a check of the account shows, in the sender's words.
func (p *parts) checkOf(appid string) func(context.Context) channel.Outcome {
	return func(ctx context.Context) channel.Outcome {
		r := p.watch.Check(ctx, appid)
		if r.TokenTaken {
			return channel.Outcome{Confirms: channel.ScopeToken}
		}
		for _, problem := range r.Problems {
			if we := problem.Err; we != nil && we.Policy == wechat.PolicyConfig {
				return channel.Outcome{
					Verdict: channel.PauseAccount, Pause: channel.PauseConfig, Reason: problem.Reason,
					Message: we.Message, Code: we.Code, Err: we, Cure: problem.Cure,
				}
			}
		}
		return channel.Outcome{}
	}
}

// renewLeases keeps the leases until ctx ends, and then releases them.
func (p *parts) renewLeases(ctx context.Context) {
	if err := p.leases.Run(ctx); err != nil {
		p.log.Error("renewing leases", "err", err)
	}
}

// announce says which features this instance has, for as long as it runs.
func (p *parts) announce(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(database.AnnouncePause):
		}
		if err := database.AnnounceInstance(ctx, p.db, p.holder); err != nil && ctx.Err() == nil {
			p.log.Warn("announcing this instance", "err", err)
		}
	}
}

func miniAppIDs(cfg *config.Config) []string {
	appids := make([]string, len(cfg.MiniPrograms))
	for i, m := range cfg.MiniPrograms {
		appids[i] = m.AppID
	}
	return appids
}

func tokenConfig(t config.Token) wechat.TokenConfig {
	header := make(map[string]string, len(t.Header))
	for name, v := range t.Header {
		header[name] = v.Value.Reveal()
	}
	return wechat.TokenConfig{Mode: wechat.TokenMode(t.Mode), URL: t.URL.Reveal(), Header: header,
		Command: t.Command}
}

// sync returns what fills the map; watcher is told of its changes.
func (p *parts) sync(watcher bridge.Watcher) *sync.Service {
	accounts := make([]sync.Account, len(p.cfg.OfficialAccounts))
	for i, a := range p.cfg.OfficialAccounts {
		accounts[i] = sync.Account{
			AppID: a.AppID, API: p.clients[a.AppID], Sweep: a.Sync.Sweep, Refresh: a.Sync.Refresh,
			MaxGone: a.Sync.MaxGone.Fraction(), QuotaReserve: a.Sync.QuotaReserve.Fraction(),
			KeepRuns: a.Sync.KeepRuns, Concurrency: a.Sync.Concurrency,
		}
	}
	return sync.New(sync.Config{
		DB: p.db, Leases: p.leases, Accounts: accounts, SpoolDir: p.cfg.StateDir, Holder: p.holder,
		Logger: p.log, Registerer: p.reg, Now: time.Now, QuotaResetHour: p.cfg.WeChat.QuotaResetHour,
		Watcher: watcher,
	})
}

func (p *parts) sender() (*sender.Service, error) {
	minis := miniAppIDs(p.cfg)
	var accounts []sender.Account
	for _, a := range p.cfg.OfficialAccounts {
		p.channels[a.AppID] = p.officialChannel(a, minis)
		accounts = append(accounts, sender.Account{
			AppID: a.AppID, Channels: []channel.Channel{p.channels[a.AppID]}, Rate: a.Send.Rate,
			Concurrency: a.Send.Concurrency, MaxAttempts: a.Send.MaxAttempts,
			Wait: a.Send.WaitForFollower.Std(), Default: a.Default,
			ResendWindow: a.Send.ResendWindow.Std(), DailyBudget: a.Send.DailyBudget,
			UrgentReserve: a.Send.UrgentReserve.Fraction(), Calls: p.calls(a.AppID),
		})
	}
	for _, m := range sendingMinis(p.cfg) {
		p.channels[m.AppID] = p.miniChannel(m)
		accounts = append(accounts, p.miniAccount(m))
	}
	resetHour := p.cfg.WeChat.QuotaResetHour
	service, err := sender.New(sender.Config{
		DB: p.db, Leases: p.leases, Accounts: accounts, Templates: templateIDs(p.cfg), MiniAppIDs: minis,
		SendTimeout: p.cfg.WeChat.SendTimeout.Std(), Logger: p.log, Registerer: p.reg, Now: time.Now,
		Logins: bridge.New(p.db).Logins,
		Moves: sender.Moves{
			Routes: routes(p.cfg), Levels: database.NewFeatureLevels(p.db, time.Now),
			NeedsPerson: func(reason string) bool { return !passingReason(reason) },
		},
		QuotaDay:   func(now time.Time) time.Time { return wechat.QuotaDay(now, resetHour) },
		QuotaReset: func(now time.Time) time.Time { return wechat.QuotaReset(now, resetHour) },
	})
	p.sending.Store(service)
	return service, err
}

// officialChannel is how an official account sends: template messages.
func (p *parts) officialChannel(a config.OfficialAccount, minis []string) channel.Channel {
	aliases := make(map[string]oatemplate.Alias)
	for alias, t := range p.cfg.Templates {
		if id := t.Official.IDs[a.AppID]; id != "" {
			aliases[alias] = oatemplate.Alias{ID: id, Truncate: t.Official.Truncate}
		}
	}
	return oatemplate.New(oatemplate.Config{
		AppID: a.AppID, API: p.clients[a.AppID], Identities: bridge.New(p.db), Aliases: aliases,
		MiniApps: minis, Preflight: a.Send.Preflight, Logger: p.log.With("appid", a.AppID), Now: time.Now,
	})
}

func (p *parts) calls(appid string) sender.Calls {
	return sender.Calls{
		Quota: quotaOf(p.clients[appid]), Check: p.checkOf(appid),
		Credentials: func(reason string) bool { return wechat.Reason(reason).OfCredentials() },
	}
}

func quotaOf(c *wechat.Client) func(context.Context, string) (limit, remaining int64, err error) {
	return func(ctx context.Context, path string) (limit, remaining int64, err error) {
		quota, err := c.Quota(ctx, path)
		return quota.DailyLimit, quota.Remain, err
	}
}

func (p *parts) purger() *retention.Purger {
	erasures := bridge.NewErasures(p.db)
	return retention.New(retention.Config{
		DB: p.db, Leases: p.leases, Keep: p.cfg.Retention.Finished.Std(), Archive: p.cfg.Retention.Archive,
		Others: []func(context.Context, retention.Pace) error{
			erasures.Expire, p.ledger.Purge,
			func(ctx context.Context, pace retention.Pace) error { return intake.Purge(ctx, p.db, pace) },
		},
		Logger: p.log, Now: time.Now,
	})
}

// newEraser returns what erases people everywhere.
func (p *parts) newEraser() *erasure.Eraser {
	return erasure.New(erasure.Config{
		DB: p.db, Leases: p.leases, Logger: p.log, Now: time.Now,
		Others: []func(context.Context, bridge.Account) error{
			func(ctx context.Context, a bridge.Account) error {
				return sync.Forget(ctx, p.db, a.AppID, a.OpenID)
			},
		},
	})
}

// holderName is this process's name in leases and in the ledger: unique, and an operator sees from
// it which machine and process it is. The columns take 128 ASCII characters.
func holderName() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "unknown-host"
	}
	host = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, host)
	return fmt.Sprintf("%s-%d-%s", host[:min(64, len(host))], os.Getpid(), strings.ToLower(rand.Text()[:8]))
}

func newLogger(cfg config.Log, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.Level)); err != nil {
		level = slog.LevelInfo
	}
	options := &slog.HandlerOptions{Level: level}
	if cfg.Format == "json" {
		return slog.New(slog.NewJSONHandler(visibleWriter{w}, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// commandLogger is for commands of a few seconds, whose result is on the screen anyway: it shows
// what went wrong on the way, and more only where the configuration asks for debug.
func commandLogger(cfg config.Log, w io.Writer) *slog.Logger {
	if cfg.Level == "info" {
		cfg.Level = "warn"
	}
	return newLogger(cfg, w)
}

// newRegistry holds what every Go program shows, and the build. The packages add their own.
func newRegistry() *prometheus.Registry {
	reg := prometheus.NewRegistry()
	reg.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo().collector())
	return reg
}

// callMetrics returns what observes the calls of the account appid.
func callMetrics(reg prometheus.Registerer) func(appid string, call wechat.Call) {
	calls := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "unionbridge_wechat_calls_total",
		Help: `HTTP calls to WeChat by endpoint and reason of failure; reason "ok" is success.`,
	}, []string{"appid", "endpoint", "reason"})
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "unionbridge_wechat_call_seconds",
		Help:    "Time of one HTTP call to WeChat, until its answer was decoded.",
		Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
	}, []string{"endpoint"})
	reg.MustRegister(calls, seconds)
	return func(appid string, call wechat.Call) {
		reason := "ok"
		if we, ok := errors.AsType[*wechat.Error](call.Err); ok {
			reason = string(we.Reason)
		}
		calls.WithLabelValues(appid, call.Endpoint, reason).Inc()
		seconds.WithLabelValues(call.Endpoint).Observe(call.Duration.Seconds())
	}
}
