package main

import (
	"context"
	"fmt"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

// The most memory that a sweep may take, by the size of the account.
const (
	millionMemory    = 48 // MiB
	tenMillionMemory = 64 // MiB
)

// measureSweeps runs `unionbridge sync` twice, each as a process of its own; its whole life counts.
func (b *bench) measureSweeps(ctx context.Context) error {
	naive, again, err := b.naiveSweep(ctx)
	if err != nil {
		return err
	}
	floor, err := b.measureFloor(ctx)
	if err != nil {
		return err
	}
	first, err := b.firstSweep(ctx)
	if err != nil {
		return err
	}
	b.add(figure{"first_sweep_floor", floor, "followers/s", target{}, "the machine's floor: download, then INSERT, nothing else"})
	b.add(figure{"first_sweep_share_of_floor", 100 * first / floor, "%", atLeast(65), "first sweep, of that floor"})
	b.add(figure{"first_sweep_naive", naive, "followers/s", target{}, "the same by user/info and upserts one by one"})
	b.add(figure{"first_sweep_ratio", first / naive, "x", target{}, "first sweep against that"})
	return b.secondSweep(ctx, again)
}

func (b *bench) firstSweep(ctx context.Context) (rate float64, err error) {
	b.screen.Step("first sweep of %s followers", stage.Count(int64(b.size)))
	l, err := b.sweep(ctx)
	if err != nil {
		return 0, err
	}
	b.say(l)
	if err := b.wantTruth(ctx, newTruth(b.size)); err != nil {
		return 0, err
	}
	rate = float64(b.size) / l.took.Seconds()
	b.add(figure{"first_sweep", rate, "followers/s", atLeast(50_000), "first sweep, nobody known"})
	b.addMemory("first_sweep_memory", l.peak, atMost(millionMemory), "peak memory of unionbridge in it")
	return rate, nil
}

func (b *bench) secondSweep(ctx context.Context, naive float64) error {
	b.screen.Step("second sweep, nothing changed")
	u, err := b.unchangedSweep(ctx)
	if err != nil {
		return err
	}
	rate := float64(b.size) / u.took.Seconds()
	b.add(figure{"second_sweep", rate, "followers/s", atLeast(250_000), "second sweep, nothing changed"})
	b.addUnchanged("second_sweep", u, limits{seconds: 3, memory: millionMemory})
	b.add(figure{"second_sweep_naive", naive, "followers/s", target{}, "the simple script once more: the calls and upserts of the first time"})
	b.add(figure{"second_sweep_ratio", rate / naive, "x", target{}, "second sweep against that"})
	return nil
}

// unchanged is what a sweep cost that found nothing to do.
type unchanged struct {
	life
	listCalls  int64
	otherCalls int64 // batchget and user/info
	written    int64 // rows of the map
}

func (b *bench) unchangedSweep(ctx context.Context) (u unchanged, err error) {
	if err := b.simulator.Reset(ctx); err != nil {
		return u, err
	}
	counter, err := b.countWrites(ctx)
	if err != nil {
		return u, err
	}
	if u.life, err = b.sweep(ctx); err != nil {
		return u, err
	}
	b.say(u.life)
	stats, err := b.simulator.Stats(ctx)
	if err != nil {
		return u, err
	}
	u.listCalls, u.otherCalls = stats.Calls[pathList], stats.Calls[pathBatch]+stats.Calls[pathInfo]
	u.written, err = counter.stop(ctx)
	return u, err
}

// limits of an unchanged sweep.
type limits struct {
	seconds float64
	memory  float64 // MiB
}

func (b *bench) addUnchanged(name string, u unchanged, most limits) {
	b.add(figure{name + "_seconds", u.took.Seconds(), "s", atMost(most.seconds), "its time, from the start of the process to its end"})
	b.add(figure{name + "_list_calls", float64(u.listCalls), "calls", exactly(float64(pages(b.size))), "user/get calls in it"})
	b.add(figure{name + "_other_calls", float64(u.otherCalls), "calls", exactly(0), "batchget and user/info calls in it"})
	b.add(figure{name + "_rows_written", float64(u.written), "rows", exactly(0), "rows of the map written in it, by the server's own count"})
	b.addMemory(name+"_memory", u.peak, atMost(most.memory), "peak memory of unionbridge in it")
}

// wantTruth makes sure that a sweep did what it was timed for.
func (b *bench) wantTruth(ctx context.Context, t *truth) error {
	wrong, err := t.compare(ctx, b.db)
	if err == nil && wrong > 0 {
		err = fmt.Errorf("the sweep left %d people in the map whom it has wrong or does not have", wrong)
	}
	return err
}
