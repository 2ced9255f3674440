package harness

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"text/template"
	"time"
)

const module = "github.com/unionbridge/unionbridge"

// Build compiles commands of this module, by their name below cmd/, into the run's folder.
func (t *T) Build(commands ...string) {
	args := []string{"build", "-buildvcs=false", "-o", t.dir + string(filepath.Separator)}
	for _, command := range commands {
		args = append(args, module+"/cmd/"+command)
	}
	_, err := t.Output(Command{Path: "go", Args: args})
	t.Check(t.ctx.Err())
	t.Check(err)
}

// FreeAddr finds a free loopback address for a server that cannot tell which port it got. The port
// is below those that the kernel gives to outgoing connections.
func (t *T) FreeAddr() string {
	for range 50 {
		var lc net.ListenConfig
		l, err := lc.Listen(t.ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", 20000+rand.IntN(12000)))
		if err == nil {
			t.Check(l.Close())
			return l.Addr().String()
		}
	}
	t.Fatalf("there is no free port")
	return ""
}

// Instance is one place at which the real program runs, with files named after it.
type Instance struct {
	Settings Settings
	Name     string
	t        *T
	binary   string
}

// NewInstance writes the configuration, with an address to listen at and a state folder.
func (t *T) NewInstance(binary, name string, settings Settings) *Instance {
	settings.Listen, settings.StateDir = t.FreeAddr(), t.Path("state-"+name)
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

// StartLogged starts a command of the program with a log, and watches its memory.
func (i *Instance) StartLogged(args ...string) *Process {
	log := i.t.Log(i.Name + ".log")
	c := i.Command(args...)
	c.Stdout, c.Stderr = log, log
	p := i.t.Start(c)
	go p.watchMemory()
	return p
}

// LogTail is the end of the instance's log.
func (i *Instance) LogTail() string { return i.t.LogTail(i.Name + ".log") }

// AwaitReady waits until a daemon says that it is ready.
func (i *Instance) AwaitReady(p *Process) {
	url := "http://" + i.Settings.Listen + "/readyz"
	client := http.Client{Timeout: 2 * time.Second}
	i.t.Await(Wait{
		For: url, Every: 10 * time.Millisecond, Most: time.Minute, Process: p, Log: i.LogTail,
	}, func() bool {
		request, err := http.NewRequestWithContext(i.t.ctx, http.MethodGet, url, nil)
		i.t.Check(err)
		response, err := client.Do(request)
		return err == nil && response.Body.Close() == nil && response.StatusCode == http.StatusOK
	})
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
	text, _ := os.ReadFile(t.Path(name))
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
	Listen      string // chosen, as StateDir, by NewInstance
	StateDir    string
	Rate        int // messages a second
	Concurrency int // POSTs in flight
	Batchgets   int // of a sweep in flight; 0: the default

	Times
	Mini *Mini // how the mini program sends; nil: it does not

	// Callback is where pushes are received; empty: nowhere. They are signed with CallbackToken and
	// encrypted with CallbackKey.
	Callback string

	// Door is where the application shop calls, with DoorSecret; empty: nowhere.
	Door string
}

// DoorSecret is the secret of the application of a configuration with a Door.
const DoorSecret = "0123456789abcdef0123456789abcdef"

// DoorHash is what the configuration has of it.
func (Settings) DoorHash() string {
	hash := sha256.Sum256([]byte(DoorSecret))
	return hex.EncodeToString(hash[:])
}

// Times are short where a fault is to pass quickly; 0: the program's default.
type Times struct {
	SendTimeout     time.Duration
	ResendWindow    time.Duration
	WaitForFollower time.Duration
	WaitForGrant    time.Duration
	SyncEvery       time.Duration // between sweeps and between refreshes
}

// Mini is how the mini program sends, at the rate of the settings.
type Mini struct {
	Alone  bool   // there is no official account
	Apart  bool   // its template has an alias of its own, MiniTemplate, and so no row is moved
	Grants string // what acceptances are counted by; empty: the program's default
}

// What signs and encrypts the pushes of a configuration with a Callback.
const (
	CallbackToken = "stageToken"
	CallbackKey   = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
)

// Template is the alias under which the configuration names the template of [TemplateID].
const Template = "order_paid"

// MiniTemplate is the alias of the mini program's template of [MiniTemplateID].
const MiniTemplate = "mini_paid"

//go:embed config.yaml.tmpl
var configText string

// YAML is the configuration file.
func (s Settings) YAML() string {
	var text strings.Builder
	_ = template.Must(template.New("config").Parse(configText)).Execute(&text, struct {
		Settings
		AppID, Secret, Template, TemplateID                 string
		MiniAppID, MiniSecret, MiniTemplate, MiniTemplateID string
		CallbackToken, CallbackKey                          string
		Official                                            bool
	}{
		s, AppID, Secret, Template, TemplateID(), MiniAppID, MiniSecret, MiniTemplate,
		MiniTemplateID(), CallbackToken, CallbackKey, s.Mini == nil || !s.Mini.Alone,
	})
	return text.String() // a builder takes everything
}
