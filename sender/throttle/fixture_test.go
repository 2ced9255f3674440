package throttle

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/sender/channel"
)

const (
	appid = "wx0a00000000000001"
	order = "order-template-id"
	other = "other-template-id"
)

var (
	sent    = channel.Outcome{Verdict: channel.Sent, Confirms: channel.ScopeTemplate, MsgID: 1}
	inDoubt = channel.Outcome{Verdict: channel.InDoubt, Reason: "system_error", Code: -1}
	// wrong is of the message, refused and notFollowing are of the person.
	wrong        = channel.Outcome{Verdict: channel.Rejected, Confirms: channel.ScopeAccount}
	refused      = channel.Outcome{Verdict: channel.Rejected, Confirms: channel.ScopeTemplate}
	notFollowing = channel.Outcome{Verdict: channel.Unreachable, Confirms: channel.ScopeTemplate}
	// banned concerns a template, the others the account.
	banned = channel.Outcome{
		Verdict: channel.PauseTemplate, Reason: "template_banned", Code: 43116,
		Message: "banned", Err: errors.New("43116 banned"), Cure: "ask WeChat",
	}
	noPermission = channel.Outcome{
		Verdict: channel.PauseAccount, Pause: channel.PauseConfig, Reason: "no_permission",
		Code: 48001, Message: "api unauthorized", Err: errors.New("48001"), Cure: "get it",
	}
	unreachable = channel.Outcome{
		Verdict: channel.PauseAccount, Pause: channel.PauseNetwork, Reason: "unreachable",
	}
)

// of returns the outcome that pauses the account in one way.
func of(kind channel.Pause) channel.Outcome {
	return channel.Outcome{Verdict: channel.PauseAccount, Pause: kind, Reason: "r", Code: 1}
}

// fixture is an account with a clock, a log and a store of its own.
type fixture struct {
	*Account
	clock    *clock
	memory   *memory
	log      *lockedBuffer
	registry *prometheus.Registry
	quotas   int                                 // how often WeChat was asked
	ask      func() (limit, left int64, _ error) // its answer
}

func newFixture(t *testing.T, change ...func(*Config)) *fixture {
	t.Helper()
	f := &fixture{
		clock: &clock{at: time.Date(2026, 11, 22, 12, 0, 30, 0, china())},
		log:   &lockedBuffer{}, registry: prometheus.NewRegistry(),
		ask: func() (int64, int64, error) { return 0, 0, nil },
	}
	f.memory = &memory{rows: map[string]stateRow{}, sent: map[string]int64{}}
	cfg := Config{
		AppID: appid, Rate: 1000, QuotaPath: "/send",
		Quota: func(context.Context, string) (int64, int64, error) { f.quotas++; return f.ask() },
		Day:   quotaDay, Reset: quotaReset, Metrics: NewMetrics(f.registry),
		Logger: slog.New(slog.NewTextHandler(f.log, nil)), Now: f.clock.now,
	}
	for _, c := range change {
		c(&cfg)
	}
	f.Account = New(cfg)
	if cfg.DB == nil {
		f.store = f.memory
	}
	return f
}

// send lets one message of a template go and have an outcome.
func (f *fixture) send(t *testing.T, templateID string, o channel.Outcome) {
	t.Helper()
	p := f.Reserve("order", templateID)
	if !p.Allowed() {
		t.Fatalf("a message of %s may not go", templateID)
	}
	p.Done(o)
}

// templateHeld reports whether no message of a template may be claimed now, whatever the account's
// own pause and budget say.
func (f *fixture) templateHeld(templateID string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.templates.allowance(templateID, f.clock.now(), 1) == 0
}

// pausedFor returns how long the account is still paused.
func (f *fixture) pausedFor() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.breaker.until.Sub(f.clock.now())
}

// metric returns the account's value, and false where it has none.
func (f *fixture) metric(t *testing.T, name string) (float64, bool) {
	t.Helper()
	families, err := f.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			if family.GetName() == name && m.GetLabel()[0].GetValue() == appid {
				return m.GetGauge().GetValue(), true
			}
		}
	}
	return 0, false
}

func (f *fixture) wantMetric(t *testing.T, name string, want float64) {
	t.Helper()
	if got, ok := f.metric(t, name); !ok || got != want {
		t.Errorf("%s is %v (%v), want %v", name, got, ok, want)
	}
}

// wantLogged compares how many lines of the log have a text.
func (f *fixture) wantLogged(t *testing.T, text string, want int) {
	t.Helper()
	if got := strings.Count(f.log.String(), text); got != want {
		t.Errorf("the log says %q %d times, want %d:\n%s", text, got, want, f.log.String())
	}
}

// memory stands for the database. Its rows have no end of their own.
type memory struct {
	mu   sync.Mutex
	rows map[string]stateRow
	sent map[string]int64
	err  error // of every call
	// how often the rows were read
	reads int
	hold  chan struct{} // nil: open; a write waits until it is closed
	once  sync.Once
	held  chan struct{} // is closed when the first write waits
}

func (m *memory) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

func (m *memory) row(scope string) (stateRow, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	row, ok := m.rows[scope]
	return row, ok
}

func (m *memory) put(scope string, row stateRow) {
	m.mu.Lock()
	defer m.mu.Unlock()
	row.Scope = scope
	m.rows[scope] = row
}

func (m *memory) load(context.Context) ([]stateRow, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	var rows []stateRow
	for _, row := range m.rows {
		rows = append(rows, row)
	}
	return rows, m.err
}

func (m *memory) save(scope string, row stateRow, remaining time.Duration) error {
	if m.hold != nil {
		m.once.Do(func() { close(m.held) })
		<-m.hold
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil {
		row.Scope = scope
		row.Remaining.Int64, row.Remaining.Valid = remaining.Microseconds(), true
		m.rows[scope] = row
	}
	return m.err
}

func (m *memory) clear(scope string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil {
		delete(m.rows, scope)
	}
	return m.err
}

func (m *memory) sentOn(_ context.Context, day time.Time) (int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.sent[day.Format(dayFormat)], m.err
}

func (m *memory) addSent(day time.Time, n int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err == nil {
		m.sent[day.Format(dayFormat)] += int64(n)
	}
	return m.err
}

// clock does not run: move changes it.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func china() *time.Location { return time.FixedZone("UTC+8", 8*60*60) }

// quotaDay and quotaReset are the days of an account whose quotas reset at midnight in China.
func quotaDay(now time.Time) time.Time {
	y, m, d := now.In(china()).Date()
	return time.Date(y, m, d, 0, 0, 0, 0, china())
}

func quotaReset(now time.Time) time.Time { return quotaDay(now).Add(24*time.Hour + time.Minute) }

// lockedBuffer is a log that may be read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
