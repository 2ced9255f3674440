package sender

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// governor keeps an account at its configured rate, and slows it down while WeChat says that it is overrun: -1 in
// bursts, or 45011. No limit is documented, so it is found by additive increase and multiplicative decrease.
type governor struct {
	limiter *rate.Limiter
	most    float64                             // messages a second, as configured
	gauge   func(messages float64)              // hears of each change
	note    func(messages float64, slower bool) // hears of the first cut and of the full rate

	mu      sync.Mutex
	current float64
	cutAt   time.Time // of the last cut
	window  time.Time // beginning of the second that is counted
	busy    int       // answers in it that said busy
	all     int       // answers in it
}

const (
	// A single -1 is an accident; a burst is this many in a second, and this share of the answers.
	burstCount = 5
	burstShare = 0.02
	// cutEvery keeps the answers to messages that were under way at the cut from causing another one.
	cutEvery = 3 * time.Second
	// slowest is the share of the configured rate that remains at least.
	slowest = 1.0 / 64
	// regain is the share of the configured rate that each second without complaint gives back.
	regain = 1.0 / 30
)

func newGovernor(most float64) *governor {
	// The burst lets a batch's POSTs start together and stays below a tenth of a second's worth.
	return &governor{
		limiter: rate.NewLimiter(rate.Limit(most), max(1, int(most/10))), most: most, current: most,
		gauge: func(float64) {}, note: func(float64, bool) {},
	}
}

// answered counts an answer of WeChat's; busy: it said that it is overrun.
func (g *governor) answered(now time.Time, busy bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if elapsed := now.Sub(g.window); elapsed < 0 || elapsed >= time.Second {
		g.second(now)
	}
	g.all++
	if busy {
		g.busy++
	}
}

// look judges the last second where no answer comes to do so.
func (g *governor) look(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if elapsed := now.Sub(g.window); elapsed < 0 || elapsed >= time.Second {
		g.second(now)
	}
}

// second judges the one that has ended: after a burst the rate is cut, after a quiet one some of it comes back.
func (g *governor) second(now time.Time) {
	burst := g.busy >= burstCount && float64(g.busy) >= burstShare*float64(g.all)
	quiet := max(1, int(now.Sub(g.window)/time.Second)) // an idle account has quiet seconds as well
	g.window, g.busy, g.all = now, 0, 0
	if burst {
		g.cut(now)
		return
	}
	if g.current >= g.most || now.Sub(g.cutAt) < cutEvery {
		return
	}
	g.set(min(g.most, g.current+g.most*regain*float64(quiet)))
	if g.current >= g.most {
		g.note(g.current, false)
	}
}

// halve slows the account down at once: the minute's quota was used up (45011).
func (g *governor) halve(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cut(now)
}

func (g *governor) cut(now time.Time) {
	if since := now.Sub(g.cutAt); since >= 0 && since < cutEvery {
		return
	}
	g.cutAt = now
	first := g.current >= g.most
	g.set(max(g.most*slowest, g.current/2))
	if first {
		g.note(g.current, true)
	}
}

func (g *governor) set(messages float64) {
	g.current = messages
	g.gauge(messages)
	g.limiter.SetLimit(rate.Limit(messages))
	g.limiter.SetBurst(max(1, int(messages/10)))
}
