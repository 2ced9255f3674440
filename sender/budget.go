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
	mu       sync.Mutex
	day      time.Time // the day that the figures are of; zero: not read yet
	asked    time.Time // when they were read
	own      int64     // messages left of the account's own budget; noLimit: it has none
	quota    int64     // messages left of WeChat's quota; noLimit: not known
	reserve  int64     // of these, for urgent requests only
	used     int64     // messages of the own budget that have gone since it was read, or are about to
	spent    int64     // the same of the quota
	inFlight int64     // of these, those on their way: they may still come back
	holding  bool      // only urgent requests go
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

// allows reports whether messages of a priority may be claimed now.
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

// acquire counts a message that is about to go; done what became of it: it was sent, or may have been, or not.
func (b *budget) acquire() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used++
	b.spent++
	b.inFlight++
}

func (b *budget) done(sent bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.inFlight--
	if !sent {
		b.used--
		b.spent--
	}
}

// exhausted reports whether the account's own number of the day is used up, and nothing is on its way that might come back.
func (b *budget) exhausted(day time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return day.Equal(b.day) && b.inFlight == 0 && b.own <= b.used
}

// stale reports whether the figures are to be read again: on another day, after a clock that went back, or some time
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
	b.day, b.own, b.quota, b.reserve, b.used, b.spent = time.Time{}, noLimit, noLimit, 0, b.inFlight, b.inFlight
}

func (b *budget) replace(fresh *budget) {
	b.mu.Lock()
	defer b.mu.Unlock()
	// Of the same day the own count goes on: what was sent and is not settled yet is in no table. What is on its
	// way WeChat has not counted either.
	if !fresh.day.Equal(b.day) {
		b.own, b.used = fresh.own, b.inFlight
	}
	b.day, b.asked, b.quota, b.reserve, b.spent = fresh.day, fresh.asked, fresh.quota, fresh.reserve, b.inFlight
}

// of reports whether the figures are of a day.
func (b *budget) of(day time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return day.Equal(b.day)
}

func (a *account) quotaDay() time.Time {
	return wechat.QuotaDay(a.svc.cfg.Now().Add(-dayMargin), a.svc.cfg.QuotaResetHour)
}

// budgetStale reports whether the account has a budget whose figures are to be read again.
func (a *account) budgetStale() bool {
	return (a.cfg.DailyBudget > 0 || a.cfg.UrgentReserve > 0) && a.budget.stale(a.svc.cfg.Now(), a.quotaDay())
}

// budgetDecides reports whether the claim loop has something to do about the budget: figures to read, or a pause to
// begin.
func (a *account) budgetDecides() bool { return a.budgetStale() || a.budget.exhausted(a.quotaDay()) }

// refreshBudget reads the figures of the day where they are stale. Without WeChat's own its refusal (45009) is the
// limit; without the account's own count nothing is claimed.
func (a *account) refreshBudget(ctx context.Context) error {
	if !a.budgetStale() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, budgetTimeout)
	defer cancel()
	fresh := budget{day: a.quotaDay(), asked: a.svc.cfg.Now(), own: noLimit, quota: noLimit}
	total := int64(noLimit)
	if a.cfg.DailyBudget > 0 {
		total = a.cfg.DailyBudget
	}
	if a.cfg.DailyBudget > 0 && !a.budget.of(fresh.day) {
		sent, err := a.svc.store.sentToday(ctx, a.cfg.AppID, fresh.day)
		if err != nil {
			return err
		}
		fresh.own = a.cfg.DailyBudget - sent
	}
	if quota, err := a.cfg.API.Quota(ctx, wechat.EndpointSendTemplate); err != nil {
		a.log.Debug("asking for the quota of messages", "err", err)
	} else if quota.DailyLimit > 0 {
		fresh.quota, total = quota.Remain, min(total, quota.DailyLimit)
	}
	if total != noLimit {
		fresh.reserve = int64(a.cfg.UrgentReserve * float64(total))
	}
	a.budget.replace(&fresh)
	return nil
}

// stopAtBudget pauses an account that has used up its own number of messages until the next day, and says when
// the rest of the day belongs to urgent requests.
func (a *account) stopAtBudget() {
	if a.budget.exhausted(a.quotaDay()) {
		a.beginPause(pauseDay, &wechat.Error{
			Reason: reasonDailyBudget, Policy: wechat.PolicyQuotaDay,
			Message: fmt.Sprintf("the account's own %d messages of the day are used up (send.daily_budget)", a.cfg.DailyBudget),
		})
	}
	holding, news := a.budget.hold()
	if !news {
		return
	}
	a.metric(a.svc.metrics.reserved, float64(boolToInt(holding)))
	if holding {
		a.log.Warn("the rest of the day's messages is kept for urgent requests (send.urgent_reserve)")
	}
}

// hold reports whether only urgent requests go, and whether that is news.
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
func (a *account) countDay(n int) {
	if n == 0 || a.cfg.DailyBudget == 0 {
		return
	}
	day := a.quotaDay()
	err := database.Detached(context.Background(), func(ctx context.Context) error {
		return a.svc.store.countSent(ctx, a.cfg.AppID, day, n)
	})
	if err != nil {
		a.log.Error("counting the day's messages", "messages", n, "err", err)
	}
}
