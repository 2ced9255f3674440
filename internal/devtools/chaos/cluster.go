package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/internal/database/privatedb"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/devtools/link"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

const (
	followers = 300
	producers = 3

	// waitForFollower is how long a request waits for somebody who does not follow.
	waitForFollower = 20 * time.Second
	// sendTimeout is short, so that a short stall of WeChat's exceeds it.
	sendTimeout = 2 * time.Second
	// postLasts is how long after the sender's last look at its clock a POST may arrive: its timeout,
	// and a busy machine.
	postLasts = sendTimeout + time.Second
	// healing bounds the time from the end of the faults to the end of the last request: the
	// sender's visibility of a minute, a wait for a follower behind it, a pause, retries (two and
	// four minutes after a doubt about a follower could not be written), and a slow machine.
	healing = 6 * time.Minute
)

// cluster is what one round is played on: a schema, a simulator, producers and one or two daemons.
type cluster struct {
	*harness.T
	*options
	kind     kind
	seed     uint64
	rnd      *rand.Rand // of the nemesis, which is one goroutine
	server   *server    // nil: the common one, which must not be hurt
	database *harness.Database
	db       harness.DB // past all links
	links    []*link.Link
	platform *platform
	persons  map[standing][]int
	daemons  []*instance
	settings harness.Settings // of the daemons
	repeat   wechatsim.Repeat // what WeChat answers to a repeated message
	repeats  time.Duration    // how long WeChat drops a repeated message; 0: its 10 minutes

	producing sync.WaitGroup
	producers []*producer
	work      context.Context // ends with the faults
	stopWork  context.CancelFunc
	stopTries context.CancelFunc

	mini   *mini // nil: the mini program does not send
	result result
	frozen time.Duration // in all
	wrong  []string      // what the nemesis itself has to report
}

func (c *cluster) did(act string) { c.result.Acts[act]++ }

func (c *cluster) await(what string, most time.Duration, done func() bool) {
	c.Await(harness.Wait{For: what, Every: 50 * time.Millisecond, Most: most}, done)
}

func (c *cluster) build() {
	c.result.Acts = map[string]int{}
	c.draw()
	dsn := c.dsn
	if c.kind.own {
		cfg := serverConfig{}
		if c.kind.equip != nil {
			cfg = c.kind.equip(c)
		}
		c.server = startServer(c.T, cfg)
		dsn = c.server.dsn
	}
	c.database = c.OpenDatabase(dsn, privatedb.Config{})
	c.db = c.database.Reader()
	c.openPlatform()
	_, producersDSN := c.openLink()
	for i := range c.kind.daemons {
		c.addDaemon("daemon-"+string(rune('a'+i)), c.binary, c.settings)
	}
	first := c.daemons
	if c.kind.previous {
		first = c.addPrevious()
	}
	c.fill(first[0])
	for _, d := range first {
		d.start()
	}
	c.awaitReady()
	c.startProducers(producersDSN)
	if c.mini != nil {
		c.mini.start(producersDSN)
	}
}

// openLink: there is one for each program, so that one can be cut off alone.
func (c *cluster) openLink() (l *link.Link, dsn string) {
	l, dsn, err := link.OpenDSN(c.database.DSN)
	c.Check(err)
	c.Cleanup(l.Close)
	c.links = append(c.links, l)
	return l, dsn
}

func (c *cluster) openPlatform() {
	options := wechatsim.Standard(followers, 0, 0)
	options.Seed, options.RepeatWindow = c.seed, c.repeats
	options.Accounts[0].DailyLimits = wechatsim.NoDailyLimits()
	options.Minis[0].DailyLimits = wechatsim.NoDailyLimits()
	c.platform = &platform{Server: wechatsim.New(options)}
	c.Cleanup(func() error { c.platform.Close(); return nil })
	c.persons = parts()
	for _, person := range c.persons[refuses] {
		c.platform.SetPerson(harness.AppID, person, wechatsim.Person{Refuses: true})
	}
}

func (c *cluster) addDaemon(name, binary string, settings harness.Settings) {
	d := &instance{t: c.T}
	d.link, settings.DSN = c.openLink()
	settings.WeChat = c.Serve(c.platform.handler(name))
	if c.callbacks || c.mini != nil {
		settings.Callback = c.FreeAddr()
	}
	if c.kind.door {
		settings.Door = c.FreeAddr()
	}
	d.Instance = c.NewInstance(binary, name, settings)
	d.log = c.Log(name + ".log")
	c.daemons = append(c.daemons, d)
}

