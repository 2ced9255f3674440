package sender

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechat/keyword"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/channel/oatemplate"
	"github.com/unionbridge/unionbridge/sender/queue"
)

const (
	appid  = wechatsim.StandardAppID
	miniID = wechatsim.StandardMiniAppID
)

// fixture is a sender on a real database that talks to a simulated WeChat. Nothing runs until
// start.
type fixture struct {
	sim           *wechatsim.Server
	db            *sqlx.DB
	identities    *bridge.Map
	server        *httptest.Server
	templateID    string
	otherTemplate string // has the one keyword thing1
	channel       oatemplate.Config
	config        Config
	running       *Service         // the last instance that was started
	leaseClock    func() time.Time // of a stepper's lease; nil: time.Now
}

// newFixture makes an account with 100 followers, persons 0 to 99, who are in the map and in
// mini_user.
func newFixture(t *testing.T) *fixture {
	t.Helper()
	return newFixtureOf(t, wechatsim.Standard(100, 100, 0))
}

// newFixtureOf is newFixture with other options, of the same people.
func newFixtureOf(t *testing.T, options wechatsim.Options) *fixture {
	t.Helper()
	sim := wechatsim.New(options)
	f := &fixture{sim: sim, db: dbtest.New(t), server: httptest.NewServer(sim), templateID: wechatsim.StandardTemplates()[0].ID,
		otherTemplate: wechatsim.StandardTemplates()[1].ID}
	t.Cleanup(f.server.Close)
	f.identities = bridge.New(f.db)
	infos := make([]wechat.UserInfo, 100)
	for i := range infos {
		infos[i] = wechat.UserInfo{OpenID: sim.OpenID(appid, i), UnionID: f.unionid(i), Subscribed: true}
	}
	if err := f.identities.Store(t.Context(), appid, infos, time.Now()); err != nil {
		t.Fatal(err)
	}
	for _, u := range sim.MiniUsers(miniID, 0, 100) {
		if err := f.identities.UpsertMiniUser(t.Context(), miniID, u.OpenID, u.UnionID); err != nil {
			t.Fatal(err)
		}
	}
	client := f.client()
	f.channel = oatemplate.Config{
		AppID: appid, API: client, Identities: f.identities, MiniApps: []string{miniID},
		Aliases: map[string]oatemplate.Alias{"order": {ID: f.templateID}},
		Logger:  slog.New(slog.DiscardHandler), Now: time.Now,
	}
	f.config = Config{
		DB: f.db, SendTimeout: 2 * time.Second, Now: time.Now, MiniAppIDs: []string{miniID},
		Templates: map[string]map[string]string{
			"order": {appid: f.templateID}, "elsewhere": {"wx00000000000000ff": f.templateID},
		},
		Logger:     slog.New(slog.DiscardHandler),
		QuotaDay:   func(now time.Time) time.Time { return wechat.QuotaDay(now, 0) },
		QuotaReset: func(now time.Time) time.Time { return wechat.QuotaReset(now, 0) },
		Accounts: []Account{{
			AppID: appid, Rate: 5000, Concurrency: 8, MaxAttempts: 4, Wait: time.Hour, Default: true,
			ResendWindow: 9 * time.Minute, Calls: Calls{Quota: quotaOf(client)},
		}},
	}
	return f
}

// client is a new client of the simulated account, with a token of its own to fetch.
func (f *fixture) client() *wechat.Client {
	return wechat.New(wechat.Config{
		AppID: appid, Secret: wechatsim.StandardSecret, BaseURL: f.server.URL,
		Timeout: 2 * time.Second, SendTimeout: 2 * time.Second, MaxConnections: 16,
	})
}

func quotaOf(c *wechat.Client) func(context.Context, string) (limit, remaining int64, err error) {
	return func(ctx context.Context, path string) (limit, remaining int64, err error) {
		quota, err := c.Quota(ctx, path)
		return quota.DailyLimit, quota.Remain, err
	}
}

func (f *fixture) setClock(now func() time.Time) { f.config.Now, f.channel.Now = now, now }

