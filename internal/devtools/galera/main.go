// Command galera proves that unionbridge works on a Galera cluster. It starts three MariaDB nodes on
// loopback and in a temporary folder, and on them:
//
//   - runs the database tests through one node;
//   - writes the same rows through all three at once: a counter loses no step, a lease has one holder;
//   - sweeps a simulated account through a proxy, kills the node in use in mid-sweep with SIGKILL, starts
//     the sweep again and compares the map on both nodes that are left with the truth, row by row.
//
// Usage:
//
//	go run ./internal/devtools/galera [-followers N] [-tests=false] [-timeout 6m]
//
// It needs MariaDB, galera-4, mariadb-backup and socat, and on Debian and Ubuntu installs what is missing.
// Exit codes: 0 all as it should be, 1 a mismatch or a failure, 2 wrong usage, 130 interrupted.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
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
	followers int
	tests     bool
	packages  string // what go test is told to test, separated by blanks
	timeout   time.Duration
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var o options
	flags := flag.NewFlagSet("galera", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&o.followers, "followers", 100_000, "followers of the swept account, 20,000 or more")
	flags.BoolVar(&o.tests, "tests", true, "run the database tests on the cluster too")
	flags.StringVar(&o.packages, "packages", "./internal/database/... ./bridge/... ./sync/... ./sender/...",
		"the packages whose tests are run")
	flags.DurationVar(&o.timeout, "timeout", 6*time.Minute, "give up after this long")
	if err := flags.Parse(args); err != nil {
		return exitUsage
	}
	if flags.NArg() > 0 || o.followers < 20_000 {
		_, _ = fmt.Fprintln(stderr, "galera: it takes no arguments but flags, and 20,000 followers at least")
		return exitUsage
	}
	screen := stage.NewScreen(stdout, time.Now)
	limited, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	err := perform(limited, o, screen)
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil:
		screen.Line("\ninterrupted; everything has been ended and removed")
		return exitInterrupted
	default:
		screen.Heading("Not as it should be")
		screen.Line("%v", err)
		return exitFailed
	}
}

// perform does it all, and ends everything whatever happens.
func perform(ctx context.Context, o options, screen *stage.Screen) (err error) {
	s, err := stage.New("ub-galera-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()

	screen.Title("unionbridge on MariaDB with Galera, three nodes")
	screen.Step("looking for MariaDB, Galera and the programs of the state transfer")
	tools, err := findTools(ctx, s, screen)
	if err != nil {
		return err
	}
	screen.Step("starting three nodes; a new node waits 10 s before it takes the data over")
	nodes, err := startCluster(ctx, s, tools)
	if err != nil {
		return err
	}
	if err := describe(ctx, nodes, screen); err != nil {
		return err
	}
	// What one part finds wrong does not spare the others.
	var failures []error
	if o.tests {
		screen.Step("the database tests, through node 1")
		failures = append(failures, goTest(ctx, nodes[0], strings.Fields(o.packages), screen))
	}
	screen.Step("writing the same rows through all three nodes at once")
	failures = append(failures, contend(ctx, nodes, screen))
	screen.Step("a sweep of %s followers, whose node is killed", stage.Count(int64(o.followers)))
	failures = append(failures, sweepThroughFailover(ctx, sweepTest{stage: s, screen: screen, nodes: nodes, followers: o.followers}))
	if err := errors.Join(failures...); err != nil {
		return err
	}
	screen.Line("\nall as it should be")
	return nil
}
