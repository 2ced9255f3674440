package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

// What a kill may cost. Of the list, one reading: the spool is lost at the worst. Of the questions, those
// under way, as many whose answers stand in the queue behind them, and what waits to be written: the
// thousand people that are being collected, and a thousand in each of the two writers.
const (
	killWriters     = 2
	killStoreBatch  = 1000
	killMostBatches = sweepQuestions + sweepQuestions + (1+killWriters)*killStoreBatch/100
)

// toll is what kills have cost, at the worst of them.
type toll struct {
	kills     int
	wrong     int   // rows that were not the truth after the restart, of all kills
	lost      int   // restarts that began another run instead of going on
	list      int64 // user/get calls that were made again
	batches   int64 // batchgets that were made again
	singles   int64 // user/info calls
	rewritten int64 // rows of the map that were written again
}

// measureKills kills the sweeping process at random moments of its life, one kill a sweep; the next start
// goes on to the end. The sweep begins with an empty map each time.
func (b *bench) measureKills(ctx context.Context) error {
	seed := b.seed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	rnd := rand.New(rand.NewPCG(seed, 0))
	b.screen.Step("kill -9 at %d random moments of a sweep of %s followers, seed %d", b.kills, stage.Count(int64(b.size)), seed)
	b.screen.Say("a dead holder's lease would run out after 10 s; here its row is deleted before the next start")
	whole, err := b.sweep(ctx)
	if err != nil {
		return err
	}
	b.screen.Say("undisturbed: %.2f s", whole.took.Seconds())
	counter, err := b.countWrites(ctx)
	if err != nil {
		return err
	}
	people := newTruth(b.size)
	var worst toll
	for worst.kills < b.kills {
		b.screen.Status("%d kills", worst.kills)
		if err := b.killOnce(ctx, &worst, killPlan{time.Duration(rnd.Int64N(int64(whole.took))), people, counter}); err != nil {
			return fmt.Errorf("kill %d, seed %d: %w", worst.kills+1, seed, err)
		}
	}
	if _, err := counter.stop(ctx); err != nil {
		return err
	}
	b.addToll(worst)
	return nil
}

// killPlan is one kill: when, and what is looked at afterwards.
type killPlan struct {
	after   time.Duration
	people  *truth
	counter *writeCounter
}

// killOnce sweeps, kills and sweeps to the end. A process that was faster than its killer does not count.
func (b *bench) killOnce(ctx context.Context, worst *toll, plan killPlan) error {
	err := b.execAll(ctx, "TRUNCATE TABLE follower", "TRUNCATE TABLE follower_recheck", "DELETE FROM sync_run", "DELETE FROM lease")
	if err != nil {
		return err
	}
	if err := b.simulator.Reset(ctx); err != nil {
		return err
	}
	before, err := plan.counter.read(ctx)
	if err != nil {
		return err
	}
	if killed, err := b.kill(ctx, plan.after); err != nil || !killed {
		return err
	}
	if err := b.execAll(ctx, "DELETE FROM lease"); err != nil {
		return err
	}
	if _, err := b.sweep(ctx); err != nil {
		return err
	}
	after, err := plan.counter.read(ctx)
	if err != nil {
		return err
	}
	return b.take(ctx, worst, plan, after-before)
}

// kill starts a sweep and kills it; false: it had its work done before.
func (b *bench) kill(ctx context.Context, after time.Duration) (bool, error) {
	process, err := b.startSweep()
	if err != nil {
		return false, err
	}
	err = sleep(ctx, after)
	process.Kill()
	if err != nil || process.Err() == nil {
		return false, err
	}
	// Killed on its way out, with the sweep behind it, it has left nothing to go on with.
	var done int
	if err := b.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM sync_run WHERE state = 'done'").Scan(&done); err != nil {
		return false, fmt.Errorf("reading the ledger: %w", err)
	}
	return done == 0, nil
}

func (b *bench) execAll(ctx context.Context, queries ...string) error {
	for _, query := range queries {
		if _, err := b.db.ExecContext(ctx, query); err != nil {
			return fmt.Errorf("%s: %w", query, err)
		}
	}
	return nil
}

// take adds what the kill has cost.
func (b *bench) take(ctx context.Context, worst *toll, plan killPlan, written int64) error {
	stats, err := b.simulator.Stats(ctx)
	if err != nil {
		return err
	}
	wrong, err := plan.people.compare(ctx, b.db)
	if err != nil {
		return err
	}
	var runs int
	if err := b.db.QueryRowContext(ctx, "SELECT COUNT(*) FROM sync_run").Scan(&runs); err != nil {
		return fmt.Errorf("counting the runs: %w", err)
	}
	worst.kills++
	worst.wrong += wrong
	worst.list = max(worst.list, stats.Calls[pathList]-int64(pages(b.size)))
	worst.batches = max(worst.batches, stats.Calls[pathBatch]-int64(batches(b.size)))
	worst.singles = max(worst.singles, stats.Calls[pathInfo])
	worst.rewritten = max(worst.rewritten, written-int64(b.size))
	if runs != 1 {
		worst.lost++
	}
	return nil
}

func (b *bench) addToll(worst toll) {
	b.add(figure{"kill_moments", float64(worst.kills), "kills", target{}, fmt.Sprintf("kill -9 in a sweep of %s, and a restart", stage.Count(int64(b.size)))})
	b.add(figure{"kill_wrong", float64(worst.wrong), "rows", exactly(0), "rows that are not the truth afterwards, all compared, all kills"})
	b.add(figure{"kill_runs_lost", float64(worst.lost), "runs", exactly(0), "restarts that did not go on with the run"})
	b.add(figure{"kill_list_repeated", float64(worst.list), "calls", atMost(float64(pages(b.size))), "user/get calls repeated, at the worst kill: one list"})
	b.add(figure{
		"kill_batchgets_repeated", float64(worst.batches), "calls", atMost(killMostBatches),
		fmt.Sprintf("batchgets repeated, at the worst kill: %d + %d + 3 × 10", sweepQuestions, sweepQuestions),
	})
	b.add(figure{"kill_other_calls", float64(worst.singles), "calls", target{}, "user/info calls, at the worst kill: the sample of a resumed run"})
	b.add(figure{
		"kill_rows_rewritten", float64(worst.rewritten), "rows", atMost(killWriters * killStoreBatch),
		"rows written again, at the worst kill: what the server still did for the dead",
	})
}
