package erasure

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/bridge/grants"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechat/push"
	"github.com/unionbridge/unionbridge/sender/queue"
)

const (
	oa   = "wx00000000000000aa"
	mini = "wx00000000000000bb"
	tmpl = "tmpl-1"
)

// The ids of the person who is erased, and of one who is not.
const (
	gone, goneMini, goneOA = "union-gone", "mini-gone", "oa-gone"
	stay, stayMini, stayOA = "union-stay", "mini-stay", "oa-stay"
)

type fixture struct {
	db         *sqlx.DB
	eraser     *Eraser
	identities *bridge.Map
	ledger     *grants.Ledger
	queue      *queue.Queue
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	db := dbtest.New(t)
	f := &fixture{db: db, identities: bridge.New(db), queue: queue.New(db),
		ledger: grants.New(grants.Config{DB: db, Sources: map[string]grants.Source{mini: grants.Both},
			Logger: slog.New(slog.DiscardHandler)}),
		eraser: New(Config{DB: db, Logger: slog.New(slog.DiscardHandler), Now: time.Now})}
	f.eraser.settleTime = 0 // what is on its way has arrived when a test finishes an erasure
	f.exec(t, `INSERT INTO mini_user (appid, openid, unionid) VALUES (?, ?, ?), (?, ?, ?)`,
		mini, goneMini, gone, mini, stayMini, stay)
	f.exec(t, `INSERT INTO follower (appid, openid, unionid) VALUES (?, ?, ?), (?, ?, ?)`,
		oa, goneOA, gone, oa, stayOA, stay)
	return f
}

