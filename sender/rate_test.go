package sender

import (
	"slices"
	"testing"
	"time"
)

// TestRateOverInstances: an account's rate holds over all instances, and over a change of the one
// that sends.
func TestRateOverInstances(t *testing.T) {
	f := newFixture(t)
	const perSecond = 100
	f.config.Accounts[0].Rate = perSecond
	f.bulk(t, 350, "order", 1)
	stop := f.start(t, "one")
	f.start(t, "two")
	eventually(t, "the first messages", func() bool { return len(f.sim.Messages(appid)) >= 100 })
	stop()
	eventually(t, "all messages", func() bool { return len(f.sim.Messages(appid)) == 350 })
	times := make([]time.Time, 0, 350)
	for _, m := range f.sim.Messages(appid) {
		times = append(times, m.Time)
	}
	slices.SortFunc(times, time.Time.Compare)
	// In any second: the rate, and the burst of each of the two limiters.
	const limit = perSecond + 2*perSecond/10 + 5
	for from, to := 0, 0; to < len(times); to++ {
		for times[to].Sub(times[from]) > time.Second {
			from++
		}
		if n := to - from + 1; n > limit {
			t.Fatalf("%d messages within a second, the account's rate is %d", n, perSecond)
		}
	}
}
