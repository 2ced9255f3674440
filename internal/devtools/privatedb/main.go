// Command privatedb runs a command with a private database server:
//
//	go run ./internal/devtools/privatedb [flags] -- CMD ARGS…
//
// CMD finds the server in UNIONBRIDGE_TEST_DSN, as a user who may create schemas and users. Where
// the variable is set already and -server is not, that server is used and none is started. Without a
// command the server stays up until Ctrl-C. The exit code is CMD's; 125 means that the server did
// not start.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/term"

	"github.com/unionbridge/unionbridge/internal/database/privatedb"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
)

const (
	variable = "UNIONBRIDGE_TEST_DSN"

	exitServer harness.ExitCode = 125
	exitNoCmd  harness.ExitCode = 127
)

type options struct {
	server  privatedb.Config
	command []string
}

func main() {
	var o options
	harness.Main(harness.Program{
		Name: "privatedb", Arguments: true,
		Flags: func(flags *flag.FlagSet) func() error {
			flags.StringVar(&o.server.Server, "server", "", "path of mariadbd, mysqld or tidb-server (default: this machine's)")
			flags.BoolVar(&o.server.OwnCollation, "own-collation", false,
				"keep the server's own character set and collation (default: utf8mb4, utf8mb4_bin)")
			flags.StringVar(&o.server.Dir, "dir", "", "data folder, kept afterwards (default: a temporary one)")
			flags.Int64Var(&o.server.BufferPool, "buffer-pool", 0, "InnoDB's buffer pool in MiB (default 128)")
			flags.BoolVar(&o.server.Durable, "durable", false, "flush each commit to the disk, as in production")
			return func() (err error) {
				if o.server.Server != "" { // the command may run in another folder
					if o.server.Server, err = filepath.Abs(o.server.Server); err != nil {
						return err
					}
				}
				o.command = flags.Args()
				o.server.BufferPool <<= 20
				return nil
			}
		},
		Run: func(t *harness.T) { o.run(t) },
	})
}

func (o options) run(t *harness.T) {
	if os.Getenv(variable) == "" || o.server.Server != "" || len(o.command) == 0 {
		server, err := privatedb.Start(t.Context(), o.server)
		checkServer(t, err)
		t.Cleanup(func() error {
			if err := server.Stop(); err != nil {
				say("%v", err)
			}
			return nil // the exit code is the command's
		})
		if len(o.command) == 0 {
			stayUp(t, server)
			return
		}
		checkServer(t, os.Setenv(variable, server.DSN()))
		if o.server.Server != "" { // programs that start one of their own use it too
			checkServer(t, os.Setenv(privatedb.Variable, o.server.Server))
		}
	}
	if code := runCommand(o.command); code != 0 {
		t.Fatal(code)
	}
}

func say(format string, args ...any) {
	_, _ = fmt.Fprintf(os.Stderr, "privatedb: "+format+"\n", args...)
}

func checkServer(t *harness.T, err error) {
	if err != nil {
		say("%v", err)
		t.Fatal(exitServer)
	}
}

func stayUp(t *harness.T, server *privatedb.Server) {
	_, _ = fmt.Fprintf(os.Stderr, "%s\nexport %s='%s'\nCtrl-C stops it.\n",
		server.Version(), variable, server.DSN())
	select {
	case <-t.Context().Done():
	case <-server.Done():
		checkServer(t, errors.New("the server ended unexpectedly"))
	}
}

// runCommand runs the command on the terminal of this one and returns its exit code. Ending the
// context would kill it; it gets the signals instead.
func runCommand(command []string) harness.ExitCode {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	cmd := exec.Command(command[0], command[1:]...) //nolint:noctx // see above
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		say("%v", err)
		return exitNoCmd
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	terminal := term.IsTerminal(int(os.Stdin.Fd()))
	for {
		select {
		case s := <-signals:
			// A terminal sends Ctrl-C to the whole group, so the command has it already; a second
			// one would mean "stop at once" to it.
			if s != os.Interrupt || !terminal {
				_ = cmd.Process.Signal(s) // an error means that it has just ended
			}
		case err := <-ended:
			return exitCode(err)
		}
	}
}

func exitCode(err error) harness.ExitCode {
	exit, ok := errors.AsType[*exec.ExitError](err)
	switch {
	case err == nil:
		return 0
	case !ok:
		say("%v", err)
		return exitNoCmd
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return harness.ExitCode(128 + int(status.Signal()))
	}
	return harness.ExitCode(exit.ExitCode())
}
