package throttle

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/unionbridge/unionbridge/sender/channel"
)

// TestAdaptiveLimiter: bursts of overload halve the rate, not more often than every few seconds; a
// quiet time gives it back; a single one changes nothing.
func TestAdaptiveLimiter(t *testing.T) {
	log := &lockedBuffer{}
	gauge := 0.0
	l := newAdaptiveLimiter(100, func(v float64) { gauge = v },
		slog.New(slog.NewTextHandler(log, nil)))
	now := time.Unix(1_800_000_000, 0)
	second := func(all, overloaded int) {
		for i := range all {
			l.observe(now, i < overloaded)
		}
		now = now.Add(time.Second)
		l.observe(now, false) // the first answer of the next second judges the last one
	}
	want := func(rate float64, when string) {
		t.Helper()
		if l.current != rate || float64(l.bucket.Limit()) != rate || gauge != rate {
			t.Errorf("the rate is %v (bucket %v, gauge %v) %s, want %v",
				l.current, l.bucket.Limit(), gauge, when, rate)
		}
	}
	want(100, "at the beginning")
	second(100, burstCount-1)
	want(100, "after a few overloads in a second")
	second(1000, burstCount)
	want(100, "after half a percent of overloads")
	second(100, 50)
	want(50, "after a burst")
	second(50, 50)
	want(50, "after answers to what was under way")
	now = now.Add(minDecreaseInterval)
	for range 20 {
		second(50, 50)
		now = now.Add(minDecreaseInterval)
	}
	// A few quiet seconds lie between the bursts.
	if l.current < 100*minRateShare || l.current > 100*(minRateShare+4*increaseShare) {
		t.Errorf("the rate is %v in a long storm, want about %v", l.current, 100*minRateShare)
	}
	if l.bucket.Burst() != 1 {
		t.Errorf("the burst is %d at the lowest rate, want 1", l.bucket.Burst())
	}
	for range 40 {
		second(10, 0)
	}
	want(100, "after 40 quiet seconds")
	f := fixture{log: log}
	f.wantLogged(t, "sending more slowly", 1)
	f.wantLogged(t, "configured rate again", 1)
	l.decrease(now)
	want(50, "after the minute's quota was used up")
}

// TestAdaptiveLimiterClock: a clock that is set back neither freezes the counting nor gives the
// rate back early.
func TestAdaptiveLimiterClock(t *testing.T) {
	l := newAdaptiveLimiter(100, func(float64) {}, slog.New(slog.DiscardHandler))
	now := time.Unix(1_800_000_000, 0)
	l.observe(now, false)
	now = now.Add(-time.Hour)
	for range burstCount {
		l.observe(now, true)
	}
	now = now.Add(time.Second)
	l.observe(now, false)
	if l.current != 50 {
		t.Errorf("the rate is %v after a burst behind a clock that went back", l.current)
	}
	l.observe(now.Add(time.Second), false)
	if l.current != 50 {
		t.Errorf("the rate went up to %v within a second", l.current)
	}
}

// TestIdleRateRecovers: the rate of an account that has nothing to send recovers as well.
func TestIdleRateRecovers(t *testing.T) {
	f := newFixture(t)
	f.wantMetric(t, "unionbridge_send_rate", 1000)
	for range burstCount {
		f.send(t, order, channel.Outcome{Verdict: channel.InDoubt, Overloaded: true})
	}
	f.clock.move(time.Second)
	f.reload(t)
	f.wantMetric(t, "unionbridge_send_rate", 500)
	f.clock.move(20 * time.Second)
	f.reload(t)
	f.wantMetric(t, "unionbridge_send_rate", 1000)
}

// TestWait: permits come at the account's rate after a first burst, and a wait ends in time.
func TestWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, func(c *Config) { c.Rate, c.Now = 100, time.Now })
		begin := time.Now()
		for range 110 { // ten at once
			if !f.Reserve("order", order).Wait(t.Context(), time.Minute) {
				t.Fatal("the turn did not come")
			}
		}
		if took := time.Since(begin).Round(100 * time.Millisecond); took != time.Second {
			t.Errorf("110 permits at 100 a second took %s, want 1s after the burst of 10", took)
		}
		if f.Reserve("order", order).Wait(t.Context(), time.Millisecond) {
			t.Error("a wait of 10 ms took 1 ms")
		}
		if f.Reserve("order", order).Wait(t.Context(), -time.Second) {
			t.Error("a wait went well whose time is over")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if f.Reserve("order", order).Wait(ctx, time.Minute) {
			t.Error("a wait went well that was cancelled")
		}
		time.Sleep(time.Second)
		if !f.Reserve("order", order).Wait(t.Context(), 0) {
			t.Error("a turn that has come needs no time to wait")
		}
	})
}
