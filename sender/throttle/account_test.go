package throttle

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/sender/channel"
)

func (f *fixture) load(t *testing.T) {
	t.Helper()
	if err := f.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) reload(t *testing.T) {
	t.Helper()
	if err := f.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestLoad: an instance that takes an account over goes on with the pauses of the last one, and
// finds out about each with one message.
func TestLoad(t *testing.T) {
	f := newFixture(t)
	if _, ok := f.metric(t, "unionbridge_send_paused"); ok {
		t.Error("an instance without the account reports that it is not paused")
	}
	last := newFixture(t)
	last.memory = f.memory
	last.store = f.memory
	last.send(t, order, banned)
	last.clock.move(2 * time.Minute)
	last.send(t, other, noPermission)
	f.memory.put("refresh", stateRow{Reason: "of another package"})

	f.load(t)
	f.wantMetric(t, "unionbridge_send_paused", 1)
	f.wantMetric(t, "unionbridge_send_templates_held", 1)
	if f.pausedFor() != probeInterval || f.Claimable(true, other, 5) != 0 {
		t.Errorf("the account pauses for %s", f.pausedFor())
	}
	f.clock.move(probeInterval)
	if f.ClaimLimit(10) != 1 || f.Claimable(true, order, 5) != 1 {
		t.Error("one message is to find out")
	}
	f.send(t, other, noPermission)
	f.wantLogged(t, "sending is paused", 0) // the last instance has logged that reason
	f.clock.move(probeInterval)
	f.send(t, order, sent)
	if len(f.memory.rows) != 1 {
		t.Errorf("stored is %v, want what another package wrote", f.memory.rows)
	}

	last.load(t)
	if last.Paused() || last.templateHeld(order) {
		t.Error("the account is paused by what the instance knew when it had it last")
	}
	last.wantMetric(t, "unionbridge_send_paused", 0)
	last.wantMetric(t, "unionbridge_send_templates_held", 0)
	f.memory.fail(errors.New("gone"))
	if f.Load(t.Context()) == nil {
		t.Error("the state cannot be read, and that is no error")
	}
}

// TestPauseWithoutEnd: paused_until NULL is over at once, as far as the probe goes.
func TestPauseWithoutEnd(t *testing.T) {
	f := newFixture(t)
	f.memory.put(scopeSend, stateRow{Reason: "x"})
	f.load(t)
	if f.Paused() || f.ClaimLimit(10) != 1 {
		t.Errorf("the account pauses for %s", f.pausedFor())
	}
}

// TestOperatorResumes: deleting the row of account_state ends a pause that would last until
// tomorrow: one message finds out.
func TestOperatorResumes(t *testing.T) {
	f := newFixture(t)
	f.send(t, order, banned)
	f.send(t, other, of(channel.PauseDay))
	f.reload(t)
	if !f.Paused() || f.Claimable(true, other, 5) != 0 {
		t.Error("the pause ended although its row is there")
	}
	delete(f.memory.rows, scopeSend)
	f.reload(t)
	if f.Paused() || f.ClaimLimit(10) != 1 || !f.templateHeld(order) {
		t.Error("the account still pauses, or the template does not any more")
	}
	delete(f.memory.rows, scopeTemplate+order)
	f.reload(t)
	if f.Claimable(true, order, 5) != 1 {
		t.Error("the template is still paused")
	}
	f.send(t, order, sent)
	if f.ClaimLimit(10) != 10 || f.Claimable(true, order, 5) != 5 {
		t.Error("the message that found out ended nothing")
	}
}

// TestReloadCosts: where nothing is paused the database is asked once a minute.
func TestReloadCosts(t *testing.T) {
	f := newFixture(t)
	f.load(t)
	f.clock.move(idleStateAge - time.Second)
	f.memory.fail(errors.New("gone"))
	f.reload(t)
	f.send(t, order, unreachable) // in memory only
	f.reload(t)
	f.clock.move(f.pausedFor())
	f.send(t, other, banned)
	if f.Reload(t.Context()) == nil {
		t.Error("the state cannot be read, and that is no error")
	}
}

// TestUnwrittenState: what cannot be written holds, does not look as if an operator had deleted
// its row, and is written later.
func TestUnwrittenState(t *testing.T) {
	f := newFixture(t)
	f.memory.fail(errors.New("gone"))
	f.send(t, order, banned)
	f.send(t, other, noPermission)
	f.wantLogged(t, "writing the account's state", 2)
	_ = f.Reload(t.Context())
	f.wantLogged(t, "writing the account's state", 4)
	if !f.Paused() || !f.templateHeld(order) {
		t.Error("a pause ended because its row could not be written")
	}
	f.memory.fail(nil)
	f.clock.move(time.Minute)
	f.reload(t)
	send, _ := f.memory.row(scopeSend)
	template, _ := f.memory.row(scopeTemplate + order)
	if send.remaining() != probeInterval-time.Minute || template.remaining() != send.remaining() {
		t.Errorf("stored is %v", f.memory.rows)
	}

	// The same of ends.
	f.clock.move(probeInterval)
	f.memory.fail(errors.New("gone"))
	f.send(t, order, sent)
	if f.Paused() || f.templateHeld(order) || len(f.memory.rows) != 2 {
		t.Errorf("the pauses did not end, or stored is %v", f.memory.rows)
	}
	// A pause for want of a connection comes and goes, and the row to be removed is not forgotten.
	f.send(t, order, unreachable)
	f.clock.move(f.pausedFor())
	f.memory.fail(nil)
	f.send(t, other, sent)
	if _, ok := f.memory.row(scopeSend); ok {
		t.Error("the row of the pause is still there")
	}
	f.reload(t)
	if len(f.memory.rows) != 0 {
		t.Errorf("stored is %v", f.memory.rows)
	}
}

// TestPausedAgainMeanwhile: a template is paused again before the end of its last pause is
// written.
func TestPausedAgainMeanwhile(t *testing.T) {
	f := newFixture(t)
	f.send(t, order, banned)
	f.clock.move(probeInterval)
	f.memory.fail(errors.New("gone"))
	f.send(t, order, sent)
	f.memory.fail(nil)
	worse := banned
	worse.Reason = "template_disabled"
	f.send(t, order, worse)
	f.reload(t)
	if row, _ := f.memory.row(scopeTemplate + order); row.Reason != worse.Reason {
		t.Errorf("stored is %+v", row)
	}
	if !f.templateHeld(order) {
		t.Error("the template is not paused")
	}
}

// TestSlowWrite: while a row is being written the state can be read and changed, and what is
// known in the end is what is stored.
func TestSlowWrite(t *testing.T) {
	f := newFixture(t)
	f.memory.hold, f.memory.held = make(chan struct{}), make(chan struct{})
	var writers sync.WaitGroup
	writers.Go(func() { f.Reserve("order", order).Done(of(channel.PauseToken)) })
	<-f.memory.held
	if !f.Paused() || f.SendingFor(f.clock.now()) >= 0 {
		t.Error("the account is not paused before that is written")
	}
	f.clock.move(f.pausedFor())
	second := f.Reserve("order", order)
	if !second.Allowed() || len(f.apply(second, noPermission)) != 1 {
		t.Error("another pause could not begin")
	}
	if got := f.pausedFor(); got != probeInterval {
		t.Errorf("the account pauses for %s", got)
	}
	close(f.memory.hold)
	writers.Wait()
	if len(f.dirty) != 1 {
		t.Error("the second pause counts as stored, and the first one is")
	}
	f.reload(t)
	if row, _ := f.memory.row(scopeSend); row.Reason != noPermission.Reason || len(f.dirty) != 0 {
		t.Errorf("stored is %+v, to be written %v", row, f.dirty)
	}
}

// TestConcurrentPermits: many senders share an account without losing count.
func TestConcurrentPermits(t *testing.T) {
	f := newFixture(t, withBudget(10_000, 0), func(c *Config) { c.Rate = 1e6 })
	f.refresh(t)
	var senders sync.WaitGroup
	for i := range 8 {
		senders.Go(func() {
			for j := range 200 {
				p := f.Reserve("order", order)
				_ = p.Allowed() && p.Wait(t.Context(), time.Second)
				_ = f.Reload(t.Context())
				switch (i + j) % 4 {
				case 0:
					p.Release()
				case 1:
					p.Done(inDoubt)
				default:
					p.Done(sent)
				}
				f.Claimable(false, order, 10)
			}
		})
	}
	senders.Wait()
	if f.budget.inFlight != 0 || f.budget.used != 1200 {
		t.Errorf("%d on their way and %d used, want none and 1200", f.budget.inFlight, f.budget.used)
	}
}
