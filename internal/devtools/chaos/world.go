package main

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

const (
	followers = 300
	producers = 3

	// waitForFollower is how long a request waits for somebody who does not follow.
	waitForFollower = 20 * time.Second
	// sendTimeout is short, so that a stall of WeChat's is longer with little patience.
	sendTimeout = 2 * time.Second
	// claimLasts is how long a claim may still begin to post: the sender's visibility of 60 s, less
	// wechat.send_timeout, less its margin of 5 s.
	claimLasts = 60*time.Second - sendTimeout - 5*time.Second
	// healing bounds the time from the end of the trouble to the end of the last request: the sender's
	// visibility of a minute, a wait for a follower behind it, a pause, retries (two and four minutes after a
	// doubt about a follower could not be written), and a slow machine.
	healing = 6 * time.Minute
)

// world is the scene of one round: a schema, a simulator, producers and one or two daemons.
type world struct {
	options
	round    round
	seed     uint64
	rnd      *rand.Rand // of the trouble, which is one goroutine
	stage    *stage.Stage
	server   *server // nil: the common one, which must not be hurt
	database *stage.Database
	db       *sql.DB // past all links
	network  *network
	platform *platform
	people   *people
	ledger   *ledger
	entrance *link // of the producers
	daemons  []*instance
	window   time.Duration    // send.resend_window
	repeat   wechatsim.Repeat // what WeChat answers to a repeated message

	producing sync.WaitGroup
	producers []*producer
	stopWork  context.CancelFunc
	stopTries context.CancelFunc

	outcome outcome
}

// outcome is what the trouble itself has to report.
type outcome struct {
	kills     int
	flying    int // kills that hit posts without an answer
	takeovers []time.Duration
	frozen    time.Duration // of daemons, in all
	acts      map[string]int
	wrong     []string
}

func (o *outcome) did(act string) { o.acts[act]++ }

// build sets the scene; on success producers insert and daemons send.
func (w *world) build(ctx context.Context, dsn string) error {
	w.outcome.acts = map[string]int{}
	w.draw()
	w.ledger, w.network = newLedger(), newNetwork()
	w.stage.OnClose(w.network.close)
	if w.round.own {
		if err := w.startOwn(ctx); err != nil {
			return err
		}
		dsn = w.server.dsn
	}
	if err := w.openDatabase(ctx, dsn); err != nil {
		return err
	}
	w.openPlatform()
	upstream, err := address(w.database.DSN())
	if err != nil {
		return err
	}
	if w.entrance, err = w.network.add("producers", upstream); err != nil {
		return err
	}
	for i := range w.round.daemons {
		if err := w.addDaemon(ctx, string(rune('a'+i)), upstream); err != nil {
			return err
		}
	}
	if err := w.prepare(ctx); err != nil {
		return err
	}
	for _, d := range w.daemons {
		if err := d.begin(); err != nil {
			return err
		}
	}
	for _, d := range w.daemons {
		if err := d.awaitReady(ctx, time.Minute); err != nil {
			return err
		}
	}
	return w.startProducers(ctx)
}

func (w *world) startOwn(ctx context.Context) (err error) {
	cfg := serverConfig{}
	if w.round.equip != nil {
		if cfg, err = w.round.equip(w); err != nil {
			return err
		}
	}
	w.server, err = startServer(ctx, w.stage, cfg)
	return err
}

func (w *world) openDatabase(ctx context.Context, dsn string) (err error) {
	if w.database, err = stage.OpenDatabase(ctx, stage.DatabaseConfig{DSN: dsn}); err != nil {
		return err
	}
	w.stage.OnClose(w.database.Close)
	if w.db, err = open(w.database.DSN()); err != nil {
		return err
	}
	w.stage.OnClose(w.db.Close)
	return nil
}

func (w *world) openPlatform() {
	options := wechatsim.Standard(followers, 0, 0)
	options.Seed = w.seed
	options.Accounts[0].DailyLimits, options.Minis[0].DailyLimits = wechatsim.NoDailyLimits(), wechatsim.NoDailyLimits()
	w.platform = newPlatform(w.stage, options)
	w.people = newPeople(w.platform, followers)
	for _, person := range w.people.persons[refuses] {
		w.platform.SetPerson(stage.AppID, person, wechatsim.Person{Refuses: true})
	}
}

