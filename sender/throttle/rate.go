package throttle

import (
	"log/slog"
	"time"

	"golang.org/x/time/rate"
)

// adaptiveLimiter keeps an account at its configured rate, and slows it down while WeChat says
// that it is overloaded. No limit is documented, so it is found by additive increase and
// multiplicative decrease.
type adaptiveLimiter struct {
	bucket  *rate.Limiter
	maxRate float64                // messages a second, as configured
	gauge   func(messages float64) // of the current rate
	log     *slog.Logger

	current     float64
	decreasedAt time.Time
	window      time.Time // beginning of the second that is counted
	overloaded  int       // answers in it that said so
	all         int       // answers in it
}

const (
	// A single answer that says so is an accident; a burst is this many in a second, and this
	// share of the answers.
	burstCount = 5
	burstShare = 0.02
	// minDecreaseInterval keeps the answers to messages that were under way at a decrease from
	// causing another one.
	minDecreaseInterval = 3 * time.Second
	// minRateShare is the share of the configured rate that remains at least.
	minRateShare = 1.0 / 64
	// increaseShare is the share of the configured rate that each second without complaint gives
	// back.
	increaseShare = 1.0 / 30
)

func newAdaptiveLimiter(maxRate float64, gauge func(float64), log *slog.Logger) *adaptiveLimiter {
	gauge(maxRate)
	return &adaptiveLimiter{
		bucket:  rate.NewLimiter(rate.Limit(maxRate), burst(maxRate)),
		maxRate: maxRate, current: maxRate, gauge: gauge, log: log,
	}
}

// burst lets a batch's POSTs start together and stays below a tenth of a second's worth.
func burst(messages float64) int { return max(1, int(messages/10)) }

// observe counts an answer of WeChat's.
func (l *adaptiveLimiter) observe(now time.Time, overloaded bool) {
	l.evaluate(now)
	l.all++
	if overloaded {
		l.overloaded++
	}
}

// evaluate judges the second that is counted once it has ended: after a burst the rate is
// decreased, after a quiet one some of it comes back.
func (l *adaptiveLimiter) evaluate(now time.Time) {
	elapsed := now.Sub(l.window)
	if elapsed >= 0 && elapsed < time.Second {
		return
	}
	overrun := l.overloaded >= burstCount && float64(l.overloaded) >= burstShare*float64(l.all)
	quiet := max(1, int(elapsed/time.Second)) // an idle account has quiet seconds as well
	l.window, l.overloaded, l.all = now, 0, 0
	if overrun {
		l.decrease(now)
		return
	}
	if l.current >= l.maxRate || now.Sub(l.decreasedAt) < minDecreaseInterval {
		return
	}
	l.set(min(l.maxRate, l.current+l.maxRate*increaseShare*float64(quiet)))
	if l.current >= l.maxRate {
		l.log.Info("sending at the configured rate again", "rate", l.current)
	}
}

// decrease slows the account down at once: after a burst, or where the minute's quota was used up.
func (l *adaptiveLimiter) decrease(now time.Time) {
	if since := now.Sub(l.decreasedAt); since >= 0 && since < minDecreaseInterval {
		return
	}
	l.decreasedAt = now
	first := l.current >= l.maxRate
	l.set(max(l.maxRate*minRateShare, l.current/2))
	if first {
		l.log.Warn("WeChat is overloaded: sending more slowly",
			"rate", l.current, "configured", l.maxRate)
	}
}

func (l *adaptiveLimiter) set(messages float64) {
	l.current = messages
	l.gauge(messages)
	l.bucket.SetLimit(rate.Limit(messages))
	l.bucket.SetBurst(burst(messages))
}
