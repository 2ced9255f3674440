// Command unionbridge keeps the map from unionids to openids in MySQL fresh, and turns rows that
// apps INSERT into delivered WeChat template messages.
//
// This package wires: it turns the configuration file into the packages' own settings, and their
// results into words and exit codes. Only main knows the process: signals, arguments, os.Exit.
package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// The first signal restores the default: the second one ends the process at once.
	context.AfterFunc(ctx, stop)
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run executes one command line and returns the exit code. The end of ctx asks a command to stop.
//
//nolint:revive // argument-limit: this is all that a process has, and tests put in each of it
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	c := &cli{stdin: stdin, stdout: stdout, stderr: stderr}
	root := c.rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	return c.report(ctx, cmd, err)
}
