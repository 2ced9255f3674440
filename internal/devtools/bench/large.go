package main

import (
	"context"
	"fmt"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

// largeTimes is how much larger the large account is than the usual one.
const largeTimes = 10

func (b *bench) largeSize() int { return largeTimes * b.followers }

const (
	// bytesPerFollower is the disk that the large account takes: 300 bytes a row with its index in order of
	// the key, up to half as much again where the index's pages split, and 30 in the spool.
	bytesPerFollower = 500
	// bytesPerRequest is what a finished request takes with its indexes.
	bytesPerRequest = 500
)

// checkDisk refuses the large tables before anything is measured, rather than fill somebody's disk.
func (b *bench) checkDisk(ctx context.Context) error {
	var need int64
	if b.wants("large") && b.tenMillion {
		need = int64(b.largeSize()) * bytesPerFollower
	}
	if b.wantsSender("finished") {
		need = max(need, int64(finishedTimes*b.requests)*bytesPerRequest)
	}
	if need == 0 {
		return nil
	}
	var dir string
	if err := b.host.Admin().QueryRowContext(ctx, "SELECT @@datadir").Scan(&dir); err != nil {
		return fmt.Errorf("asking the server where its data are: %w", err)
	}
	free, ok := stage.FreeDisk(dir) // a server elsewhere has its own
	if ok && free < need {
		return fmt.Errorf("the large tables need about %.1f GB, and %s has %.1f GB left; -ten-million=false and -full-tables=false leave them out",
			float64(need)/1e9, dir, float64(free)/1e9)
	}
	return nil
}

// measureLarge fills a map that does not fit into the buffer pool, and sweeps it again.
func (b *bench) measureLarge(ctx context.Context) error {
	b.screen.Step("first sweep of %s followers", stage.Count(int64(b.size)))
	first, err := b.sweep(ctx)
	if err != nil {
		return err
	}
	b.say(first)
	b.add(figure{"large_first_sweep", float64(b.size) / first.took.Seconds(), "followers/s", target{},
		"first sweep of ten times as many, more than the buffer pool holds"})
	b.addMemory("large_first_sweep_memory", first.peak, atMost(tenMillionMemory), "peak memory of unionbridge in it")
	b.screen.Step("second sweep of %s, nothing changed", stage.Count(int64(b.size)))
	second, err := b.unchangedSweep(ctx)
	if err != nil {
		return err
	}
	b.addUnchanged("large_second_sweep", second, limits{seconds: 30, memory: tenMillionMemory})
	// Only now: reading the map would warm what the second sweep reads.
	return b.wantTruth(ctx, newTruth(b.size))
}
