package throttle

import (
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/sender/channel"
)

// TestLengthOfPauses: each kind of pause lasts as long as its cause may, and all but those for
// want of a connection are stored.
func TestLengthOfPauses(t *testing.T) {
	for _, c := range []struct {
		name string
		kind channel.Pause
		at   time.Time // zero: the fixture's, 12:00:30
		want time.Duration
	}{
		{"token", channel.PauseToken, time.Time{}, 30 * time.Second},
		{"minute", channel.PauseMinute, time.Time{}, 31 * time.Second},
		{"configuration", channel.PauseConfig, time.Time{}, 5 * time.Minute},
		{"day", channel.PauseDay, time.Time{}, 12*time.Hour + 30*time.Second},
		// What is refused just after the reset may be the day before's: it costs minutes and not a
		// day.
		{"just after midnight", channel.PauseDay, time.Date(2026, 11, 22, 0, 0, 30, 0, china()),
			30 * time.Second},
		{"in the first hour", channel.PauseDay, time.Date(2026, 11, 22, 0, 1, 30, 0, china()),
			quotaRetry},
		{"in the third hour", channel.PauseDay, time.Date(2026, 11, 22, 2, 0, 0, 0, china()),
			22*time.Hour + time.Minute},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			if !c.at.IsZero() {
				f.clock.at = c.at
			}
			f.send(t, order, of(c.kind))
			if got := f.pausedFor(); got != c.want {
				t.Errorf("the account pauses for %s, want %s", got, c.want)
			}
			row, ok := f.memory.row(scopeSend)
			if !ok || row.remaining() != c.want || row.Reason != "r" || row.ErrCode != 1 {
				t.Errorf("stored is %+v (%v)", row, ok)
			}
			f.wantMetric(t, "unionbridge_send_paused", 1)
			if f.Claimable(true, order, 5) != 0 || f.Reserve("order", order).Allowed() {
				t.Error("a message may go")
			}
			f.clock.move(c.want)
			if f.Paused() || f.Claimable(true, order, 5) != 5 {
				t.Error("the pause lasts longer")
			}
		})
	}
}

// TestNetworkPauses: they double up to half a minute, are never stored, and begin small after a
// success.
func TestNetworkPauses(t *testing.T) {
	f := newFixture(t)
	about := func(want time.Duration) {
		t.Helper()
		f.send(t, order, unreachable)
		if got := f.pausedFor(); got < want*9/10 || got > want*11/10 {
			t.Errorf("the account pauses for %s, want about %s", got, want)
		}
		f.clock.move(f.pausedFor())
	}
	for _, seconds := range []int{1, 2, 4, 8, 16, 30, 30, 30} {
		about(time.Duration(seconds) * time.Second)
	}
	f.wantLogged(t, "sending is paused", 1)
	f.wantMetric(t, "unionbridge_send_paused", 1)
	f.send(t, order, sent)
	f.wantMetric(t, "unionbridge_send_paused", 0)
	f.wantLogged(t, "sending resumes", 1)
	about(time.Second)
	if len(f.memory.rows) != 0 {
		t.Errorf("stored is %+v", f.memory.rows)
	}
}

// TestMinuteSlowsDown: only the minute's quota says anything about the rate.
func TestMinuteSlowsDown(t *testing.T) {
	for kind, want := range map[channel.Pause]float64{
		channel.PauseMinute: 500, channel.PauseDay: 1000, channel.PauseToken: 1000,
		channel.PauseConfig: 1000, channel.PauseNetwork: 1000,
	} {
		f := newFixture(t)
		f.send(t, order, of(kind))
		f.wantMetric(t, "unionbridge_send_rate", want)
	}
}

