package sender

import (
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

// TestLimitsAfterSleep: a limit is over when either clock says so: the monotonic one does not run
// while the machine is suspended, and the wall clock may have been set back.
func TestLimitsAfterSleep(t *testing.T) {
	begin := time.Now()
	at := func(s int) time.Time { return begin.Add(time.Duration(s) * time.Second) }
	for name, c := range map[string]struct {
		limits
		now     time.Time
		inDoubt bool
		want    bool
	}{
		"awake":               {limits{deadline: at(50)}, at(49), false, true},
		"awake, over":         {limits{deadline: at(50)}, at(50), false, false},
		"asleep":              {limits{deadline: at(50)}, dbtest.Asleep(at(1), 50*time.Second), false, false},
		"set back":            {limits{deadline: at(50)}, dbtest.Asleep(at(51), -time.Hour), false, false},
		"asleep past expiry":  {limits{at(50), at(10), at(90)}, dbtest.Asleep(at(1), 10*time.Second), false, false},
		"asleep past repeat":  {limits{at(50), at(90), at(10)}, dbtest.Asleep(at(1), 10*time.Second), true, false},
		"never in doubt":      {limits{at(50), at(90), at(10)}, dbtest.Asleep(at(1), 10*time.Second), false, true},
		"asleep, in time yet": {limits{at(50), at(90), at(40)}, dbtest.Asleep(at(1), 10*time.Second), true, true},
	} {
		if got := c.within(c.now, c.inDoubt); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// TestNothingPostedAfterSleep: what was claimed before the machine was suspended is given back
// afterwards, without an attempt, however long it slept.
func TestNothingPostedAfterSleep(t *testing.T) {
	for _, asleep := range []time.Duration{5 * time.Second, 5 * time.Minute} {
		f := newFixture(t)
		var slept time.Duration
		f.leaseClock = func() time.Time { return dbtest.Asleep(time.Now(), slept) }
		f.setClock(f.leaseClock)
		s := newStepper(t, f)
		id := f.insert(t, columns{"unionid": f.unionid(1)})
		s.claimed = func() { slept = asleep }
		s.attempt(t)
		if r := f.row(t, id); r.Status != "pending" || r.Attempts != 0 || len(f.messagesTo(1)) != 0 {
			t.Errorf("after %s the row is %+v, %d messages", asleep, r, len(f.messagesTo(1)))
		}
	}
}
