package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/web/callback"
	"github.com/unionbridge/unionbridge/internal/wechat/push"
	"github.com/unionbridge/unionbridge/sender/queue"
	"github.com/unionbridge/unionbridge/sync"
)

type receiptStore interface {
	Receipt(ctx context.Context, appid string, r queue.Receipt) error
}

// remainingReceipts stores the receipts of people who have not been erased.
type remainingReceipts struct {
	receiptStore
	db       *sqlx.DB
	erasures *bridge.Erasures
}

func (s remainingReceipts) Receipt(ctx context.Context, appid string, r queue.Receipt) error {
	erased, err := s.erasures.Find(ctx, s.db, appid, []string{r.OpenID})
	if err != nil || erased[r.OpenID] {
		return err
	}
	return s.receiptStore.Receipt(ctx, appid, r)
}

type blocker interface {
	RecordBlock(ctx context.Context, r bridge.Block, d time.Duration) error
}

// callbacks is everything that takes WeChat's pushes: the listener, and the events that lead to
// questions. A nil one is switched off, and its methods do nothing.
type callbacks struct {
	listener *callback.Listener
	events   *sync.Events
}

// callbacks returns nil without an http.callback_listen, or an account with a callback.
func (p *parts) callbacks(service *sync.Service, receipts receiptStore) (*callbacks, error) {
	if p.cfg.HTTP.CallbackListen == "" {
		return nil, nil
	}
	accounts, blockedFor := make(map[string]*push.Callback), make(map[string]time.Duration)
	for i, a := range p.cfg.OfficialAccounts {
		if a.Callback == nil {
			continue
		}
		account, err := pushAccount(a.AppID, a.Callback)
		if err != nil {
			return nil, fmt.Errorf("official_accounts[%d].callback: %w", i, err)
		}
		accounts[a.AppID], blockedFor[a.AppID] = account, a.Send.BlockedFor.Std()
	}
	for i, m := range p.cfg.MiniPrograms {
		if m.Callback == nil {
			continue
		}
		account, err := pushAccount(m.AppID, m.Callback)
		if err != nil {
			return nil, fmt.Errorf("mini_programs[%d].callback: %w", i, err)
		}
		accounts[m.AppID] = account
	}
	if len(accounts) == 0 {
		p.log.Warn("http.callback_listen is set, but no account has a callback: " +
			"nothing listens there")
		return nil, nil
	}
	receipts = remainingReceipts{receipts, p.db, bridge.NewErasures(p.db)}
	events := sync.NewEvents(service)
	store := pushes{
		receipts: receipts, identities: bridge.New(p.db), events: events, blockedFor: blockedFor,
		minis: p.miniPushes(receipts), now: time.Now,
	}
	return &callbacks{events: events, listener: callback.New(callback.Config{
		Listen: p.cfg.HTTP.CallbackListen, Accounts: accounts, Store: store, Logger: p.log,
		Registerer: p.reg, Now: time.Now,
	})}, nil
}

func pushAccount(appid string, c *config.Callback) (*push.Callback, error) {
	return push.New(push.Config{
		AppID: appid, Token: c.Token.Reveal(), AESKey: c.AESKey.Reveal(),
		PreviousAESKey: c.PreviousAESKey.Reveal(), Now: time.Now,
	})
}

// pushes hands receipts to the sender, and follows and blocks to the map.
type pushes struct {
	receipts   receiptStore
	identities blocker
	events     *sync.Events
	minis      *miniPushes
	blockedFor map[string]time.Duration // by appid; 0: a person who blocks the account is not noted
	now        func() time.Time
}

// Receipt stores a receipt. That the person blocks the account's messages is noted in the map, so
// that later requests to them fail at once: for a repeated receipt too, as the process may have
// died between the two statements.
func (p pushes) Receipt(ctx context.Context, appid string, r push.Receipt) error {
	if r.At.IsZero() {
		r.At = p.now()
	}
	err := p.receipts.Receipt(ctx, appid, queue.Receipt{
		MsgID: r.MsgID, OpenID: r.OpenID, Status: r.Status, At: r.At,
	})
	if err != nil || r.Status != push.ReceiptUserBlock || p.blockedFor[appid] <= 0 {
		return err
	}
	block := bridge.Block{AppID: appid, OpenID: r.OpenID, At: r.At}
	return p.identities.RecordBlock(ctx, block, p.blockedFor[appid])
}

func (p pushes) Follow(ctx context.Context, appid string, e push.FollowEvent) error {
	return p.events.Follow(ctx, appid, e)
}

// Event stores the events of mini programs, and that somebody has closed their WeChat account.
func (p pushes) Event(ctx context.Context, appid string, m push.Message) (bool, error) {
	return p.minis.event(ctx, appid, m)
}

// start begins to take pushes. The listener fails here where its address is taken.
func (c *callbacks) start(ctx context.Context) error {
	if c == nil {
		return nil
	}
	if err := c.listener.Start(ctx); err != nil {
		return err
	}
	c.events.Start(ctx)
	return nil
}

// stop closes the intake and then ends the questions.
func (c *callbacks) stop(ctx context.Context) error {
	if c == nil {
		return nil
	}
	return errors.Join(c.listener.Stop(ctx), c.events.Stop(ctx))
}

// failed receives one error if the listener ends without stop; a nil one never does.
func (c *callbacks) failed() <-chan error {
	if c == nil {
		return nil
	}
	return c.listener.Failed()
}
