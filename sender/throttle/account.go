// Package throttle decides whether an account, and a template of it, may send now: by the rate, by
// the budget of the day, and by the pauses that WeChat's answers cause. It owns the tables
// account_state, but for the scope settle, and send_day.
//
// It learns of an answer only as a channel.Outcome that a Permit is given. It must know neither
// WeChat's errcodes nor the queue.
package throttle

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"
)

// Config is what an Account needs. DailyBudget and UrgentReserve may be 0, and QuotaPath "".
type Config struct {
	AppID         string
	Rate          float64 // messages a second, at most
	DailyBudget   int64   // messages a day, at most; 0: as many as WeChat allows
	UrgentReserve float64 // share of the day's messages for urgent requests only, 0 to 1
	QuotaPath     string  // what Quota is asked for; "": WeChat's quota is not known
	// Quota returns how many messages a day WeChat allows, and how many are left. limit 0: not
	// known.
	Quota func(ctx context.Context, path string) (limit, remaining int64, err error)
	// Credentials reports whether a pause of this reason ends when WeChat takes the account's
	// token; nil: none does.
	Credentials func(reason string) bool
	// Day returns when the day of WeChat's quotas began that contains now, Reset when the next
	// begins.
	Day, Reset func(now time.Time) time.Time
	DB         *sqlx.DB
	Metrics    *Metrics
	Logger     *slog.Logger // names the account
	Now        func() time.Time
}

// Account is what limits the sending of one account. Only the instance that holds the account's
// lease calls it. It is safe for concurrent use.
type Account struct {
	cfg   Config
	store stateStore

	// mu is never held during a statement: a row that an operator's transaction holds must not stop
	// whoever looks whether the account is paused.
	mu        sync.Mutex
	breaker   breaker
	templates templatePauses
	operator  operatorPauses
	budget    budget
	limiter   *adaptiveLimiter
	known

	writing sync.Mutex // of account_state
}

// known is how what is known here stands to account_state.
type known struct {
	dirty     map[string]bool // scopes of which account_state does not say what is known
	writes    int             // counts what was written
	readAt    time.Time       // zero: not read yet
	checkedAt time.Time       // when CheckDue was true last; zero: not since Load
}

// New returns an Account that knows nothing of the database yet: see Load.
func New(cfg Config) *Account {
	log := cfg.Logger
	rate := cfg.Metrics.rate.WithLabelValues(cfg.AppID)
	return &Account{
		cfg:       cfg,
		store:     sqlStore{db: cfg.DB, appid: cfg.AppID},
		breaker:   breaker{log: log, reset: cfg.Reset},
		templates: newTemplatePauses(log),
		operator:  newOperatorPauses(log),
		budget:    budget{figures: figures{own: noLimit, quota: noLimit}},
		limiter:   newAdaptiveLimiter(cfg.Rate, rate.Set, log),
		known:     known{dirty: make(map[string]bool)},
	}
}

// Load takes over the pauses that the account's last claimer stored. It forgets the figures of the
// day: another instance may have sent since they were read. No permit may be out.
func (a *Account) Load(ctx context.Context) error {
	rows, err := a.store.load(ctx)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.cfg.Now()
	a.breaker.load(rows, now)
	a.templates.load(rows, now)
	a.operator.load(rows, now)
	a.showPauses()
	a.budget.forget()
	clear(a.dirty)
	a.readAt, a.checkedAt = now, time.Time{}
	return nil
}

// Reload reads what operators have changed in account_state, now and then also where nothing is
// paused. It also writes what could not be written before, and lets the rate recover where no
// answer comes to do so.
func (a *Account) Reload(ctx context.Context) error {
	a.mu.Lock()
	a.limiter.evaluate(a.cfg.Now())
	dirty := slices.Collect(maps.Keys(a.dirty))
	age := a.cfg.Now().Sub(a.readAt)
	a.mu.Unlock()
	for _, scope := range dirty {
		a.write(scope)
	}
	if !a.Held() && age >= 0 && age < idleStateAge {
		return nil
	}
	return a.read(ctx)
}

// Paused reports whether nothing of the account may go now.
func (a *Account) Paused() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.breaker.active(a.cfg.Now()) || a.operator.account()
}

// Probing reports whether a message is on its way whose answer decides whether the account's pause
// is over. Nothing else may be claimed meanwhile, however slow the answer is.
func (a *Account) Probing() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.breaker.open && a.breaker.probing
}

// Claimable returns how many of limit messages of a template may be claimed now; "" is a template
// that is never paused.
func (a *Account) Claimable(urgent bool, templateID string, limit int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.cfg.Now()
	if a.breaker.active(now) || !a.budget.allows(urgent) || !a.operator.allows(templateID) {
		return 0
	}
	return a.templates.allowance(templateID, now, limit)
}

// ClaimLimit bounds a claim of size messages: to about what a fraction of a second sends, to what
// is left of the day, and to one message until it is known that a pause is over; at least 1.
func (a *Account) ClaimLimit(size int) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.breaker.open {
		return 1
	}
	return a.budget.room(min(size, max(1, int(a.cfg.Rate/4))))
}

// SendingFor returns how long the account has been sending without a pause, at most since begin.
func (a *Account) SendingFor(begin time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.cfg.Now()
	if a.operator.account() {
		return 0
	}
	for _, end := range []time.Time{a.breaker.until, a.operator.endedAt} {
		if end.After(begin) {
			begin = end
		}
	}
	return now.Sub(begin)
}

// write brings account_state to what is known now of a scope. What cannot be written holds in
// memory, and Reload tries it again.
func (a *Account) write(scope string) {
	a.writing.Lock()
	defer a.writing.Unlock()
	a.mu.Lock()
	row, until := a.state(scope)
	a.mu.Unlock()
	var err error
	if row == nil {
		err = a.store.clear(scope)
	} else {
		err = a.store.save(scope, *row, until.Sub(a.cfg.Now()))
	}
	if err != nil {
		a.cfg.Logger.Error("writing the account's state", "scope", scope, "err", err)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.writes++
	if now, _ := a.state(scope); now == row {
		delete(a.dirty, scope)
	}
}

// state returns what account_state is to have of a scope; nil: no row.
func (a *Account) state(scope string) (row *stateRow, until time.Time) {
	if scope == scopeSend {
		return a.breaker.row, a.breaker.until
	}
	if p := a.templates.paused[strings.TrimPrefix(scope, scopeTemplate)]; p != nil {
		return p.row, p.until
	}
	return nil, time.Time{}
}
