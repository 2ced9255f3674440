package main

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/bridge/grants"
	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/sender"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/channel/minisubscribe"
	"github.com/unionbridge/unionbridge/sender/requests"
	"github.com/unionbridge/unionbridge/sender/route"
)

// sendingMinis are the mini programs that are accounts.
func sendingMinis(cfg *config.Config) (minis []config.MiniProgram) {
	for _, m := range cfg.MiniPrograms {
		if m.Sends {
			minis = append(minis, m)
		}
	}
	return minis
}

// sendingAccounts are the appids of all accounts that send, the official ones first.
func sendingAccounts(cfg *config.Config) (appids []string) {
	for _, a := range cfg.OfficialAccounts {
		appids = append(appids, a.AppID)
	}
	for _, m := range sendingMinis(cfg) {
		appids = append(appids, m.AppID)
	}
	return appids
}

// checkSends refuses an appid of which the configuration has no account that sends.
func checkSends(cfg *config.Config, appid string) error {
	known := sendingAccounts(cfg)
	if slices.Contains(known, appid) {
		return nil
	}
	if slices.Contains(miniAppIDs(cfg), appid) {
		return usageError("mini program %q does not send: it has no template, or no secret; see "+
			"mini_programs[].send in docs/configuration.md", appid)
	}
	return usageError("account %q is not in the configuration, which has %s", appid,
		strings.Join(known, ", "))
}

func (p *parts) miniAccount(m config.MiniProgram) sender.Account {
	return sender.Account{
		AppID: m.AppID, Channels: []channel.Channel{p.channels[m.AppID]}, Rate: m.Send.Rate,
		Concurrency: m.Send.Concurrency, MaxAttempts: m.Send.MaxAttempts,
		Wait: m.Send.WaitForGrant.Std(), Default: m.AppID == p.cfg.DefaultAppID(),
		DailyBudget: m.Send.DailyBudget, UrgentReserve: m.Send.UrgentReserve.Fraction(),
		Repeat: repeated(p.cfg), Calls: p.calls(m.AppID),
	}
}

// grantWatcher tells the sender what people have accepted.
type grantWatcher struct {
	sending    *atomic.Pointer[sender.Service]
	identities *bridge.Map
}

func (w grantWatcher) Granted(ctx context.Context, appid string, granted []grants.Grant) {
	service := w.sending.Load()
	if service == nil {
		return
	}
	keys, openids := make([]bridge.Key, 0, 2*len(granted)), make([]string, len(granted))
	for i, g := range granted {
		keys, openids[i] = append(keys, bridge.GrantKey(appid, g.OpenID, g.TemplateID)), g.OpenID
	}
	// Messages may have begun to wait before this person was known as a user: they wait for that. What
	// this does not find, the walk through all that waits does.
	if known, err := w.identities.UserKeys(ctx, appid, openids); err == nil {
		keys = append(keys, known...)
	}
	service.Changed(ctx, keys)
}

// spendGrants writes into the ledger what an operator says was sent.
func spendGrants(
	cfg *config.Config, db *sqlx.DB,
) func(context.Context, *sqlx.Tx, requests.Attempt) error {
	ledger := grants.New(grants.Config{DB: db, Sources: grantSources(cfg)})
	return func(ctx context.Context, tx *sqlx.Tx, a requests.Attempt) error {
		return ledger.Settle(ctx, tx, a.AppID, []grants.Use{{
			Grant:     grants.Grant{OpenID: a.OpenID, TemplateID: a.TemplateID},
			RequestID: a.RequestID, At: a.BegunAt,
		}})
	}
}

// repeated are the aliases for which a second message is better than none.
func repeated(cfg *config.Config) map[string]bool {
	aliases := make(map[string]bool)
	for alias, t := range cfg.Templates {
		aliases[alias] = t.Uncertain == config.UncertainRepeat
	}
	return aliases
}

// miniChannel is how a mini program sends: subscribe messages.
func (p *parts) miniChannel(m config.MiniProgram) channel.Channel {
	aliases := make(map[string]minisubscribe.Alias)
	for alias, t := range p.cfg.Templates {
		if t.Mini == nil || t.Mini.IDs[m.AppID] == "" {
			continue
		}
		aliases[alias] = minisubscribe.Alias{
			ID: t.Mini.IDs[m.AppID], Truncate: t.Mini.Truncate, Keys: t.Mini.Keys, Page: t.Mini.Page,
			State: t.Mini.State, Lang: t.Mini.Lang,
		}
	}
	cfg := minisubscribe.Config{
		AppID: m.AppID, API: p.clients[m.AppID], Identities: bridge.New(p.db), Aliases: aliases,
		Attempts: p.ledger, Preflight: m.Send.Preflight, Logger: p.log.With("appid", m.AppID), Now: time.Now,
	}
	if p.ledger.Counts(m.AppID) {
		cfg.Grants = p.ledger
	}
	return minisubscribe.New(cfg)
}

// templateIDs are the ids behind the aliases, by alias and account.
// Without an entry an account cannot use the alias.
func templateIDs(cfg *config.Config) channel.Templates {
	ids := make(channel.Templates, len(cfg.Templates))
	for alias, t := range cfg.Templates {
		ids[alias] = make(map[string]string)
		maps.Copy(ids[alias], t.Official.IDs)
		if t.Mini != nil {
			maps.Copy(ids[alias], t.Mini.IDs)
		}
	}
	return ids
}

// routes are the orders in which the accounts of aliases are tried.
func routes(cfg *config.Config) map[string][]route.Kind {
	orders := make(map[string][]route.Kind, len(cfg.Templates))
	for alias, t := range cfg.Templates {
		for _, word := range t.Route {
			orders[alias] = append(orders[alias], route.Kind(word))
		}
	}
	return orders
}

// miniProgramAPI lists a mini program's templates as an official account's are listed.
type miniProgramAPI struct{ *wechat.Client }

func (a miniProgramAPI) PrivateTemplates(ctx context.Context) ([]wechat.Template, error) {
	list, err := a.SubscribeTemplates(ctx)
	templates := make([]wechat.Template, len(list))
	for i, t := range list {
		templates[i] = wechat.Template{ID: t.ID, Content: t.Content}
	}
	return templates, err
}
