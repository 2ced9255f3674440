package main

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/bridge/grants"
	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/wechat/push"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
	"github.com/unionbridge/unionbridge/sender/queue"
	"github.com/unionbridge/unionbridge/sender/requests"
)

const miniID = wechatsim.StandardMiniAppID

// texts returns the first column of a query.
func texts(t *testing.T, db *sqlx.DB, query string) []string {
	t.Helper()
	list := []string{}
	if err := db.SelectContext(t.Context(), &list, query); err != nil {
		t.Fatal(err)
	}
	return list
}

func eventuallyTexts(t *testing.T, db *sqlx.DB, query string, want []string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		diff := cmp.Diff(want, texts(t, db, query))
		if diff == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s (-want +got):\n%s", query, diff)
		}
	}
}

// TestMiniProgramEvents: what the simulated platform pushes, in every form and some of it twice,
// comes to its numbers; people who have closed their account leave nothing.
func TestMiniProgramEvents(t *testing.T) {
	for _, format := range []wechatsim.Format{wechatsim.FormatXML, wechatsim.FormatMixed} {
		t.Run(string(format), func(t *testing.T) {
			t.Parallel()
			const people = 12
			sim := wechatsim.NewStandard(10, 20, 0)
			defer sim.Close()
			c, db, _ := callbackBed(t, func(c *config.Config) {
				c.MiniPrograms = []config.MiniProgram{{AppID: miniID, Grants: "events",
					Callback: &config.Callback{Token: config.NewSecret("tok"),
						AESKey: c.OfficialAccounts[0].Callback.AESKey}}}
			})
			sim.SetCallback(miniID, &wechatsim.Callback{
				URL: "http://" + c.listener.Addr() + "/wechat/" + miniID, Token: "tok", Secure: true,
				AESKey: "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG", Format: format,
				Jitter: 100 * time.Millisecond, Duplicate: 0.5,
			})
			templates := wechatsim.StandardSubscribeTemplates()
			for n := range people {
				tap := wechatsim.Tap{Templates: []string{templates[0].ID, templates[1].ID}}
				if n%4 == 3 {
					tap.Answer = "reject"
				}
				if _, err := sim.Subscribe(miniID, sim.MiniUser(miniID, n), tap); err != nil {
					t.Fatal(err)
				}
			}
			var want []string
			for _, g := range sim.Grants(miniID) {
				if g.Left > 0 {
					want = append(want, fmt.Sprint(g.OpenID, " ", g.TemplateID, " ", g.Left))
				}
			}
			slices.Sort(want) // as the primary key does
			eventuallyTexts(t, db, `
				SELECT CONCAT_WS(' ', openid, template_id, remaining)
				  FROM subscription_grant ORDER BY appid, openid, template_id`,
				want)
			first, second := sim.MiniUser(miniID, 0), sim.MiniUser(miniID, 1)
			sim.SwitchOff(miniID, first, templates[0].ID)
			eventuallyTexts(t, db, `SELECT openid FROM subscription_grant WHERE off_at IS NOT NULL`,
				[]string{sim.OpenID(miniID, first)})
			sim.Authorize(miniID, first, push.EventRevoked, "8")
			eventuallyTexts(t, db, `SELECT CONCAT(openid, ' ', permission) FROM withdrawn_permission`,
				[]string{sim.OpenID(miniID, first) + " 8"})
			gone := sim.OpenID(miniID, second)
			sim.Authorize(miniID, second, push.EventCancelled, "")
			eventuallyTexts(t, db, `SELECT openid FROM mini_user WHERE openid = '`+gone+`'`, []string{})
			// The pushed openid of a person who has gone brings nobody back.
			if _, err := sim.Subscribe(miniID, second, wechatsim.Tap{
				Templates: []string{templates[2].ID}}); err != nil {
				t.Fatal(err)
			}
			third := sim.MiniUser(miniID, 2)
			sim.Authorize(miniID, third, push.EventRevoked, "9")
			eventuallyTexts(t, db, `SELECT permission FROM withdrawn_permission ORDER BY permission`,
				[]string{"8", "9"})
			for _, table := range []string{"mini_user", "subscription_grant", "grant_event"} {
				if left := texts(t, db, `SELECT openid FROM `+table+` WHERE openid = '`+gone+`'`); len(left) > 0 {
					t.Errorf("%s still has %v", table, left)
				}
			}
			if noted := texts(t, db, `SELECT value FROM erasure WHERE value = '`+gone+`'`); len(noted) != 1 {
				t.Errorf("the requests are not walked through for %v", noted)
			}
		})
	}
}

