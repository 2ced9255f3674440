package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/database/privatedb"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

type setUp struct {
	database  *harness.Database
	simulator *harness.Simulator
	instance  *harness.Instance
	db        harness.DB
	daemon    *harness.Process     // the one that a scenario has started
	users     []wechatsim.Identity // of the mini program
	size      int                  // followers at the start
	highest   int64                // id of a request that was deleted
	accepted  int                  // acceptances of each user in the ledger
	light     *weight              // of the sender on an empty table, once it is known
}

func (b *bench) measure(a account) {
	b.setUp = &setUp{size: a.followers}
	b.database = b.OpenDatabase(b.host.DSN, privatedb.Config{})
	b.db = b.database.Client()
	b.simulator = b.StartSimulator(harness.SimulatorConfig{
		Path: b.simulatorPath, Followers: a.followers, MiniUsers: a.miniUsers, NoLimits: true,
		Granted: a.granted,
	})
	b.instance = b.NewInstance(b.binary, "unionbridge", harness.Settings{
		DSN: b.database.DSN, WeChat: b.simulator.URL, Batchgets: a.batchgets,
		Rate: unlimited, Concurrency: concurrency, Mini: a.mini,
	})
	if a.before > 0 {
		b.migrateBefore(a.before)
	} else {
		b.instance.Run("migrate", "up")
	}
	if a.prepare != nil {
		a.prepare(b)
	}
	for _, s := range a.scenarios {
		if !b.wants(s.name) {
			continue
		}
		if a.miniUsers > 0 && a.before == 0 {
			b.clear()
		}
		s.run(b)
		b.stopDaemon()
	}
}

const (
	// unlimited is no limit but the machine's, defaultRate the configuration's default, in messages
	// a second; concurrency is the POSTs in flight.
	unlimited   = 100_000
	defaultRate = 200
	concurrency = 64
)

func (b *bench) startDaemon(rate, concurrency int) {
	settings := b.instance.Settings
	settings.Rate, settings.Concurrency = rate, concurrency
	b.instance.Configure(settings)
	b.daemon = b.instance.Start()
}

func (b *bench) stopDaemon() {
	if b.daemon != nil {
		b.Check(b.daemon.Stop())
	}
}

// clear empties send_request. The next ids are new ones nevertheless: a client_msg_id is made of
// them, and the simulator, as WeChat, does not deliver one twice within ten minutes.
func (b *bench) clear() {
	b.highest = max(b.highest, b.lastID())
	b.db.Do("TRUNCATE TABLE send_request")
	b.db.Do("TRUNCATE TABLE send_wait")
	b.db.Do("DELETE FROM account_state")
	b.db.Do(fmt.Sprintf("ALTER TABLE send_request AUTO_INCREMENT = %d", b.highest+1))
	b.simulator.Reset()
}

func (b *bench) lastID() int64 {
	return b.db.Count("SELECT COALESCE(MAX(id), 0) FROM send_request")
}

// writeCounter counts the rows that the server itself says were written to the tables of the map.
type writeCounter struct {
	b      *bench
	query  string
	before int64
	turnOn bool // MariaDB's statistics are on for the counter only
}

const (
	// MySQL: on by default.
	performanceQuery = `
		SELECT COALESCE(SUM(COUNT_WRITE), 0)
		  FROM performance_schema.table_io_waits_summary_by_table
		 WHERE OBJECT_SCHEMA = ?
		   AND OBJECT_NAME IN ('follower', 'follower_recheck', 'mini_user')`
	// MariaDB, once userstat is on.
	userstatQuery = `
		SELECT COALESCE(SUM(ROWS_CHANGED), 0) FROM information_schema.TABLE_STATISTICS
		 WHERE TABLE_SCHEMA = ?
		   AND TABLE_NAME IN ('follower', 'follower_recheck', 'mini_user')`
)

// countWrites starts counting with whatever the server has: MariaDB's userstat, else MySQL's
// performance schema.
func (b *bench) countWrites() *writeCounter {
	c := &writeCounter{b: b, query: performanceQuery}
	var on bool
	if b.database.Admin.GetContext(b.Context(), &on, "SELECT @@GLOBAL.userstat") == nil {
		c.query = userstatQuery
		if c.turnOn = !on; c.turnOn {
			b.database.Admin.Do("SET GLOBAL userstat = 1")
		}
	}
	c.before = c.read()
	return c
}

func (c *writeCounter) read() int64 {
	return c.b.database.Admin.Count(c.query, c.b.database.Schema)
}

// stop returns the rows written since countWrites. A counter that cannot count would always say 0,
// so it is tried out first.
func (c *writeCounter) stop() int64 {
	admin, table := c.b.database.Admin, c.b.database.Schema+".follower_recheck"
	now := c.read()
	admin.Do("INSERT INTO "+table+" (appid, openid, reason) VALUES (?, 'o-bench', 'bench')",
		harness.AppID)
	admin.Do("DELETE FROM " + table + " WHERE openid = 'o-bench'")
	if c.read() < now+2 {
		c.b.Fatalf("the server's write counters do not count: %s", strings.TrimSpace(c.query))
	}
	if c.turnOn {
		admin.Do("SET GLOBAL userstat = 0")
	}
	return now - c.before
}

// watched are the processes that share the machine, and what they had used when the watch began.
type watched []watchedProcess

type watchedProcess struct {
	name   string
	pid    int
	before time.Duration
}

func (b *bench) watchCPU() (w watched) {
	w = w.and("database", b.serverPid()).and("simulator", b.simulator.Pid())
	w = w.and("bench", os.Getpid())
	for i := range w {
		w[i].before = harness.CPUTime(w[i].pid)
	}
	return w
}

// and watches a process too that has begun since.
func (w watched) and(name string, pid int) watched {
	return append(w, watchedProcess{name: name, pid: pid})
}

func (p watchedProcess) used() time.Duration { return harness.CPUTime(p.pid) - p.before }

func (w watched) used(name string) (used time.Duration) {
	if i := slices.IndexFunc(w, func(p watchedProcess) bool { return p.name == name }); i >= 0 {
		used = w[i].used()
	}
	return used
}

func (w watched) String() string {
	var parts []string
	for _, p := range w {
		parts = append(parts, fmt.Sprintf("%s %.1f", p.name, p.used().Seconds()))
	}
	return strings.Join(parts, ", ")
}

// serverPid is the database server's process id; 0 where it runs elsewhere or does not say.
func (b *bench) serverPid() int {
	var path string
	if b.host.Admin.GetContext(b.Context(), &path, "SELECT @@pid_file") != nil {
		return 0
	}
	text, _ := os.ReadFile(path)
	pid, _ := strconv.Atoi(strings.TrimSpace(string(text))) // 0 where it is no number
	return pid
}