// TestOneProbe: one message finds out whether an account works again, however slowly it is
// answered.
func TestOneProbe(t *testing.T) {
	f := newFixture(t)
	f.send(t, order, noPermission)
	f.clock.move(probeInterval)
	if n := f.ClaimLimit(100); n != 1 || f.Probing() {
		t.Errorf("a claim is limited to %d, want 1 (probing: %v)", n, f.Probing())
	}
	probe := f.Reserve("order", order)
	if !probe.Allowed() || !f.Probing() {
		t.Error("the probe may not go, or does not count as one")
	}
	f.clock.move(time.Hour)
	if !f.Probing() {
		t.Error("the probe is forgotten while it is on its way")
	}
	probe.Done(noPermission)
	if f.Probing() || !f.Paused() || f.pausedFor() != probeInterval {
		t.Errorf("the account pauses for %s after the probe failed", f.pausedFor())
	}
	f.wantLogged(t, "sending is paused", 1) // of one reason, once

	f.clock.move(probeInterval)
	f.Reserve("order", order).Release()
	if f.Probing() || f.ClaimLimit(100) != 1 {
		t.Error("a probe that was not sent proves something")
	}
	f.send(t, order, of(channel.PauseDay))
	f.wantLogged(t, "sending is paused", 2)
	if row, _ := f.memory.row(scopeSend); row.Reason != "r" {
		t.Errorf("stored is %+v", row)
	}
	f.clock.move(f.pausedFor())
	f.send(t, order, sent)
	if f.Probing() || f.Paused() || f.ClaimLimit(100) != 100 || len(f.memory.rows) != 0 {
		t.Errorf("a message was sent, and stored is still %v", f.memory.rows)
	}
	f.wantMetric(t, "unionbridge_send_paused", 0)
}

// TestWhatEndsAPause: an answer about the message or the person proves that the account works;
// none that says nothing about it does.
func TestWhatEndsAPause(t *testing.T) {
	for name, c := range map[string]struct {
		o    channel.Outcome
		ends bool
	}{
		"sent":             {sent, true},
		"wrong":            {wrong, true},
		"refused by user":  {refused, true},
		"not a follower":   {notFollowing, true},
		"in doubt":         {inDoubt, false},
		"later":            {channel.Outcome{Verdict: channel.Retry}, false},
		"the same again":   {noPermission, false},
		"template is held": {banned, false},
	} {
		f := newFixture(t)
		f.send(t, order, noPermission)
		f.clock.move(probeInterval)
		f.send(t, order, c.o)
		_, stored := f.memory.row(scopeSend)
		if f.ClaimLimit(2) != map[bool]int{true: 2, false: 1}[c.ends] || stored == c.ends {
			t.Errorf("%s: the claim is limited to %d, stored is %v", name, f.ClaimLimit(2), stored)
		}
	}
}

// TestAnswersOfBefore: many POSTs are in flight when a pause begins. Those that meet the same
// answer do not lengthen it, those that went well do not end it.
func TestAnswersOfBefore(t *testing.T) {
	f := newFixture(t)
	var permits []*Permit
	for range 3 {
		permits = append(permits, f.Reserve("order", order))
	}
	permits[0].Done(noPermission)
	f.clock.move(time.Minute)
	if permits[1].Allowed() {
		t.Error("what was claimed before the pause may go")
	}
	permits[1].Done(of(channel.PauseDay))
	permits[2].Done(sent)
	if got := f.pausedFor(); got != probeInterval-time.Minute {
		t.Errorf("the account pauses for %s", got)
	}
	if row, _ := f.memory.row(scopeSend); row.Reason != noPermission.Reason {
		t.Errorf("stored is %+v", row)
	}
}

// TestSendingFor: the time since the last pause ended, or since the given moment.
func TestSendingFor(t *testing.T) {
	f := newFixture(t)
	begin := f.clock.now()
	f.clock.move(time.Minute)
	if got := f.SendingFor(begin); got != time.Minute {
		t.Errorf("the account has been sending for %s", got)
	}
	f.send(t, order, of(channel.PauseToken))
	if got := f.SendingFor(begin); got != -30*time.Second {
		t.Errorf("the account has been sending for %s, and its pause ends in 30 s", got)
	}
	f.clock.move(40 * time.Second)
	if got := f.SendingFor(begin); got != 10*time.Second {
		t.Errorf("the account has been sending for %s, its pause ended 10 s ago", got)
	}
}
