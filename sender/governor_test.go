package sender

import (
	"testing"
	"time"
)

// TestGovernor: bursts of -1 halve the rate, not more often than every few seconds; a quiet time gives it back; a
// single -1 changes nothing.
func TestGovernor(t *testing.T) {
	var notes []bool
	g := newGovernor(100)
	g.note = func(_ float64, slower bool) { notes = append(notes, slower) }
	now := time.Unix(1_800_000_000, 0)
	second := func(all, busy int) {
		for i := range all {
			g.answered(now, i < busy)
		}
		now = now.Add(time.Second)
		g.answered(now, false) // the first answer of the next second judges the last one
	}
	second(100, burstCount-1)
	if g.current != 100 || g.limiter.Limit() != 100 {
		t.Errorf("%d busy answers in a second slowed the account down to %v", burstCount-1, g.current)
	}
	second(1000, burstCount) // half a percent
	if g.current != 100 {
		t.Errorf("half a percent of busy answers slowed the account down to %v", g.current)
	}
	second(100, 50)
	if g.current != 50 || g.limiter.Limit() != 50 {
		t.Errorf("the rate is %v after a burst, want 50", g.current)
	}
	second(50, 50)
	if g.current != 50 {
		t.Errorf("the rate is %v: answers to what was under way cut it again", g.current)
	}
	now = now.Add(cutEvery)
	for range 20 {
		second(50, 50)
		now = now.Add(cutEvery)
	}
	if g.current < 100*slowest || g.current > 100*(slowest+4*regain) { // a few quiet seconds lie between the bursts
		t.Errorf("the rate is %v in a long storm, want about the slowest %v", g.current, 100*slowest)
	}
	for range 40 {
		second(10, 0)
	}
	if g.current != 100 || g.limiter.Limit() != 100 {
		t.Errorf("the rate is %v after 40 quiet seconds", g.current)
	}
	if len(notes) != 2 || !notes[0] || notes[1] {
		t.Errorf("people were told %v, want slower once and faster once", notes)
	}
	g.halve(now)
	if g.current != 50 {
		t.Errorf("45011 left the rate at %v", g.current)
	}
}

// TestGovernorClock: a clock that is set back neither freezes the counting nor gives the rate back early.
func TestGovernorClock(t *testing.T) {
	g := newGovernor(100)
	now := time.Unix(1_800_000_000, 0)
	g.answered(now, false)
	now = now.Add(-time.Hour)
	for range burstCount {
		g.answered(now, true)
	}
	now = now.Add(time.Second)
	g.answered(now, false)
	if g.current != 50 {
		t.Errorf("the rate is %v after a burst behind a clock that went back", g.current)
	}
	g.answered(now.Add(time.Second), false)
	if g.current != 50 {
		t.Errorf("the rate went up to %v within a second", g.current)
	}
}
