package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

// pace is what the configuration allows the sender.
type pace struct {
	rate        int // messages a second
	concurrency int // POSTs in flight
}

// unlimited is no limit but the machine's.
func unlimited() pace { return pace{100_000, 64} }

// senderParts are the groups of figures for which a daemon runs; fullTables those of them that take minutes.
func senderParts() []string {
	return append([]string{"send", "far", "producers", "idle", "latency", "memory", "takeover", "urgent", "fair"}, fullTables()...)
}

func fullTables() []string { return []string{"future", "finished"} }

// measureSender measures one part after the other, each on an empty table.
func (b *bench) measureSender(ctx context.Context) error {
	for _, part := range []struct {
		name    string
		measure func(context.Context) error
	}{
		{"send", b.measureSend},
		{"far", b.measureFar},
		{"producers", b.measureProducers},
		{"idle", b.measureIdle},
		{"latency", b.measureLatency},
		{"memory", b.measureMemory},
		{"takeover", b.measureTakeover},
		{"urgent", b.measureUrgent},
		{"fair", b.measureFair},
		{"future", b.measureFuture},
		{"finished", b.measureFinished},
	} {
		if !b.wantsSender(part.name) {
			continue
		}
		if err := b.clear(ctx); err != nil {
			return err
		}
		if err := part.measure(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return nil
}

// withDaemon starts the daemon, measures and stops it.
func (b *bench) withDaemon(ctx context.Context, p pace, measure func(*stage.Process) error) (err error) {
	if err := b.configure(b.stage, b.listen, p); err != nil {
		return err
	}
	daemon, err := b.stage.StartDaemon(ctx, b.listen)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, daemon.Stop()) }()
	return measure(daemon)
}

// drained is how a backlog was sent.
type drained struct {
	rate float64       // messages a second, the daemon's start included
	peak int64         // bytes of the daemon's memory
	cost time.Duration // processor time of the database server and the daemon for one message
}

// drain inserts n requests and has a daemon send them all.
func (b *bench) drain(ctx context.Context, p pace, n int) (d drained, err error) {
	last, err := b.lastID(ctx)
	if err != nil {
		return d, err
	}
	if err := b.insertRequests(ctx, "send_request", n); err != nil {
		return d, err
	}
	if err := b.simulator.Reset(ctx); err != nil {
		return d, err
	}
	cpu := b.watchCPU(ctx)
	begin := time.Now()
	err = b.withDaemon(ctx, p, func(daemon *stage.Process) error {
		if err := b.awaitDone(ctx, daemon, open{last, int64(n)}); err != nil {
			return err
		}
		took := time.Since(begin)
		cpu = cpu.and("daemon", daemon.Pid())
		d = drained{float64(n) / took.Seconds(), daemon.PeakMemory(), (cpu.used("database") + cpu.used("daemon")) / time.Duration(n)}
		b.screen.Say("the daemon in %.1f s, %s/s; peak memory %.1f MiB; processor seconds: %s",
			took.Seconds(), stage.Count(int64(d.rate)), mebibytes(d.peak), cpu)
		return nil
	})
	return d, err
}

// sendRounds of each contestant take turns, so that what disturbs the machine for a while disturbs them all;
// the median of each counts.
const sendRounds = 3

// contest is what the contestants reached in each round, in sends a second.
type contest struct {
	daemon, loop, pipeline, bare []float64

	spoiled verdict // by the daemon
	peak    int64   // bytes of its memory
}

