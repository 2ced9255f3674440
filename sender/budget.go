package sender

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/wechat"
)

// budget keeps the last share of a day's messages for urgent requests, and stops an account that has used up the
// number its operator allows. What is left is the smaller of that number, counted in send_day, and what WeChat
// says of its own quota.
type budget struct {
	mu      sync.Mutex
	day     time.Time // the day that the figures are of; zero: not read yet
	asked   time.Time // when they were read
	own     int64     // messages left of the account's own budget; noLimit: it has none
	quota   int64     // messages left of WeChat's quota; noLimit: not known
	reserve int64     // of these, for urgent requests only
	used    int64     // messages of the own budget that have gone since it was read, or are about to
	spent   int64     // the same of the quota
	open    int64     // of these, those on their way: they may still come back
	holding bool      // only urgent requests go
}

const noLimit = math.MaxInt64

const (
	// budgetEvery is how often a busy account asks WeChat for its quota; the messages since are counted here.
	budgetEvery = 5 * time.Minute
	// budgetTimeout keeps a slow answer from holding up the claims.
	budgetTimeout = 5 * time.Second
	// dayMargin is how much later a day begins here than by the rule: clocks differ.
	dayMargin = time.Minute
)

// left returns how many messages may be sent without, and with, the reserve.
func (b *budget) left() (normal, urgent int64) {
	if b.own == noLimit && b.quota == noLimit {
		return noLimit, noLimit
	}
	urgent = min(b.own-b.used, b.quota-b.spent)
	return urgent - b.reserve, urgent
}

// allows tells whether messages of a priority may be claimed now.
func (b *budget) allows(priority int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	normal, _ := b.left()
	if priority == priorityUrgent {
		// WeChat's own figure may be off by one in a hundred: its refusal is the limit, not its figure.
		return b.own > b.used
	}
	return normal > 0
}

// room bounds a claim by what is left of the day.
func (b *budget) room(limit int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	normal, urgent := b.left()
	if normal <= 0 {
		normal = urgent // urgent ones alone are claimed now
	}
	return int(max(1, min(int64(limit), normal)))
}

// launch counts a message that is about to go; landed what became of it: it was sent, or may have been, or not.
func (b *budget) launch() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used++
	b.spent++
	b.open++
}

func (b *budget) landed(sent bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open--
	if !sent {
		b.used--
		b.spent--
	}
}

// exhausted tells whether the account's own number of the day is used up, and nothing is on its way that might come back.
func (b *budget) exhausted(day time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return day.Equal(b.day) && b.open == 0 && b.own <= b.used
}

// stale tells whether the figures are to be read again: on another day, after a clock that went back, or some time
// after they were read if messages have gone since or are held back by them.
func (b *budget) stale(now, day time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	normal, _ := b.left()
	age := now.Sub(b.asked)
	return !day.Equal(b.day) || age < 0 || age >= budgetEvery && (b.spent > 0 || normal <= 0)
}

// forget makes the figures be read anew: another instance may have sent meanwhile.
func (b *budget) forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.day, b.own, b.quota, b.reserve, b.used, b.spent = time.Time{}, noLimit, noLimit, 0, b.open, b.open
}

func (b *budget) replace(fresh *budget) {
	b.mu.Lock()
	defer b.mu.Unlock()
	// Of the same day the own count goes on: what was sent and is not settled yet is in no table. What is on its
	// way WeChat has not counted either.
	if !fresh.day.Equal(b.day) {
		b.own, b.used = fresh.own, b.open
	}
	b.day, b.asked, b.quota, b.reserve, b.spent = fresh.day, fresh.asked, fresh.quota, fresh.reserve, b.open
}

// of tells whether the figures are of a day.
func (b *budget) of(day time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return day.Equal(b.day)
}

func (w *worker) quotaDay() time.Time {
	return wechat.QuotaDay(w.svc.cfg.Now().Add(-dayMargin), w.svc.cfg.QuotaResetHour)
}

// budgetStale tells whether the account has a budget whose figures are to be read again.
func (w *worker) budgetStale() bool {
	return (w.account.DailyBudget > 0 || w.account.UrgentReserve > 0) && w.budget.stale(w.svc.cfg.Now(), w.quotaDay())
}

// budgetDecides tells whether the claim loop has something to do about the budget: figures to read, or a pause to
// begin.
func (w *worker) budgetDecides() bool { return w.budgetStale() || w.budget.exhausted(w.quotaDay()) }

// refreshBudget reads the figures of the day where they are stale. Without WeChat's own its refusal (45009) is the
// limit; without the account's own count nothing is claimed.
func (w *worker) refreshBudget(ctx context.Context) error {
	if !w.budgetStale() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, budgetTimeout)
	defer cancel()
	fresh := budget{day: w.quotaDay(), asked: w.svc.cfg.Now(), own: noLimit, quota: noLimit}
	total := int64(noLimit)
	if w.account.DailyBudget > 0 {
		total = w.account.DailyBudget
	}
	if w.account.DailyBudget > 0 && !w.budget.of(fresh.day) {
		sent, err := w.svc.store.sentToday(ctx, w.account.AppID, fresh.day)
		if err != nil {
			return err
		}
		fresh.own = w.account.DailyBudget - sent
	}
	if quota, err := w.account.API.Quota(ctx, wechat.EndpointSendTemplate); err != nil {
		w.log.Debug("asking for the quota of messages", "err", err)
	} else if quota.DailyLimit > 0 {
		fresh.quota, total = quota.Remain, min(total, quota.DailyLimit)
	}
	if total != noLimit {
		fresh.reserve = int64(w.account.UrgentReserve * float64(total))
	}
	w.budget.replace(&fresh)
	return nil
}

// stopAtBudget pauses an account that has used up its own number of messages until the next day, and says when
// the rest of the day belongs to urgent requests.
func (w *worker) stopAtBudget() {
	if w.budget.exhausted(w.quotaDay()) {
		w.beginPause(pauseDay, &wechat.Error{
			Reason: reasonDailyBudget, Policy: wechat.PolicyQuotaDay,
			Message: fmt.Sprintf("the account's own %d messages of the day are used up (send.daily_budget)", w.account.DailyBudget),
		})
	}
	holding, news := w.budget.hold()
	if !news {
		return
	}
	w.metric(w.svc.metrics.reserved, float64(flag(holding)))
	if holding {
		w.log.Warn("the rest of the day's messages is kept for urgent requests (send.urgent_reserve)")
	}
}

// hold tells whether only urgent requests go, and whether that is news.
func (b *budget) hold() (holding, news bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	normal, _ := b.left()
	was := b.holding
	b.holding = normal <= 0
	return b.holding, b.holding != was
}

// reasonDailyBudget is why an account rests that has sent as much as its operator allows a day.
const reasonDailyBudget = "daily_budget"

// countDay adds messages to the day's count, which outlives this process and is shared with others.
func (w *worker) countDay(n int) {
	if n == 0 || w.account.DailyBudget == 0 {
		return
	}
	day := w.quotaDay()
	err := database.Detached(context.Background(), func(ctx context.Context) error {
		return w.svc.store.countSent(ctx, w.account.AppID, day, n)
	})
	if err != nil {
		w.log.Error("counting the day's messages", "messages", n, "err", err)
	}
}