// service returns an instance by what the fixture is configured to be.
func (f *fixture) service(t *testing.T, leases *database.Leases, reg prometheus.Registerer) *Service {
	t.Helper()
	config := f.config
	config.Leases, config.Registerer = leases, reg
	config.Accounts = slices.Clone(config.Accounts)
	if config.Accounts[0].Channels == nil {
		config.Accounts[0].Channels = []channel.Channel{oatemplate.New(f.channel)}
	}
	s, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (f *fixture) unionid(person int) string {
	id, _ := f.sim.Identify(appid, f.sim.OpenID(appid, person))
	return id.UnionID
}

// start runs an instance; the returned function stops it and waits.
func (f *fixture) start(t *testing.T, holder string) (stop func()) {
	t.Helper()
	leases := database.NewLeases(f.db, database.LeaseConfig{Holder: holder, TTL: 10 * time.Second})
	ctx, cancel := context.WithCancel(context.Background())
	leasesDone := make(chan struct{})
	go func() {
		defer close(leasesDone)
		_ = leases.Run(ctx)
	}()
	s := f.service(t, leases, prometheus.NewRegistry())
	f.running = s
	if err := s.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		cancel()
		<-leasesDone
	}
	t.Cleanup(stop)
	return stop
}

// columns are what a producer writes; a missing data or template gets a good one.
type columns map[string]any

func (f *fixture) insert(t *testing.T, c columns) int64 {
	t.Helper()
	for name, value := range (columns{"template": "order", "data": f.data("A-1024")}) {
		if _, ok := c[name]; !ok {
			c[name] = value
		}
	}
	var names, marks []string
	var args []any
	for name, value := range c {
		names, marks, args = append(names, name), append(marks, "?"), append(args, value)
	}
	res, err := f.db.ExecContext(t.Context(), fmt.Sprintf("INSERT INTO send_request (%s) VALUES (%s)",
		strings.Join(names, ", "), strings.Join(marks, ", ")), args...)
	if err != nil {
		t.Fatal(err)
	}
	id, err := res.LastInsertId()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// data fills the keys of the standard template.
func (f *fixture) data(order string) string {
	fields := map[string]string{}
	for _, key := range keyword.Parse(wechatsim.StandardTemplates()[0].Content).Names() {
		switch {
		case strings.HasPrefix(key, "time"):
			fields[key] = "2026-01-02 15:04"
		case strings.HasPrefix(key, "amount"):
			fields[key] = "39.80元"
		case strings.HasPrefix(key, "character_string"):
			fields[key] = order
		default:
			fields[key] = "咖啡 & 茶"
		}
	}
	text, _ := json.Marshal(fields)
	return string(text)
}

// outcome is a row as its producer may see it.
type outcomeRow struct {
	Status   string  `db:"status"`
	Reason   *string `db:"reason"`
	ErrCode  *int    `db:"errcode"`
	ErrMsg   *string `db:"errmsg"`
	Attempts int     `db:"attempts"`
	MsgID    *int64  `db:"msgid"`
	OpenID   *string `db:"sent_openid"`
	Channel  *string `db:"channel"`
	AppID    *string `db:"appid"`
}

func (r outcomeRow) reason() string {
	if r.Reason == nil {
		return ""
	}
	return *r.Reason
}

func (f *fixture) row(t *testing.T, id int64) outcomeRow {
	t.Helper()
	var r outcomeRow
	err := f.db.GetContext(t.Context(), &r, `
		SELECT status, reason, errcode, errmsg, attempts, msgid, sent_openid, channel, appid FROM send_request WHERE id = ?`, id)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// await waits until the row has the status and returns it.
func (f *fixture) await(t *testing.T, id int64, want queue.Status) outcomeRow {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		r := f.row(t, id)
		if r.Status == string(want) {
			return r
		}
		if time.Now().After(deadline) {
			t.Fatalf("request %d did not become %s in time: %s (%s)", id, want, r.Status, r.reason())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (f *fixture) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	if _, err := f.db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) count(t *testing.T, query string, args ...any) (n int) {
	t.Helper()
	if err := f.db.GetContext(t.Context(), &n, query, args...); err != nil {
		t.Fatal(err)
	}
	return n
}

// messagesTo returns what a person received.
func (f *fixture) messagesTo(person int) []wechatsim.Message {
	var got []wechatsim.Message
	for _, m := range f.sim.Messages(appid) {
		if m.Person == person {
			got = append(got, m)
		}
	}
	return got
}

// eventually polls a condition for a bounded time.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 30 s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func listen(address string) (net.Listener, error) { return net.Listen("tcp", address) }
