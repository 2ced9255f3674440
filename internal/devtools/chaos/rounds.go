package main

import (
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// round is a kind of trouble.
type round struct {
	name    string
	what    string // for people
	daemons int
	own     bool // it hurts the database server, and so has one of its own
	jumps   bool // the server's clock is wrong: nothing can be said about moments
	quick   bool // nothing holds a post up, so repeats must keep to the window closely

	// missing says why the round cannot be played here; nil: it always can.
	missing func() error
	// equip prepares what the round's own server needs; nil: nothing.
	equip func(*world) (serverConfig, error)
	// trouble makes trouble for about w.length.
	trouble func(context.Context, *world) error
}

// rounds are all kinds, in the order in which they are played.
func rounds() []round {
	return []round{
		{name: "kill", what: "kill -9 of the daemon, restarted at once", daemons: 1, quick: true, trouble: killAll},
		{name: "frozen", what: "the sending one of two daemons is frozen past its lease and wakes", daemons: 2, trouble: freezeLeader},
		{name: "leader", what: "two daemons, kill -9 of the one that sends", daemons: 2, quick: true, trouble: killLeader},
		{name: "partition", what: "the sending one of two daemons loses the database, and only it", daemons: 2, trouble: partition},
		{name: "network", what: "connections to the database cut, half dead, slow, in pieces", daemons: 1, trouble: every(breakNetwork)},
		{name: "wechat", what: "WeChat resets before and after processing, stalls, answers -1, 5xx, garbage", daemons: 1, trouble: every(breakWeChat)},
		{name: "all", what: "all of it at once, two daemons", daemons: 2, own: true, missing: findServer, trouble: everything},
		{name: "stall", what: "the database server stands still (SIGSTOP)", daemons: 1, own: true, missing: findServer, trouble: every(stallServer)},
		{name: "crash", what: "kill -9 of the database server, restarted", daemons: 1, own: true, missing: findServer, trouble: every(crashServer)},
		{name: "disk", what: "the database server's temporary folder is full", daemons: 1, own: true, missing: noSmallDisk, equip: smallDisk, trouble: every(fillDisk)},
		{
			name: "clock", what: "the database server's clock jumps forth by hours and back by seconds", daemons: 2, own: true, jumps: true,
			missing: noFakeTime, equip: fakeTime, trouble: jumpClock,
		},
	}
}

// act makes one trouble and ends it.
type act func(context.Context, *world) error

// every repeats an act, with good times between, for as long as the round lasts.
func every(a act) func(context.Context, *world) error {
	return func(ctx context.Context, w *world) error {
		for end := time.Now().Add(w.length); time.Now().Before(end); {
			if !sleep(ctx, w.between(200*time.Millisecond, 1500*time.Millisecond)) {
				return ctx.Err()
			}
			if err := a(ctx, w); err != nil {
				return err
			}
		}
		return nil
	}
}

// between draws a time.
func (w *world) between(from, to time.Duration) time.Duration {
	return from + time.Duration(w.rnd.Int64N(int64(to-from)))
}

// draw decides what a round is like beyond its trouble.
func (w *world) draw() {
	// What WeChat answers to a repeated client_msg_id is not known.
	w.repeat = []wechatsim.Repeat{
		wechatsim.RepeatSameID, wechatsim.RepeatSameID, wechatsim.RepeatNewID, wechatsim.RepeatError,
	}[w.rnd.IntN(4)]
	// With the default, what a kill leaves uncertain is sent again a minute later; with a window shorter than
	// that it becomes unknown. An error at each repetition would keep requests open for all of a long window.
	w.window = 9 * time.Minute
	if w.repeat == wechatsim.RepeatError || w.rnd.IntN(2) == 0 {
		w.window = 20 * time.Second
	}
}

// killAll kills the daemons w.kills times, after short and longer lives: some die while they start.
func killAll(ctx context.Context, w *world) error {
	for range w.kills {
		w.platform.SetLatency(w.between(0, 200*time.Millisecond)) // so that posts are under way
		var life time.Duration
		switch f := w.rnd.Float64(); {
		case f < 0.25:
			life = w.between(0, 300*time.Millisecond)
		case f < 0.8:
			life = w.between(300*time.Millisecond, 1200*time.Millisecond)
		default:
			life = w.between(time.Second, 3*time.Second)
		}
		if !sleep(ctx, life) {
			return ctx.Err()
		}
		if err := w.killOne(ctx, w.daemons[w.rnd.IntN(len(w.daemons))], w.rnd.Float64() < 0.95); err != nil {
			return err
		}
	}
	return nil
}

// killOne kills a daemon and starts it again. quickly also ends its leases.
func (w *world) killOne(ctx context.Context, d *instance, quickly bool) error {
	w.outcome.kills++
	if w.platform.flying.Load() > 0 {
		w.outcome.flying++
	}
	w.outcome.did("kill")
	process := d.kill()
	if quickly {
		if err := w.forget(ctx, process.Pid()); err != nil {
			return err
		}
	}
	return d.begin()
}

// takeoverLimit is the design's: the surviving instance sends within 15 s.
const takeoverLimit = 15 * time.Second

// awaitTakeover measures how long it takes until another daemon than the old leader sends.
func (w *world) awaitTakeover(ctx context.Context, old *instance, what string) error {
	begin := time.Now()
	var first time.Time
	err := poll(ctx, 2*time.Minute, func(context.Context) (ok bool, _ error) {
		first, ok = w.platform.firstPost(begin, func(daemon string) bool { return daemon != old.name })
		return ok, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for the other daemon to send: %w", err)
	}
	took := first.Sub(begin)
	w.outcome.takeovers = append(w.outcome.takeovers, took)
	if took > w.takeover {
		w.outcome.wrong = append(w.outcome.wrong, fmt.Sprintf("%s: the other daemon sent %.1f s later, which is more than %s", what, took.Seconds(), w.takeover))
	}
	return nil
}

func killLeader(ctx context.Context, w *world) error {
	w.platform.SetLatency(100 * time.Millisecond)
	for end := time.Now().Add(w.length); time.Now().Before(end); {
		leader, err := w.awaitLeader(ctx)
		if err != nil {
			return err
		}
		if !sleep(ctx, w.between(0, 500*time.Millisecond)) {
			return ctx.Err()
		}
		w.outcome.kills++
		if w.platform.flying.Load() > 0 {
			w.outcome.flying++
		}
		w.outcome.did("kill of the leader")
		leader.kill()
		if err := w.awaitTakeover(ctx, leader, "after the leader's death"); err != nil {
			return err
		}
		if err := leader.begin(); err != nil {
			return err
		}
	}
	return nil
}

// freezeLeader freezes past the lease each time, and every other time past the claim's visibility too: then
// others have sent, or given up, what the sleeper holds in its hands.
func freezeLeader(ctx context.Context, w *world) error {
	w.platform.SetLatency(100 * time.Millisecond)
	for n, end := 0, time.Now().Add(w.length); n == 0 || time.Now().Before(end); n++ {
		leader, err := w.awaitLeader(ctx)
		if err != nil {
			return err
		}
		begin := time.Now()
		leader.freeze()
		w.outcome.did("freeze of the leader")
		if err := w.awaitTakeover(ctx, leader, "after the leader was frozen"); err != nil {
			return err
		}
		rest := w.between(time.Second, 8*time.Second)
		if n%2 == 0 {
			rest = w.between(63*time.Second, 66*time.Second) - time.Since(begin)
		}
		if !sleep(ctx, rest) {
			return ctx.Err()
		}
		leader.thaw()
		w.outcome.frozen += time.Since(begin)
	}
	return nil
}

// partition takes the database away from the sending daemon, which keeps its outcomes and brings them later.
func partition(ctx context.Context, w *world) error {
	w.platform.SetLatency(100 * time.Millisecond)
	for end := time.Now().Add(w.length); time.Now().Before(end); {
		leader, err := w.awaitLeader(ctx)
		if err != nil {
			return err
		}
		t := deaf()
		if w.rnd.IntN(2) == 0 {
			t = mute()
		}
		if w.rnd.IntN(3) == 0 {
			leader.link.cut()
			w.outcome.did("cut off")
		} else if err := leader.link.poison(t); err != nil {
			return err
		} else {
			w.outcome.did(t.what)
		}
		if err := w.awaitTakeover(ctx, leader, "after the leader lost the database"); err != nil {
			return err
		}
		if !sleep(ctx, w.between(0, 10*time.Second)) {
			return ctx.Err()
		}
		if err := leader.link.heal(); err != nil {
			return err
		}
	}
	return nil
}

// everything draws acts, and lets some of them overlap: a kill comes while others last.
func everything(ctx context.Context, w *world) error {
	w.platform.SetLatency(30 * time.Millisecond)
	acts := []act{breakNetwork, breakNetwork, breakWeChat, breakWeChat, stallServer, crashServer, killWithin(breakWeChat), killWithin(breakNetwork), freezeBriefly}
	return every(func(ctx context.Context, w *world) error {
		if err := acts[w.rnd.IntN(len(acts))](ctx, w); err != nil {
			return err
		}
		return w.killQuietly(ctx)
	})(ctx, w)
}

// killWithin kills a daemon just before another trouble, so that it starts in the middle of it.
func killWithin(a act) act {
	return func(ctx context.Context, w *world) error {
		if err := w.killQuietly(ctx); err != nil {
			return err
		}
		return a(ctx, w)
	}
}

func (w *world) killQuietly(ctx context.Context) error {
	return w.killOne(ctx, w.daemons[w.rnd.IntN(len(w.daemons))], true)
}

func freezeBriefly(ctx context.Context, w *world) error {
	d := w.daemons[w.rnd.IntN(len(w.daemons))]
	begin := time.Now()
	d.freeze()
	w.outcome.did("freeze")
	ok := sleep(ctx, w.between(time.Second, 13*time.Second))
	d.thaw()
	w.outcome.frozen += time.Since(begin)
	if !ok {
		return ctx.Err()
	}
	return nil
}

// stallServer stops the server's clockwork. The longest stall of a long round exceeds what the daemon waits
// for an answer.
func stallServer(ctx context.Context, w *world) error {
	stall := w.between(200*time.Millisecond, 5*time.Second)
	if w.length > 30*time.Second && w.rnd.IntN(8) == 0 {
		stall = w.between(31*time.Second, 36*time.Second)
	}
	w.outcome.did("stall of the server")
	w.server.process.Signal(syscall.SIGSTOP)
	ok := sleep(ctx, stall)
	w.server.process.Signal(syscall.SIGCONT)
	if !ok {
		return ctx.Err()
	}
	return nil
}

func crashServer(ctx context.Context, w *world) error {
	w.outcome.did("kill of the server")
	w.server.process.Kill()
	if !sleep(ctx, w.between(0, 3*time.Second)) {
		return ctx.Err()
	}
	return w.server.start(ctx)
}