// measureSend measures the daemon, a plain loop by hand and the bare POSTs.
func (b *bench) measureSend(ctx context.Context) error {
	naive, err := b.naiveSend(ctx)
	if err != nil {
		return err
	}
	hand, err := b.newHand(ctx)
	if err != nil {
		return err
	}
	var c contest
	for round := range sendRounds {
		b.screen.Step("round %d of %d: %s requests by hand, by the daemon, and as bare POSTs", round+1, sendRounds, stage.Count(int64(b.requests)))
		if err := b.sendRound(ctx, &c, hand, round); err != nil {
			return err
		}
	}
	rate, loop, bare := median(c.daemon), median(c.loop), median(c.bare)
	b.add(figure{"send_200k", rate, "sends/s", atLeast(10_000), fmt.Sprintf("%s pending requests to the end", stage.Count(int64(b.requests)))})
	b.addVerdict("send", c.spoiled)
	b.addMemory("send_memory", c.peak, target{}, "peak memory of the daemon in it")
	b.add(figure{"send_hand", loop, "sends/s", target{}, "the same by a plain hand loop with none of the promises"})
	b.add(figure{"send_of_hand", rate / loop, "x", atLeast(1), "daemon against that"})
	b.add(figure{"send_hand_pipeline", median(c.pipeline), "sends/s", target{}, "the hand loop with its four steps at the same time"})
	b.add(figure{"send_floor", bare, "sends/s", target{}, "the bare POSTs, without a database"})
	b.add(figure{"send_of_floor", 100 * rate / bare, "%", atLeast(30), "daemon, of that floor"})
	b.add(figure{"send_naive", naive, "sends/s", target{}, "the same by one SELECT, one POST, one UPDATE each"})
	b.add(figure{"send_ratio", rate / naive, "x", target{}, "daemon against that"})
	return nil
}

func (b *bench) sendRound(ctx context.Context, c *contest, h *hand, round int) error {
	rate, err := h.round(ctx, "by hand", h.loop)
	if err != nil {
		return err
	}
	c.loop = append(c.loop, rate)
	if err := b.clear(ctx); err != nil {
		return err
	}
	d, err := b.drain(ctx, unlimited(), b.requests)
	if err != nil {
		return err
	}
	c.daemon, c.peak = append(c.daemon, d.rate), max(c.peak, d.peak)
	v, err := b.readBack(ctx, "send_request", b.requests)
	if err != nil {
		return err
	}
	c.spoiled.add(v)
	if rate, err = h.round(ctx, "by hand, all steps at once", h.pipeline); err != nil {
		return err
	}
	c.pipeline = append(c.pipeline, rate)
	if rate, err = b.bareSend(ctx, round); err != nil {
		return err
	}
	c.bare = append(c.bare, rate)
	return nil
}

func (b *bench) addVerdict(name string, v verdict) {
	b.add(figure{name + "_wrong", float64(v.wrong), "messages", exactly(0), "to another person or with another text, or a row that says so"})
	b.add(figure{name + "_duplicates", float64(v.duplicates), "messages", exactly(0), "delivered twice"})
	b.add(figure{name + "_missing", float64(v.missing), "messages", exactly(0), "not delivered"})
}

const (
	farLatency     = 80 * time.Millisecond
	farConcurrency = 200
	farShare       = 0.3 // of the requests: 25 seconds' worth
)

// measureFar sends to a WeChat that takes its time.
func (b *bench) measureFar(ctx context.Context) error {
	n := int(farShare * float64(b.requests))
	b.screen.Step("%s requests, %s latency on each call, %d POSTs in flight", stage.Count(int64(n)), farLatency, farConcurrency)
	if err := b.simulator.SetLatency(ctx, farLatency); err != nil {
		return err
	}
	d, err := b.drain(ctx, pace{100_000, farConcurrency}, n)
	if err != nil {
		return err
	}
	if err := b.simulator.SetLatency(ctx, 0); err != nil {
		return err
	}
	v, err := b.readBack(ctx, "send_request", n)
	if err != nil {
		return err
	}
	b.add(figure{
		"send_slow", d.rate, "sends/s", atLeast(2200),
		fmt.Sprintf("%s pending requests, %s latency a call, %d in flight", stage.Count(int64(n)), farLatency, farConcurrency),
	})
	b.add(figure{"send_slow_most", farConcurrency / farLatency.Seconds(), "sends/s", target{}, "all that this latency and concurrency allow"})
	b.addVerdict("send_slow", v)
	return nil
}
