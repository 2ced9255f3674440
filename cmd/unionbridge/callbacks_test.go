package main

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/wechat/push"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// receiptList is a receiptStore.
type receiptList chan queue.Receipt

func (l receiptList) Receipt(_ context.Context, _ string, r queue.Receipt) error {
	l <- r
	return nil
}

// callbackBed is the whole way of a push, from the configuration to the map.
func callbackBed(t *testing.T, change func(*config.Config)) (*callbacks, *sqlx.DB, receiptList) {
	t.Helper()
	db := dbtest.New(t)
	cfg := &config.Config{
		HTTP: config.HTTP{CallbackListen: "127.0.0.1:0"},
		OfficialAccounts: []config.OfficialAccount{{
			AppID: wechatsim.StandardAppID, Secret: config.NewSecret(wechatsim.StandardSecret),
			Callback: &config.Callback{Token: config.NewSecret("tok"),
				AESKey: config.NewSecret("abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG")},
		}},
	}
	change(cfg)
	registry, receipts := prometheus.NewRegistry(), make(receiptList, 10)
	p := newParts(cfg, slog.New(slog.DiscardHandler), registry, db)
	c, err := p.callbacks(p.sync(nil), receipts)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.start(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := c.stop(ctx); err != nil {
			t.Errorf("stopping: %v", err)
		}
	})
	return c, db, receipts
}

// TestCallbacksOff: without a listener or an account nothing is built, and what calls it need not
// know.
func TestCallbacksOff(t *testing.T) {
	for name, change := range map[string]func(*config.Config){
		"no callback_listen": func(c *config.Config) { c.HTTP.CallbackListen = "" },
		"no callback":        func(c *config.Config) { c.OfficialAccounts[0].Callback = nil },
	} {
		c, _, _ := callbackBed(t, change)
		if c != nil || c.failed() != nil {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

// TestPushesReachTheirOwners: a receipt the sender, an unfollow the map, a previous key still
// opens.
func TestPushesReachTheirOwners(t *testing.T) {
	const previous = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
	sim := wechatsim.NewStandard(10, 0, 0)
	defer sim.Close()
	c, db, _ := callbackBed(t, func(c *config.Config) {
		c.OfficialAccounts[0].Callback.PreviousAESKey = config.NewSecret(previous)
	})
	openid := sim.OpenID(wechatsim.StandardAppID, 3)
	if _, err := db.ExecContext(t.Context(), `INSERT INTO follower (appid, openid) VALUES (?, ?)`,
		wechatsim.StandardAppID, openid); err != nil {
		t.Fatal(err)
	}
	url := "http://" + c.listener.Addr() + "/wechat/" + wechatsim.StandardAppID
	sim.SetCallback(wechatsim.StandardAppID,
		&wechatsim.Callback{URL: url, Token: "tok", AESKey: previous, Secure: true})
	sim.Unfollow(wechatsim.StandardAppID, 3)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var gone bool
		if err := db.GetContext(t.Context(), &gone,
			`SELECT subscribed = 0 FROM follower WHERE openid = ?`, openid); err != nil {
			t.Fatal(err)
		}
		if gone {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the unfollow is not in the map")
		}
	}
	resp, err := http.Post(url, "text/xml", strings.NewReader("<xml/>"))
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusForbidden {
		t.Errorf("an unsigned push: %s", resp.Status)
	}
}

// blockList is a blocker.
type blockList []bridge.Block

func (l *blockList) RecordBlock(_ context.Context, r bridge.Block, _ time.Duration) error {
	*l = append(*l, r)
	return nil
}

// TestReceiptsReachTheirOwners: each receipt is stored, also one without a time, and the map hears
// of the people who block an account that wants to know.
func TestReceiptsReachTheirOwners(t *testing.T) {
	const appid, other = "wx0000000000000001", "wx0000000000000002"
	now := time.Now()
	for _, c := range []struct {
		name    string
		appid   string
		receipt push.Receipt
		blocked bool
	}{
		{"delivered", appid, push.Receipt{MsgID: 7, OpenID: "o", Status: push.ReceiptSuccess},
			false},
		{"blocked", appid, push.Receipt{MsgID: 8, OpenID: "o", Status: push.ReceiptUserBlock},
			true},
		{"not wanted", other, push.Receipt{MsgID: 9, OpenID: "o", Status: push.ReceiptUserBlock},
			false},
	} {
		receipts, blocks := make(receiptList, 1), blockList{}
		p := pushes{
			receipts: receipts, identities: &blocks, now: func() time.Time { return now },
			blockedFor: map[string]time.Duration{appid: time.Hour, other: 0},
		}
		if err := p.Receipt(t.Context(), c.appid, c.receipt); err != nil {
			t.Fatal(err)
		}
		if r := <-receipts; r.MsgID != c.receipt.MsgID || !r.At.Equal(now) {
			t.Errorf("%s: stored %+v", c.name, r)
		}
		if (len(blocks) == 1) != c.blocked || c.blocked && !blocks[0].At.Equal(now) {
			t.Errorf("%s: blocks %+v", c.name, blocks)
		}
	}
}

// TestReceiptOfErased: a receipt that comes late brings nobody's openid back.
func TestReceiptOfErased(t *testing.T) {
	db, receipts := dbtest.New(t), make(receiptList, 2)
	erasures := bridge.NewErasures(db)
	err := database.InTx(t.Context(), db, func(ctx context.Context, tx *sqlx.Tx) error {
		_, err := erasures.Erase(ctx, tx, bridge.Account{AppID: "wx1", OpenID: "gone"}, "")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	store := remainingReceipts{receipts, db, erasures}
	for _, openid := range []string{"gone", "here"} {
		if err := store.Receipt(t.Context(), "wx1", queue.Receipt{MsgID: 1, OpenID: openid}); err != nil {
			t.Fatal(err)
		}
	}
	if r := <-receipts; r.OpenID != "here" || len(receipts) > 0 {
		t.Errorf("stored %+v and %d more", r, len(receipts))
	}
}