func (w *world) addDaemon(ctx context.Context, name, upstream string) error {
	d := &instance{name: name, stage: w.stage}
	var err error
	if d.link, err = w.network.add("daemon "+name, upstream); err != nil {
		return err
	}
	dsn, err := through(w.database.DSN(), d.link)
	if err != nil {
		return err
	}
	url, err := w.platform.listen(ctx, name)
	if err != nil {
		return err
	}
	listen, err := stage.FreeAddr(ctx)
	if err != nil {
		return err
	}
	d.settings = stage.Settings{
		DSN: dsn, WeChat: url, Listen: listen, StateDir: w.stage.Path("state-" + name),
		Rate: 400, Concurrency: 32, SendTimeout: sendTimeout, ResendWindow: w.window,
		WaitForFollower: waitForFollower, SyncEvery: 4 * time.Second,
	}
	if w.callbacks {
		if d.settings.Callback, err = stage.FreeAddr(ctx); err != nil {
			return err
		}
	}
	if _, err := w.stage.WriteConfigFile(d.config(), d.settings); err != nil {
		return err
	}
	if d.log, err = w.stage.Log(d.logName()); err != nil {
		return err
	}
	w.daemons = append(w.daemons, d)
	w.stage.OnClose(d.stop)
	return nil
}

// prepare makes the tables and fills the map; some of those in it leave afterwards.
func (w *world) prepare(ctx context.Context) error {
	first := w.daemons[0]
	for _, command := range []string{"migrate up", "sync"} {
		var out strings.Builder
		c := w.stage.UnionbridgeWith(first.config(), strings.Fields(command)...)
		c.Stdout, c.Stderr = &out, &out
		process, err := stage.Start(c)
		if err != nil {
			return err
		}
		if err := process.Wait(ctx); err != nil {
			return fmt.Errorf("unionbridge %s: %w\n%s", command, err, out.String())
		}
	}
	var users []wechatsim.Identity
	for person := range followers + len(w.people.persons[late]) + len(w.people.persons[never]) {
		users = append(users, wechatsim.Identity{
			AppID: stage.MiniAppID, OpenID: w.platform.OpenID(stage.MiniAppID, person), UnionID: w.platform.UnionID(person),
		})
	}
	if err := stage.InsertMiniUsers(ctx, w.db, users); err != nil {
		return err
	}
	for _, person := range w.people.persons[gone] {
		w.platform.Unfollow(stage.AppID, person)
	}
	w.platform.SetQuirks(stage.AppID, wechatsim.Quirks{Repeat: w.repeat})
	w.pushReceipts()
	return nil
}

// pushReceipts has the simulator push receipts of all kinds to the first daemon, until it takes them.
func (w *world) pushReceipts() {
	if !w.callbacks {
		return
	}
	w.platform.SetCallback(stage.AppID, &wechatsim.Callback{
		URL:   "http://" + w.daemons[0].settings.Callback + "/wechat/" + stage.AppID,
		Token: stage.CallbackToken, AESKey: stage.CallbackKey, Secure: true,
		Jitter: 300 * time.Millisecond, Attempts: 1000, RetryWait: time.Second, Duplicate: 0.05,
		UserBlock: 0.01, SystemFailed: 0.02, FreqLimit: 0.02,
	})
}

func (w *world) startProducers(ctx context.Context) error {
	dsn, err := through(w.database.DSN(), w.entrance)
	if err != nil {
		return err
	}
	var work, tries context.Context
	work, w.stopWork = context.WithCancel(ctx)
	tries, w.stopTries = context.WithCancel(ctx)
	for i := range producers {
		db, err := open(dsn)
		if err != nil {
			return err
		}
		db.SetMaxOpenConns(3)
		w.stage.OnClose(db.Close)
		p := &producer{
			name: fmt.Sprintf("C%d-%d", w.seed%1_000_000, i), db: db, rnd: rand.New(rand.NewPCG(w.seed, uint64(i)+1)),
			ledger: w.ledger, people: w.people, pause: 40 * time.Millisecond, giveUp: tries,
		}
		w.producers = append(w.producers, p)
		w.producing.Go(func() { p.run(work) })
	}
	w.producing.Go(func() { w.letFollow(work) })
	return nil
}

