package throttle

import (
	"strings"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/sender/channel"
)

// TestTemplatePause: the messages of a banned template are held back while others go, one finds
// out that the ban is over, and then all go.
func TestTemplatePause(t *testing.T) {
	f := newFixture(t)
	f.send(t, order, banned)
	f.wantMetric(t, "unionbridge_send_templates_held", 1)
	if f.Claimable(true, order, 5) != 0 || !f.templateHeld(order) {
		t.Error("messages of the banned template may be claimed")
	}
	if f.Paused() || f.Claimable(false, other, 5) != 5 || f.templateHeld(other) {
		t.Error("messages of the other template may not be claimed")
	}
	row, _ := f.memory.row("template:" + order)
	if row.Reason != "template_banned" || row.ErrCode != 43116 ||
		row.ErrMsg != "banned" || row.remaining() != probeInterval {
		t.Errorf("stored is %+v", row)
	}
	if log := f.log.String(); !strings.Contains(log, "template=order template_id="+order) ||
		!strings.Contains(log, `cure="ask WeChat"`) {
		t.Errorf("the log does not say what is paused, or the cure: %s", log)
	}
	f.clock.move(probeInterval)
	if f.Claimable(true, order, 5) != 1 || f.templateHeld(order) {
		t.Error("one message is to find out")
	}
	f.send(t, order, sent)
	if f.Claimable(true, order, 5) != 5 || len(f.memory.rows) != 0 {
		t.Errorf("the ban is over, and stored is %v", f.memory.rows)
	}
	f.wantMetric(t, "unionbridge_send_templates_held", 0)
	f.wantLogged(t, "the messages of a template resume", 1)
}

// TestOneProbeOfATemplate: of several messages that are claimed one is the probe, and goes alone.
func TestOneProbeOfATemplate(t *testing.T) {
	f := newFixture(t)
	claimed := f.Reserve("order", order)
	f.send(t, order, banned)
	if claimed.Allowed() {
		t.Error("what was claimed before the pause may go")
	}
	f.clock.move(probeInterval)
	probe, second := f.Reserve("order", order), f.Reserve("order", order)
	if !probe.Allowed() || second.Allowed() || claimed.Allowed() {
		t.Error("the probe may not go, or another one may")
	}
	if !f.templateHeld(order) || f.Claimable(true, order, 5) != 0 {
		t.Error("another one may be claimed while the probe is on its way")
	}
	claimed.Release()
	second.Release()
	if !f.templateHeld(order) {
		t.Error("a message that is not the probe counts as it")
	}
	probe.Release()
	if f.Claimable(true, order, 5) != 1 {
		t.Error("a probe that was not sent takes the place of the next one")
	}
	f.send(t, order, banned)
	f.wantLogged(t, "the messages of a template are paused", 1) // of one reason, once
	if f.Claimable(true, order, 5) != 0 {
		t.Error("the probe failed, and messages may be claimed")
	}
	f.clock.move(probeInterval)
	worse := banned
	worse.Reason = "template_disabled"
	f.send(t, order, worse)
	f.wantLogged(t, "the messages of a template are paused", 2)
}

// TestWhatEndsATemplatePause: a message that is wrong proves that the account works, and nothing
// about its template.
func TestWhatEndsATemplatePause(t *testing.T) {
	for name, c := range map[string]struct {
		o    channel.Outcome
		ends bool
	}{
		"sent":            {sent, true},
		"refused by user": {refused, true},
		"wrong":           {wrong, false},
		"in doubt":        {inDoubt, false},
		"banned":          {banned, false},
		"account paused":  {of(channel.PauseNetwork), false},
	} {
		f := newFixture(t)
		f.send(t, order, banned)
		f.clock.move(probeInterval)
		f.send(t, order, c.o)
		if _, stored := f.memory.row("template:" + order); stored == c.ends {
			t.Errorf("%s: stored is %v", name, stored)
		}
	}
}

// TestTemplateAnswersOfBefore: messages of a template that were in flight when it was paused
// change nothing.
func TestTemplateAnswersOfBefore(t *testing.T) {
	f := newFixture(t)
	first, second, third := f.Reserve("o", order), f.Reserve("o", order), f.Reserve("o", order)
	first.Done(banned)
	f.clock.move(time.Minute)
	second.Done(banned)
	third.Done(sent)
	row, _ := f.memory.row("template:" + order)
	if row.remaining() != probeInterval || f.Claimable(true, order, 5) != 0 {
		t.Errorf("stored is %+v", row)
	}
	f.clock.move(probeInterval - time.Minute)
	if f.Claimable(true, order, 5) != 1 {
		t.Error("the pause became longer")
	}
}

// TestPausesOfBothKinds: a banned template stays so when the account's own pause ends.
func TestPausesOfBothKinds(t *testing.T) {
	f := newFixture(t)
	f.send(t, order, banned)
	f.send(t, other, noPermission)
	if len(f.memory.rows) != 2 {
		t.Fatalf("stored is %v", f.memory.rows)
	}
	f.clock.move(probeInterval)
	probe := f.Reserve("order", order) // of both
	if !f.Probing() || !f.templateHeld(order) {
		t.Error("the message is not the probe of the account and the template")
	}
	probe.Done(banned)
	if f.Probing() || f.ClaimLimit(2) != 1 || f.Claimable(true, order, 5) != 0 {
		t.Error("a ban ended the account's pause, or the template's")
	}
	f.send(t, other, sent)
	if f.ClaimLimit(2) != 2 || f.Claimable(true, order, 5) != 0 || len(f.memory.rows) != 1 {
		t.Errorf("stored is %v", f.memory.rows)
	}
}
