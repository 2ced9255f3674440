package applications

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

const (
	official = "wx0a00000000000001"
	mini     = "wx0b00000000000001"
)

// here is where callers come from.
func here() netip.Addr { return netip.MustParseAddr("10.0.0.7") }

// clock is time.Now, and later by what a test says.
type clock struct {
	mu    sync.Mutex
	later time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.later)
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.later += d
}

// printed keeps a log and shows it with what else came out.
type printed struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (p *printed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.buf.Write(b)
}

func (p *printed) add(v any) { _, _ = fmt.Fprintf(p, "%v %+v %#v\n", v, v, v) }

func (p *printed) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.buf.String()
}

// fixture is an instance of a daemon with its applications.
type fixture struct {
	*Registry
	clock *clock
	log   *printed
	reg   *prometheus.Registry
}

// newInstance returns a registry on db; each one is an instance of its own.
func newInstance(t testing.TB, db *sqlx.DB, list ...Application) fixture {
	t.Helper()
	f := fixture{clock: new(clock), log: new(printed), reg: prometheus.NewRegistry()}
	logger := slog.New(slog.NewJSONHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	f.Registry, err = New(Config{
		DB: db, Applications: list, Holder: "holder-" + hex.EncodeToString([]byte(NewSecret()[:8])),
		Logger: logger, Registerer: f.reg, Now: f.clock.now,
		Day: func(now time.Time) time.Time { return now.UTC().Truncate(24 * time.Hour) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// shop may send both kinds of message.
func shop(secrets ...string) Application {
	a := Application{Name: "shop", Accounts: map[string][]Call{
		official: {TemplateSend}, mini: {Login, SubscribeSend},
	}}
	for _, secret := range secrets {
		a.SecretHashes = append(a.SecretHashes, Hash(secret))
	}
	return a
}

// code is an error's errcode; 0 for none, -1 for an error that decides nothing.
func code(err error) int {
	if err == nil {
		return 0
	}
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r.Code
	}
	return -1
}

func wantCode(t *testing.T, what string, err error, want int) {
	t.Helper()
	if got := code(err); got != want {
		t.Errorf("%s: %d (%v), want %d", what, got, err, want)
	}
}

func mustToken(t testing.TB, f fixture, appid, secret string) string {
	t.Helper()
	token, err := f.Token(t.Context(), Credentials{AppID: appid, Secret: secret, From: here()})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func verify(t testing.TB, f fixture, token string) error {
	t.Helper()
	_, err := f.Verify(t.Context(), token, here())
	return err
}

func TestNewRefuses(t *testing.T) {
	db := new(sqlx.DB)
	secret := NewSecret()
	other := shop(secret)
	other.Name = "till"
	for name, list := range map[string][]Application{
		"two of one name": {shop(), shop()}, "one secret of two": {shop(secret), other},
		"one secret twice": {shop(secret, secret)}, "no name": {{}},
		"a long name": {{Name: strings.Repeat("a", 65)}},
	} {
		_, err := New(Config{DB: db, Holder: "h", Day: time.Time.UTC, Applications: list})
		if err == nil {
			t.Errorf("%s: no error", name)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error shows the secret", name)
		}
	}
}

// TestDatabaseAway: nothing is decided, so the callers' SDKs must not hear of their token or
// secret.
func TestDatabaseAway(t *testing.T) {
	db := dbtest.New(t)
	secret := NewSecret()
	f := newInstance(t, db, shop(secret))
	token := mustToken(t, f, official, secret)
	f.clock.advance(time.Minute)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := f.Token(t.Context(), Credentials{AppID: official, Secret: secret, From: here()})
	wantCode(t, "a token", err, -1)
	wantCode(t, "a call", verify(t, f, token), -1)
	limited := shop(secret)
	limited.Limit.Minute = 5
	_, err = f.Reserve(t.Context(), Session{Application: &limited}, 1)
	wantCode(t, "a reservation", err, -1)
}
