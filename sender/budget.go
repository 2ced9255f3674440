package sender

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat"
)

// budget keeps the last share of a day's messages for urgent requests, and stops an account that has used up the
// number its operator allows. What is left is the smaller of that number, counted in send_day, and what WeChat
// says of its own quota.
type budget struct {
	mu      sync.Mutex
	day     time.Time // the day that the figures are of; zero: not asked yet
	asked   time.Time // when they were read
	own     int64     // messages left of the account's own budget; noLimit: it has none
	quota   int64     // messages left of WeChat's quota; noLimit: not known
	reserve int64     // of these, for urgent requests only
	spent   int64     // messages since they were read
}

const noLimit = math.MaxInt64

const (
	// budgetEvery is how often a busy account asks WeChat for its quota; the messages since are counted here.
	budgetEvery = 5 * time.Minute
	// budgetTimeout keeps a slow answer from holding up the claims.
	budgetTimeout = 5 * time.Second
)

// left returns how many messages may be sent without, and with, the reserve.
func (b *budget) left() (normal, urgent int64) {
	least := min(b.own, b.quota)
	if least == noLimit {
		return noLimit, noLimit
	}
	urgent = least - b.spent
	return urgent - b.reserve, urgent
}

// allows tells whether messages of a priority may be claimed now.
func (b *budget) allows(priority int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.day.IsZero() {
		return true
	}
	normal, urgent := b.left()
	if priority == priorityUrgent {
		// WeChat's own figure may be off by one in a hundred: its refusal is the limit, not its figure.
		return urgent > 0 || b.own > b.spent
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

// spend counts messages that went out, or may have.
func (b *budget) spend(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.spent += n
}

// exhausted tells whether the account's own number is used up.
func (b *budget) exhausted() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.day.IsZero() && b.own != noLimit && b.own-b.spent <= 0
}

// stale tells whether the figures are to be read again: another day, or long ago and much sent since.
func (b *budget) stale(now, day time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !day.Equal(b.day) || now.Sub(b.asked) < 0 || (now.Sub(b.asked) >= budgetEvery && b.spent > 0)
}

// refreshBudget reads the figures of the day where they are stale. What cannot be read limits nothing: then
// WeChat's refusal (45009) is the limit.
func (w *worker) refreshBudget(ctx context.Context) {
	now := w.svc.cfg.Now()
	day := wechat.QuotaDay(now, w.svc.cfg.QuotaResetHour)
	if w.account.DailyBudget == 0 && w.account.UrgentReserve == 0 || !w.budget.stale(now, day) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, budgetTimeout)
	defer cancel()
	fresh := budget{day: day, asked: now, own: noLimit, quota: noLimit}
	total := int64(noLimit)
	if w.account.DailyBudget > 0 {
		total = w.account.DailyBudget
	}
	// Of the same day the own count goes on: what was sent and is not settled yet is in no table.
	if own, counted := w.budget.ownLeft(day); counted {
		fresh.own = own
	} else if w.account.DailyBudget > 0 {
		sent, err := w.svc.store.sentToday(ctx, w.account.AppID, day)
		if err != nil {
			w.log.Error("reading how many messages were sent today", "err", err)
			return // the old figures go on counting
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
}

// ownLeft returns what is left of the account's own number, if it has one and the figures are of that day.
func (b *budget) ownLeft(day time.Time) (int64, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.own - b.spent, b.own != noLimit && day.Equal(b.day)
}

func (b *budget) replace(fresh *budget) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.day, b.asked, b.own, b.quota, b.reserve, b.spent = fresh.day, fresh.asked, fresh.own, fresh.quota, fresh.reserve, 0
}

// stopAtBudget pauses an account that has used up its own number of messages until the next day.
func (w *worker) stopAtBudget() {
	if !w.budget.exhausted() {
		return
	}
	w.pause.begin(w, pauseDay, &wechat.Error{
		Reason: reasonDailyBudget, Policy: wechat.PolicyQuotaDay,
		Message: fmt.Sprintf("the account's own %d messages of the day are used up (send.daily_budget)", w.account.DailyBudget),
	})
}

// reasonDailyBudget is why an account rests that has sent as much as its operator allows a day.
const reasonDailyBudget = "daily_budget"

// countDay adds messages to the day's count, which outlives this process and is shared with others.
func (w *worker) countDay(n int) {
	if n == 0 || w.account.DailyBudget == 0 {
		return
	}
	day := wechat.QuotaDay(w.svc.cfg.Now(), w.svc.cfg.QuotaResetHour)
	w.store("counting the day's messages", func(ctx context.Context) error {
		return w.svc.store.countSent(ctx, w.account.AppID, day, n)
	})
}