func (f *fixture) exec(t *testing.T, query string, args ...any) int64 {
	t.Helper()
	res, err := f.db.ExecContext(t.Context(), query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	id, err := res.LastInsertId()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func (f *fixture) erase(t *testing.T) {
	t.Helper()
	if _, err := f.eraser.Person(t.Context(), bridge.Account{AppID: mini, OpenID: goneMini}, ""); err != nil {
		t.Fatal(err)
	}
	f.finish(t)
}

func (f *fixture) finish(t *testing.T) {
	t.Helper()
	if done, err := f.eraser.Finish(t.Context()); !done || err != nil {
		t.Fatalf("the erasure is done: %t, %v", done, err)
	}
}

// holding returns where the database has any of the texts: "table.column".
func (f *fixture) holding(t *testing.T, texts ...string) (found []string) {
	t.Helper()
	var columns []struct {
		Table  string `db:"t"`
		Column string `db:"c"`
	}
	if err := f.db.SelectContext(t.Context(), &columns, `
		SELECT c.table_name AS t, c.column_name AS c
		  FROM information_schema.columns c
		  JOIN information_schema.tables b USING (table_schema, table_name)
		 WHERE c.table_schema = DATABASE() AND b.table_type = 'BASE TABLE'
		   AND c.data_type IN ('char', 'varchar', 'text', 'longtext', 'mediumtext', 'json', 'blob')
		 ORDER BY c.table_name, c.column_name`); err != nil {
		t.Fatal(err)
	}
	for _, c := range columns {
		for _, text := range texts {
			var n int
			query := fmt.Sprintf("SELECT COUNT(*) FROM `%s` WHERE INSTR(CAST(`%s` AS CHAR), ?) > 0", c.Table, c.Column)
			if err := f.db.GetContext(t.Context(), &n, query, text); err != nil {
				t.Fatalf("%s: %v", query, err)
			}
			if n > 0 {
				found = append(found, fmt.Sprintf("%s.%s has %s", c.Table, c.Column, text))
			}
		}
	}
	return found
}

// insert inserts a request with what a text can be in it.
func (f *fixture) insert(t *testing.T, status, column, id string) int64 {
	t.Helper()
	return f.exec(t, `
		INSERT INTO send_request (appid, mini_appid, `+column+`, template, data, url, page, mini_path, dedup_key,
		                          status, errmsg, warning, sent_openid, lease, uncertain_at, finished_at)
		VALUES (?, ?, ?, 'order', ?, ?, ?, ?, ?, ?, ?, ?, ?, 'token', NOW(3), NULL)`,
		oa, mini, id, `{"thing1":"`+id+`"}`, "https://shop/"+id, "p?id="+id, "m?id="+id,
		fmt.Sprintf("%s-%s-%s", status, column, id), status, "to "+id, "cut for "+id,
		map[string]string{gone: goneOA, goneMini: goneOA, goneOA: goneOA}[id])
}

var statuses = []string{"pending", "waiting", "sent", "failed", "expired", "cancelled", "unknown"}

// TestErase: a person is erased from every table, open requests end, finished ones keep how they
// ended, and nobody else is touched.
func TestErase(t *testing.T) {
	f := newFixture(t)
	want := map[int64]string{}
	for _, status := range statuses {
		end := map[string]string{"pending": "cancelled erased", "waiting": "cancelled erased",
			"unknown": "cancelled erased"}[status]
		if end == "" {
			end = status + " "
		}
		for column, ids := range map[string][2]string{"unionid": {gone, stay},
			"mini_openid": {goneMini, stayMini}, "openid": {goneOA, stayOA}} {
			want[f.insert(t, status, column, ids[0])] = end + "{}"
			want[f.insert(t, status, column, ids[1])] = status + ` {"thing1":"` + ids[1] + `"}`
		}
	}
	for id := range want {
		f.exec(t, `INSERT INTO send_wait (request_id, kind, appid, value)
			SELECT id, 'unionid', ?, COALESCE(unionid, mini_openid, openid) FROM send_request WHERE id = ? AND status = 'waiting'`, oa, id)
	}
	f.exec(t, `INSERT INTO send_request_archive (id, appid, mini_openid, template, data, priority, status, attempts, sent_openid, page)
		VALUES (1, ?, ?, 'order', '{}', 1, 'sent', 1, ?, ?)`, oa, goneMini, goneOA, goneMini)
	f.exec(t, `INSERT INTO send_receipt (appid, msgid, openid, status) VALUES (?, 1, ?, 'success'), (?, 2, ?, 'success')`,
		oa, goneOA, oa, stayOA)
	for _, id := range []string{goneMini, stayMini} {
		f.exec(t, `INSERT INTO subscription_grant (appid, openid, template_id) VALUES (?, ?, ?)`, mini, id, tmpl)
		f.exec(t, `INSERT INTO grant_event (appid, openid, template_id, event_key, kind, source) VALUES (?, ?, ?, 'k', 'accept', 'event')`, mini, id, tmpl)
		f.exec(t, `INSERT INTO subscription_report (appid, openid, template_id, result, report_key) VALUES (?, ?, ?, 'accept', ?)`, mini, id, tmpl, id)
		f.exec(t, `INSERT INTO withdrawn_permission (appid, openid, permission) VALUES (?, ?, '8')`, mini, id)
		f.exec(t, `INSERT INTO send_attempt (request_id, appid, openid, template_id, lease) SELECT MAX(id), ?, ?, ?, 'l' FROM send_request WHERE mini_openid = ?`, mini, id, tmpl, id)
	}
	f.erase(t)
	if left := f.holding(t, gone, goneMini, goneOA); len(left) > 0 {
		t.Errorf("the person still stands in\n%s", strings.Join(left, "\n"))
	}
	got := map[int64]string{}
	var rows []struct {
		ID     int64          `db:"id"`
		Status string         `db:"status"`
		Reason sql.NullString `db:"reason"`
		Data   string         `db:"data"`
	}
	if err := f.db.SelectContext(t.Context(), &rows, `SELECT id, status, reason, REPLACE(data, ': ', ':') AS data FROM send_request`); err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		got[r.ID] = r.Status + " " + r.Reason.String + r.Data
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	for _, query := range []string{
		`SELECT COUNT(*) = 1 FROM mini_user WHERE openid = '` + stayMini + `'`,
		`SELECT COUNT(*) = 1 FROM follower WHERE openid = '` + stayOA + `'`,
		`SELECT COUNT(*) = 3 FROM send_wait`,
		`SELECT COUNT(*) = 1 FROM send_attempt`, `SELECT COUNT(*) = 1 FROM grant_event`,
		`SELECT COUNT(*) = 1 FROM subscription_grant`, `SELECT COUNT(*) = 1 FROM subscription_report`,
		`SELECT COUNT(*) = 1 FROM withdrawn_permission`, `SELECT COUNT(*) = 2 FROM send_receipt`,
		`SELECT COUNT(*) = 1 FROM send_request_archive`,
	} {
		var ok bool
		if err := f.db.GetContext(t.Context(), &ok, query); err != nil || !ok {
			t.Errorf("%s: %t (%v)", query, ok, err)
		}
	}
}

// TestEraseNobodyElse: the same text as an openid of another account is another person.
func TestEraseNobodyElse(t *testing.T) {
	f := newFixture(t)
	f.exec(t, `INSERT INTO send_request (appid, openid, template, data, sent_openid) VALUES ('wx-other', ?, 't', '{}', ?)`, goneOA, goneOA)
	f.exec(t, `INSERT INTO send_request (mini_appid, mini_openid, template, data) VALUES ('wx-other', ?, 't', '{}')`, goneMini)
	f.exec(t, `INSERT INTO send_request (openid, template, data, dedup_key) VALUES (?, 't', '{}', 'order 7')`, goneOA)
	f.erase(t)
	var left int
	if err := f.db.GetContext(t.Context(), &left, `SELECT COUNT(*) FROM send_request WHERE status = 'pending'`); err != nil || left != 2 {
		t.Errorf("%d requests are open (%v), want the two of other accounts", left, err)
	}
	var key string
	if err := f.db.GetContext(t.Context(), &key, `SELECT dedup_key FROM send_request WHERE status = 'cancelled'`); err != nil || key != "order 7" {
		t.Errorf("the dedup_key without an id is %q (%v)", key, err)
	}
}

// TestEraseResumes: what a killed instance has begun, another one finishes, although the map no
// longer says who the person was.
func TestEraseResumes(t *testing.T) {
	f := newFixture(t)
	for _, status := range statuses {
		f.insert(t, status, "unionid", gone)
	}
	if _, err := f.eraser.begin(t.Context(), bridge.Account{AppID: mini, OpenID: goneMini}, ""); err != nil {
		t.Fatal(err)
	}
	held := f.insert(t, "waiting", "openid", goneOA)
	tx, err := f.db.BeginTxx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(`UPDATE send_request SET cancel = 1 WHERE id = ?`, held); err != nil {
		t.Fatal(err)
	}
	if done, err := f.eraser.Finish(t.Context()); done || err != nil {
		t.Errorf("with a row that another transaction holds: %t, %v", done, err)
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	f.finish(t)
	if left := f.holding(t, gone, goneMini, goneOA); len(left) > 0 {
		t.Errorf("the person still stands in\n%s", strings.Join(left, "\n"))
	}
}

// TestReturn: whoever logs in or follows after the erasure is there again; what is late is not.
func TestReturn(t *testing.T) {
	f := newFixture(t)
	f.erase(t)
	follow := func(at time.Time) {
		t.Helper()
		info := wechat.UserInfo{OpenID: goneOA, UnionID: gone, Subscribed: true, SubscribeTime: at.Unix()}
		if err := f.identities.Store(t.Context(), oa, []wechat.UserInfo{info}, time.Now()); err != nil {
			t.Fatal(err)
		}
		// Their openid at an account of which the map did not know.
		info.OpenID = "oa2-gone"
		if err := f.identities.Store(t.Context(), "wx-oa2", []wechat.UserInfo{info}, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	people := func() (n int) {
		t.Helper()
		if err := f.db.GetContext(t.Context(), &n, `SELECT (SELECT COUNT(*) FROM follower WHERE unionid = ?) + (SELECT COUNT(*) FROM mini_user WHERE unionid = ?)`, gone, gone); err != nil {
			t.Fatal(err)
		}
		return n
	}
	follow(time.Now().Add(-time.Hour))
	for _, seen := range []time.Time{{}, time.Now().Add(-time.Hour)} {
		users := []bridge.MiniUser{{AppID: mini, OpenID: goneMini, UnionID: gone, SeenAt: seen}}
		if _, err := f.identities.ImportMiniUsers(t.Context(), users, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.identities.NoteFollow(t.Context(), oa, goneOA, time.Now().Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if err := f.identities.NoteUnfollow(t.Context(), oa, goneOA, time.Now()); err != nil {
		t.Fatal(err)
	}
	f.finish(t)
	if left := f.holding(t, gone, goneMini, goneOA, "oa2-gone"); len(left) > 0 {
		t.Errorf("what was late has left\n%s", strings.Join(left, "\n"))
	}
	follow(time.Now().Add(time.Hour))
	if n := people(); n != 2 {
		t.Errorf("after a new follow of two accounts the map has %d of them", n)
	}
	f.erase(t)
	f.exec(t, `INSERT INTO mini_user (appid, openid, unionid) VALUES (?, ?, ?)`, mini, goneMini, gone)
	choice := push.Choice{OpenID: goneMini, TemplateID: tmpl, Result: "accept", At: time.Now()}
	if err := f.ledger.Popup(t.Context(), mini, []push.Choice{choice}); err != nil {
		t.Fatal(err)
	}
	if found, err := f.ledger.Lookup(t.Context(), mini, goneMini); err != nil || len(found) != 1 {
		t.Errorf("after a new login an acceptance is %v (%v)", found, err)
	}
}

// TestEraseConcurrently: pushes, settles, sweeps, imports and logins write while a person is erased.
// When those that were under way have ended, nothing is left.
func TestEraseConcurrently(t *testing.T) {
	f := newFixture(t)
	for _, status := range statuses {
		f.insert(t, status, "unionid", gone)
		f.insert(t, status, "openid", goneOA)
	}
	f.exec(t, `UPDATE send_request SET lease = 'token' WHERE status = 'pending'`)
	ctx := t.Context() // not cancelled: a server may carry out a statement that nobody waits for
	var writers sync.WaitGroup
	var over atomic.Bool
	write := func(what string, once func(n int) error) {
		writers.Go(func() {
			for n := 0; !over.Load(); n++ {
				if err := once(n); err != nil {
					t.Errorf("%s: %v", what, err)
				}
			}
		})
	}
	info := wechat.UserInfo{OpenID: goneOA, UnionID: gone, Subscribed: true, SubscribeTime: 1}
	write("sweep", func(int) error {
		return f.identities.Store(ctx, oa, []wechat.UserInfo{info}, time.Now())
	})
	write("follow", func(int) error {
		return f.identities.NoteFollow(ctx, oa, goneOA, time.Now().Add(-time.Hour))
	})
	write("recheck", func(int) error {
		return f.identities.RequestRecheck(ctx, oa, []string{goneOA}, bridge.RecheckSendRefused)
	})
	write("push", func(n int) error {
		return f.ledger.Popup(ctx, mini, []push.Choice{{OpenID: goneMini, TemplateID: tmpl, Result: "accept",
			At: time.Now().Add(-time.Duration(n) * time.Second)}})
	})
	write("import", func(int) error {
		_, err := f.identities.ImportMiniUsers(ctx, []bridge.MiniUser{{AppID: mini, OpenID: goneMini, UnionID: gone}}, true)
		return err
	})
	write("login", func(int) error {
		return f.identities.UpsertMiniUser(ctx, mini, goneMini, gone)
	})
	var ids []int64
	if err := f.db.SelectContext(ctx, &ids, `SELECT id FROM send_request`); err != nil {
		t.Fatal(err)
	}
	write("settle", func(int) error {
		r := queue.Result{ID: ids[rand.N(len(ids))], Token: "token", Status: queue.Sent, MsgID: rand.Int64(), OpenID: goneOA, Channel: queue.DefaultChannel}
		if rand.N(2) == 0 {
			r.Status, r.Waits = queue.Waiting, &queue.Waits{{Kind: "unionid", AppID: oa, Value: gone}}
		}
		_, err := f.queue.Settle(ctx, []queue.Result{r}, queue.SettleOrder{})
		return err
	})
	for range 3 {
		if _, err := f.eraser.Person(ctx, bridge.Account{AppID: mini, OpenID: goneMini}, gone); err != nil {
			t.Error(err)
		}
		f.eraser.settleTime = time.Hour
		if _, err := f.eraser.Finish(ctx); err != nil {
			t.Error(err)
		}
	}
	over.Store(true)
	writers.Wait()
	f.eraser.settleTime = 0
	f.finish(t)
	if left := f.holding(t, gone, goneMini, goneOA); len(left) > 0 {
		t.Errorf("the person still stands in\n%s", strings.Join(left, "\n"))
	}
}

// TestRun: the daemon finishes what any instance has begun.
func TestRun(t *testing.T) {
	f := newFixture(t)
	f.insert(t, "sent", "unionid", gone)
	leases := database.NewLeases(f.db, database.LeaseConfig{Holder: "one", TTL: 10 * time.Second})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = leases.Run(ctx) })
	f.eraser.cfg.Leases = leases
	running.Go(func() { f.eraser.Run(ctx) })
	defer running.Wait()
	defer cancel()
	if _, err := f.eraser.Person(t.Context(), bridge.Account{AppID: mini, OpenID: goneMini}, ""); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left := f.holding(t, gone, goneMini, goneOA)
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the person still stands in\n%s", strings.Join(left, "\n"))
		}
	}
}
