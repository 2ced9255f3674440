// Command bench measures unionbridge as it is installed: the real program, the WeChat simulator and the
// database server are processes of their own on one machine, with no latency between them but where a
// figure names one. The same run measures the way a simple script does the job, and how fast this machine
// could do a first sweep at all.
//
//	go run ./internal/devtools/bench [-scale F] [-only REGEXP] [-ten-million=false] [-full-tables=false]
//	    [-followers N] [-requests N] [-kill-followers N] [-kills N] [-seed N] [-dsn DSN] [-binary PROGRAM]
//
// The parts of the sweep: sweep (floor, first and second sweep), slow and change (a slow WeChat; 1 % new and
// gone), kill (-9, again and again), large (ten times the followers, 3 GB of disk at full size).
//
// Those of the sender: send (a backlog, against a plain loop by hand and the bare POSTs), far (80 ms away),
// producers (who insert meanwhile), idle, latency, memory (of a million open rows), takeover (kill -9 of the
// leader), urgent (in a campaign of a million), fair (one template behind another), future and finished
// (beside five million rows of next week, ten million that are done; 5 GB of disk at full size).
//
// It prints a table for people and then one line a figure: name value unit target ok|short. A figure
// without a target has "-" in its place. Exit codes: 0 measured (also where a figure is short), 1 it
// could not be measured, 2 wrong usage, 130 interrupted. Other clients of the same server spoil the
// figures that come from its counters; the default is a private server.
package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"os/signal"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130

	// longest is the most that a run may take; at full size it takes half an hour on two cores.
	longest = 90 * time.Minute
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
	followers int
	requests  int
	binary    string

	killFollowers int
	kills         int
	seed          uint64
	tenMillion    bool
	fullTables    bool
}

// groups are what -only chooses from.
func groups() []string {
	return append([]string{"sweep", "slow", "change", "kill", "large"}, senderParts()...)
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.dsn, "dsn", os.Getenv("UNIONBRIDGE_TEST_DSN"),
		"use this database `server`; default $UNIONBRIDGE_TEST_DSN, else a private one")
	scale := flags.Float64("scale", 1, "a `fraction` of followers and requests, for a quick run; the figures are then not the real ones")
	only := flags.String("only", "", "measure only what matches this `regexp`: "+strings.Join(groups(), ", "))
	flags.IntVar(&o.followers, "followers", 1_000_000, "followers of the account")
	flags.IntVar(&o.requests, "requests", 200_000, "pending requests; the sender's other parts take a share or a multiple of it")
	flags.IntVar(&o.killFollowers, "kill-followers", 100_000, "followers of the account whose sweep is killed")
	flags.IntVar(&o.kills, "kills", 50, "kills, one a sweep")
	flags.Uint64Var(&o.seed, "seed", 0, "of the moments of the kills; 0: another one each time, which is printed")
	flags.BoolVar(&o.tenMillion, "ten-million", true, "measure ten times the followers too")
	flags.BoolVar(&o.fullTables, "full-tables", true, "measure the sender beside 25 times the requests that are due next week, and 50 times that are finished")
	flags.StringVar(&o.binary, "binary", "", "measure this unionbridge `program` instead of a fresh build of the checkout")
	if err := flags.Parse(args); err != nil {
		return o, err
	}
	var err error
	if o.only, err = regexp.Compile(*only); err != nil {
		return o, err
	}
	o.followers = int(float64(o.followers) * *scale)
	o.requests = int(float64(o.requests) * *scale)
	o.killFollowers = int(float64(o.killFollowers) * *scale)
	switch {
	case flags.NArg() > 0:
		err = errors.New("there are no arguments but flags")
	case !o.wantsAny(groups()...):
		err = errors.New("-only matches none of " + strings.Join(groups(), ", "))
	case o.followers < 100 || o.requests < 100 || o.followers < o.requests:
		err = errors.New("at least 100 requests, and a follower for each of them")
	case o.killFollowers < 100 || o.kills < 1:
		err = errors.New("at least one kill, in a sweep of at least 100 followers")
	}
	return o, err
}

func (o options) wants(group string) bool { return o.only.MatchString(group) }

// wantsSender tells whether a part of the sender is to be measured.
func (o options) wantsSender(part string) bool {
	return o.wants(part) && (o.fullTables || !slices.Contains(fullTables(), part))
}

func (o options) wantsAny(groups ...string) bool { return slices.ContainsFunc(groups, o.wants) }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitUsage
	}
	if err != nil {
		stage.NewScreen(stderr, time.Now).Line("bench: %v", err)
		return exitUsage
	}
	ctx, cancel := context.WithTimeout(ctx, longest)
	defer cancel()
	screen := stage.NewScreen(stdout, time.Now)
	err = perform(ctx, o, screen)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		screen.Line("\ninterrupted; everything has been ended and removed")
		return exitInterrupted
	default:
		screen.Heading("The benchmark could not be carried out")
		screen.Line("%v", err)
		return exitFailed
	}
}

// perform measures and ends everything, whatever happens.
func perform(ctx context.Context, o options, screen *stage.Screen) (err error) {
	s, err := stage.New("ub-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	b := &bench{options: o, programs: s, screen: screen}
	return b.run(ctx)
}