func (c *cluster) fill(first *instance) {
	first.Run("migrate", "up")
	first.Run("sync")
	var users []wechatsim.Identity
	for person := range followers + len(c.persons[late]) + len(c.persons[never]) {
		users = append(users, wechatsim.Identity{
			AppID: harness.MiniAppID, OpenID: c.platform.OpenID(harness.MiniAppID, person),
			UnionID: c.platform.UnionID(person),
		})
	}
	c.db.InsertMiniUsers(users)
	for _, person := range c.persons[gone] {
		c.platform.Unfollow(harness.AppID, person)
	}
	c.platform.SetQuirks(harness.AppID, wechatsim.Quirks{Repeat: c.repeat})
	switch {
	case c.mini != nil:
		c.mini.receivePushes()
		return
	case !c.callbacks:
		return
	}
	// Receipts of all kinds are pushed to one daemon, until it takes them.
	c.platform.SetCallback(harness.AppID, &wechatsim.Callback{
		URL:   "http://" + c.daemons[0].Settings.Callback + "/wechat/" + harness.AppID,
		Token: harness.CallbackToken, AESKey: harness.CallbackKey, Secure: true,
		Jitter: 300 * time.Millisecond, Attempts: 1000, RetryWait: time.Second, Duplicate: 0.05,
		UserBlock: 0.01, SystemFailed: 0.02, FreqLimit: 0.02,
	})
}

func (c *cluster) startProducers(dsn string) {
	var work, tries context.Context
	work, c.stopWork = context.WithCancel(c.Context())
	c.work = work
	tries, c.stopTries = context.WithCancel(c.Context())
	c.Cleanup(func() error {
		c.stopWork()
		c.stopTries()
		c.producing.Wait()
		return nil
	})
	for i := range producers {
		db := c.OpenReader(dsn)
		db.SetMaxOpenConns(3)
		p := &producer{
			name: fmt.Sprintf("C%d-%d", c.seed%1_000_000, i), db: db.DB,
			rnd:      rand.New(rand.NewPCG(c.seed, uint64(i)+1)),
			platform: c.platform, persons: c.persons, giveUp: tries, mini: c.kind.mini,
		}
		if c.kind.door {
			p.door = newDoorClient(c.doors())
		}
		c.producers = append(c.producers, p)
		if !c.kind.alone {
			c.producing.Go(func() { p.run(work) })
		}
	}
	c.producing.Go(func() { c.letFollow(work) })
}

// doors are the addresses at which applications call.
func (c *cluster) doors() (addresses []string) {
	for _, d := range c.daemons {
		addresses = append(addresses, d.Settings.Door)
	}
	return addresses
}

func (c *cluster) letFollow(ctx context.Context) {
	persons := c.persons[late]
	for _, person := range persons {
		if !sleep(ctx, c.length/time.Duration(len(persons)+1)) {
			return
		}
		c.platform.Follow(harness.AppID, person)
	}
}

func (c *cluster) heal() {
	c.stopWork()
	c.platform.ClearFaults()
	c.platform.SetLatency(0)
	for _, person := range c.persons[late] {
		c.platform.Follow(harness.AppID, person)
	}
	for _, l := range c.links {
		c.Check(l.Heal())
	}
	for _, d := range c.daemons {
		if d.retired {
			continue
		}
		d.thaw()
		if !d.alive() {
			d.start()
		}
	}
	c.awaitReady()
	timer := time.AfterFunc(30*time.Second, c.stopTries)
	defer timer.Stop()
	c.producing.Wait()
	c.stopTries()
	c.awaitEnd()
}

func (c *cluster) awaitReady() {
	for _, d := range c.daemons {
		if d.alive() {
			d.AwaitReady(d.process)
		}
	}
}

// awaitEnd waits until no request is open for a while: a statement of a producer who has given up
// may still be carried out. That requests stay open is not a failure here but a finding.
func (c *cluster) awaitEnd() {
	quiet := 0
	for end := time.Now().Add(healing); quiet <= 40 && time.Now().Before(end); quiet++ {
		var open int
		err := c.db.GetContext(c.Context(), &open,
			`SELECT COUNT(*) FROM send_request WHERE status IN ('pending', 'waiting')`)
		if err != nil || open > 0 || c.mini != nil && c.mini.busy() {
			quiet = 0
		}
		c.Sleep(50 * time.Millisecond)
	}
}

func (c *cluster) leader() *instance { return c.leaderOf(harness.AppID) }

// leaderOf is the daemon that sends for an account; nil: none.
func (c *cluster) leaderOf(appid string) *instance {
	var holder string
	err := c.db.GetContext(c.Context(), &holder,
		`SELECT holder FROM lease WHERE name = ? AND expires_at > CURRENT_TIMESTAMP(3)`,
		"send:"+appid)
	if err != nil {
		return nil
	}
	for _, d := range c.daemons {
		if d.process != nil && strings.Contains(holder, fmt.Sprintf("-%d-", d.process.Pid())) {
			return d
		}
	}
	return nil
}

func (c *cluster) awaitLeader() (leader *instance) {
	since := time.Now()
	c.await("a daemon that sends", 90*time.Second, func() bool {
		if leader = c.leader(); leader == nil {
			return false
		}
		_, sends := c.platform.firstPost(since, func(name string) bool { return name == leader.Name })
		return sends
	})
	return leader
}
