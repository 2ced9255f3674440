// Command privatedb runs a command with a private database server:
//
//	go run ./internal/devtools/privatedb [flags] -- CMD ARGS…
//
// CMD finds the server in UNIONBRIDGE_TEST_DSN, as a user who may create schemas and users. Where
// the variable is set already, that server is used and none is started. Without a command the
// server stays up until Ctrl-C. The exit code is CMD's; 125 means that the server did not start.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"github.com/unionbridge/unionbridge/internal/database/privatedb"
)

const (
	variable = "UNIONBRIDGE_TEST_DSN"

	exitUsage  = 2
	exitServer = 125
	exitNoCmd  = 127
)

func main() {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	os.Exit(run(signals, os.Args[1:], os.Stderr))
}

func run(signals <-chan os.Signal, args []string, stderr io.Writer) int {
	flags := flag.NewFlagSet("privatedb", flag.ContinueOnError)
	flags.SetOutput(stderr)
	dir := flags.String("dir", "", "data folder, kept afterwards (default: a temporary one)")
	pool := flags.Int64("buffer-pool", 0, "InnoDB's buffer pool in MiB (default 128)")
	durable := flags.Bool("durable", false, "flush each commit to the disk, as in production")
	if err := flags.Parse(args); err != nil {
		return exitUsage
	}
	if os.Getenv(variable) != "" && flags.NArg() > 0 {
		return runCommand(signals, flags.Args(), stderr)
	}

	server, err := start(signals, privatedb.Config{Dir: *dir, BufferPool: *pool << 20, Durable: *durable, Output: stderr})
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "privatedb:", err)
		return exitServer
	}
	code := withServer(signals, server, flags.Args(), stderr)
	if err := server.Stop(); err != nil {
		_, _ = fmt.Fprintln(stderr, "privatedb:", err)
	}
	return code
}

// start gives up on a signal; an installation may take minutes.
func start(signals <-chan os.Signal, cfg privatedb.Config) (*privatedb.Server, error) {
	ctx, cancel := context.WithCancel(context.Background())
	started, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		select {
		case <-signals:
			cancel()
		case <-started:
		}
	}()
	defer func() {
		close(started)
		<-watched
		cancel()
	}()
	return privatedb.Start(ctx, cfg)
}

func withServer(signals <-chan os.Signal, server *privatedb.Server, command []string, stderr io.Writer) int {
	if len(command) > 0 {
		if err := os.Setenv(variable, server.DSN()); err != nil {
			_, _ = fmt.Fprintln(stderr, "privatedb:", err)
			return exitServer
		}
		return runCommand(signals, command, stderr)
	}
	_, _ = fmt.Fprintf(stderr, "%s\nexport %s='%s'\nCtrl-C stops it.\n", server.Version(), variable, server.DSN())
	select {
	case <-signals:
		return 0
	case <-server.Done():
		_, _ = fmt.Fprintln(stderr, "privatedb: the server ended by itself")
		return exitServer
	}
}

// runCommand runs the command on the terminal of this one and returns its exit code.
func runCommand(signals <-chan os.Signal, command []string, stderr io.Writer) int {
	cmd := exec.Command(command[0], command[1:]...) //nolint:noctx // cancelling would kill it; it gets the signals instead
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		_, _ = fmt.Fprintln(stderr, "privatedb:", err)
		return exitNoCmd
	}
	ended, forwarded := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(forwarded)
		forward(signals, cmd.Process, ended)
	}()
	err := cmd.Wait()
	close(ended)
	<-forwarded
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return 128 + int(status.Signal())
		}
		return exit.ExitCode()
	}
	if err != nil {
		_, _ = fmt.Fprintln(stderr, "privatedb:", err)
		return exitNoCmd
	}
	return 0
}

// forward passes signals on to the command until it has ended. A terminal sends Ctrl-C to the whole
// group, the command has it already then; a second one would mean "stop at once" to it.
func forward(signals <-chan os.Signal, process *os.Process, ended <-chan struct{}) {
	terminal := term.IsTerminal(int(os.Stdin.Fd()))
	for {
		select {
		case <-ended:
			return
		case s := <-signals:
			if s == os.Interrupt && terminal {
				continue
			}
			// An error means that it has just ended.
			_ = process.Signal(s)
		}
	}
}
