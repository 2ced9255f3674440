package main

import (
	"encoding/hex"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/wechat"
)

// registryParts are what a registry of applications needs besides the configuration.
type registryParts struct {
	db     *sqlx.DB
	holder string
	log    *slog.Logger
	reg    prometheus.Registerer // nil: not measured
}

// newApplications returns the applications of the configuration.
func newApplications(cfg *config.Config, p registryParts) (*applications.Registry, error) {
	resetHour := cfg.WeChat.QuotaResetHour
	settings := applications.Config{DB: p.db, Holder: p.holder, Logger: p.log, Registerer: p.reg,
		Now: time.Now,
		Day: func(now time.Time) time.Time { return wechat.QuotaDay(now, resetHour) },
	}
	for _, a := range cfg.Applications {
		settings.Applications = append(settings.Applications, applicationOf(cfg, a))
	}
	return applications.New(settings)
}

// applicationOf takes over what the configuration has checked.
func applicationOf(cfg *config.Config, a config.Application) applications.Application {
	app := applications.Application{
		Name: a.Name, Accounts: make(map[string][]applications.Call, len(a.Accounts)),
		Templates: allowedTemplates(cfg, a), Priority: a.Priority,
		Limit:           applications.Limit{Minute: a.Limit.Minute, Day: a.Limit.Day},
		DuplicateWindow: a.DuplicateWindow.Std(), Forward: a.Forward, Echo: a.Echo != nil,
		Disabled: a.Disabled,
	}
	for _, text := range a.SecretHashes {
		var hash [32]byte
		if n, err := hex.Decode(hash[:], []byte(text)); err == nil && n == len(hash) {
			app.SecretHashes = append(app.SecretHashes, hash)
		}
	}
	for appid, calls := range a.Accounts {
		for _, call := range calls {
			app.Accounts[appid] = append(app.Accounts[appid], applications.Call(call))
		}
	}
	for _, text := range a.Networks {
		if network, err := netip.ParsePrefix(text); err == nil {
			app.Networks = append(app.Networks, network)
		}
	}
	return app
}

// allowedTemplates are those that the application may name, and the ids of those that it may name
// by an alias: SDKs know ids alone. nil: all.
func allowedTemplates(cfg *config.Config, a config.Application) []string {
	if len(a.Templates) == 0 {
		return nil
	}
	allowed := slices.Clone(a.Templates)
	for _, alias := range a.Templates {
		t := cfg.Templates[alias]
		allowed = slices.AppendSeq(allowed, maps.Values(t.Official.IDs))
		if t.Mini != nil {
			allowed = slices.AppendSeq(allowed, maps.Values(t.Mini.IDs))
		}
	}
	return allowed
}

// describeApplication says in a line what an application is and may do.
func describeApplication(a config.Application) string {
	var parts []string
	for _, appid := range slices.Sorted(maps.Keys(a.Accounts)) {
		parts = append(parts, appid+" "+strings.Join(a.Accounts[appid], " "))
	}
	words := a.Name + ": " + strings.Join(parts, ", ")
	if a.Limit.Minute > 0 {
		words += fmt.Sprintf("; %d a minute", a.Limit.Minute)
	}
	if a.Limit.Day > 0 {
		words += fmt.Sprintf("; %d a day", a.Limit.Day)
	}
	if len(a.Forward) > 0 {
		words += "; forwards " + strings.Join(a.Forward, " ")
	}
	if a.Echo != nil {
		words += "; is told what became of its messages"
	}
	if a.Disabled {
		words += "; disabled"
	}
	return words
}
