// Command demo plays the whole road once, with nothing but Go on the machine: a private database, the
// WeChat simulator and the real unionbridge daemon, 1,000 requests inserted with plain SQL, and a check
// of every delivered message.
//
//	go run ./internal/devtools/demo [-dsn DSN] [-followers N] [-mini-users N] [-requests N]
//
// On a terminal everything stays up until Ctrl-C. Exit codes: 0 all as it should be, 1 a mismatch or a
// failure, 2 wrong usage, 130 interrupted.
package main

import (
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"os/signal"
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

// options are the sizes of the demo.
type options struct {
	dsn          string
	followers    int
	miniUsers    int
	notFollowing float64
	requests     int
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o options
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&o.dsn, "dsn", os.Getenv("UNIONBRIDGE_TEST_DSN"),
		"use this database `server` (user:password@tcp(host:port)/) instead of a private one; default $UNIONBRIDGE_TEST_DSN")
	flags.IntVar(&o.followers, "followers", 50_000, "followers of the official account")
	flags.IntVar(&o.miniUsers, "mini-users", 20_000, "users of the mini program, a third of whom do not follow")
	flags.IntVar(&o.requests, "requests", 1000, "messages that the app asks for")
	if err := flags.Parse(args); err != nil {
		return exitUsage
	}
	o.notFollowing = 1.0 / 3
	screen := stage.NewScreen(stdout, time.Now)
	if flags.NArg() > 0 || o.requests < 1 || o.miniUsers < o.requests || o.followers < 1 {
		stage.NewScreen(stderr, time.Now).Line("demo: it needs a follower, a request, and a mini-program user for each request")
		return exitUsage
	}

	err := perform(ctx, o, screen)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		screen.Line("\ninterrupted; everything has been ended and removed")
		return exitInterrupted
	default:
		screen.Heading("The demo did not work")
		screen.Line("%v", err)
		return exitFailed
	}
}

// perform plays the demo and ends everything, whatever happens.
func perform(ctx context.Context, o options, screen *stage.Screen) (err error) {
	s, err := stage.New("ub-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	p := &play{options: o, stage: s, screen: screen}
	return p.play(ctx)
}
