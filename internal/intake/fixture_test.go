package intake

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

const (
	official = "wx0a00000000000001"
	mini     = "wx0b00000000000001"
	person   = "oPerson_1"
)

// rules send everything from the official account, or the one that is named.
type rules struct {
	check func(m *Message, appid string) *Rejection
}

func (rules) Ways(m *Message) ([]Way, *Rejection) {
	if m.Template == "nowhere" {
		return nil, reject(codeUnknown, "template", "invalid template_id")
	}
	if m.AppID == mini {
		return []Way{{mini, applications.SubscribeSend}}, nil
	}
	if m.Route != "" {
		return []Way{{official, applications.TemplateSend}, {mini, applications.SubscribeSend}}, nil
	}
	return []Way{{official, applications.TemplateSend}}, nil
}

func (r rules) Check(m *Message, appid string) *Rejection {
	if r.check == nil {
		return nil
	}
	return r.check(m, appid)
}

// printed is a log.
type printed struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (p *printed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.buf.Write(b)
}

func (p *printed) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.buf.String()
}

// fixture is the intake of an instance with its applications.
type fixture struct {
	*Intake
	db       *sqlx.DB
	registry *applications.Registry
	log      *printed
	session  applications.Session
}

// newInstance returns an intake on db that runs until the test's end; each one is an instance of its
// own.
func newInstance(t testing.TB, db *sqlx.DB, list ...applications.Application) *fixture {
	t.Helper()
	f := newStopped(t, db, list...)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-ended
	})
	return f
}

// newStopped returns an intake that nobody runs.
func newStopped(t testing.TB, db *sqlx.DB, list ...applications.Application) *fixture {
	t.Helper()
	log := new(printed)
	logger := slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	registry, err := applications.New(applications.Config{
		DB: db, Applications: list, Holder: "holder-" + applications.NewSecret()[:8], Logger: logger,
		Registerer: prometheus.NewRegistry(), Now: time.Now,
		Day: func(now time.Time) time.Time { return now.UTC().Truncate(24 * time.Hour) },
	})
	if err != nil {
		t.Fatal(err)
	}
	in := New(Config{
		DB: db, Registry: registry, Rules: rules{}, Levels: database.NewFeatureLevels(db, time.Now),
		Logger: logger, Registerer: prometheus.NewRegistry(), Now: time.Now,
	})
	f := &fixture{Intake: in, db: db, registry: registry, log: log}
	if len(list) > 0 {
		f.session = session(&list[0])
	}
	return f
}

func session(a *applications.Application) applications.Session {
	return applications.Session{Application: a, AppID: official, From: netip.MustParseAddr("10.0.0.7")}
}

// shop may send both kinds of message.
func shop() applications.Application {
	return applications.Application{Name: "shop", Priority: 1, Accounts: map[string][]applications.Call{
		official: {applications.TemplateSend}, mini: {applications.SubscribeSend},
	}}
}

// order is a right message.
func order(change ...func(*Message)) Message {
	m := Message{Recipient: Recipient{OpenID: person}, Template: "order_paid",
		Data: json.RawMessage(`{"thing1": "茶", "amount2": {"value": 12.50}}`)}
	for _, c := range change {
		c(&m)
	}
	return m
}

func keyed(key string) func(*Message) { return func(m *Message) { m.Key = key } }

// accept takes messages, in the time that a caller has.
func (f *fixture) accept(t testing.TB, messages ...Message) []Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return f.Accept(ctx, f.session, messages)
}

// must takes a message that is accepted.
func (f *fixture) must(t testing.TB, m Message) Result {
	t.Helper()
	r := f.accept(t, m)[0]
	if r.Err != nil || r.ID <= 0 {
		t.Fatalf("%+v: %s", r, f.log)
	}
	return r
}

func (f *fixture) rows(t testing.TB) (n int) {
	t.Helper()
	if err := f.db.GetContext(t.Context(), &n, `SELECT COUNT(*) FROM send_request`); err != nil {
		t.Fatal(err)
	}
	return n
}

func (f *fixture) exec(t testing.TB, query string, args ...any) {
	t.Helper()
	if _, err := f.db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

// code is the errcode of a result; 0: accepted, −1: unavailable, −2: unknown.
func code(r Result) int {
	rejection, rejected := errors.AsType[*Rejection](r.Err)
	refusal, refused := errors.AsType[*applications.Refusal](r.Err)
	switch {
	case rejected:
		return rejection.Code
	case refused:
		return refusal.Code
	case errors.Is(r.Err, ErrUnavailable):
		return -1
	case errors.Is(r.Err, ErrUnknown):
		return -2
	}
	return 0
}

func newDB(t testing.TB) *sqlx.DB { return dbtest.New(t) }