// TestPunishment: an account that WeChat has closed is paused until somebody resumes it, a warning
// pauses nothing, and an operator's own pause keeps its words.
func TestPunishment(t *testing.T) {
	db := dbtest.New(t)
	logs := new(strings.Builder)
	p := &miniPushes{db: db, sources: map[string]grants.Source{miniID: grants.None, "wx-other": grants.None},
		erasures: bridge.NewErasures(db), now: time.Now, log: slog.New(slog.NewTextHandler(logs, nil))}
	punish := func(appid string, kind int) {
		t.Helper()
		m := push.Message{Event: push.EventPunished, Punishment: &push.Punishment{Type: kind, Reason: "诱导分享",
			Functions: []string{"模版消息"}}}
		if stored, err := p.event(t.Context(), appid, m); !stored || err != nil {
			t.Errorf("type %d: %t, %v", kind, stored, err)
		}
	}
	store := requests.Store{DB: db}
	if _, err := store.Pause(t.Context(), requests.Pausable{AppID: "wx-other"}, "ours"); err != nil {
		t.Fatal(err)
	}
	punish("wx-other", push.PunishmentAccount)
	punish(miniID, 1)
	if !strings.Contains(logs.String(), "level=ERROR") || !strings.Contains(logs.String(), "诱导分享") {
		t.Errorf("the log says %s", logs)
	}
	paused := `SELECT CONCAT_WS(' ', appid, scope, reason) FROM account_state ORDER BY appid`
	ours := "wx-other operator operator"
	eventuallyTexts(t, db, paused, []string{ours})
	for _, kind := range []int{push.PunishmentFunctions, push.PunishmentShelf, push.PunishmentAccount} {
		punish(miniID, kind)
		eventuallyTexts(t, db, paused, []string{ours, miniID + " operator punished"})
		pauses, err := store.Pauses(t.Context())
		if err != nil || len(pauses) != 2 || pauses[0].ErrMsg != "ours" || !pauses[1].Punished() ||
			!strings.Contains(pauses[1].ErrMsg, "诱导分享") || !strings.Contains(pauses[1].ErrMsg, "unionbridge resume") {
			t.Fatalf("%+v (%v)", pauses, err)
		}
		if ended, err := store.Resume(t.Context(), requests.Pausable{AppID: miniID}); len(ended) != 1 || err != nil {
			t.Fatal(ended, err)
		}
	}
}

// TestMiniProgramReports: what became of messages is a receipt, also where WeChat does not name the
// message, and what concerns nobody is left alone.
func TestMiniProgramReports(t *testing.T) {
	receipts := make(receiptList, 10)
	p := &miniPushes{sources: grantSources(&config.Config{
		MiniPrograms: []config.MiniProgram{{AppID: miniID, Grants: "none"}}}),
		receipts: receipts, now: time.Now}
	event := func(appid string, m push.Message, want bool) {
		t.Helper()
		if stored, err := p.event(t.Context(), appid, m); stored != want || err != nil {
			t.Errorf("%s of %s: %t, %v", m.Event, appid, stored, err)
		}
	}
	sent := push.Message{Event: push.EventSent, Sent: []push.SentReport{
		{OpenID: "o1", MsgID: 1}, {OpenID: "o1", MsgID: 2, Code: 43101, Status: strings.Repeat("x", 64)},
		{OpenID: "o1", TemplateID: "t1", Code: 43101, Status: "user refuse"},
	}}
	event(miniID, sent, true)
	if r := <-receipts; r.MsgID != 1 || r.Status != push.ReceiptSuccess {
		t.Errorf("%+v", r)
	}
	if r := <-receipts; r.MsgID != 2 || len(r.Status) != 64 || !strings.HasPrefix(r.Status, "failed:x") {
		t.Errorf("%+v", r)
	}
	want := queue.Receipt{OpenID: "o1", TemplateID: "t1", Status: "failed:user refuse"}
	if r := <-receipts; r != want {
		t.Errorf("without an msgid: %+v, want %+v", r, want)
	}
	event(miniID, push.Message{Event: push.EventInfoModified,
		Authorization: &push.Authorization{OpenID: "o1"}}, false)
	event(wechatsim.StandardAppID, sent, false)
}
