package main

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/intake"
	"github.com/unionbridge/unionbridge/internal/web"
	"github.com/unionbridge/unionbridge/internal/web/compat"
)

// doors is what applications call. A nil one is switched off, and its methods do nothing.
type doors struct {
	listener *compat.Listener
	intake   *intake.Intake
	taking   *task // of intake; nil: not started
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
	settings := compat.Config{Listen: h.APIListen, Registry: registry, Logger: p.log, Registerer: p.reg,
		Now: time.Now}
	for _, text := range h.APIProxyFrom {
		if proxy, err := netip.ParsePrefix(text); err == nil {
			settings.Proxies = append(settings.Proxies, proxy)
		}
	}
	if h.APITLS.CertFile != "" {
		certificate, err := web.LoadCertificate(h.APITLS.CertFile, h.APITLS.KeyFile, p.log)
		if err != nil {
			return nil, err
		}
		settings.TLS = certificate.Config()
	}
	messages := intake.New(intake.Config{
		DB: p.db, Registry: registry, Rules: p.doorRules(),
		Levels: database.NewFeatureLevels(p.db, time.Now), Logger: p.log, Registerer: p.reg, Now: time.Now,
	})
	return &doors{listener: compat.New(settings), intake: messages, log: p.log}, nil
}

func (d *doors) start(ctx context.Context) error {
	if d == nil {
		return nil
	}
	d.taking = startTask(ctx, d.intake.Run)
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

func (d *doors) stop(ctx context.Context) error {
	if d == nil {
		return nil
	}
	return errors.Join(d.listener.Stop(ctx), d.taking.stop(ctx))
}
