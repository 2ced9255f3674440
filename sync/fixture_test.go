package sync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

const appid = wechatsim.StandardAppID

// fixture is a Service on a real database that talks to a simulated WeChat.
type fixture struct {
	*Service
	sim *wechatsim.Server
	db  *sqlx.DB
	api *hooked
	url string
}

// hooked lets a test do something at the n-th call of an endpoint.
type hooked struct {
	API
	beforeFollowers func(call int, cursor string)
	calls           int
	batch           func(ctx context.Context, api API, openids []string) ([]wechat.UserInfo,
		error) // instead of batchget
	single   func(*wechat.UserInfo)       // changes user/info
	page     func(p *wechat.FollowerPage) // changes user/get
	answered func(openid string)          // after each answer
}

func (h *hooked) BatchUserInfo(ctx context.Context, openids []string) ([]wechat.UserInfo, error) {
	if h.batch != nil {
		return h.batch(ctx, h.API, openids)
	}
	infos, err := h.API.BatchUserInfo(ctx, openids)
	for _, info := range infos {
		h.told(info.OpenID)
	}
	return infos, err
}

func (h *hooked) told(openid string) {
	if h.answered != nil {
		h.answered(openid)
	}
}

func (h *hooked) UserInfo(ctx context.Context, openid string) (wechat.UserInfo, error) {
	info, err := h.API.UserInfo(ctx, openid)
	if err == nil && h.single != nil {
		h.single(&info)
	}
	h.told(openid)
	return info, err
}

func (h *hooked) Followers(ctx context.Context, cursor string) (wechat.FollowerPage, error) {
	h.calls++
	if h.beforeFollowers != nil {
		h.beforeFollowers(h.calls, cursor)
	}
	p, err := h.API.Followers(ctx, cursor)
	if err == nil && h.page != nil {
		h.page(&p)
	}
	return p, err
}

func newFixture(t testing.TB, options wechatsim.Options) *fixture {
	t.Helper()
	sim := wechatsim.New(options)
	server := httptest.NewServer(sim)
	t.Cleanup(server.Close)
	b := &fixture{sim: sim, db: dbtest.New(t), url: server.URL}
	b.api = &hooked{API: wechat.New(wechat.Config{
		AppID: appid, Secret: wechatsim.StandardSecret, BaseURL: server.URL,
		Timeout: 5 * time.Second, SendTimeout: 5 * time.Second, MaxConnections: 16,
	})}
	b.Service = b.instance(t, "one")
	return b
}

// API is the client without the test's hooks.
func (b *fixture) API() API { return b.api.API }

// instance returns another Service on the same database and WeChat.
func (b *fixture) instance(t testing.TB, holder string) *Service {
	t.Helper()
	leases := database.NewLeases(b.db, database.LeaseConfig{Holder: holder, TTL: 10 * time.Second})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = leases.Run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-done })
	return New(Config{
		DB: b.db, Leases: leases, SpoolDir: t.TempDir(), Holder: holder, Logger: slog.New(slog.DiscardHandler),
		Registerer: prometheus.NewRegistry(), Now: time.Now,
		Accounts: []Account{{
			AppID: appid, API: b.api, Sweep: "@every 24h", Refresh: "@every 24h", MaxGone: 0.05, Concurrency: 4,
		}},
	})
}

// sweep sweeps and fails the test on an error.
func (b *fixture) sweepOnce(t testing.TB) Run {
	t.Helper()
	run, err := b.Sweep(t.Context(), appid, nil)
	if err != nil {
		t.Fatalf("sweeping: %v", err)
	}
	return run
}

type person struct {
	OpenID  string
	UnionID string
}

// subscribed returns whom the map calls followers.
func (b *fixture) subscribed(t *testing.T) map[person]bool {
	t.Helper()
	var rows []struct {
		OpenID  string  `db:"openid"`
		UnionID *string `db:"unionid"`
	}
	err := b.db.SelectContext(t.Context(), &rows,
		`SELECT openid, unionid FROM follower WHERE appid = ? AND subscribed = 1`, appid)
	if err != nil {
		t.Fatal(err)
	}
	people := make(map[person]bool, len(rows))
	for _, r := range rows {
		p := person{OpenID: r.OpenID}
		if r.UnionID != nil {
			p.UnionID = *r.UnionID
		}
		people[p] = true
	}
	return people
}

// wantTruth fails the test where the map differs from the simulator's truth.
func (b *fixture) wantTruth(t *testing.T) {
	t.Helper()
	got := b.subscribed(t)
	for p := range got {
		id, ok := b.sim.Identify(appid, p.OpenID)
		if !ok || !id.Following || id.UnionID != p.UnionID {
			t.Fatalf("the map has the follower %+v, the truth is %+v", p, id)
		}
	}
	// Nobody in the map is wrong, so equal numbers mean that nobody is missing.
	if want := b.sim.FollowerCount(appid); len(got) != want {
		t.Errorf("the map has %d followers, WeChat %d", len(got), want)
	}
}

func (b *fixture) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	if _, err := b.db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

// union is a person's unionid, followed or not.
func (b *fixture) union(person int) string {
	id, _ := b.sim.Identify(appid, b.sim.OpenID(appid, person))
	return id.UnionID
}

func (b *fixture) count(t *testing.T, query string, args ...any) (n int) {
	t.Helper()
	if err := b.db.GetContext(t.Context(), &n, query, args...); err != nil {
		t.Fatal(err)
	}
	return n
}

func wantRun(t *testing.T, got, want Run) {
	t.Helper()
	if got.Started.IsZero() || got.Ended.Before(got.Started) {
		t.Errorf("run lasted from %v to %v", got.Started, got.Ended)
	}
	got.ID, got.Started, got.Ended, got.NextOpenID, got.Total, got.Missing = 0, time.Time{}, time.Time{}, "", 0, 0
	want.Kind, want.AppID = kindSweep, appid
	if want.Mode == "" {
		want.Mode = modeNormal
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("run differs (-want +got):\n%s", diff)
	}
}

// wantWeChat fails the test unless err is WeChat's error with one of the codes.
func wantWeChat(t *testing.T, err error, code int) {
	t.Helper()
	we, ok := errors.AsType[*wechat.Error](err)
	if !ok || we.Code != code {
		t.Errorf("got the error %v, want one with errcode %d", err, code)
	}
}

func calls(list, batch, single int64) map[string]int64 {
	m := map[string]int64{}
	for endpoint, n := range map[string]int64{endpointFollowers: list, endpointBatch: batch, endpointUserInfo: single} {
		if n > 0 {
			m[endpoint] = n
		}
	}
	return m
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(fmt.Sprintf("setting a test up: %v", err))
	}
	return v
}