// letFollow has one late person after the other follow.
func (w *world) letFollow(ctx context.Context) {
	for _, person := range w.people.persons[late] {
		if !sleep(ctx, w.length/time.Duration(len(w.people.persons[late])+1)) {
			return
		}
		w.platform.Follow(stage.AppID, person)
	}
}

// heal ends all trouble, has the producers finish, and waits until no request is open any more.
func (w *world) heal(ctx context.Context) error {
	w.stopWork()
	w.platform.ClearFaults()
	w.platform.SetLatency(0)
	for _, person := range w.people.persons[late] {
		w.platform.Follow(stage.AppID, person)
	}
	if err := w.network.healAll(); err != nil {
		return err
	}
	for _, d := range w.daemons {
		d.thaw()
		if !d.alive() {
			if err := d.begin(); err != nil {
				return err
			}
		}
		if err := d.awaitReady(ctx, time.Minute); err != nil {
			return err
		}
	}
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		w.producing.Wait()
	}()
	timer := time.AfterFunc(30*time.Second, w.stopTries)
	defer timer.Stop()
	<-finished
	w.stopTries()
	return w.awaitEnd(ctx)
}

// awaitEnd waits until no request is open, twice with a while between: a statement of a producer who has
// given up may still be carried out. That requests stay open is not an error here but a finding.
func (w *world) awaitEnd(ctx context.Context) error {
	quiet := 0
	err := poll(ctx, healing, func(ctx context.Context) (bool, error) {
		var open int
		query := `SELECT COUNT(*) FROM send_request WHERE status IN ('pending', 'waiting')`
		if err := w.db.QueryRowContext(ctx, query).Scan(&open); err != nil {
			return false, nil //nolint:nilerr // asked again until the time is over
		}
		if quiet++; open > 0 {
			quiet = 0
		}
		return quiet > 40, nil
	})
	if err != nil && ctx.Err() != nil {
		return err
	}
	return nil
}

// leader is the daemon that holds the account's lease; nil: none of ours.
func (w *world) leader(ctx context.Context) *instance {
	var holder string
	err := w.db.QueryRowContext(ctx,
		`SELECT holder FROM lease WHERE name = ? AND expires_at > CURRENT_TIMESTAMP(3)`, "send:"+stage.AppID).Scan(&holder)
	if err != nil {
		return nil
	}
	for _, d := range w.daemons {
		if strings.Contains(holder, fmt.Sprintf("-%d-", d.pid())) {
			return d
		}
	}
	return nil
}

// awaitLeader waits until one of the daemons leads and sends.
func (w *world) awaitLeader(ctx context.Context) (leader *instance, err error) {
	since := time.Now()
	err = poll(ctx, 90*time.Second, func(ctx context.Context) (bool, error) {
		if leader = w.leader(ctx); leader == nil {
			return false, nil
		}
		_, sends := w.platform.firstPost(since, func(daemon string) bool { return daemon == leader.name })
		return sends, nil
	})
	if err != nil {
		return nil, fmt.Errorf("waiting for a daemon that sends: %w", err)
	}
	return leader, nil
}

// forget ends the leases of a daemon that was killed, as time would within ten seconds. Its successor need
// not wait then, and there is time for more kills.
func (w *world) forget(ctx context.Context, pid int) error {
	_, err := w.db.ExecContext(ctx,
		`UPDATE lease SET expires_at = CURRENT_TIMESTAMP(3) WHERE holder LIKE ? AND expires_at > CURRENT_TIMESTAMP(3)`,
		fmt.Sprintf("%%-%d-%%", pid))
	if err != nil {
		return fmt.Errorf("ending a dead daemon's leases: %w", err)
	}
	return nil
}

// close ends everything.
func (w *world) close() error {
	if w.stopWork != nil {
		w.stopWork()
		w.stopTries()
		w.producing.Wait()
	}
	return w.stage.Close()
}
