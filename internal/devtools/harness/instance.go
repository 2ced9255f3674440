package harness

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const module = "github.com/unionbridge/unionbridge"

// Build compiles commands of this module, by their name below cmd/, into the run's folder.
func (t *T) Build(commands ...string) {
	args := []string{"build", "-buildvcs=false", "-o", t.dir + string(filepath.Separator)}
	for _, command := range commands {
		args = append(args, module+"/cmd/"+command)
	}
	out, err := exec.CommandContext(t.ctx, "go", args...).CombinedOutput()
	t.Check(t.ctx.Err())
	if err != nil {
		t.Fatalf("compiling %s: %w\n%s", strings.Join(commands, " and "), err, bytes.TrimSpace(out))
	}
}

// FreeAddr finds a free loopback address for a server that cannot tell which port it got. The port
// is below those that the kernel gives to outgoing connections.
func (t *T) FreeAddr() string {
	var last error
	for range 50 {
		var lc net.ListenConfig
		port := strconv.Itoa(20000 + rand.IntN(12000))
		l, err := lc.Listen(t.ctx, "tcp", net.JoinHostPort("127.0.0.1", port))
		if err == nil {
			t.Check(l.Close())
			return l.Addr().String()
		}
		last = err
	}
	t.Checkf(last, "looking for a free port")
	return ""
}

// Instance is one place at which the real program runs, with a configuration, a log and a state
// folder of its own, named after it.
type Instance struct {
	Settings Settings
	Name     string
	t        *T
	binary   string
}

// NewInstance writes the configuration. Where the settings name no address to listen at, or no
// state folder, it chooses them.
func (t *T) NewInstance(binary, name string, settings Settings) *Instance {
	if settings.Listen == "" {
		settings.Listen = t.FreeAddr()
	}
	if settings.StateDir == "" {
		settings.StateDir = t.Path("state-" + name)
	}
	i := &Instance{t: t, binary: binary, Name: name}
	i.Configure(settings)
	return i
}

// Configure writes another configuration, for the next start.
func (i *Instance) Configure(settings Settings) {
	i.Settings = settings
	// It holds the database's password.
	err := os.WriteFile(i.ConfigFile(), []byte(settings.YAML()), 0o600)
	i.t.Checkf(err, "writing the configuration")
}

// ConfigFile is the path of the configuration.
func (i *Instance) ConfigFile() string { return i.t.Path(i.Name + ".yaml") }

// Command is a command line of the program.
func (i *Instance) Command(args ...string) Command {
	return Command{Path: i.binary, Args: append([]string{"-c", i.ConfigFile()}, args...)}
}

// Run runs a command of the program to its end.
func (i *Instance) Run(args ...string) {
	_, err := i.t.Output(i.Command(args...))
	i.t.Check(err)
}

// Start starts `unionbridge run` and waits until it is ready.
func (i *Instance) Start() *Process {
	p := i.StartLogged("run")
	i.AwaitReady(p)
	return p
}

// StartLogged starts a command of the program that writes to the instance's log, and watches its
// memory.
func (i *Instance) StartLogged(args ...string) *Process {
	log := i.t.Log(i.Name + ".log")
	c := i.Command(args...)
	c.Stdout, c.Stderr, c.Peak = log, log, true
	return i.t.Start(c)
}

// LogTail is the end of the instance's log.
func (i *Instance) LogTail() string { return i.t.LogTail(i.Name + ".log") }

// AwaitReady waits until a daemon says that it is ready.
func (i *Instance) AwaitReady(p *Process) {
	i.t.Await(Wait{
		For: "http://" + i.Settings.Listen + "/readyz", Every: 10 * time.Millisecond,
		Most: time.Minute, Process: p, Log: i.LogTail,
	}, func() bool { return ready(i.t.ctx, i.Settings.Listen) })
}

func ready(ctx context.Context, listen string) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
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

// Log opens a log file in the run's folder.
func (t *T) Log(name string) *os.File {
	file, err := os.OpenFile(t.Path(name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	t.Checkf(err, "making a log file")
	t.Cleanup(file.Close)
	return file
}

// LogTail is the end of a log file, for an error message; "" if it is empty or not there.
func (t *T) LogTail(name string) string {
	const most = 2000
	text, err := os.ReadFile(t.Path(name))
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

// Settings are what differs between the configurations of the devtools.
type Settings struct {
	DSN         string
	WeChat      string // base URL
	Listen      string
	StateDir    string
	Rate        int // messages a second
	Concurrency int // POSTs in flight
	Batchgets   int // of a sweep in flight; 0: the default

	// Short times make a fault pass quickly; 0: the program's default.
	SendTimeout     time.Duration
	ResendWindow    time.Duration
	WaitForFollower time.Duration
	SyncEvery       time.Duration // between sweeps and between refreshes

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
	line := func(wanted bool, format string, args ...any) {
		if wanted {
			fmt.Fprintf(&b, format+"\n", args...)
		}
	}
	line(true, "database:\n  dsn: %q", s.DSN)
	line(true, "wechat:\n  base_url: %s", s.WeChat)
	line(s.SendTimeout > 0, "  send_timeout: %s", s.SendTimeout)
	line(true, "http:\n  listen: %s", s.Listen)
	line(s.Callback != "", "  callback_listen: %s", s.Callback)
	line(true, "state_dir: %q", s.StateDir)
	line(true, "shutdown_timeout: 11s # above wechat.send_timeout")
	line(true, "official_accounts:\n  - appid: %s\n    name: 服务号\n    secret: %s", AppID, Secret)
	line(s.Callback != "", "    callback: {token: %s, aes_key: %s}", CallbackToken, CallbackKey)
	line(true, "    send:\n      rate: %d\n      concurrency: %d", s.Rate, s.Concurrency)
	line(s.ResendWindow > 0, "      resend_window: %s", s.ResendWindow)
	line(s.WaitForFollower > 0, "      wait_for_follower: %s", s.WaitForFollower)
	line(s.Batchgets > 0 || s.SyncEvery > 0, "    sync:")
	line(s.Batchgets > 0, "      concurrency: %d", s.Batchgets)
	line(s.SyncEvery > 0, "      sweep: \"@every %s\"\n      refresh: \"@every %s\"",
		s.SyncEvery, s.SyncEvery)
	line(true, "mini_programs:\n  - {appid: %s, name: 小程序}", MiniAppID)
	line(true, "templates:\n  %s: {official: {id: %q}}", Template, TemplateID())
	return b.String()
}
