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

// ExitCode is a failure that the program has reported itself.
type ExitCode int

// The exit codes of every program, beside 0.
const (
	Failed      ExitCode = 1
	usage       ExitCode = 2
	interrupted ExitCode = 130
)

func (c ExitCode) Error() string { return fmt.Sprintf("exit code %d", int(c)) }

// Program is one of the devtools.
type Program struct {
	Name string
	// Flags defines the flags and returns what checks them once they are parsed.
	Flags func(*flag.FlagSet) (check func() error)
	// Arguments are allowed behind the flags.
	Arguments bool
	Run       func(*T)
	// Failed is the heading above a failure.
	Failed string
}

// Main runs a program. An interrupt ends the run, and with it all that it has started.
func Main(p Program) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := p.Execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(int(code))
}

// Execute runs the program and returns its exit code.
func (p Program) Execute(ctx context.Context, args []string, stdout, stderr io.Writer) ExitCode {
	flags := flag.NewFlagSet(p.Name, flag.ContinueOnError)
	flags.SetOutput(stderr)
	check := p.Flags(flags)
	if err := flags.Parse(args); err != nil {
		return usage // it has said why
	}
	err := check()
	if flags.NArg() > 0 && !p.Arguments {
		err = errors.New("there are no arguments but flags")
	}
	if err != nil {
		NewScreen(stderr, time.Now).Line("%s: %v", p.Name, err)
		return usage
	}
	screen := NewScreen(stdout, time.Now)
	err = Try(ctx, screen, p.Run)
	code, silent := errors.AsType[ExitCode](err)
	switch {
	case err == nil || silent:
		return code
	case ctx.Err() != nil:
		screen.Line("\ninterrupted; everything has been ended and removed")
		return interrupted
	}
	screen.Heading(p.Failed)
	screen.Line("%v", err)
	return Failed
}

// DSNFlag defines -dsn, a database server to use.
func DSNFlag(flags *flag.FlagSet, dsn *string, usage string) {
	flags.StringVar(dsn, "dsn", os.Getenv("UNIONBRIDGE_TEST_DSN"), usage)
}
