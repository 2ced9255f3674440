// Command demo shows the whole way once, with nothing but Go on the machine: a private database,
// the WeChat simulator and the real unionbridge daemon, 1,000 requests inserted with plain SQL, and
// a check of every delivered message. With -mini it shows a mini program that sends alone: what its
// users accept, how it is counted, and what waits for it.
//
//	go run ./internal/devtools/demo [flags]
//
// On a terminal everything stays up until Ctrl-C. Exit codes: 0 success, 1 a mismatch or a failure,
// 2 wrong usage, 130 interrupted.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/database/privatedb"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

func program() harness.Program {
	d := &demo{}
	return harness.Program{
		Name: "demo", Failed: "The demo did not work",
		Flags: func(flags *flag.FlagSet) func() error {
			harness.DSNFlag(flags, &d.dsn, "use this database `server` "+
				"(user:password@tcp(host:port)/) instead of a private one; "+
				"default $UNIONBRIDGE_TEST_DSN")
			flags.IntVar(&d.followers, "followers", 50_000, "followers of the official account")
			flags.IntVar(&d.miniUsers, "mini-users", 20_000,
				"users of the mini program, a third of whom do not follow")
			flags.IntVar(&d.requests, "requests", 1000, "messages that the app asks for")
			flags.BoolVar(&d.mini, "mini", false, "show a mini program without any official account")
			return func() error {
				if d.mini && d.requests < parts {
					return fmt.Errorf("with -mini it needs %d requests at least", parts)
				}
				if d.requests < 1 || d.miniUsers < d.requests || d.followers < 1 {
					return errors.New("it needs a follower, a request, " +
						"and a mini-program user for each request")
				}
				return nil
			}
		},
		Run: func(t *harness.T) {
			if d.T = t; d.mini {
				(&miniDemo{demo: d}).run()
			} else {
				d.run()
			}
		},
	}
}

func main() { harness.Main(program()) }

type demo struct {
	*harness.T
	dsn                            string
	followers, miniUsers, requests int
	mini                           bool

	database  *harness.Database
	simulator *harness.Simulator
	instance  *harness.Instance
	daemon    *harness.Process
	app       harness.DB // the app's own connection: it knows the tables and nothing else

	sweep     time.Duration
	requested []request
	delivered []wechatsim.Message
	late      int           // the last of the delivered, whose recipients had to follow first
	sending   time.Duration // first insert to the last row's end
}

func (d *demo) run() {
	d.Title("unionbridge demo: from WeChat's follower list to the right person's phone")
	d.build()
	d.startSimulator(harness.SimulatorConfig{Followers: d.followers, NotFollowing: 1.0 / 3})
	d.Say("%s: %s followers, %s mini-program users, a third of whom do not follow",
		d.simulator.URL, harness.Count(d.followers), harness.Count(d.miniUsers))
	d.migrate(harness.Settings{})
	d.insertMiniUsers()
	d.firstSweep()
	d.startDaemon()
	d.sendRequests()
	d.check()
	d.someFollow()
	d.summarize()
	if d.Terminal {
		d.stayUp()
	}
}

func (d *demo) build() {
	d.Step("Programs: compiling unionbridge and the WeChat simulator")
	d.Build("unionbridge", "wechatsim")
	d.openDatabase()
}

// migrate makes the schema, and writes the configuration with these settings.
func (d *demo) migrate(settings harness.Settings) {
	d.Step("Schema: unionbridge migrate up")
	settings.DSN, settings.WeChat = d.database.DSN, d.simulator.URL
	settings.Rate, settings.Concurrency = 2000, 64
	d.instance = d.NewInstance(d.Path("unionbridge"), "config", settings)
	d.instance.Run("migrate", "up")
}

func (d *demo) startDaemon() {
	d.Step("Daemon: unionbridge run")
	d.daemon = d.instance.Start()
	d.Say("pid %d, http://%s", d.daemon.Pid(), d.instance.Settings.Listen)
}

func (d *demo) openDatabase() {
	where := "starting a private server"
	if d.dsn != "" {
		where = "a schema of its own on the given server"
	}
	d.Step("Database: %s", where)
	d.database = d.OpenDatabase(d.dsn, privatedb.Config{Output: d.Lines()})
	d.app = d.database.Client()
	err := os.WriteFile(d.Path("client.cnf"), []byte(d.database.ClientFile()), 0o600)
	d.Checkf(err, "writing the option file for the database's client")
	d.Say("%s at %s, schema %s", d.database.Version(), d.database.Addr, d.database.Schema)
}

func (d *demo) startSimulator(cfg harness.SimulatorConfig) {
	d.Step("WeChat: starting the simulator")
	cfg.Path, cfg.MiniUsers = d.Path("wechatsim"), d.miniUsers
	d.simulator = d.StartSimulator(cfg)
}

func (d *demo) firstSweep() {
	d.Step("First sweep: unionbridge sync reads the follower list and asks who everybody is")
	begin := time.Now()
	d.sync()
	d.sweep = time.Since(begin)
	var coverage struct {
		Subscribed int64
		Known      int64 `db:"with_unionid"`
		MiniUsers  int64 `db:"mini_users"`
		Reachable  int64 `db:"reachable_mini_users"`
	}
	d.app.Fetch(&coverage, `
		SELECT subscribed, with_unionid, mini_users, reachable_mini_users
		  FROM v_coverage
		 WHERE appid = ?`, harness.AppID)
	if coverage.Known != int64(d.followers) {
		d.Fatalf("the sweep has found %d followers with a unionid, there are %d", coverage.Known, d.followers)
	}
	d.Good("v_coverage: %s followers, %s of %s mini-program users can be reached",
		harness.Count(coverage.Subscribed), harness.Count(coverage.Reachable),
		harness.Count(coverage.MiniUsers))
}

func (d *demo) sync() {
	c := d.instance.Command("sync")
	lines := d.Lines()
	c.Stdout, c.Stderr = lines, lines
	if d.Terminal {
		c.Stdout, c.Stderr = os.Stdout, os.Stdout
	}
	err := d.Start(c).Wait(d.Context())
	d.Checkf(errors.Join(err, lines.Close()), "unionbridge sync")
}

func (d *demo) follow(done func(counts map[string]int64) bool) (counts map[string]int64) {
	d.Await(harness.Wait{
		For: "the requests", Every: 100 * time.Millisecond, Most: time.Minute, Process: d.daemon,
		Log: func() string { return describe(counts) + "\n" + d.instance.LogTail() },
	}, func() bool {
		var rows []struct {
			Status string
			N      int64
		}
		d.app.FetchAll(&rows, `SELECT status, COUNT(*) AS n FROM v_send_status GROUP BY status`)
		counts = make(map[string]int64)
		for _, row := range rows {
			counts[row.Status] = row.N
		}
		d.Status("%s", describe(counts))
		return done(counts)
	})
	return counts
}

func describe(counts map[string]int64) string {
	var parts []string
	for _, status := range []string{
		"pending", "waiting", "sent", "failed", "expired", "cancelled", "unknown",
	} {
		if n := counts[status]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", harness.Count(n), status))
		}
	}
	return strings.Join(parts, ", ")
}

func (d *demo) stayUp() {
	d.Heading("Everything stays up until Ctrl-C, then it is removed.")
	select {
	case <-d.Context().Done():
		d.Line("\nending the daemon, the simulator and the database …")
	case <-d.daemon.Done():
		d.Fatalf("the daemon ended: %s\n%s", d.daemon.Ended(), d.instance.LogTail())
	case <-d.simulator.Done():
		d.Fatalf("the simulator ended: %s", d.simulator.Ended())
	}
}
