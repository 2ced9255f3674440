// Package checkup is "unionbridge doctor": all that can be wrong with an installation, looked at in
// one order, each with what was seen, what to do about it, and where to read on. It goes on after a
// failure, and writes nothing but a transaction that it rolls back.
package checkup

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/status"
)

// State is what a check came to.
type State string

// The states. Warn works today and should not stay so; Skip could not be looked at.
const (
	OK   State = "ok"
	Warn State = "warn"
	Fail State = "fail"
	Skip State = "skip"
)

// The exit codes of failures, those of the commands.
const (
	exitConfig   = 3
	exitDatabase = 4
	exitWeChat   = 5
)

// Result is a line of the report. It holds no secret and no id of a person.
type Result struct {
	Check   string `json:"check"`
	AppID   string `json:"appid,omitempty"` // "": the whole installation
	State   State  `json:"state"`
	Seen    string `json:"seen"`
	Cure    string `json:"cure,omitempty"`
	CureZH  string `json:"cure_zh,omitempty"`
	Runbook string `json:"runbook,omitempty"`

	Exit int `json:"-"` // the exit code of a failure
}

// Text is something for people, in both languages.
type Text struct{ EN, ZH string }

// Check describes one check.
type Check struct {
	ID    string
	Title Text
	Cure  Text // where nothing better is known

	needs  []string // what must not have failed, or been skipped, for it to say anything
	exit   int
	online bool // it needs the database, WeChat, or the daemon
	run    func(ctx context.Context, e *exam) []finding
}

// Runbook is where to read on about a check.
func (c Check) Runbook() string { return "docs/runbooks.md#doctor-" + c.ID }

// finding is what a check has seen; its cure is one of cures.
type finding struct {
	appid string
	state State
	seen  string
	cure  Text
}

func ok(format string, args ...any) finding {
	return finding{state: OK, seen: fmt.Sprintf(format, args...)}
}

func skip(format string, args ...any) finding {
	return finding{state: Skip, seen: fmt.Sprintf(format, args...)}
}

// bad returns a finding with the cure of that name, whose verbs args fill.
func bad(state State, seen, cure string, args ...any) finding {
	text := cures[cure]
	return finding{state: state, seen: seen,
		cure: Text{fmt.Sprintf(text.EN, args...), fmt.Sprintf(text.ZH, args...)}}
}

func (f finding) of(appid string) finding {
	f.appid = appid
	return f
}

// Input is the installation that is looked at. Whatever a check needs of the configuration is here,
// since the configuration itself may be what is wrong.
type Input struct {
	Version    string
	ConfigPath string
	ConfigData []byte
	ConfigErr  error // why it cannot be used; nil: the rest below is known
	Offline    bool

	Secrets  []Secret
	StateDir string
	Listens  []Listen
	BaseURL  string // WeChat's
	Accounts []Account
	// CallbackURL is how WeChat reaches the callback, without /wechat/APPID; "": not known.
	CallbackURL string

	DSN    string
	OpenDB func(ctx context.Context) (*sqlx.DB, error)
	Status func(ctx context.Context, db *sqlx.DB) (status.Report, error)

	Root string // "/"; tests have one of their own
	Unit []byte // the unit of this version
	User string // whom the daemon runs as
	Now  func() time.Time
}

// Secret is a value that nobody must see, or the file that has it.
type Secret struct {
	Key   string // where it stands in the configuration
	Kind  Kind
	Value string
	Path  string // its file; "": it stands in the configuration, or in the environment
	Name  string // as the configuration writes the file
}

// Kind says what a secret must look like.
type Kind string

// The kinds of secrets.
const (
	AppSecret Kind = "AppSecret"
	AESKey    Kind = "EncodingAESKey"
	Other     Kind = "secret"
)

// Listen is an address that the daemon listens on.
type Listen struct {
	Key, Address string
	Health       bool // it answers /healthz
	Open         bool // it shows something to everybody who reaches it
}

// exam is one run.
type exam struct {
	Input

	results map[string]State // the worst of each check
	db      *sqlx.DB         // nil: not opened
	dbErr   error
	seen    map[string]observed // of each account
	report  *status.Report
	ours    bool // our daemon runs
}

// Run looks at everything, in the order of Checks, and returns a line or more for each.
func Run(ctx context.Context, in Input) []Result {
	e := &exam{Input: in, results: map[string]State{}, seen: map[string]observed{}}
	var all []Result
	for _, c := range Checks() {
		findings := e.examine(ctx, c)
		for _, f := range findings {
			all = append(all, c.result(f))
			e.results[c.ID] = worse(e.results[c.ID], f.state)
		}
	}
	if e.db != nil {
		_ = e.db.Close() // it was only read
	}
	return all
}

func (e *exam) examine(ctx context.Context, c Check) []finding {
	if c.online && e.Offline {
		return []finding{skip("--offline")}
	}
	for _, id := range c.needs {
		if s := e.results[id]; s == Fail || s == Skip {
			return []finding{skip("depends on %s", id)}
		}
	}
	return c.run(ctx, e)
}

func (c Check) result(f finding) Result {
	r := Result{Check: c.ID, AppID: f.appid, State: f.state, Seen: f.seen}
	if f.state != Fail && f.state != Warn {
		return r
	}
	if f.cure == (Text{}) {
		f.cure = c.Cure
	}
	r.Cure, r.CureZH, r.Runbook = f.cure.EN, f.cure.ZH, c.Runbook()
	if f.state == Fail {
		r.Exit = c.exit
	}
	return r
}

// worse returns the worse of two states.
func worse(a, b State) State {
	order := []State{"", OK, Skip, Warn, Fail}
	if slices.Index(order, a) > slices.Index(order, b) {
		return a
	}
	return b
}
