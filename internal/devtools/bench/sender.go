package main

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/checker"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
)

func (b *bench) prepareUsers() {
	b.users = b.simulator.MiniUsers()
	b.db.InsertMiniUsers(b.users)
}

func (b *bench) prepareSender() {
	b.prepareUsers()
	if !b.wants("sweep") {
		b.sweep()
	}
}

func (b *bench) timed(how string, n int, send func()) (rate float64) {
	b.simulator.Reset()
	cpu := b.watchCPU()
	begin := time.Now()
	send()
	took := time.Since(begin).Seconds()
	rate = float64(n) / took
	b.Say("%s in %.1f s, %s/s; processor seconds: %s", how, took, harness.Count(int64(rate)), cpu)
	return rate
}

type drained struct {
	rate float64       // messages a second, the daemon's start included
	peak int64         // bytes of the daemon's memory
	cost time.Duration // processor time of the database server and the daemon for one message
}

func (b *bench) drain(n, concurrency int) drained {
	return b.drainFrom(n, concurrency, func(n int) { b.insertRequests("send_request", n) })
}

func (b *bench) drainFrom(n, concurrency int, insert func(n int)) (d drained) {
	last := b.lastID()
	insert(n)
	b.simulator.Reset()
	cpu := b.watchCPU()
	begin := time.Now()
	b.startDaemon(unlimited, concurrency)
	b.awaitDone(last, int64(n))
	took := time.Since(begin)
	cpu = cpu.and("daemon", b.daemon.Pid())
	d.rate, d.peak = float64(n)/took.Seconds(), b.daemon.PeakMemory()
	d.cost = (cpu.used("database") + cpu.used("daemon")) / time.Duration(n)
	b.Say("the daemon in %.1f s, %s/s; peak memory %.1f MiB; processor seconds: %s",
		took.Seconds(), harness.Count(int64(d.rate)), mebibytes(d.peak), cpu)
	b.stopDaemon()
	return d
}

// sendRounds of each contestant take turns, so that what disturbs the machine for a while disturbs
// them all; the median of each counts.
const sendRounds = 3

func (b *bench) send() {
	single := b.baselineSend()
	baseline := b.newBaseline()
	var daemon, loop, pipeline, bare []float64
	var peak int64
	var spoiled checker.Verdict
	for round := range sendRounds {
		b.Step("round %d of %d: %s requests by a plain loop, by the daemon, and as bare POSTs",
			round+1, sendRounds, harness.Count(b.requests))
		loop = append(loop, baseline.round("a plain loop", baseline.loop))
		b.clear()
		d := b.drain(b.requests, concurrency)
		daemon, peak = append(daemon, d.rate), max(peak, d.peak)
		v := b.check("send_request", b.requests)
		spoiled.Wrong += v.Wrong
		spoiled.Duplicates += v.Duplicates
		spoiled.Missing += v.Missing
		pipeline = append(pipeline, baseline.round("a plain loop, all steps at once", baseline.pipeline))
		bare = append(bare, b.bareSend(round))
	}
	rate := median(daemon)
	b.record("send_200k", rate)
	b.recordMemory("send_memory", peak)
	b.record("send_hand", median(loop))
	b.record("send_of_hand", rate/median(loop))
	b.record("send_hand_pipeline", median(pipeline))
	b.record("send_floor", median(bare))
	b.record("send_of_floor", 100*rate/median(bare))
	b.record("send_naive", single)
	b.record("send_ratio", rate/single)
	b.recordVerdict("send", spoiled)
}

func (b *bench) recordVerdict(name string, v checker.Verdict) {
	b.record(name+"_wrong", float64(v.Wrong))
	b.record(name+"_duplicates", float64(v.Duplicates))
	b.record(name+"_missing", float64(v.Missing))
}

const (
	farLatency     = 80 * time.Millisecond
	farConcurrency = 200
)

func (o *options) farRequests() int { return int(0.3 * float64(o.requests)) }

func (b *bench) far() {
	n := b.farRequests()
	b.Step("%s requests, %s latency on each call, %d POSTs in flight", harness.Count(n), farLatency, farConcurrency)
	b.simulator.SetLatency(farLatency)
	d := b.drain(n, farConcurrency)
	b.simulator.SetLatency(0)
	b.record("send_slow", d.rate)
	b.record("send_slow_most", farConcurrency/farLatency.Seconds())
	b.recordVerdict("send_slow", b.check("send_request", n))
}

const (
	producers     = 4
	producersTime = 30 * time.Second
)

func (b *bench) produce() {
	b.Step("%d producers insert one row after the other for %s, and the daemon sends", producers, producersTime)
	b.startDaemon(unlimited, concurrency)
	cpu := b.watchCPU().and("daemon", b.daemon.Pid())
	begin := time.Now()
	inserted := b.insertFor(producersTime)
	took := time.Since(begin).Seconds()
	delivered := b.simulator.Delivered()
	b.Say("%s rows, %s messages; processor seconds: %s", harness.Count(inserted), harness.Count(delivered), cpu)
	b.record("producers", float64(inserted)/took)
	b.record("send_with_producers", float64(delivered)/took)
	begin = time.Now()
	b.awaitDone(0, inserted)
	b.record("send_after_producers", time.Since(begin).Seconds())
	b.record("send_with_producers_missing", float64(inserted-b.simulator.Delivered()))
}

func (b *bench) insertFor(d time.Duration) int64 {
	var inserted atomic.Int64
	end := time.Now().Add(d)
	group := b.Group(producers)
	for producer := range producers {
		insert := b.database.Client().Prepared(insertQuery)
		group.Go(func(context.Context) {
			for i := producer; time.Now().Before(end); i += producers {
				insert(b.users[i%len(b.users)].OpenID, harness.Template, message("P", i))
				inserted.Add(1)
			}
		})
	}
	group.Wait()
	return inserted.Load()
}
