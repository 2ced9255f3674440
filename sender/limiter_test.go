package sender

import (
	"testing"
	"time"
)

// TestLimiter: bursts of -1 halve the rate, not more often than every few seconds; a quiet time gives it back; a
// single -1 changes nothing.
func TestLimiter(t *testing.T) {
	var notes []bool
	l := newAdaptiveLimiter(100)
	l.onChange = func(_ float64, slower bool) { notes = append(notes, slower) }
	now := time.Unix(1_800_000_000, 0)
	second := func(all, busy int) {
		for i := range all {
			l.observe(now, i < busy)
		}
		now = now.Add(time.Second)
		l.observe(now, false) // the first answer of the next second judges the last one
	}
	second(100, burstCount-1)
	if l.current != 100 || l.bucket.Limit() != 100 {
		t.Errorf("%d busy answers in a second slowed the account down to %v", burstCount-1, l.current)
	}
	second(1000, burstCount) // half a percent
	if l.current != 100 {
		t.Errorf("half a percent of busy answers slowed the account down to %v", l.current)
	}
	second(100, 50)
	if l.current != 50 || l.bucket.Limit() != 50 {
		t.Errorf("the rate is %v after a burst, want 50", l.current)
	}
	second(50, 50)
	if l.current != 50 {
		t.Errorf("the rate is %v: answers to what was under way cut it again", l.current)
	}
	now = now.Add(minDecreaseInterval)
	for range 20 {
		second(50, 50)
		now = now.Add(minDecreaseInterval)
	}
	if l.current < 100*minRateShare || l.current > 100*(minRateShare+4*increaseShare) { // a few quiet seconds lie between the bursts
		t.Errorf("the rate is %v in a long storm, want about the slowest %v", l.current, 100*minRateShare)
	}
	for range 40 {
		second(10, 0)
	}
	if l.current != 100 || l.bucket.Limit() != 100 {
		t.Errorf("the rate is %v after 40 quiet seconds", l.current)
	}
	if len(notes) != 2 || !notes[0] || notes[1] {
		t.Errorf("people were told %v, want slower once and faster once", notes)
	}
	l.decrease(now)
	if l.current != 50 {
		t.Errorf("45011 left the rate at %v", l.current)
	}
}

// TestLimiterClock: a clock that is set back neither freezes the counting nor gives the rate back early.
func TestLimiterClock(t *testing.T) {
	l := newAdaptiveLimiter(100)
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
