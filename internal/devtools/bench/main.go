// Command bench measures unionbridge as it is installed: the real program, the WeChat simulator and
// the database server are processes of their own on one machine, with no latency between them but
// where a figure names one. The same run measures the way a simple script does the job, and how
// fast this machine could do a first sweep at all.
//
//	go run ./internal/devtools/bench [flags]
//
// The scenarios of the sweep: sweep (floor, first and second sweep), slow and change (a slow
// WeChat; 1 % new and gone), kill (-9, again and again), large (ten times the followers, 3 GB of
// disk at full size).
//
// Those of the sender: send (a backlog, against plain loops and the bare POSTs), far (80 ms away),
// producers (who insert meanwhile), idle, lanes (idle beside a million rows of tomorrow), invented
// (beside as many templates as rows), latency, memory (of a million open rows), waiting (for people
// who do not appear, and who do), takeover (kill -9 of the leader), lost (the same, and the answer
// to the successor's UPDATE is lost), subscribe (subscribe messages beside template messages), mixed (a
// million rows for both channels), door (messages of an application, beside INSERTs of the same rows), urgent (in a campaign of a million), fair (one template behind
// another), future and finished (beside five million rows of next week, ten million that are done;
// 5 GB of disk at full size).
//
// Only where -only names it: migration (the newest one of large tables, with 10 million requests and
// 5 million archived ones, beside producers and a claimer; 8 GB of disk).
//
// It prints a table for people and then one line a figure: name value unit target ok|short. A
// figure without a target has "-" in its place. Exit codes: 0 measured (also where a figure is
// short), 1 it could not be measured, 2 wrong usage, 130 interrupted. Other clients of the same
// server distort the figures that come from its counters; the default is a private server.
package main

import (
	"errors"
	"flag"
	"fmt"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/database/privatedb"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
)

type options struct {
	dsn       string
	only      *regexp.Regexp
	followers int
	requests  int
	binary    string

	killFollowers int
	kills         int
	seed          uint64
	tenMillion    bool
	fullTables    bool
}

func program(o *options) harness.Program {
	return harness.Program{
		Name: "bench", Failed: "The benchmark could not be carried out", Flags: o.define,
		Run: func(t *harness.T) {
			t.Limit(90 * time.Minute) // at full size it takes half an hour on two cores
			b := &bench{T: t, options: o, values: map[string]float64{}}
			defer b.report()
			b.run()
		},
	}
}

func main() { harness.Main(program(&options{})) }

func (o *options) define(flags *flag.FlagSet) func() error {
	names := strings.Join(o.scenarioNames(), ", ")
	harness.DSNFlag(flags, &o.dsn, "use this database `server`; "+
		"default $UNIONBRIDGE_TEST_DSN, else a private one")
	scale := flags.Float64("scale", 1, "a `fraction` of followers and requests, for a quick run; "+
		"the figures are then not the real ones")
	only := flags.String("only", "", "measure only what matches this `regexp`: "+names)
	flags.IntVar(&o.followers, "followers", 1_000_000, "followers of the account")
	flags.IntVar(&o.requests, "requests", 200_000,
		"pending requests; the sender's other scenarios take a share or a multiple of it")
	flags.IntVar(&o.killFollowers, "kill-followers", 100_000, "followers of the account whose sweep is killed")
	flags.IntVar(&o.kills, "kills", 50, "kills, one a sweep; and of the leader in lost")
	flags.Uint64Var(&o.seed, "seed", 0, "of the moments of the kills; 0: another one each time, which is printed")
	flags.BoolVar(&o.tenMillion, "ten-million", true, "measure ten times the followers too")
	flags.BoolVar(&o.fullTables, "full-tables", true, "measure the sender beside 25 times the "+
		"requests that are due next week, and 50 times that are finished")
	flags.StringVar(&o.binary, "binary", "", "measure this unionbridge `program` instead of a fresh build of the checkout")
	return func() (err error) {
		if o.only, err = regexp.Compile(*only); err != nil {
			return err
		}
		for _, n := range []*int{&o.followers, &o.requests, &o.killFollowers} {
			*n = int(float64(*n) * *scale)
		}
		switch {
		case !slices.ContainsFunc(o.scenarioNames(), o.only.MatchString):
			return errors.New("-only matches none of " + names)
		case o.followers < 100 || o.requests < 100 || o.followers < o.requests:
			return errors.New("at least 100 requests, and a follower for each of them")
		case o.killFollowers < 100 || o.kills < 1:
			return errors.New("at least one kill, in a sweep of at least 100 followers")
		}
		return nil
	}
}

func (o *options) wants(name string) bool {
	full := name == "future" || name == "finished"
	named := o.only.String() != ""
	return o.only.MatchString(name) && (o.tenMillion || name != "large") &&
		(o.fullTables || !full) && (named || name != "migration")
}

type bench struct {
	*harness.T // of the present account
	*options
	*setUp

	simulatorPath string
	host          *harness.Database  // the server in which the accounts make their schemas
	server        string             // in words
	values        map[string]float64 // of the figures, by name
}

func (b *bench) run() {
	b.Title("unionbridge bench")
	b.Step("preparing: programs and database")
	b.Build("wechatsim")
	if b.binary == "" {
		b.Build("unionbridge")
		b.binary = b.Path("unionbridge")
	}
	b.simulatorPath = b.Path("wechatsim")
	// The map of a million followers fits in, as it does on any server that has been given memory.
	// That of ten million does not.
	b.host = b.OpenDatabase(b.dsn, privatedb.Config{BufferPool: 512 << 20, Output: b.Lines()})
	b.server = b.host.Describe()
	b.Say("%s", b.machine())
	b.checkDisk()
	for _, a := range b.accounts() {
		if slices.ContainsFunc(a.scenarios, func(s scenario) bool { return b.wants(s.name) }) {
			b.Scope(func(t *harness.T) {
				inner := *b
				inner.T = t
				inner.measure(a)
			})
		}
	}
}

func (b *bench) machine() string {
	return fmt.Sprintf("machine: %d cores, %s/%s, %s; %s; "+
		"simulator without latency but where it is named",
		runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), b.server)
}

// checkDisk refuses the large tables before anything is measured, rather than fill somebody's disk.
func (b *bench) checkDisk() {
	const (
		// A row of the map takes 300 bytes with its index in order of the key, up to half as much
		// again where the index's pages split, and 30 in the spool.
		bytesPerFollower = 500
		bytesPerRequest  = 500 // of a finished one, with its indexes
	)
	var need int64
	if b.wants("large") {
		need = int64(largeTimes*b.followers) * bytesPerFollower
	}
	if b.wants("finished") {
		need = max(need, int64(finishedTimes*b.requests)*bytesPerRequest)
	}
	if b.wants("migration") {
		need = max(need, int64(finishedTimes*b.requests)*bytesPerRequest*3/2)
	}
	if need == 0 {
		return
	}
	var dir string
	b.host.Admin.Fetch(&dir, "SELECT @@datadir")
	free, ok := harness.FreeDisk(dir) // a server elsewhere has its own
	if ok && free < need {
		b.Fatalf("the large tables need about %.1f GB, and %s has %.1f GB left; "+
			"-ten-million=false and -full-tables=false leave them out",
			float64(need)/1e9, dir, float64(free)/1e9)
	}
}
