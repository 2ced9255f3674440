// Command chaos breaks everything around the real unionbridge program while producers insert requests, heals
// it, and then holds what the database says against what the simulated WeChat has received.
//
//	go run ./internal/devtools/chaos [-rounds N] [-only REGEXP] [-seed N] [-kills N] [-length D] [-short]
//	    [-parallel N] [-callbacks] [-results FILE] [-keep DIR] [-dsn DSN] [-binary PROGRAM]
//	go run ./internal/devtools/chaos -report FILE
//
// A round is one kind of trouble, see rounds.go. Its moments follow from its seed, which is printed: the same
// seed makes the same trouble again, though not the same races. Each round has a schema, a simulator and links
// of its own; rounds that hurt the database server start one. After the trouble everything is mended and the
// round waits until no request is open.
//
// -report prints the table of docs/reliability.md from a results file, which has one JSON line per round.
// Exit codes: 0 all promises kept, 1 one was broken or a round could not be played, 2 wrong usage, 130
// interrupted.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"sync"
	"syscall"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

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
	results   string
	report    string
	keep      string
	binary    string
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.dsn, "dsn", os.Getenv("UNIONBRIDGE_TEST_DSN"),
		"use this database `server` for rounds that do not hurt it; default $UNIONBRIDGE_TEST_DSN, else a private one")
	only := flags.String("only", "", "play only the rounds whose names match this `regexp`")
	flags.IntVar(&o.rounds, "rounds", 0, "how many rounds, one kind after the other; 0: each kind once")
	flags.Uint64Var(&o.seed, "seed", 0, "of the first round, the next ones count on; 0: another one each time")
	flags.IntVar(&o.kills, "kills", 100, "kills of a kill round")
	flags.DurationVar(&o.length, "length", time.Minute, "how long the trouble of a round lasts")
	short := flags.Bool("short", false, "little trouble: -kills 12 -length 12s -parallel 4")
	flags.IntVar(&o.parallel, "parallel", 2, "rounds at once; they wait most of the time")
	flags.DurationVar(&o.takeover, "takeover", takeoverLimit, "how long it may take until another daemon sends")
	flags.BoolVar(&o.callbacks, "callbacks", false, "have WeChat push receipts")
	flags.StringVar(&o.results, "results", "", "append a JSON line per round to this `file`")
	flags.StringVar(&o.report, "report", "", "play nothing, print the table of this results `file`")
	flags.StringVar(&o.keep, "keep", "", "keep the daemons' logs of a round with violations in this `folder`")
	flags.StringVar(&o.binary, "binary", "", "test this unionbridge `program` instead of a fresh build of the checkout")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	if *short {
		o.shorten()
	}
	var err error
	if o.only, err = regexp.Compile("^(" + *only + ")"); err != nil {
		return o, err
	}
	switch {
	case flags.NArg() > 0:
		err = errors.New("there are no arguments but flags")
	case len(o.chosen()) == 0:
		err = errors.New("-only matches no round")
	case o.kills < 1 || o.length < time.Second || o.parallel < 1 || o.rounds < 0:
		err = errors.New("at least one kill, one second and one round at a time")
	}
	return o, err
}

func (o *options) shorten() { o.kills, o.length, o.parallel = 12, 12*time.Second, 4 }

// chosen are the rounds to play.
func (o *options) chosen() []round {
	var list []round
	for _, r := range rounds() {
		if o.only == nil || o.only.MatchString(r.name) {
			list = append(list, r)
		}
	}
	return list
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitUsage
	}
	if err != nil {
		stage.NewScreen(stderr, time.Now).Line("chaos: %v", err)
		return exitUsage
	}
	screen := stage.NewScreen(stdout, time.Now)
	if o.report != "" {
		results, err := load(o.report)
		if err != nil {
			screen.Line("chaos: %v", err)
			return exitFailed
		}
		markdown(results, stdout)
		return 0
	}
	kept, err := perform(ctx, o, screen)
	switch {
	case err != nil && errors.Is(err, context.Canceled) && ctx.Err() != nil:
		screen.Line("\ninterrupted; everything has been ended and removed")
		return exitInterrupted
	case err != nil:
		screen.Heading("Not all rounds could be played")
		screen.Line("%v", err)
		return exitFailed
	case !kept:
		return exitFailed
	}
	return 0
}

// perform builds the programs, plays the rounds and ends everything, whatever happens. kept: all promises
// were.
func perform(ctx context.Context, o options, screen *stage.Screen) (kept bool, err error) {
	s, err := stage.New("ub-chaos-")
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	g := &game{options: o, binary: o.binary, dsn: o.dsn}
	if g.binary == "" {
		if err := s.Build(ctx, "unionbridge"); err != nil {
			return false, err
		}
		g.binary = s.Path("unionbridge")
	}
	if g.dsn == "" {
		server, err := startServer(ctx, s, serverConfig{output: screen.Lines()})
		if err != nil {
			return false, err
		}
		g.dsn = server.dsn
	}
	if o.seed == 0 {
		g.seed = uint64(time.Now().UnixMilli()) //nolint:gosec // the time is positive
	}
	screen.Title("unionbridge chaos")
	results, err := g.playAll(ctx, screen)
	if len(results) == 0 && err == nil {
		err = errors.New("no round could be played here")
	}
	total := sum("total", results)
	if len(results) > 0 {
		screen.Line("%s", total.line())
	}
	return len(total.Violations) == 0, err
}

// playAll plays the rounds, some at once, and goes on where one cannot be played.
func (g *game) playAll(ctx context.Context, screen *stage.Screen) (results []result, err error) {
	var list []round
	for _, r := range g.chosen() {
		if r.missing != nil {
			if err := r.missing(); err != nil {
				screen.Line("%s is left out: %v", r.name, err)
				continue
			}
		}
		list = append(list, r)
	}
	screen.Line("%s", header())
	var mu sync.Mutex
	var playing sync.WaitGroup
	slots := make(chan struct{}, g.parallel)
	rounds := g.rounds
	if rounds == 0 || len(list) == 0 {
		rounds = len(list)
	}
	for i := range rounds {
		slots <- struct{}{}
		if ctx.Err() != nil {
			break
		}
		r, seed := list[i%len(list)], g.seed+uint64(i) //nolint:gosec // i counts rounds
		playing.Go(func() {
			defer func() { <-slots }()
			result, failure := g.play(ctx, r, seed)
			mu.Lock()
			defer mu.Unlock()
			if failure != nil {
				err = errors.Join(err, fmt.Errorf("round %s, seed %d: %w", r.name, seed, failure))
				return
			}
			results = append(results, result)
			result.show(screen)
			err = errors.Join(err, result.save(g.results))
		})
	}
	playing.Wait()
	return results, errors.Join(err, ctx.Err())
}
