package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/bridge/grants"
	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/wechat/push"
	"github.com/unionbridge/unionbridge/sender/erasure"
	"github.com/unionbridge/unionbridge/sender/queue"
	"github.com/unionbridge/unionbridge/sender/requests"
)

// grantSources is what each mini program's acceptances are counted by.
func grantSources(cfg *config.Config) map[string]grants.Source {
	sources := make(map[string]grants.Source, len(cfg.MiniPrograms))
	for _, m := range cfg.MiniPrograms {
		sources[m.AppID] = grants.Source(m.Grants)
	}
	return sources
}

// miniPushes hands a mini program's events to the ledger of grants, the map and the sender.
type miniPushes struct {
	db         *sqlx.DB
	sources    map[string]grants.Source // by appid, of all mini programs
	ledger     *grants.Ledger
	identities *bridge.Map
	erasures   *bridge.Erasures
	eraser     *erasure.Eraser
	receipts   receiptStore
	log        *slog.Logger
	now        func() time.Time
}

func (p *parts) miniPushes(receipts receiptStore) *miniPushes {
	return &miniPushes{
		db: p.db, sources: grantSources(p.cfg), ledger: p.ledger, identities: bridge.New(p.db),
		erasures: bridge.NewErasures(p.db), eraser: p.eraser, receipts: receipts, log: p.log,
		now: time.Now,
	}
}

// event stores what a push says; false: nothing of it concerns us. Official accounts have one event
// that does: somebody has closed their WeChat account.
func (p *miniPushes) event(ctx context.Context, appid string, m push.Message) (bool, error) {
	if m.Event == push.EventCancelled && m.Authorization != nil {
		return p.erase(ctx, appid, *m.Authorization)
	}
	if _, mini := p.sources[appid]; !mini {
		return false, nil
	}
	switch {
	case len(m.Popup) > 0:
		return true, p.popup(ctx, appid, m)
	case len(m.Change) > 0:
		return true, p.ledger.Change(ctx, appid, m.Change)
	case len(m.Sent) > 0:
		return true, p.sent(ctx, appid, m.Sent)
	case m.Event == push.EventRevoked && m.Authorization != nil:
		return p.withdraw(ctx, appid, *m.Authorization)
	case m.Punishment != nil:
		return true, p.punish(ctx, appid, *m.Punishment)
	}
	return false, nil
}

// popup counts what a person has accepted. Somebody who accepts is a user of the mini program, known
// so far or not.
func (p *miniPushes) popup(ctx context.Context, appid string, m push.Message) error {
	erased, err := p.erased(ctx, appid, m.OpenID)
	if err != nil || erased {
		return err
	}
	if err := p.identities.UpsertMiniUser(ctx, appid, m.OpenID, ""); err != nil {
		return err
	}
	return p.ledger.Popup(ctx, appid, m.Popup)
}

// sent stores what became of messages. WeChat does not always tell whose msgid it was: then the
// person and the template say which message may be meant.
func (p *miniPushes) sent(ctx context.Context, appid string, reports []push.SentReport) error {
	for _, r := range reports {
		status := push.ReceiptSuccess
		if r.Code != 0 {
			status = "failed:" + r.Status
			status = string([]rune(status)[:min(len([]rune(status)), 64)]) // the column's width
		}
		err := p.receipts.Receipt(ctx, appid, queue.Receipt{
			MsgID: r.MsgID, OpenID: r.OpenID, TemplateID: r.TemplateID, Status: status, At: r.At})
		if err != nil {
			return err
		}
	}
	return nil
}

// erase removes a person who has closed their WeChat account. Of a plug-in's users we know nothing.
func (p *miniPushes) erase(
	ctx context.Context, appid string, a push.Authorization,
) (bool, error) {
	if a.OpenID == "" && a.UnionID == "" {
		return false, nil
	}
	_, err := p.eraser.Person(ctx, bridge.Account{AppID: appid, OpenID: a.OpenID}, a.UnionID)
	return true, err
}

func (p *miniPushes) withdraw(
	ctx context.Context, appid string, a push.Authorization,
) (bool, error) {
	if a.OpenID == "" || a.Revoked == "" {
		return false, nil
	}
	erased, err := p.erased(ctx, appid, a.OpenID)
	if err != nil || erased {
		return false, err
	}
	at := a.At
	if at.IsZero() {
		at = p.now()
	}
	who := bridge.Account{AppID: appid, OpenID: a.OpenID}
	return true, p.identities.RecordWithdrawal(ctx, who, a.Revoked, at)
}

func (p *miniPushes) erased(ctx context.Context, appid, openid string) (bool, error) {
	found, err := p.erasures.Find(ctx, p.db, appid, []string{openid})
	return found[openid], err
}

// punish raises an alarm, and pauses an account that WeChat has closed, wholly or in part: each
// message would be refused. Only a person can end that, as only a person is told when it is over.
func (p *miniPushes) punish(ctx context.Context, appid string, punished push.Punishment) error {
	p.log.ErrorContext(ctx, "WeChat has punished the mini program: see the notices in its console",
		"appid", appid, "type", punished.Type, "functions", punished.Functions,
		"reason", punished.Reason)
	var what string
	switch punished.Type {
	case push.PunishmentFunctions:
		what = "functions are banned: " + strings.Join(punished.Functions, ", ")
	case push.PunishmentShelf:
		what = "the mini program is off the shelf"
	case push.PunishmentAccount:
		what = "the account is banned"
	default:
		return nil
	}
	words := fmt.Sprintf("WeChat says that %s (%s): see the notices in its console, and when that is "+
		"over, unionbridge resume %s", what, cmp.Or(punished.Reason, "no reason given"), appid)
	words = string([]rune(words)[:min(len([]rune(words)), maxPauseReason)])
	return requests.Store{DB: p.db}.Punish(ctx, appid, words)
}
