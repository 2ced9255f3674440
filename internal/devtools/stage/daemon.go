package stage

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"
)

// Settings are what differs between the configurations that the stage writes.
type Settings struct {
	DSN         string
	WeChat      string // base URL
	Listen      string
	StateDir    string
	Rate        int // messages a second
	Concurrency int // messages under way at once
	Questions   int // batchgets of a sweep under way at once; 0: the default

	// What makes trouble pass quickly; 0: the program's default.
	SendTimeout     time.Duration
	ResendWindow    time.Duration
	WaitForFollower time.Duration
	SyncEvery       time.Duration // between sweeps, and between refreshes; 0: the program's own schedules

	// Callback is where pushes are received; empty: nowhere. They are signed with CallbackToken and
	// encrypted with CallbackKey.
	Callback string
}

// What signs and encrypts the pushes of a configuration with a Callback.
const (
	CallbackToken = "stageToken"
	CallbackKey   = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
)

// Template is the alias under which the configuration names the template of [TemplateID].
const Template = "order_paid"

// YAML is the configuration file.
func (s Settings) YAML() string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("database:")
	line("  dsn: %q", s.DSN)
	line("wechat:")
	line("  base_url: %s", s.WeChat)
	if s.SendTimeout > 0 {
		line("  send_timeout: %s", s.SendTimeout)
	}
	line("http:")
	line("  listen: %s", s.Listen)
	if s.Callback != "" {
		line("  callback_listen: %s", s.Callback)
	}
	line("state_dir: %q", s.StateDir)
	line("shutdown_timeout: 11s # above wechat.send_timeout")
	line("official_accounts:")
	line("  - appid: %s", AppID)
	line("    name: 服务号")
	line("    secret: %s", Secret)
	if s.Callback != "" {
		line("    callback: {token: %s, aes_key: %s}", CallbackToken, CallbackKey)
	}
	line("    send: {%s}", strings.Join(s.send(), ", "))
	if sync := s.sync(); len(sync) > 0 {
		line("    sync: {%s}", strings.Join(sync, ", "))
	}
	line("mini_programs:")
	line("  - {appid: %s, name: 小程序}", MiniAppID)
	line("templates:")
	line("  %s: {official: {id: %q}}", Template, TemplateID())
	return b.String()
}

func (s Settings) send() []string {
	keys := []string{fmt.Sprintf("rate: %d", s.Rate), fmt.Sprintf("concurrency: %d", s.Concurrency)}
	if s.ResendWindow > 0 {
		keys = append(keys, fmt.Sprintf("resend_window: %s", s.ResendWindow))
	}
	if s.WaitForFollower > 0 {
		keys = append(keys, fmt.Sprintf("wait_for_follower: %s", s.WaitForFollower))
	}
	return keys
}

func (s Settings) sync() []string {
	var keys []string
	if s.Questions > 0 {
		keys = append(keys, fmt.Sprintf("concurrency: %d", s.Questions))
	}
	if s.SyncEvery > 0 {
		keys = append(keys, fmt.Sprintf(`sweep: "@every %s", refresh: "@every %s"`, s.SyncEvery, s.SyncEvery))
	}
	return keys
}

// ConfigFile is the configuration of a stage with one daemon.
const ConfigFile = "config.yaml"

// WriteConfig writes the configuration file and returns its path.
func (s *Stage) WriteConfig(settings Settings) (string, error) {
	return s.WriteConfigFile(ConfigFile, settings)
}

// WriteConfigFile writes the configuration of one daemon of several.
func (s *Stage) WriteConfigFile(name string, settings Settings) (string, error) {
	path := s.Path(name)
	// It holds the database's password.
	if err := os.WriteFile(path, []byte(settings.YAML()), 0o600); err != nil {
		return "", fmt.Errorf("writing the configuration: %w", err)
	}
	return path, nil
}

// Unionbridge is the command line of the real program with its configuration.
func (s *Stage) Unionbridge(args ...string) Command { return s.UnionbridgeWith(ConfigFile, args...) }

// UnionbridgeWith is the same with one of several configurations.
func (s *Stage) UnionbridgeWith(config string, args ...string) Command {
	path := s.Binary
	if path == "" {
		path = s.Path("unionbridge")
	}
	return Command{Path: path, Args: append([]string{"-c", s.Path(config)}, args...)}
}

// Run runs a command of the real program to its end and returns its output; the error of a failed one
// holds it.
func (s *Stage) Run(ctx context.Context, args ...string) (string, error) {
	var out strings.Builder
	c := s.Unionbridge(args...)
	c.Stdout, c.Stderr = &out, &out
	process, err := Start(c)
	if err != nil {
		return "", err
	}
	if err := process.Wait(ctx); err != nil {
		return out.String(), fmt.Errorf("unionbridge %s: %w\n%s", strings.Join(args, " "), explain(err), strings.TrimSpace(out.String()))
	}
	return out.String(), nil
}

func explain(err error) error {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return fmt.Errorf("it ended with %s", exit.ProcessState)
	}
	return err
}

// DaemonLog is the file that gets the daemon's log.
const DaemonLog = "daemon.log"

// StartDaemon starts `unionbridge run` and waits until it says that it is ready at listen.
func (s *Stage) StartDaemon(ctx context.Context, listen string) (*Process, error) {
	log, err := s.Log(DaemonLog)
	if err != nil {
		return nil, err
	}
	c := s.Unionbridge("run")
	c.Stdout, c.Stderr, c.Peak = log, log, true
	process, err := Start(c)
	if err != nil {
		return nil, err
	}
	s.OnClose(process.Stop)
	if err := process.AwaitReady(ctx, listen); err != nil {
		return nil, fmt.Errorf("starting the daemon: %w\n%s", err, s.LogTail(DaemonLog))
	}
	return process, nil
}

// AwaitReady waits, for 20 s at most, until a daemon says that it is ready at listen.
func (p *Process) AwaitReady(ctx context.Context, listen string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if ready(ctx, listen) {
			return nil
		}
		select {
		case <-p.Done():
			return fmt.Errorf("it ended at once: %s", p.Ended())
		case <-ctx.Done():
			return fmt.Errorf("waiting for http://%s/readyz: %w", listen, ctx.Err())
		case <-tick.C:
		}
	}
}

func ready(ctx context.Context, listen string) bool {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+listen+"/readyz", nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	return response.Body.Close() == nil && response.StatusCode == http.StatusOK
}
