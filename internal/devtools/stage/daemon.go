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
}

// Template is the alias under which the configuration names the template of [TemplateID].
const Template = "order_paid"

// YAML is the configuration file.
func (s Settings) YAML() string {
	sweep := ""
	if s.Questions > 0 {
		sweep = fmt.Sprintf("\n    sync: {concurrency: %d}", s.Questions)
	}
	return fmt.Sprintf(`database:
  dsn: %q
wechat:
  base_url: %s
http:
  listen: %s
state_dir: %q
shutdown_timeout: 11s # above wechat.send_timeout
official_accounts:
  - appid: %s
    name: 服务号
    secret: %s
    send: {rate: %d, concurrency: %d}%s
mini_programs:
  - {appid: %s, name: 小程序}
templates:
  %s: {official: {id: %q}}
`, s.DSN, s.WeChat, s.Listen, s.StateDir, AppID, Secret, s.Rate, s.Concurrency, sweep, MiniAppID, Template, TemplateID())
}

// WriteConfig writes the configuration file and returns its path.
func (s *Stage) WriteConfig(settings Settings) (string, error) {
	path := s.Path("config.yaml")
	// It holds the database's password.
	if err := os.WriteFile(path, []byte(settings.YAML()), 0o600); err != nil {
		return "", fmt.Errorf("writing the configuration: %w", err)
	}
	return path, nil
}

// Unionbridge is the command line of the real program with its configuration.
func (s *Stage) Unionbridge(args ...string) Command {
	path := s.Binary
	if path == "" {
		path = s.Path("unionbridge")
	}
	return Command{Path: path, Args: append([]string{"-c", s.Path("config.yaml")}, args...)}
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
	if err := s.awaitReady(ctx, process, listen); err != nil {
		return nil, fmt.Errorf("starting the daemon: %w\n%s", err, s.LogTail(DaemonLog))
	}
	return process, nil
}

func (s *Stage) awaitReady(ctx context.Context, process *Process, listen string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if ready(ctx, listen) {
			return nil
		}
		select {
		case <-process.Done():
			return fmt.Errorf("it ended at once: %s", process.Ended())
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
