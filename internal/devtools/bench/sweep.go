package main

import (
	"context"
	"fmt"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

// measureSweeps runs `unionbridge sync` twice, each as a process of its own; its whole life counts.
func (b *bench) measureSweeps(ctx context.Context) error {
	naive, err := b.naiveSweep(ctx)
	if err != nil {
		return err
	}
	first, err := b.firstSweep(ctx)
	if err != nil {
		return err
	}
	b.add(figure{"first_sweep_naive", naive, "followers/s", target{}, "the same by user/info and upserts one by one"})
	b.add(figure{"first_sweep_ratio", first / naive, "x", target{}, "first sweep against that"})
	return b.secondSweep(ctx)
}

func (b *bench) firstSweep(ctx context.Context) (rate float64, err error) {
	b.screen.Step("first sweep of %s followers", stage.Count(int64(b.followers)))
	rate, process, err := b.sweep(ctx)
	if err != nil {
		return 0, err
	}
	if err := b.checkMap(ctx); err != nil {
		return 0, err
	}
	b.add(figure{"first_sweep", rate, "followers/s", atLeast(35_000), "first sweep, nobody known"})
	if peak := process.PeakMemory(); peak > 0 {
		b.add(figure{"first_sweep_memory", float64(peak) / (1 << 20), "MiB", atMost(64), "peak memory of unionbridge in it"})
	}
	return rate, nil
}

func (b *bench) secondSweep(ctx context.Context) error {
	b.screen.Step("second sweep, nothing changed")
	if err := b.simulator.Reset(ctx); err != nil {
		return err
	}
	counter, err := b.countWrites(ctx)
	if err != nil {
		return err
	}
	rate, process, err := b.sweep(ctx)
	if err != nil {
		return err
	}
	stats, err := b.simulator.Stats(ctx)
	if err != nil {
		return err
	}
	written, err := counter.stop(ctx)
	if err != nil {
		return err
	}
	pages := (b.followers + 9999) / 10_000
	b.add(figure{"second_sweep", rate, "followers/s", atLeast(250_000), "second sweep, nothing changed"})
	b.add(figure{"second_sweep_list_calls", float64(stats.Calls[pathList]), "calls", exactly(float64(pages + 1)), "user/get calls in it"})
	b.add(figure{
		"second_sweep_other_calls", float64(stats.Calls[pathBatch] + stats.Calls[pathInfo]), "calls", exactly(0), "batchget and user/info calls in it",
	})
	b.add(figure{"second_sweep_rows_written", float64(written), "rows", exactly(0), "rows of the map written in it, by the server's own count"})
	if peak := process.PeakMemory(); peak > 0 {
		b.add(figure{"second_sweep_memory", float64(peak) / (1 << 20), "MiB", atMost(64), "peak memory of unionbridge in it"})
	}
	return nil
}

// sweep runs `unionbridge sync` and returns followers a second of its whole life.
func (b *bench) sweep(ctx context.Context) (rate float64, process *stage.Process, err error) {
	log, err := b.stage.Log("sync.log")
	if err != nil {
		return 0, nil, err
	}
	c := b.stage.Unionbridge("sync")
	c.Stdout, c.Stderr, c.Peak = log, log, true
	begin := time.Now()
	if process, err = stage.Start(c); err != nil {
		return 0, nil, err
	}
	if err := process.Wait(ctx); err != nil {
		return 0, nil, fmt.Errorf("unionbridge sync: %w\n%s", err, b.stage.LogTail("sync.log"))
	}
	took := time.Since(begin)
	b.screen.Say("%.1f s, peak memory %.1f MiB", took.Seconds(), float64(process.PeakMemory())/(1<<20))
	return float64(b.followers) / took.Seconds(), process, nil
}

// checkMap makes sure that the sweep did what it was timed for.
func (b *bench) checkMap(ctx context.Context) error {
	const query = `
		SELECT COUNT(*), COUNT(DISTINCT unionid), COALESCE(SUM(subscribed), 0) FROM follower WHERE appid = ?`
	var rows, unionids, subscribed int
	if err := b.db.QueryRowContext(ctx, query, stage.AppID).Scan(&rows, &unionids, &subscribed); err != nil {
		return fmt.Errorf("counting the map: %w", err)
	}
	if rows != b.followers || unionids != rows || subscribed != rows {
		return fmt.Errorf("the sweep stored %d people, %d of them subscribed, with %d unionids; there are %d followers",
			rows, subscribed, unionids, b.followers)
	}
	return nil
}
