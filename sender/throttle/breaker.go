package throttle

import (
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/unionbridge/unionbridge/sender/channel"
)

const (
	// probeInterval is how often a paused account, or template, is tried again where nothing says
	// when its pause ends.
	probeInterval = 5 * time.Minute
	// quotaRetry is how soon an account is tried again that has no quota in the first hour of a
	// day.
	quotaRetry = 10 * time.Minute
	// maxNetworkPause bounds the pause that doubles while WeChat cannot be reached.
	maxNetworkPause = 30 * time.Second
)

// breaker is the account's pause as this instance, its only claimer, knows it. It is a circuit
// breaker: open until a moment, then half open. Half open it lets one message through, the probe,
// whose answer closes it or begins the next pause.
type breaker struct {
	log   *slog.Logger
	reset func(now time.Time) time.Time

	until    time.Time
	open     bool      // or half open: after until
	probing  bool      // the probe is on its way
	checked  bool      // a check began the pause, so that a check ends it
	failures int       // failed connections in a row
	alarmed  string    // the reason that has been logged
	row      *stateRow // as account_state has it, or is to have it; nil: nothing
}

func (b *breaker) active(now time.Time) bool { return now.Before(b.until) }

// acquire notes that a message goes out, and reports whether it is the probe.
func (b *breaker) acquire() bool {
	b.probing = b.probing || b.open
	return b.open
}

func (b *breaker) load(rows []stateRow, now time.Time) {
	*b = breaker{log: b.log, reset: b.reset, failures: b.failures}
	for _, row := range rows {
		if row.Scope == scopeSend {
			b.row, b.alarmed, b.open = &row, row.Reason, true
			b.until = now.Add(row.remaining())
		}
	}
}

// pause reports whether account_state is to have the pause.
func (b *breaker) pause(o channel.Outcome, now time.Time) bool {
	if b.active(now) {
		return false // many POSTs were in flight, and each of them meets the same answer
	}
	if o.Pause == channel.PauseNetwork {
		b.failures++
	}
	b.until, b.open, b.checked = now.Add(b.length(o.Pause, now)), true, false
	if b.alarmed != o.Reason {
		b.log.Error("sending is paused", "reason", o.Reason, "until", b.until.Format(time.RFC3339),
			"err", o.Err, "cure", o.Cure)
		b.alarmed = o.Reason
	}
	if o.Pause == channel.PauseNetwork {
		return false // a pause of seconds is over before anybody could read of it
	}
	b.row = newStateRow(o)
	return true
}

// length is a duration and not a moment: a clock that is set back must not make a pause longer.
func (b *breaker) length(kind channel.Pause, now time.Time) time.Duration {
	switch kind {
	case channel.PauseNetwork:
		d := min(time.Second<<min(b.failures-1, 5), maxNetworkPause)
		return d - d/10 + rand.N(d/5+1)
	case channel.PauseToken:
		return 30 * time.Second // it has been seen to pass
	case channel.PauseMinute:
		return now.Truncate(time.Minute).Add(time.Minute + time.Second).Sub(now)
	case channel.PauseDay:
		// Just after the reset the answer may be of the day before, and nobody knows when WeChat's
		// own day begins.
		reset := b.reset(now.Add(-dayMargin))
		if now.Before(reset.Add(-23 * time.Hour)) {
			return quotaRetry
		}
		return reset.Sub(now)
	}
	return probeInterval
}

// resume ends a pause, and reports whether there was one that may end.
func (b *breaker) resume(now time.Time) bool {
	if !b.open || b.active(now) {
		return false // nothing to end, or an answer to a POST that began before the pause
	}
	b.close(now)
	return true
}

// close ends the pause, also before its time.
func (b *breaker) close(now time.Time) {
	if b.active(now) {
		b.until = now
	}
	b.open, b.checked, b.failures, b.row, b.alarmed = false, false, 0, nil, ""
	b.log.Info("sending resumes")
}

// removed makes the breaker half open whose row has been deleted.
func (b *breaker) removed(now time.Time) {
	if b.row != nil && b.active(now) {
		b.until = now
	}
}
