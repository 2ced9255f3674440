package harness

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// The exit codes of every program, beside 0.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 130
)

// ErrFailed is a failure that the program has reported itself.
var ErrFailed = errors.New("failed")

// ExitCode is a failure with an exit code of its own, which the program has reported itself.
type ExitCode int

func (c ExitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// Program is one of the devtools.
type Program struct {
	Name string
	// Flags defines the flags and returns what checks them and the arguments once they are parsed.
	// An error is a wrong usage.
	Flags func(*flag.FlagSet) (check func() error)
	Run   func(*T)
	// Failed is the heading above a failure.
	Failed string
	// Longest returns the most that a run may take; nil: there is no limit.
	Longest func() time.Duration
}

// Main runs a program as the operating system expects it. An interrupt ends the run, and with it
// all that it has started. The exit code is 0 for success, 1 for a failure, 2 for wrong usage, 130
// after an interrupt.
func Main(p Program) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := p.Execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// Execute runs the program and returns its exit code.
func (p Program) Execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet(p.Name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	check := p.Flags(flags)
	if err := flags.Parse(args); err != nil {
		return exitUsage // it has said why
	}
	if err := check(); err != nil {
		NewScreen(stderr, time.Now).Line("%s: %v", p.Name, err)
		return exitUsage
	}
	limited := ctx
	if p.Longest != nil {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeout(ctx, p.Longest())
		defer cancel()
	}
	screen := NewScreen(stdout, time.Now)
	err := Try(limited, screen, p.Run)
	code, silent := errors.AsType[ExitCode](err)
	switch {
	case err == nil:
		return 0
	case silent:
		return int(code)
	case ctx.Err() != nil:
		screen.Line("\ninterrupted; everything has been ended and removed")
		return exitInterrupted
	case !errors.Is(err, ErrFailed):
		screen.Heading(p.Failed)
		screen.Line("%v", err)
	}
	return exitFailed
}

// NoArguments is the check of a program that takes flags alone.
func NoArguments(flags *flag.FlagSet) error {
	if flags.NArg() > 0 {
		return errors.New("there are no arguments but flags")
	}
	return nil
}

// DSNFlag defines -dsn, a database server to use.
func DSNFlag(flags *flag.FlagSet, dsn *string, usage string) {
	flags.StringVar(dsn, "dsn", os.Getenv("UNIONBRIDGE_TEST_DSN"), usage)
}
