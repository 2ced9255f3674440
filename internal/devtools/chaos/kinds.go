package main

import (
	"fmt"
	"syscall"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/devtools/link"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

type kind struct {
	name    string
	what    string // for people
	daemons int
	own     bool // it hurts the database server, and so has one of its own
	jumps   bool // the server's clock is wrong: nothing can be said about moments
	quick   bool // nothing delays a post, so repeats must keep to the window closely
	alone   bool // the nemesis inserts the requests, no producer does
	mini    bool // the mini program sends too, see channels.go
	door    bool // requests come in by the doors, see door.go

	// previous: daemons of an older version begin, on its schema. The others start with the nemesis.
	previous bool

	// tune changes what was drawn for the round; nil: nothing.
	tune func(*cluster)

	// missing says what the kind lacks here; nil: nothing.
	missing func(*harness.T) error
	// equip prepares what the kind's own server needs; nil: nothing.
	equip func(*cluster) serverConfig
	// nemesis makes faults for about c.length.
	nemesis func(*cluster)
	// verify checks in the end what only this kind knows of; nil: nothing.
	verify func(*cluster)
}

// playable says why the kind cannot be played here; nil: it can.
func (k kind) playable(t *harness.T) (err error) {
	if k.own {
		err = findServer()
	}
	if err == nil && k.missing != nil {
		err = k.missing(t)
	}
	return err
}

func kinds() []kind {
	return []kind{
		{name: "kill", what: "kill -9 of the daemon, restarted at once", daemons: 1, quick: true, nemesis: killAll},
		{name: "frozen", what: "the sending one of two daemons is frozen past its lease and wakes",
			daemons: 2, nemesis: freezeLeader},
		{name: "leader", what: "two daemons, kill -9 of the one that sends", daemons: 2, quick: true, nemesis: killLeader},
		{name: "partition",
			what:    "the sending one of two daemons loses the database, and only it",
			daemons: 2, nemesis: partition},
		{name: "network", what: "connections to the database cut, half dead, slow, in pieces",
			daemons: 1, nemesis: every(breakNetwork)},
		{name: "wechat",
			what:    "WeChat resets before and after processing, stalls, answers -1, 5xx, garbage",
			daemons: 1, nemesis: every(breakWeChat)},
		{name: "all", what: "all of it at once, two daemons",
			daemons: 2, own: true, nemesis: everything},
		{name: "stall", what: "the database server is stopped (SIGSTOP)",
			daemons: 1, own: true, nemesis: every(stallServer)},
		{name: "crash", what: "kill -9 of the database server, restarted",
			daemons: 1, own: true, nemesis: every(crashServer)},
		{name: "disk", what: "the database server's temporary folder is full", daemons: 1, own: true,
			missing: noSmallDisk, equip: smallDisk, nemesis: every(fillDisk)},
		{name: "clock",
			what:    "the database server's clock jumps forth by hours and back by seconds",
			daemons: 2, own: true, jumps: true,
			missing: noFakeTime, equip: fakeTime, nemesis: jumpClock},
		{name: "window", what: "kill -9 after lost answers, restarted as the resend window ends",
			daemons: 1, alone: true, tune: narrowWindow, nemesis: restartAtTheEnd},
		{name: "versions", what: "an upgrade under load: old daemons beside the new one, kill -9 of either",
			daemons: 1, previous: true, tune: miniSends,
			missing: noPrevious, nemesis: upgrade, verify: checkMinis},
		{name: "channels", what: "two channels, two daemons: kill -9 amid lost answers and cuts",
			daemons: 2, mini: true, tune: bothChannels, nemesis: killChannels, verify: awaitResolved},
		{name: "door", what: "messages by the doors, two daemons: kill -9 of them and of the database server",
			daemons: 2, own: true, door: true, nemesis: breakDoors},
	}
}

func every(fault func(*cluster)) func(*cluster) {
	return func(c *cluster) {
		for end := time.Now().Add(c.length); time.Now().Before(end); {
			c.Sleep(c.between(200*time.Millisecond, 1500*time.Millisecond))
			fault(c)
		}
	}
}

func (c *cluster) between(from, to time.Duration) time.Duration {
	return from + time.Duration(c.rnd.Int64N(int64(to-from)))
}

func (c *cluster) anyDaemon() *instance { return c.daemons[c.rnd.IntN(len(c.daemons))] }

func (c *cluster) draw() {
	// What WeChat answers to a repeated client_msg_id is not known.
	c.repeat = []wechatsim.Repeat{
		wechatsim.RepeatSameID, wechatsim.RepeatSameID, wechatsim.RepeatNewID, wechatsim.RepeatError,
	}[c.rnd.IntN(4)]
	// With the default, what a kill leaves in doubt is sent again a minute later; with a window
	// shorter than that it becomes unknown. An error at each repetition would keep requests open
	// for all of a long window.
	window := 9 * time.Minute
	if c.repeat == wechatsim.RepeatError || c.rnd.IntN(2) == 0 {
		window = 20 * time.Second
	}
	c.settings = harness.Settings{
		Rate: 400, Concurrency: 32, Times: harness.Times{
			SendTimeout: sendTimeout, ResendWindow: window, WaitForFollower: waitForFollower,
			SyncEvery: 4 * time.Second,
		},
	}
	if c.kind.tune != nil {
		c.kind.tune(c)
	}
}

func killAll(c *cluster) {
	for range c.kills {
		c.platform.SetLatency(c.between(0, 200*time.Millisecond)) // so that posts are in flight
		life := c.between(300*time.Millisecond, 1200*time.Millisecond)
		if f := c.rnd.Float64(); f < 0.25 {
			life = c.between(0, 300*time.Millisecond)
		} else if f >= 0.8 {
			life = c.between(time.Second, 3*time.Second)
		}
		c.Sleep(life)
		c.restart(c.anyDaemon(), c.rnd.Float64() < 0.95)
	}
}

func (c *cluster) kill(d *instance, act string) (pid int) {
	c.result.Kills++
	if c.platform.inFlight.Load() > 0 {
		c.result.Flying++
	}
	c.did(act)
	return d.kill()
}

// restart kills a daemon and starts it again. quickly also ends its leases, as time would within
// ten seconds: its successor need not wait then, and there is time for more kills.
func (c *cluster) restart(d *instance, quickly bool) {
	pid := c.kill(d, "kill")
	if quickly {
		c.endLeases(pid)
	}
	d.start()
}

func (c *cluster) endLeases(pid int) {
	c.db.Do(`UPDATE lease SET expires_at = CURRENT_TIMESTAMP(3)
		 WHERE holder LIKE ? AND expires_at > CURRENT_TIMESTAMP(3)`, fmt.Sprintf("%%-%d-%%", pid))
}

// takeoverLimit is the design's: the surviving instance sends within 15 s.
const takeoverLimit = 15 * time.Second

func (c *cluster) awaitTakeover(old *instance, after string) {
	begin := time.Now()
	var first time.Time
	c.await("the other daemon to send", 2*time.Minute, func() (ok bool) {
		first, ok = c.platform.firstPost(begin, func(name string) bool { return name != old.Name })
		return ok
	})
	took := first.Sub(begin)
	c.result.Takeovers = append(c.result.Takeovers, took.Seconds())
	if took > c.takeover {
		c.wrong = append(c.wrong, fmt.Sprintf(
			"after the leader %s: the other daemon sent %.1f s later, which is more than %s",
			after, took.Seconds(), c.takeover))
	}
}

func killLeader(c *cluster) {
	c.platform.SetLatency(100 * time.Millisecond)
	for end := time.Now().Add(c.length); time.Now().Before(end); {
		leader := c.awaitLeader()
		c.Sleep(c.between(0, 500*time.Millisecond))
		c.kill(leader, "kill of the leader")
		c.awaitTakeover(leader, "died")
		leader.start()
	}
}

// freezeLeader freezes past the lease each time, and every other time past the claim's visibility
// too: then others have sent, or given up, what the frozen daemon has claimed.
func freezeLeader(c *cluster) {
	c.platform.SetLatency(100 * time.Millisecond)
	for n, end := 0, time.Now().Add(c.length); n == 0 || time.Now().Before(end); n++ {
		leader := c.awaitLeader()
		begin := time.Now()
		leader.freeze()
		c.did("freeze of the leader")
		c.awaitTakeover(leader, "was frozen")
		rest := c.between(time.Second, 8*time.Second)
		if n%2 == 0 {
			rest = c.between(63*time.Second, 66*time.Second) - time.Since(begin)
		}
		c.Sleep(rest)
		leader.thaw()
		c.frozen += time.Since(begin)
	}
}

// partition takes the database away from the sending daemon, which keeps its outcomes and writes
// them later.
func partition(c *cluster) {
	c.platform.SetLatency(100 * time.Millisecond)
	for end := time.Now().Add(c.length); time.Now().Before(end); {
		leader := c.awaitLeader()
		bad := []link.Toxic{mute(), deaf()}[c.rnd.IntN(2)]
		if c.rnd.IntN(3) == 0 {
			leader.link.Cut()
			c.did("cut off")
		} else {
			c.Check(leader.link.Poison(bad))
			c.did(bad.What)
		}
		c.awaitTakeover(leader, "lost the database")
		c.Sleep(c.between(0, 10*time.Second))
		c.Check(leader.link.Heal())
	}
}

// everything draws faults, and lets some of them overlap: a kill comes while others last.
func everything(c *cluster) {
	c.platform.SetLatency(30 * time.Millisecond)
	faults := []func(*cluster){
		breakNetwork, breakNetwork, breakWeChat, breakWeChat, stallServer, crashServer,
		killWithin(breakWeChat), killWithin(breakNetwork), freezeBriefly,
	}
	every(func(c *cluster) {
		faults[c.rnd.IntN(len(faults))](c)
		c.restart(c.anyDaemon(), true)
	})(c)
}

// killWithin kills a daemon just before another fault, so that it starts in the middle of it.
func killWithin(fault func(*cluster)) func(*cluster) {
	return func(c *cluster) {
		c.restart(c.anyDaemon(), true)
		fault(c)
	}
}

func freezeBriefly(c *cluster) {
	d := c.anyDaemon()
	begin := time.Now()
	d.freeze()
	defer d.thaw()
	c.did("freeze")
	c.Sleep(c.between(time.Second, 13*time.Second))
	c.frozen += time.Since(begin)
}

// stallServer stops the server process. The longest stall of a long round exceeds the daemon's
// timeout for an answer.
func stallServer(c *cluster) {
	stall := c.between(200*time.Millisecond, 5*time.Second)
	if c.length > 30*time.Second && c.rnd.IntN(8) == 0 {
		stall = c.between(31*time.Second, 36*time.Second)
	}
	c.did("stall of the server")
	c.server.process.Signal(syscall.SIGSTOP)
	defer c.server.process.Signal(syscall.SIGCONT)
	c.Sleep(stall)
}

func crashServer(c *cluster) {
	c.did("kill of the server")
	c.server.process.Kill()
	c.Sleep(c.between(0, 3*time.Second))
	c.Check(c.server.process.Restart())
	c.server.await()
}
