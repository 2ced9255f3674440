// Package stage sets up what the demo and the benchmarks play on: a database, the WeChat simulator and
// the real unionbridge program, each as a process of its own, in a folder that vanishes afterwards. It
// ends what it started, and nothing else. The product does not import it.
package stage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

const module = "github.com/unionbridge/unionbridge"

// Stage is the temporary folder and everything in it that has to be ended.
type Stage struct {
	Dir string
	// Binary is the unionbridge program; empty: the one that Build has put into the folder.
	Binary  string
	closers []func() error
}

// New makes the folder. Close ends everything.
func New(prefix string) (*Stage, error) {
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		return nil, fmt.Errorf("making a temporary folder: %w", err)
	}
	s := &Stage{Dir: dir}
	s.OnClose(func() error { return os.RemoveAll(dir) })
	return s, nil
}

// OnClose adds something to be ended by Close: the last one first.
func (s *Stage) OnClose(closer func() error) { s.closers = append(s.closers, closer) }

// Close ends everything, whatever fails on the way. It may be called twice.
func (s *Stage) Close() error {
	var failures []error
	for len(s.closers) > 0 {
		last := len(s.closers) - 1
		closer := s.closers[last]
		s.closers = s.closers[:last]
		failures = append(failures, closer())
	}
	return errors.Join(failures...)
}

// Path is a file in the folder.
func (s *Stage) Path(name string) string { return filepath.Join(s.Dir, name) }

// Log makes a log file in the folder.
func (s *Stage) Log(name string) (*os.File, error) {
	file, err := os.OpenFile(s.Path(name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("making a log file: %w", err)
	}
	s.OnClose(file.Close)
	return file, nil
}

// LogTail is the end of a log file, for an error message; "" if it is empty or not there.
func (s *Stage) LogTail(name string) string {
	const most = 2000
	text, err := os.ReadFile(s.Path(name))
	if err != nil {
		return ""
	}
	text = bytes.TrimSpace(text)
	if len(text) > most {
		text = text[len(text)-most:]
		text = text[bytes.IndexByte(text, '\n')+1:]
	}
	return string(text)
}

// Build compiles commands of this module, by their name below cmd/, into the folder.
func (s *Stage) Build(ctx context.Context, commands ...string) error {
	args := []string{"build", "-buildvcs=false", "-o", s.Dir + string(filepath.Separator)}
	for _, command := range commands {
		args = append(args, module+"/cmd/"+command)
	}
	out, err := exec.CommandContext(ctx, "go", args...).CombinedOutput()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("compiling %s: %w\n%s", strings.Join(commands, " and "), err, bytes.TrimSpace(out))
	}
	return nil
}

// FreeAddr finds a free loopback address for a server that cannot tell which port it got. The port is
// below those that the kernel gives to outgoing connections.
func FreeAddr(ctx context.Context) (string, error) {
	var last error
	for range 50 {
		var lc net.ListenConfig
		l, err := lc.Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(20000+rand.IntN(12000))))
		if err == nil {
			return l.Addr().String(), l.Close()
		}
		last = err
	}
	return "", fmt.Errorf("looking for a free port: %w", last)
}
