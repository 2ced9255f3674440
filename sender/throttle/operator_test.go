package throttle

import (
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/sender/channel"
)

// takeUp lets the account read what has changed.
func (f *fixture) takeUp(t *testing.T) {
	t.Helper()
	f.clock.move(stateAge)
	if err := f.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestOperatorPauses: a pause holds back what is claimed already, no answer of WeChat's ends it, and
// its end needs no probe.
func TestOperatorPauses(t *testing.T) {
	f := newFixture(t)
	f.load(t)
	begin := f.clock.now()
	claimed := f.Reserve("order", order)
	f.memory.put(scopeOperator, stateRow{Reason: "operator", ErrMsg: "wrong texts"})
	f.takeUp(t)
	f.wantLogged(t, "wrong texts", 1)
	f.wantMetric(t, "unionbridge_send_paused", 1)
	if !f.Paused() || claimed.Allowed() || f.Claimable(true, order, 5) != 0 || f.Probing() {
		t.Error("a message may go")
	}
	if f.SendingFor(begin) != 0 {
		t.Error("a paused account counts as sending")
	}
	claimed.Done(sent) // it was on its way
	f.clock.move(24 * time.Hour)
	f.Checked(channel.Outcome{Confirms: channel.ScopeToken})
	f.takeUp(t)
	if _, there := f.memory.row(scopeOperator); !f.Paused() || !there {
		t.Error("the daemon has ended an operator's pause")
	}
	f.wantLogged(t, "an operator has paused", 1)
	delete(f.memory.rows, scopeOperator)
	f.takeUp(t)
	if f.Paused() || f.ClaimLimit(10) != 10 || f.Claimable(false, order, 5) != 5 {
		t.Error("the account is still paused, or a probe must find out")
	}
	if f.SendingFor(begin) != 0 {
		t.Error("the account counts as sending since before its pause")
	}
	f.wantMetric(t, "unionbridge_send_paused", 0)
}

// TestOperatorPausesTemplate: of one template nothing goes, of others everything.
func TestOperatorPausesTemplate(t *testing.T) {
	f := newFixture(t)
	f.memory.put(scopeOperatorTemplate+order, stateRow{Reason: "operator"})
	f.load(t)
	claimed := f.Reserve("order", order)
	if f.Paused() || f.Claimable(true, order, 5) != 0 || claimed.Allowed() {
		t.Error("a message of the template may go, or the account is paused")
	}
	claimed.Release()
	f.send(t, other, sent)
	f.wantMetric(t, "unionbridge_send_templates_held", 1)
	f.wantMetric(t, "unionbridge_send_paused", 0)
	delete(f.memory.rows, scopeOperatorTemplate+order)
	f.takeUp(t)
	f.wantMetric(t, "unionbridge_send_templates_held", 0)
	f.send(t, order, sent)
}

// TestBothPauses: an operator's pause and one of WeChat's stand beside each other, and end each for
// itself.
func TestBothPauses(t *testing.T) {
	f := newFixture(t)
	f.load(t)
	f.send(t, order, noPermission)
	f.memory.put(scopeOperator, stateRow{Reason: "operator"})
	f.takeUp(t)
	f.clock.move(probeInterval)
	if !f.Paused() || f.Reserve("order", order).Allowed() {
		t.Error("a probe went out during an operator's pause")
	}
	delete(f.memory.rows, scopeOperator)
	f.takeUp(t)
	f.wantMetric(t, "unionbridge_send_paused", 1)
	if f.Paused() || f.ClaimLimit(10) != 1 {
		t.Error("the operator's resume ended WeChat's pause, which a probe is to end")
	}
	delete(f.memory.rows, scopeSend)
	f.send(t, order, sent)
	f.memory.put(scopeOperator, stateRow{Reason: "operator"})
	f.takeUp(t)
	if !f.Paused() {
		t.Error("an operator's pause is not taken up a second time")
	}
}

// TestRefreshCosts: claims that follow each other read the state once a second.
func TestRefreshCosts(t *testing.T) {
	f := newFixture(t)
	f.load(t)
	reads := f.memory.reads
	for range 50 {
		if err := f.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.clock.move(100 * time.Millisecond)
	}
	if n := f.memory.reads - reads; n != 4 {
		t.Errorf("5 seconds of claims cost %d reads, want 4", n)
	}
}

var (
	wrongSecret = channel.Outcome{
		Verdict: channel.PauseAccount, Pause: channel.PauseConfig, Reason: "wrong_secret", Code: 40125,
	}
	tokenTaken = channel.Outcome{Confirms: channel.ScopeToken}
)

func withCredentials(c *Config) {
	c.Credentials = func(reason string) bool { return reason == wrongSecret.Reason }
}

// TestCorrectedSecret: an instance that takes over an account with a wrong secret asks once, and a
// token that WeChat takes ends the pause before its time, without a message.
func TestCorrectedSecret(t *testing.T) {
	last := newFixture(t, withCredentials)
	last.load(t)
	last.send(t, order, wrongSecret)
	f := newFixture(t, withCredentials)
	f.store = last.memory
	if f.CheckDue() {
		t.Error("what is not loaded is to be checked")
	}
	f.load(t)
	if !f.Paused() || !f.CheckDue() || f.CheckDue() {
		t.Error("the account is to be checked once")
	}
	f.Checked(tokenTaken)
	if _, there := last.memory.row(scopeSend); f.Paused() || f.ClaimLimit(10) != 10 || there {
		t.Error("the pause did not end")
	}
	f.wantMetric(t, "unionbridge_send_paused", 0)
	f.send(t, order, sent)
	if f.CheckDue() {
		t.Error("an account that works is to be checked")
	}

	// The old instance does not know of that, and the secret is still wrong there.
	last.clock.move(probeInterval)
	last.Checked(wrongSecret)
	if last.ClaimLimit(10) != 1 {
		t.Error("a check that failed ended the pause")
	}
}

// TestCheckedEnds: what a token proves nothing about stays.
func TestCheckedEnds(t *testing.T) {
	for name, c := range map[string]struct {
		pause, check channel.Outcome
		ends         bool
	}{
		"wrong secret":      {wrongSecret, tokenTaken, true},
		"still wrong":       {wrongSecret, wrongSecret, false},
		"not known":         {wrongSecret, channel.Outcome{}, false},
		"no permission":     {noPermission, tokenTaken, false},
		"quota of the day":  {of(channel.PauseDay), tokenTaken, false},
		"quota of a minute": {of(channel.PauseMinute), tokenTaken, false},
	} {
		f := newFixture(t, withCredentials)
		f.load(t)
		f.send(t, other, banned)
		f.send(t, order, c.pause)
		f.Checked(c.check)
		_, stored := f.memory.row(scopeSend)
		if f.Paused() == c.ends || stored == c.ends {
			t.Errorf("%s: paused is %v, stored is %v", name, f.Paused(), stored)
		}
		if !f.templateHeld(other) {
			t.Errorf("%s: the template's pause ended", name)
		}
	}
}

// TestCheckedBegins: what a person must fix pauses the account before a message meets it, and is
// checked as often as a probe goes out.
func TestCheckedBegins(t *testing.T) {
	f := newFixture(t, withCredentials)
	f.load(t)
	f.CheckDue()
	f.Checked(wrongSecret)
	f.wantLogged(t, "sending is paused", 1)
	if row, _ := f.memory.row(scopeSend); !f.Paused() || row.Reason != wrongSecret.Reason {
		t.Errorf("stored is %+v", row)
	}
	for range 2 {
		f.clock.move(probeInterval - time.Second)
		if f.CheckDue() {
			t.Error("it is checked too often")
		}
		f.clock.move(time.Second)
		if !f.CheckDue() {
			t.Error("nobody asks whether the cause is gone")
		}
		f.Checked(wrongSecret)
	}
	f.Checked(tokenTaken)
	f.wantLogged(t, "sending resumes", 1)
	f.Checked(channel.Outcome{Verdict: channel.PauseAccount, Pause: channel.PauseNetwork})
	if f.Paused() {
		t.Error("a check that did not come through pauses the account")
	}
}

// TestCheckedEndsItsOwn: a check ends what a check began, whatever the reason was; not so after a
// message has met it.
func TestCheckedEndsItsOwn(t *testing.T) {
	f := newFixture(t, withCredentials)
	f.load(t)
	f.Checked(noPermission)
	if !f.Paused() {
		t.Fatal("the account is not paused")
	}
	f.Checked(tokenTaken)
	if _, there := f.memory.row(scopeSend); f.Paused() || there {
		t.Error("the pause did not end")
	}
	f.Checked(noPermission)
	f.clock.move(probeInterval)
	f.send(t, order, noPermission)
	f.Checked(tokenTaken)
	if !f.Paused() {
		t.Error("a token ended what a message has met")
	}
}
