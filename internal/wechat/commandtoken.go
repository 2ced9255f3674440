package wechat

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"
)

const (
	// commandTimeout is generous for a program, and well below what a send may wait.
	commandTimeout = 10 * time.Second

	// commandDelay is how long the pipes may stay open when the program itself has ended: a
	// background process it started holds them.
	commandDelay = time.Second

	// maxStderr is how much of the program's error output is kept for cleaning. Its end says most,
	// and of that maxMessage bytes are shown.
	maxStderr = 4 << 10
)

// commandToken runs the company's own program. It is always waited for, so that no zombie stays,
// and is killed when ctx ends.
func (c *Client) commandToken(ctx context.Context) (grant, error) {
	a := &attempt{client: c, request: request{endpoint: tokenCommandEndpoint,
		secrets: argumentSecrets(c.cfg.Token.Command)}}
	a.begin()
	g, err := a.runCommand(ctx)
	a.err = err
	a.observe()
	return g, a.result()
}

func (a *attempt) runCommand(ctx context.Context) (grant, *Error) {
	argv := a.client.cfg.Token.Command
	if len(argv) == 0 {
		return grant{}, a.failure(verdict{ReasonTokenSupply, PolicyConfig},
			errors.New("no command configured"))
	}
	ctx, cancel := context.WithTimeout(ctx, a.client.commandTimeout)
	defer cancel()
	stdout, stderr := headWriter{limit: smallAnswer}, tailWriter{limit: maxStderr}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = "/", commandEnv(a.client.cfg.AppID)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = a.client.commandDelay
	// A group of its own, so that what a script has started dies with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return killGroup(cmd.Process.Pid) }
	err := cmd.Run()
	if err != nil && cmd.Process != nil {
		_ = killGroup(cmd.Process.Pid) // what it left behind; usually nothing
	}
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // it ended well; only what it left behind held a pipe
	}
	if err != nil || stdout.over {
		e := a.commandFailure(ctx, err, stdout.over)
		e.Message = a.cleanStderr(&stderr)
		return grant{}, e
	}
	return a.commandAnswer(stdout.kept)
}

// commandFailure judges a program that did not end well. A program that cannot be started needs a
// person; everything else may be transient.
func (a *attempt) commandFailure(ctx context.Context, err error, tooLarge bool) *Error {
	var exit *exec.ExitError
	switch {
	case tooLarge:
		return a.failure(verdict{ReasonBadAnswer, PolicyRetry}, errTooLarge)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return a.failure(verdict{ReasonTimeout, PolicyRetry},
			fmt.Errorf("killed: no end in time: %w", ctx.Err()))
	case ctx.Err() != nil:
		return a.failure(verdict{ReasonCancelled, PolicyRetry}, ctx.Err())
	case errors.As(err, &exit):
		return a.failure(verdict{ReasonTokenSupply, PolicyRetry}, err)
	}
	return a.failure(verdict{ReasonTokenSupply, PolicyConfig}, err)
}

func (a *attempt) commandAnswer(body []byte) (grant, *Error) {
	g, err := parseExternal(body)
	if err == nil {
		return g, nil
	}
	if env, bad := decodeEnvelope(body); bad == nil && env.Code != 0 {
		return grant{}, a.errcode(env)
	}
	return grant{}, a.failure(verdict{ReasonBadAnswer, PolicyRetry}, fmt.Errorf("standard output: %w", err))
}

// shortestArgument keeps a "get" or "-v" from being redacted in what the program prints.
const shortestArgument = 8

// argumentSecrets are the parts of the program's arguments that may be keys: each as a whole,
// behind its "=", and what is secret of an address. On this machine they are no secret, but logs
// travel.
func argumentSecrets(argv []string) []string {
	var all []string
	for _, arg := range argv[min(1, len(argv)):] {
		_, value, _ := strings.Cut(arg, "=")
		all = append(all, arg, value)
		if strings.Contains(arg, "://") {
			all = append(all, addressSecrets(TokenConfig{URL: arg})...)
		}
	}
	return longestFirst(all, shortestArgument)
}

// commandEnv is everything the program finds in its environment: the daemon's own may hold secrets.
func commandEnv(appid string) []string {
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"LANG=C.UTF-8",
		"UNIONBRIDGE_APPID=" + appid,
	}
	if home, err := os.UserHomeDir(); err == nil {
		env = append(env, "HOME="+home)
	}
	return env
}

func killGroup(pid int) error {
	err := syscall.Kill(-pid, syscall.SIGKILL)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// What programs like to print about their own calls: header lines and addresses with a query.
var (
	headerLine = regexp.MustCompile(`(?i)((?:authorization|cookie|[a-z-]*(?:key|token|secret|passwo?r?d))["']?\s*[:=])[^\r\n]*`)
	anyQuery   = regexp.MustCompile(`\?[^\s"']+`)
)

// cleanStderr is the end of the program's error output. The text is cleaned as a whole and cut
// afterwards, so that no cut makes a secret unrecognisable.
func (a *attempt) cleanStderr(w *tailWriter) string {
	text := string(w.kept)
	if w.cut { // the first word may be the rest of a secret
		_, text, _ = strings.Cut(text, "\n")
	}
	text = headerLine.ReplaceAllString(text, "${1} "+redacted)
	text = anyQuery.ReplaceAllLiteralString(text, "?"+redacted)
	text = a.clean(text, 2*maxStderr)
	if len(text) <= maxMessage {
		return text
	}
	return "…" + strings.ToValidUTF8(text[len(text)-maxMessage:], "")
}

// headWriter keeps all, and refuses more than limit: the program then dies of SIGPIPE.
type headWriter struct {
	kept  []byte // no bytes.Buffer inside: its ReadFrom would let io.Copy pass the limit by
	limit int
	over  bool
}

func (w *headWriter) Write(p []byte) (int, error) {
	if len(w.kept)+len(p) > w.limit {
		w.over = true
		return 0, errTooLarge
	}
	w.kept = append(w.kept, p...)
	return len(p), nil
}

// tailWriter keeps the last limit bytes.
type tailWriter struct {
	kept  []byte
	limit int
	cut   bool
}

func (w *tailWriter) Write(p []byte) (int, error) {
	w.kept = append(w.kept, p...)
	if over := len(w.kept) - w.limit; over > 0 {
		w.kept, w.cut = append(w.kept[:0], w.kept[over:]...), true
	}
	return len(p), nil
}
