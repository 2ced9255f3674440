package main

import (
	"cmp"
	"math/rand/v2"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/checker"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

type sweepRun struct {
	took time.Duration
	peak int64 // bytes; 0: not known
}

func (s sweepRun) rate(followers int) float64 { return float64(followers) / s.took.Seconds() }

func (b *bench) sweep() sweepRun {
	begin := time.Now()
	process := b.instance.StartLogged("sync")
	if err := process.Wait(b.Context()); err != nil {
		b.Fatalf("unionbridge sync: %w\n%s", err, b.instance.LogTail())
	}
	return sweepRun{time.Since(begin), process.PeakMemory()}
}

func (b *bench) timedSweep() sweepRun {
	run := b.sweep()
	b.Say("%.1f s, peak memory %.1f MiB", run.took.Seconds(), mebibytes(run.peak))
	return run
}

// people are those whom the simulator has at the start. It is a second simulator, in this process
// and never asked over HTTP: what exists follows from the seed and the number of followers.
func (b *bench) people() *wechatsim.Server {
	return wechatsim.New(wechatsim.Standard(b.size, 0, 0))
}

// wrongPeople compares the whole map with the truth, and counts the people whom it has wrong or
// does not have. There are n: whoever ever followed, since nobody is deleted from the map.
func (b *bench) wrongPeople(people *wechatsim.Server, n int) int {
	f := checker.CompareMap(b.T, b.db, harness.AppID, people)
	return max(f.Wrong, n-f.Right)
}

func (b *bench) wantTruth() {
	if wrong := b.wrongPeople(b.people(), b.size); wrong > 0 {
		b.Fatalf("the sweep left %d people in the map whom it has wrong or does not have", wrong)
	}
}

// sweeps runs `unionbridge sync` twice, each as a process of its own; its whole life counts.
func (b *bench) sweeps() {
	first, again := b.baselineSweep()
	floor := b.floor()
	b.Step("first sweep of %s followers", harness.Count(b.size))
	run := b.timedSweep()
	b.wantTruth()
	rate := run.rate(b.size)
	b.record("first_sweep", rate)
	b.recordMemory("first_sweep_memory", run.peak)
	b.record("first_sweep_floor", floor)
	b.record("first_sweep_share_of_floor", 100*rate/floor)
	b.record("first_sweep_naive", first)
	b.record("first_sweep_ratio", rate/first)

	b.Step("second sweep, nothing changed")
	rate = b.unchangedSweep("second_sweep").rate(b.size)
	b.record("second_sweep", rate)
	b.record("second_sweep_naive", again)
	b.record("second_sweep_ratio", rate/again)
}

func (b *bench) unchangedSweep(name string) sweepRun {
	b.simulator.Reset()
	counter := b.countWrites()
	run := b.timedSweep()
	calls := b.simulator.Stats().Calls
	b.record(name+"_seconds", run.took.Seconds())
	b.record(name+"_list_calls", float64(calls[harness.PathList]))
	b.record(name+"_other_calls", float64(calls[harness.PathBatch]+calls[harness.PathInfo]))
	b.record(name+"_rows_written", float64(counter.stop()))
	b.recordMemory(name+"_memory", run.peak)
	return run
}

func (b *bench) slow() {
	b.Step("first sweep of %s followers, %s latency on each call, %d batchgets in flight",
		harness.Count(b.size), slowLatency, slowBatchgets)
	b.simulator.SetLatency(slowLatency)
	run := b.timedSweep()
	b.simulator.SetLatency(0)
	rounds := harness.Pages(b.size) + harness.Batches(b.size)/slowBatchgets
	b.record("slow_first_sweep_seconds", run.took.Seconds())
	b.record("slow_first_sweep_waiting", (time.Duration(rounds) * slowLatency).Seconds())
	b.recordMemory("slow_first_sweep_memory", run.peak)
	b.wantTruth()
}

func (b *bench) prepareChange() {
	if !b.wants("slow") {
		b.sweep()
	}
}

func (b *bench) change() {
	n := int(changeShare * float64(b.size))
	b.Step("sweep after %s followers left and %s new ones came", harness.Count(n), harness.Count(n))
	people := b.people()
	for _, person := range b.simulator.Leave(n) {
		people.Unfollow(harness.AppID, person)
	}
	joined := b.simulator.Join(n)
	for _, person := range joined {
		people.Follow(harness.AppID, person)
	}
	b.simulator.Reset()
	counter := b.countWrites()
	run := b.timedSweep()
	var calls int64
	for _, of := range b.simulator.Stats().Calls {
		calls += of
	}
	b.record("change_seconds", run.took.Seconds())
	b.record("change_calls", float64(calls))
	b.record("change_calls_naive", float64(harness.Pages(b.size)+b.size))
	b.record("change_rows_written", float64(counter.stop()))
	b.record("change_wrong", float64(b.wrongPeople(people, b.size+len(joined))))
	b.recordMemory("change_memory", run.peak)
}

func (b *bench) large() {
	b.Step("first sweep of %s followers", harness.Count(b.size))
	first := b.timedSweep()
	b.record("large_first_sweep", first.rate(b.size))
	b.recordMemory("large_first_sweep_memory", first.peak)
	b.Step("second sweep of %s, nothing changed", harness.Count(b.size))
	b.unchangedSweep("large_second_sweep")
	// Only now: reading the map would warm what the second sweep reads.
	b.wantTruth()
}

// killSweeps kills the sweeping process at random moments of its life, one kill a sweep; the next
// start completes the sweep. It begins with an empty map each time.
func (b *bench) killSweeps() {
	seed := cmp.Or(b.seed, uint64(time.Now().UnixNano()))
	rnd := rand.New(rand.NewPCG(seed, 0))
	b.Step("kill -9 at %d random moments of a sweep of %s followers, seed %d", b.kills, harness.Count(b.size), seed)
	b.Say("a dead holder's lease would expire after 10 s; here its row is deleted before the next start")
	whole := b.sweep()
	b.Say("undisturbed: %.2f s", whole.took.Seconds())
	counter := b.countWrites()
	people := b.people()
	for kills := 0; kills < b.kills; {
		b.Status("%d kills", kills)
		for _, query := range []string{
			"TRUNCATE TABLE follower", "TRUNCATE TABLE follower_recheck", "DELETE FROM sync_run", "DELETE FROM lease",
		} {
			b.db.Do(query)
		}
		b.simulator.Reset()
		before := counter.read()
		if !b.killSweep(time.Duration(rnd.Int64N(int64(whole.took)))) {
			continue
		}
		b.db.Do("DELETE FROM lease")
		b.sweep()
		kills++
		b.recordKill(counter.read()-before, people)
	}
	counter.stop()
	b.record("kill_moments", float64(b.kills))
}

// recordKill adds what a kill has cost to the figures: wrong rows and lost runs of all kills, and
// what was done again at the worst of them.
func (b *bench) recordKill(written int64, people *wechatsim.Server) {
	calls := b.simulator.Stats().Calls
	worst := func(name string, value int64) {
		b.record(name, max(b.values[name], float64(value)))
	}
	b.record("kill_wrong", b.values["kill_wrong"]+float64(b.wrongPeople(people, b.size)))
	b.record("kill_runs_lost", b.values["kill_runs_lost"])
	if b.db.Count("SELECT COUNT(*) FROM sync_run") != 1 {
		b.values["kill_runs_lost"]++
	}
	worst("kill_list_repeated", calls[harness.PathList]-int64(harness.Pages(b.size)))
	worst("kill_batchgets_repeated", calls[harness.PathBatch]-int64(harness.Batches(b.size)))
	worst("kill_other_calls", calls[harness.PathInfo])
	worst("kill_rows_rewritten", written-int64(b.size))
}

// killSweep starts a sweep and kills it; false: the process was faster than its killer, or had
// completed the sweep and left nothing to resume. Such a kill does not count.
func (b *bench) killSweep(after time.Duration) bool {
	process := b.instance.StartLogged("sync")
	b.Sleep(after)
	process.Kill()
	return process.Wait(b.Context()) != nil &&
		b.db.Count("SELECT COUNT(*) FROM sync_run WHERE state = 'done'") == 0
}
