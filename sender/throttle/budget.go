package throttle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/unionbridge/unionbridge/sender/channel"
)

// reasonDailyBudget is account_state.reason of an account that has sent as much as its operator
// allows a day.
const reasonDailyBudget = "daily_budget"

const noLimit = math.MaxInt64

const (
	// budgetInterval is how often a busy account asks WeChat for its quota; the messages since are
	// counted here.
	budgetInterval = 5 * time.Minute
	// budgetTimeout keeps a slow answer from holding up the claims.
	budgetTimeout = 5 * time.Second
	// dayMargin is how much later a day begins here than by the rule: clocks differ.
	dayMargin = time.Minute
)

// budget keeps the last share of a day's messages for urgent requests, and stops an account that
// has used up the number its operator allows. What is left is the smaller of that number, counted
// in send_day, and what WeChat says of its own quota.
type budget struct {
	figures
	used     int64 // messages of the own budget since it was read, with those on their way
	spent    int64 // the same of the quota
	inFlight int64 // of these, those on their way: they may still come back
	holding  bool  // only urgent requests go
}

// figures are what the database and WeChat say.
type figures struct {
	day     time.Time // the day that they are of; zero: not read yet
	read    time.Time // when they were read
	own     int64     // messages left of the account's own budget; noLimit: it has none
	quota   int64     // messages left of WeChat's quota; noLimit: not known
	reserve int64     // of these, for urgent requests only
}

// left returns how many messages may be sent without, and with, the reserve.
func (b *budget) left() (normal, urgent int64) {
	if b.own == noLimit && b.quota == noLimit {
		return noLimit, noLimit
	}
	urgent = min(b.own-b.used, b.quota-b.spent)
	return urgent - b.reserve, urgent
}

// allows reports whether messages may be claimed now.
func (b *budget) allows(urgent bool) bool {
	if urgent {
		// WeChat's own figure may be off by one in a hundred: its refusal is the limit.
		return b.own > b.used
	}
	normal, _ := b.left()
	return normal > 0
}

// room bounds a claim by what is left of the day.
func (b *budget) room(limit int) int {
	normal, urgent := b.left()
	if normal <= 0 {
		normal = urgent // urgent ones alone are claimed now
	}
	return int(max(1, min(int64(limit), normal)))
}

// acquire counts a message that is about to go.
func (b *budget) acquire() {
	b.used++
	b.spent++
	b.inFlight++
}

// done takes what became of it. sent: it was sent, or may have been.
func (b *budget) done(sent bool) {
	b.inFlight--
	if !sent {
		b.used--
		b.spent--
	}
}

// exhausted reports whether the account's own number of the day is used up, and nothing is on its
// way that might come back.
func (b *budget) exhausted(day time.Time) bool {
	return day.Equal(b.day) && b.inFlight == 0 && b.own <= b.used
}

// stale reports whether the figures are to be read again: on another day, after a clock that went
// back, or some time after they were read if messages have gone since or are held back by them.
func (b *budget) stale(now, day time.Time) bool {
	normal, _ := b.left()
	age := now.Sub(b.read)
	return !day.Equal(b.day) || age < 0 || age >= budgetInterval && (b.spent > 0 || normal <= 0)
}

// forget makes the figures stale.
func (b *budget) forget() {
	b.day, b.own, b.quota, b.reserve = time.Time{}, noLimit, noLimit, 0
	b.used, b.spent = b.inFlight, b.inFlight
}

func (b *budget) replace(fresh figures) {
	if fresh.day.Equal(b.day) {
		// The own count continues: what was sent and is not settled yet is in no table.
		fresh.own = b.own
	} else {
		b.used = b.inFlight
	}
	// What is on its way WeChat has not counted either.
	b.figures, b.spent = fresh, b.inFlight
}

// BudgetDecides reports whether RefreshBudget has something to do: figures to read, or a pause to
// begin.
func (a *Account) BudgetDecides() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.budgetStale() || a.budget.exhausted(a.quotaDay())
}

func (a *Account) quotaDay() time.Time { return a.cfg.Day(a.cfg.Now().Add(-dayMargin)) }

func (a *Account) budgetStale() bool {
	return (a.cfg.DailyBudget > 0 || a.cfg.UrgentReserve > 0) &&
		a.budget.stale(a.cfg.Now(), a.quotaDay())
}

// RefreshBudget reads the figures of the day where they are stale, and pauses an account that has
// used up its own number of messages until the next day. After an error nothing may be claimed:
// the account's own count is not known.
func (a *Account) RefreshBudget(ctx context.Context) error {
	day := a.quotaDay()
	a.mu.Lock()
	stale, counted := a.budgetStale(), day.Equal(a.budget.day)
	a.mu.Unlock()
	if stale {
		fresh, err := a.readFigures(ctx, day, counted)
		if err != nil {
			return err
		}
		a.mu.Lock()
		a.budget.replace(fresh)
		a.mu.Unlock()
	}
	if a.stopAtBudget() {
		a.write(scopeSend)
	}
	return nil
}

// readFigures reads the own count unless that of the day is known. Without WeChat's figures its
// refusal is the limit.
func (a *Account) readFigures(ctx context.Context, day time.Time, counted bool) (figures, error) {
	ctx, cancel := context.WithTimeout(ctx, budgetTimeout)
	defer cancel()
	fresh := figures{day: day, read: a.cfg.Now(), own: noLimit, quota: noLimit}
	total := cmp.Or(a.cfg.DailyBudget, noLimit)
	if a.cfg.DailyBudget > 0 && !counted {
		sent, err := a.store.sentOn(ctx, day)
		if err != nil {
			return figures{}, err
		}
		fresh.own = a.cfg.DailyBudget - sent
	}
	if a.cfg.QuotaPath != "" {
		if limit, left, err := a.cfg.Quota(ctx, a.cfg.QuotaPath); err != nil {
			a.cfg.Logger.Debug("asking for the quota of messages", "err", err)
		} else if limit > 0 {
			fresh.quota, total = left, min(total, limit)
		}
	}
	if total != noLimit {
		fresh.reserve = int64(a.cfg.UrgentReserve * float64(total))
	}
	return fresh, nil
}

// stopAtBudget reports whether account_state is to have the pause of a used-up budget. It also
// says when the rest of the day begins to belong to urgent requests.
func (a *Account) stopAtBudget() (paused bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.budget.exhausted(a.quotaDay()) {
		message := fmt.Sprintf("the account's own %d messages of the day are used up "+
			"(send.daily_budget)", a.cfg.DailyBudget)
		paused = a.breaker.pause(channel.Outcome{
			Pause: channel.PauseDay, Reason: reasonDailyBudget, Message: message,
			Err: errors.New(message),
		}, a.cfg.Now())
		if paused {
			a.dirty[scopeSend] = true
			a.showPauses()
		}
	}
	normal, _ := a.budget.left()
	if holding := normal <= 0; holding != a.budget.holding {
		a.budget.holding = holding
		reserved := a.cfg.Metrics.reserved.WithLabelValues(a.cfg.AppID)
		reserved.Set(0)
		if holding {
			reserved.Set(1)
			a.cfg.Logger.Warn("the rest of the day's messages is kept for urgent requests " +
				"(send.urgent_reserve)")
		}
	}
	return paused
}

// CountSent adds messages to the day's count, which outlives this process and is shared with
// others.
func (a *Account) CountSent(n int) {
	if n == 0 || a.cfg.DailyBudget == 0 {
		return
	}
	if err := a.store.addSent(a.quotaDay(), n); err != nil {
		a.cfg.Logger.Error("counting the day's messages", "messages", n, "err", err)
	}
}
