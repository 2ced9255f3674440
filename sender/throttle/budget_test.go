package throttle

import (
	"errors"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/sender/channel"
)

func withBudget(budget int64, reserve float64) func(*Config) {
	return func(c *Config) { c.DailyBudget, c.UrgentReserve = budget, reserve }
}

func (f *fixture) refresh(t *testing.T) {
	t.Helper()
	if err := f.RefreshBudget(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// spend sends what may be claimed, as the claim loop does, at most n messages. It returns how
// many.
func (f *fixture) spend(t *testing.T, urgent bool, n int) (count int) {
	t.Helper()
	for range n {
		f.refresh(t)
		if f.Claimable(urgent, order, 1) == 0 {
			break
		}
		f.send(t, order, sent)
		f.CountSent(1)
		count++
	}
	f.refresh(t)
	return count
}

// TestDailyBudget: the account's own number of messages a day holds to the message, over a change
// of instance, with a part of it kept for urgent rows; the next day begins with a new budget.
func TestDailyBudget(t *testing.T) {
	f := newFixture(t, withBudget(20, 0.25))
	if n := f.spend(t, false, 40); n != 15 {
		t.Fatalf("%d messages may go, want 15 of 20: the rest is for urgent rows", n)
	}
	if f.Paused() {
		t.Error("the account is paused, though urgent rows may go")
	}
	f.wantMetric(t, "unionbridge_send_reserved", 1)
	f.wantLogged(t, "kept for urgent requests", 1)
	if err := f.Load(t.Context()); err != nil { // another instance, as far as the budget goes
		t.Fatal(err)
	}
	if n := f.spend(t, true, 10); n != 5 {
		t.Errorf("%d urgent messages may go, want the 5 that are left", n)
	}
	row, _ := f.memory.row(scopeSend)
	if !f.Paused() || row.Reason != reasonDailyBudget || row.ErrCode != 0 ||
		row.ErrMsg != "the account's own 20 messages of the day are used up (send.daily_budget)" {
		t.Errorf("the state says %+v", row)
	}
	f.wantLogged(t, "sending is paused", 1)
	f.clock.move(f.pausedFor())
	if n := f.spend(t, false, 40); n != 15 {
		t.Errorf("%d messages may go on the second day, want 15", n)
	}
	if _, ok := f.memory.row(scopeSend); ok {
		t.Error("the pause of the first day is still stored")
	}
}

// TestBudgetOfPermits: a message on its way counts; one that was not sent is given back.
func TestBudgetOfPermits(t *testing.T) {
	f := newFixture(t, withBudget(3, 0))
	f.refresh(t)
	for name, outcome := range map[string]struct {
		o     channel.Outcome
		spent int
	}{
		"sent":     {sent, 1},
		"in doubt": {inDoubt, 1},
		"rejected": {wrong, 0},
		"retry":    {channel.Outcome{Verdict: channel.Retry}, 0},
		"nobody":   {notFollowing, 0},
	} {
		f.budget.forget()
		f.refresh(t)
		p := f.Reserve("order", order)
		if n := f.ClaimLimit(100); n != 2 {
			t.Errorf("%s: %d of 3 are left while one is on its way", name, n)
		}
		p.Done(outcome.o)
		if n := f.ClaimLimit(100); n != 3-outcome.spent {
			t.Errorf("%s: %d of 3 are left, want %d", name, n, 3-outcome.spent)
		}
	}
	f.budget.forget()
	f.refresh(t)
	var permits []*Permit
	for range 3 {
		permits = append(permits, f.Reserve("order", order))
	}
	f.refresh(t)
	if f.Claimable(true, order, 1) != 0 {
		t.Error("a message may go beyond the day's number")
	}
	if f.BudgetDecides() || f.Paused() {
		t.Error("the day counts as used up, although a message may come back")
	}
	for _, p := range permits {
		p.Release()
	}
	if n := f.ClaimLimit(100); n != 3 {
		t.Errorf("%d of 3 are left after all were given back", n)
	}
}

// TestRedeliveriesKeepToTheBudget: they may use the reserve of urgent rows, and not more than the
// account's own number.
func TestRedeliveriesKeepToTheBudget(t *testing.T) {
	f := newFixture(t, withBudget(100, 1))
	f.refresh(t)
	if f.Claimable(false, order, 1) != 0 || f.Claimable(true, "", 1) != 1 {
		t.Error("the reserve is not for repetitions")
	}
	f.budget.used = 100
	if f.Claimable(true, "", 1) != 0 {
		t.Error("a repetition may go beyond the day's number")
	}
}

// TestBudgetCountsMeanwhile: messages that end while WeChat is asked for its quota count.
func TestBudgetCountsMeanwhile(t *testing.T) {
	f := newFixture(t, withBudget(100, 0))
	f.refresh(t)
	var permits []*Permit
	for range 30 {
		permits = append(permits, f.Reserve("order", order))
	}
	f.clock.move(budgetInterval)
	f.ask = func() (int64, int64, error) {
		for _, p := range permits {
			p.Done(sent)
		}
		return 0, 0, nil
	}
	f.refresh(t)
	if n := f.ClaimLimit(1000); n != 70 {
		t.Errorf("%d of 100 are left after 30 messages", n)
	}
}

// TestReserveOfWeChatsQuota: without a number of its own the account keeps to WeChat's.
func TestReserveOfWeChatsQuota(t *testing.T) {
	f := newFixture(t, withBudget(0, 0.5))
	f.ask = func() (int64, int64, error) { return 40, 40, nil }
	if n := f.spend(t, false, 40); n != 20 {
		t.Errorf("%d messages may go, want 20: half of WeChat's 40 is for urgent rows", n)
	}
	// Its figure may be wrong: the refusal is the limit of urgent rows.
	if n := f.spend(t, true, 30); n != 30 || f.Paused() {
		t.Errorf("%d urgent messages may go, want all 30", n)
	}
	if f.memory.sent["2026-11-22"] != 0 {
		t.Error("messages are counted without a budget")
	}
	// What the reserve held back goes when the figures change, without any message to cause that.
	f.clock.move(13 * time.Hour)
	if !f.BudgetDecides() {
		t.Error("the figures of yesterday still hold")
	}
	f.refresh(t)
	f.wantMetric(t, "unionbridge_send_reserved", 0)
	if f.Claimable(false, order, 7) != 7 {
		t.Error("the reserve still holds on the next day")
	}
}

// TestSmallerLimitCounts: of the own number and WeChat's the smaller one is the limit.
func TestSmallerLimitCounts(t *testing.T) {
	f := newFixture(t, withBudget(100, 0.1))
	f.ask = func() (int64, int64, error) { return 50, 30, nil }
	f.refresh(t)
	if n := f.ClaimLimit(1000); n != 25 {
		t.Errorf("%d messages may be claimed, want 25: 30 are left, and a tenth of 50 is kept", n)
	}
}

// TestWhenFiguresAreRead: once a day, and while messages go every few minutes.
func TestWhenFiguresAreRead(t *testing.T) {
	f := newFixture(t, withBudget(100, 0))
	reads := func(want int, when string) {
		t.Helper()
		f.refresh(t)
		if f.quotas != want {
			t.Errorf("%s WeChat has been asked %d times, want %d", when, f.quotas, want)
		}
	}
	reads(1, "at first")
	f.clock.move(2 * budgetInterval)
	reads(1, "while nothing is sent")
	f.send(t, order, sent)
	reads(2, "after a message")
	f.send(t, order, sent)
	reads(2, "after another one")
	f.clock.move(budgetInterval)
	reads(3, "a while later")
	f.clock.move(-time.Hour)
	reads(4, "after the clock went back")
	f.clock.move(12*time.Hour + 45*time.Minute)
	reads(4, "half a minute after midnight, by a clock that may be fast")
	f.clock.move(dayMargin)
	reads(5, "on the next day")
}

// TestNoBudget: an account without a budget asks for nothing, and nothing holds it up.
func TestNoBudget(t *testing.T) {
	f := newFixture(t)
	f.refresh(t)
	f.CountSent(5)
	if f.BudgetDecides() || f.quotas != 0 || len(f.memory.sent) != 0 {
		t.Errorf("asked %d times, counted %v", f.quotas, f.memory.sent)
	}
	for size, want := range map[int]int{0: 1, 64: 64, 800: 250} { // at 1000 messages a second
		if n := f.ClaimLimit(size); n != want {
			t.Errorf("a claim of %d is limited to %d, want %d", size, n, want)
		}
	}
}

// TestUnknownFigures: WeChat's figures may be missing, the account's own may not.
func TestUnknownFigures(t *testing.T) {
	f := newFixture(t, withBudget(10, 0))
	f.ask = func() (int64, int64, error) { return 0, 0, errors.New("no permission") }
	f.refresh(t)
	if n := f.ClaimLimit(100); n != 10 {
		t.Errorf("%d messages may be claimed, want 10", n)
	}
	f.budget.forget()
	f.memory.fail(errors.New("gone"))
	if err := f.RefreshBudget(t.Context()); err == nil {
		t.Error("the day's count is not known, and that is no error")
	}
	f.CountSent(1)
	f.wantLogged(t, "counting the day's messages", 1)

	f = newFixture(t, withBudget(0, 0.5), func(c *Config) { c.QuotaPath, c.Quota = "", nil })
	f.refresh(t)
	if n := f.Claimable(false, order, 9); n != 9 {
		t.Errorf("%d messages may be claimed, want 9: no limit is known", n)
	}
}

// TestBudgetAfterAnother: an instance that gets the account back on the same day knows what the
// other one sent.
func TestBudgetAfterAnother(t *testing.T) {
	f := newFixture(t, withBudget(20, 0))
	if n := f.spend(t, false, 10); n != 10 {
		t.Fatal(n)
	}
	if err := f.memory.addSent(quotaDay(f.clock.now()), 5); err != nil {
		t.Fatal(err)
	}
	if err := f.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := f.spend(t, false, 20); n != 5 {
		t.Errorf("%d messages may go, want 5 beside the other instance's 5", n)
	}
}
