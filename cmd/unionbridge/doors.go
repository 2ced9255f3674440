package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/echo"
	"github.com/unionbridge/unionbridge/internal/intake"
	"github.com/unionbridge/unionbridge/internal/web"
	"github.com/unionbridge/unionbridge/internal/web/api"
	"github.com/unionbridge/unionbridge/internal/web/compat"
)

const (
	// doorReadTimeout is how long a request may take to arrive, and its answer to leave.
	doorReadTimeout = 10 * time.Second
	// doorWriteTimeout begins with the request's arrival.
	doorWriteTimeout = 2 * doorReadTimeout
	// doorIdleTimeout exceeds the default of nginx and others, which must close first.
	doorIdleTimeout = 90 * time.Second
)

// doors is what applications call. A nil one is switched off, and its methods do nothing.
type doors struct {
	listener *web.Listener
	intake   *intake.Intake
	taking   *task // of intake; nil: not started
	echo     *echo.Echo
	telling  *task // of echo
	log      *slog.Logger
}

// doors returns nil without an http.api_listen.
func (p *parts) doors() (*doors, error) {
	h := p.cfg.HTTP
	if h.APIListen == "" {
		return nil, nil
	}
	registry, err := newApplications(p.cfg, registryParts{p.db, p.holder, p.log, p.reg})
	if err != nil {
		return nil, err
	}
	messages := intake.New(intake.Config{
		DB: p.db, Registry: registry, Rules: p.doorRules(), Archive: p.cfg.Retention.Archive,
		Levels: database.NewFeatureLevels(p.db, time.Now), Logger: p.log, Registerer: p.reg, Now: time.Now,
	})
	logins := doorLogins{p.exchange(registry)}
	proxies, bodies := doorProxies(h), web.NewBodies()
	native := api.New(api.Config{
		Proxies: proxies, Bodies: bodies, Registry: registry, Messages: messages,
		People: doorPeople{bridge.New(p.db)}, Grants: doorGrants{p.ledger, templateIDs(p.cfg)},
		Logins: logins, Logger: p.log, Registerer: p.reg, Now: time.Now,
	})
	server := &http.Server{
		Handler: front(native, compat.New(compat.Config{
			Proxies: proxies, Bodies: bodies, Registry: registry, Messages: messages,
			Accounts: p.doorAccounts(), Logins: logins.compat(), Forwarder: forwarder{p.clients},
			Logger: p.log, Registerer: p.reg,
			Now: time.Now,
		})),
		ReadHeaderTimeout: doorReadTimeout, ReadTimeout: doorReadTimeout, WriteTimeout: doorWriteTimeout,
		IdleTimeout: doorIdleTimeout,
	}
	server.RegisterOnShutdown(native.Release)
	if h.APITLS.CertFile != "" {
		certificate, err := web.LoadCertificate(h.APITLS.CertFile, h.APITLS.KeyFile, p.log)
		if err != nil {
			return nil, err
		}
		server.TLSConfig = certificate.Config()
	}
	return &doors{intake: messages, echo: p.echo(), log: p.log, listener: web.NewListener(web.ListenerConfig{
		Listen: h.APIListen, Key: "http.api_listen", Logger: p.log, Server: server,
	})}, nil
}

// echo is what tells applications what became of their messages.
func (p *parts) echo() *echo.Echo {
	targets := make(map[string]echo.Target)
	for _, a := range p.cfg.Applications {
		if a.Echo != nil {
			targets[a.Name] = echo.Target{URL: a.Echo.URL, Token: a.Echo.Token.Reveal()}
		}
	}
	return echo.New(echo.Config{DB: p.db, Leases: p.leases, Targets: targets, Logger: p.log,
		Registerer: p.reg, Now: time.Now})
}

// doorProxies are those whose X-Forwarded-For counts. The configuration has checked them.
func doorProxies(h config.HTTP) (proxies []netip.Prefix) {
	for _, text := range h.APIProxyFrom {
		if proxy, err := netip.ParsePrefix(text); err == nil {
			proxies = append(proxies, proxy)
		}
	}
	return proxies
}

func (d *doors) start(ctx context.Context) error {
	if d == nil {
		return nil
	}
	d.taking, d.telling = startTask(ctx, d.intake.Run), startTask(ctx, d.echo.Run)
	if err := d.listener.Start(ctx); err != nil {
		return err
	}
	d.log.Info("the doors for applications are open", "listen", d.listener.Addr())
	return nil
}

// failed receives an error if the listener breaks.
func (d *doors) failed() <-chan error {
	if d == nil {
		return nil
	}
	return d.listener.Failed()
}

// stop lets the requests under way finish first: the intake serves them.
func (d *doors) stop(ctx context.Context) error {
	if d == nil {
		return nil
	}
	return errors.Join(d.listener.Stop(ctx), d.taking.stop(ctx), d.telling.stop(ctx))
}
