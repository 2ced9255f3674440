package main

import (
	"context"
	"fmt"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

const (
	slowLatency   = 50 * time.Millisecond
	slowQuestions = 20
	slowMost      = 35 // seconds
)

// measureSlow fills the map from a WeChat that takes its time, and then sweeps after some people came and
// went.
func (b *bench) measureSlow(ctx context.Context) error {
	if b.wants("slow") {
		if err := b.slowSweep(ctx); err != nil {
			return err
		}
	} else if _, err := b.sweep(ctx); err != nil {
		return err
	}
	if !b.wants("change") {
		return nil
	}
	return b.measureChange(ctx)
}

func (b *bench) slowSweep(ctx context.Context) error {
	b.screen.Step("first sweep of %s followers, %s latency on each call, %d batchgets in flight",
		stage.Count(int64(b.size)), slowLatency, slowQuestions)
	if err := b.simulator.SetLatency(ctx, slowLatency); err != nil {
		return err
	}
	l, err := b.sweep(ctx)
	if err != nil {
		return err
	}
	if err := b.simulator.SetLatency(ctx, 0); err != nil {
		return err
	}
	least := (time.Duration(pages(b.size)) + time.Duration(batches(b.size))/slowQuestions) * slowLatency
	b.say(l)
	b.add(figure{
		"slow_first_sweep_seconds", l.took.Seconds(), "s", atMost(slowMost),
		fmt.Sprintf("first sweep with %s latency a call, %d batchgets in flight", slowLatency, slowQuestions),
	})
	b.add(figure{"slow_first_sweep_waiting", least.Seconds(), "s", target{}, "of them nothing but latency, were all calls made without a pause"})
	b.addMemory("slow_first_sweep_memory", l.peak, atMost(millionMemory), "peak memory of unionbridge in it")
	return b.wantTruth(ctx, newTruth(b.size))
}

// changeShare of the followers are new, and as many have gone.
const changeShare = 0.01

func (b *bench) measureChange(ctx context.Context) error {
	n := int(changeShare * float64(b.size))
	b.screen.Step("sweep after %s followers left and %s new ones came", stage.Count(int64(n)), stage.Count(int64(n)))
	people := newTruth(b.size)
	left, err := b.simulator.Leave(ctx, n)
	if err != nil {
		return err
	}
	people.left(left)
	joined, err := b.simulator.Join(ctx, n)
	if err != nil {
		return err
	}
	people.joined(joined)
	if err := b.simulator.Reset(ctx); err != nil {
		return err
	}
	counter, err := b.countWrites(ctx)
	if err != nil {
		return err
	}
	l, err := b.sweep(ctx)
	if err != nil {
		return err
	}
	b.say(l)
	stats, err := b.simulator.Stats(ctx)
	if err != nil {
		return err
	}
	written, err := counter.stop(ctx)
	if err != nil {
		return err
	}
	wrong, err := people.compare(ctx, b.db)
	if err != nil {
		return err
	}
	var calls int64
	for _, of := range stats.Calls {
		calls += of
	}
	b.add(figure{"change_seconds", l.took.Seconds(), "s", target{}, "sweep with 1 % new and 1 % gone"})
	b.add(figure{"change_calls", float64(calls), "calls", atMost(1.05 * float64(pages(b.size)+2*batches(n))), "calls in it, those for the token and the quotas included"})
	b.add(figure{"change_calls_naive", float64(pages(b.size) + b.size), "calls", target{}, "calls of a script that asks about everybody, one by one"})
	b.add(figure{"change_rows_written", float64(written), "rows", exactly(float64(2 * n)), "rows of the map written in it, by the server's own count"})
	b.add(figure{"change_wrong", float64(wrong), "rows", exactly(0), "rows that are not the truth afterwards, all compared"})
	b.addMemory("change_memory", l.peak, atMost(millionMemory), "peak memory of unionbridge in it")
	return nil
}
