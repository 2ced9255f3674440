package sender

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// adaptiveLimiter keeps an account at its configured rate, and slows it down while WeChat says that it is overrun: -1 in
// bursts, or 45011. No limit is documented, so it is found by additive increase and multiplicative decrease.
type adaptiveLimiter struct {
	bucket   *rate.Limiter
	maxRate  float64                             // messages a second, as configured
	gauge    func(messages float64)              // hears of each change
	onChange func(messages float64, slower bool) // hears of the first decrease and of the full rate

	mu          sync.Mutex
	current     float64
	decreasedAt time.Time // of the last decrease
	window      time.Time // beginning of the second that is counted
	busy        int       // answers in it that said busy
	all         int       // answers in it
}

const (
	// A single -1 is an accident; a burst is this many in a second, and this share of the answers.
	burstCount = 5
	burstShare = 0.02
	// minDecreaseInterval keeps the answers to messages that were under way at a decrease from causing another one.
	minDecreaseInterval = 3 * time.Second
	// minRateShare is the share of the configured rate that remains at least.
	minRateShare = 1.0 / 64
	// increaseShare is the share of the configured rate that each second without complaint gives back.
	increaseShare = 1.0 / 30
)

func newAdaptiveLimiter(maxRate float64) *adaptiveLimiter {
	// The burst lets a batch's POSTs start together and stays below a tenth of a second's worth.
	return &adaptiveLimiter{
		bucket: rate.NewLimiter(rate.Limit(maxRate), max(1, int(maxRate/10))), maxRate: maxRate, current: maxRate,
		gauge: func(float64) {}, onChange: func(float64, bool) {},
	}
}

// observe counts an answer of WeChat's; busy: it said that it is overrun.
func (l *adaptiveLimiter) observe(now time.Time, busy bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if elapsed := now.Sub(l.window); elapsed < 0 || elapsed >= time.Second {
		l.evaluate(now)
	}
	l.all++
	if busy {
		l.busy++
	}
}

// tick evaluates the last second where no answer comes to do so.
func (l *adaptiveLimiter) tick(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if elapsed := now.Sub(l.window); elapsed < 0 || elapsed >= time.Second {
		l.evaluate(now)
	}
}

// evaluate judges the second that has ended: after a burst the rate is decreased, after a quiet one some of it comes back.
func (l *adaptiveLimiter) evaluate(now time.Time) {
	burst := l.busy >= burstCount && float64(l.busy) >= burstShare*float64(l.all)
	quiet := max(1, int(now.Sub(l.window)/time.Second)) // an idle account has quiet seconds as well
	l.window, l.busy, l.all = now, 0, 0
	if burst {
		l.decreaseLocked(now)
		return
	}
	if l.current >= l.maxRate || now.Sub(l.decreasedAt) < minDecreaseInterval {
		return
	}
	l.set(min(l.maxRate, l.current+l.maxRate*increaseShare*float64(quiet)))
	if l.current >= l.maxRate {
		l.onChange(l.current, false)
	}
}

// decrease slows the account down at once: the minute's quota was used up (45011).
func (l *adaptiveLimiter) decrease(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.decreaseLocked(now)
}

func (l *adaptiveLimiter) decreaseLocked(now time.Time) {
	if since := now.Sub(l.decreasedAt); since >= 0 && since < minDecreaseInterval {
		return
	}
	l.decreasedAt = now
	first := l.current >= l.maxRate
	l.set(max(l.maxRate*minRateShare, l.current/2))
	if first {
		l.onChange(l.current, true)
	}
}

func (l *adaptiveLimiter) set(messages float64) {
	l.current = messages
	l.gauge(messages)
	l.bucket.SetLimit(rate.Limit(messages))
	l.bucket.SetBurst(max(1, int(messages/10)))
}
