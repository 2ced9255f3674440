// Command chaos breaks everything around the real unionbridge program while producers insert
// requests, heals it, and then holds what the database says against what the simulated WeChat has
// received.
//
//	go run ./internal/devtools/chaos [flags]
//
// A round plays one kind of chaos, see kinds.go. Its moments follow from its seed, which is
// printed: the same seed makes the same faults again, though not the same races. Each round has a
// schema, a simulator and links of its own; rounds that hurt the database server start one. After
// the faults everything is healed and the round waits until no request is open.
//
// -report prints the table of docs/reliability.md from a results file, which has one JSON line per
// round. Exit codes: 0 all promises kept, 1 one was broken or a round could not be played, 2 wrong
// usage, 130 interrupted.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/harness"
)

type options struct {
	dsn       string
	only      *regexp.Regexp
	rounds    int
	seed      uint64
	kills     int
	length    time.Duration
	parallel  int
	takeover  time.Duration // the longest that nobody may send
	callbacks bool
	real      bool
	results   string
	report    string
	keep      string
	binary    string
	previous  string // the program of an older version; empty: not built yet
}

func program(o *options) harness.Program {
	return harness.Program{
		Name: "chaos", Failed: "Not all rounds could be played", Flags: o.define,
		Run: func(t *harness.T) { o.run(t) },
	}
}

func main() { harness.Main(program(&options{})) }

func (o *options) define(flags *flag.FlagSet) func() error {
	harness.DSNFlag(flags, &o.dsn, "use this database `server` for rounds that do not hurt it; "+
		"default $UNIONBRIDGE_TEST_DSN, else a private one")
	only := flags.String("only", "", "play only the rounds whose names match this `regexp`")
	flags.IntVar(&o.rounds, "rounds", 0, "how many rounds, one kind after the other; 0: each kind once")
	flags.Uint64Var(&o.seed, "seed", 0, "of the first round, the next ones count on; 0: another one each time")
	flags.IntVar(&o.kills, "kills", 100, "kills of a kill round")
	flags.DurationVar(&o.length, "length", time.Minute, "how long the faults of a round last")
	short := flags.Bool("short", false, "few faults: -kills 12 -length 12s -parallel 4")
	flags.IntVar(&o.parallel, "parallel", 2, "rounds at once; they wait most of the time")
	flags.DurationVar(&o.takeover, "takeover", takeoverLimit, "how long it may take until another daemon sends")
	flags.BoolVar(&o.callbacks, "callbacks", false, "have WeChat push receipts")
	flags.BoolVar(&o.real, "real", false, "play a window round at the real length, eleven minutes")
	flags.StringVar(&o.results, "results", "", "append a JSON line per round to this `file`")
	flags.StringVar(&o.report, "report", "", "play nothing, print the table of this results `file`")
	flags.StringVar(&o.keep, "keep", "", "keep the daemons' logs of a round with violations in this `folder`")
	flags.StringVar(&o.binary, "binary", "", "test this unionbridge `program` instead of a fresh build of the checkout")
	flags.StringVar(&o.previous, "previous", "", "play the round versions with this older "+
		"unionbridge `program` instead of a build of "+previousCommit)
	return func() (err error) {
		if *short {
			o.kills, o.length, o.parallel = 12, 12*time.Second, 4
		}
		if o.only, err = regexp.Compile("^(" + *only + ")"); err != nil {
			return err
		}
		switch {
		case len(o.chosen()) == 0:
			return errors.New("-only matches no round")
		case o.kills < 1 || o.length < time.Second || o.parallel < 1 || o.rounds < 0:
			return errors.New("at least one kill, one second and one round at a time")
		}
		return nil
	}
}

func (o *options) chosen() []kind {
	return slices.DeleteFunc(kinds(), func(k kind) bool { return !o.only.MatchString(k.name) })
}

func (o *options) run(t *harness.T) {
	if o.report != "" {
		results, err := load(o.report)
		t.Check(err)
		t.Line("%s", markdown(results))
		return
	}
	if o.binary == "" {
		t.Build("unionbridge")
		o.binary = t.Path("unionbridge")
	}
	if o.dsn == "" {
		o.dsn = startServer(t, serverConfig{output: t.Lines()}).dsn
	}
	o.seed = cmp.Or(o.seed, uint64(time.Now().UnixMilli())) //nolint:gosec // the time is positive
	t.Title("unionbridge chaos")
	results, err := o.playAll(t)
	total := sum("total", results)
	t.Line("%s", total.line())
	t.Check(err)
	if len(total.Violations) > 0 {
		t.Fatal(harness.Failed)
	}
}

func (o *options) playAll(t *harness.T) (results []result, err error) {
	var list []kind
	for _, k := range o.chosen() {
		if err := k.playable(t); err != nil {
			t.Line("%s is left out: %v", k.name, err)
		} else {
			list = append(list, k)
		}
	}
	if len(list) == 0 {
		t.Fatalf("no round could be played here")
	}
	o.preparePrevious(t, list)
	t.Line("%s", header())
	var mu sync.Mutex
	playing := t.Group(o.parallel)
	for i := range cmp.Or(o.rounds, len(list)) {
		if t.Context().Err() != nil {
			break
		}
		k, seed := list[i%len(list)], o.seed+uint64(i) //nolint:gosec // i counts rounds
		playing.Go(func(context.Context) {
			result, failure := o.play(t, k, seed)
			mu.Lock()
			defer mu.Unlock()
			if failure != nil {
				err = errors.Join(err, fmt.Errorf("round %s, seed %d: %w", k.name, seed, failure))
				return
			}
			results = append(results, result)
			result.show(t.Screen)
			err = errors.Join(err, result.save(o.results))
		})
	}
	playing.Wait()
	return results, errors.Join(err, t.Context().Err())
}
