package sync

import (
	"testing"

	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// BenchmarkSweep sweeps 200,000 followers into an empty map, and again into a full one. The
// simulator runs in the same process; `make bench` measures the real programs.
func BenchmarkSweep(b *testing.B) {
	const followers = 200_000
	for b.Loop() {
		b.StopTimer()
		f := newFixture(b, wechatsim.Standard(followers, 0, 0))
		b.StartTimer()
		first := f.sweepOnce(b)
		second := f.sweepOnce(b)
		if first.Added != followers || second.Added != 0 {
			b.Fatalf("added %d and %d", first.Added, second.Added)
		}
		b.ReportMetric(followers/first.Ended.Sub(first.Started).Seconds(), "first/s")
		b.ReportMetric(followers/second.Ended.Sub(second.Started).Seconds(), "unchanged/s")
	}
}
