package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// TestMain lets the test binary be the program: scripts run "unionbridge" as a process of its own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"unionbridge": main})
}

// The simulator's size in scripts. Every third mini-program user does not follow.
const (
	followers = 250
	miniUsers = 60
)

// world is what one script, or one test, runs against: a simulator, a schema of its own, and a
// configuration file that names both.
type world struct {
	sim    *wechatsim.Server
	server *httptest.Server
	dsn    string // "" without a database
	listen string
	dir    string

	callback string // an address for pushes
}

// newWorld starts a simulator. Its configuration is written by writeConfig.
func newWorld(t *testing.T, dsn string) *world {
	t.Helper()
	sim := wechatsim.NewStandard(followers, miniUsers, 1.0/3)
	t.Cleanup(sim.Close)
	server := httptest.NewServer(sim)
	t.Cleanup(server.Close)
	return &world{sim: sim, server: server, dsn: dsn, listen: freePort(t), callback: freePort(t),
		dir: t.TempDir()}
}

// freePort returns an address of this machine where nobody listens at the moment.
func freePort(t testing.TB) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	return listener.Addr().String()
}

// template is the simulator's template with one keyword, thing1.
func template() string { return wechatsim.StandardTemplates()[1].ID }

// config is a whole, right configuration; more is appended to it.
func (w *world) config(more string) string {
	return fmt.Sprintf(`
database: {dsn_file: database.dsn}
wechat: {base_url: %q, timeout: 5s, send_timeout: 5s}
http: {listen: %q}
state_dir: state
shutdown_timeout: 10s
official_accounts:
  - appid: %s
    name: 服务号
    secret_file: oa.secret
mini_programs:
  - {appid: %s, name: 小程序}
templates:
  progress: {official: {id: %q}}
%s`, w.server.URL, w.listen, wechatsim.StandardAppID, wechatsim.StandardMiniAppID, template(), more)
}

// writeConfig writes config.yaml and the secrets beside it into dir and returns its path.
func (w *world) writeConfig(t testing.TB, dir string) string {
	t.Helper()
	dsn := w.dsn
	if dsn == "" {
		dsn = "unionbridge:s3cret-of-the-dsn@tcp(" + freePort(t) + ")/unionbridge"
	}
	for name, content := range map[string]string{
		"config.yaml": w.config(""), "database.dsn": dsn + "\n",
		"oa.secret": wechatsim.StandardSecret + "\n", "mini.secret": wechatsim.StandardMiniSecret + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "config.yaml")
}

// vars are the people that scripts speak of. Mini-program users stand in the table only after the
// command mini-users.
func (w *world) vars() []string {
	appid, mini := wechatsim.StandardAppID, wechatsim.StandardMiniAppID
	following, stranger := -1, -1
	for _, user := range w.miniUsers() {
		if w.sim.IsFollower(appid, user.Person) && following < 0 {
			following = user.Person
		}
		if !w.sim.IsFollower(appid, user.Person) && stranger < 0 {
			stranger = user.Person
		}
	}
	return []string{
		"APPID=" + appid, "MINI_APPID=" + mini, "TEMPLATE=" + template(),
		"SUBSCRIBE_TEMPLATE=" + wechatsim.StandardSubscribeTemplates()[1].ID,
		"SIM=" + w.server.URL, "LISTEN=" + w.listen, "CALLBACK=" + w.callback,
		"SIMADDRESS=" + strings.TrimPrefix(w.server.URL, "http://"), "CUT_TEMPLATE=" + template()[:41] + "xx",
		"UNIONID=" + w.sim.UnionID(following), "OPENID=" + w.sim.OpenID(appid, following),
		"MINI_OPENID=" + w.sim.OpenID(mini, following),
		"STRANGER_UNIONID=" + w.sim.UnionID(stranger), "STRANGER_MINI_OPENID=" +
			w.sim.OpenID(mini, stranger),
		"FOLLOWERS=" + strconv.Itoa(followers),
	}
}

func (w *world) miniUsers() []wechatsim.Identity {
	return w.sim.MiniUsers(wechatsim.StandardMiniAppID, 0, miniUsers)
}

// insertMiniUsers does what the mini program's own backend does at each login.
func (w *world) insertMiniUsers(t testing.TB, db *sqlx.DB) {
	t.Helper()
	for _, user := range w.miniUsers() {
		_, err := db.Exec(`INSERT INTO mini_user (appid, openid, unionid) VALUES (?, ?, ?)`,
			user.AppID, user.OpenID, user.UnionID)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// poll asks until condition is nil, for at most 15 seconds; it returns the last error then.
func poll(condition func() error) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(15 * time.Second)
	for {
		err := condition()
		if err == nil {
			return nil
		}
		select {
		case <-deadline:
			return err
		case <-tick.C:
		}
	}
}

// get returns status and body of a page of the daemon.
func (w *world) get(path string) (int, string, error) {
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get("http://" + w.listen + path)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	var body bytes.Buffer
	_, err = body.ReadFrom(resp.Body)
	return resp.StatusCode, body.String(), err
}

func (w *world) ready() error {
	status, body, err := w.get("/readyz")
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("readyz: %d %s", status, body)
	}
	return err
}

func TestScriptsOffline(t *testing.T) {
	runScripts(t, "testdata/offline", func(*testing.T) string { return "" })
}

func TestScriptsDatabase(t *testing.T) {
	runScripts(t, "testdata/database", func(t *testing.T) string { return dbtest.Empty(t) })
}

// runScripts runs each script of a folder in a world of its own.
func runScripts(t *testing.T, dir string, dsn func(*testing.T) string) {
	scripts, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts in %s: %v", dir, err)
	}
	for _, script := range scripts {
		t.Run(strings.TrimSuffix(filepath.Base(script), ".txtar"), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, dsn(t))
			testscript.Run(t, testscript.Params{
				Files: []string{script},
				Setup: func(env *testscript.Env) error {
					w.dir = env.WorkDir
					env.Vars = append(env.Vars, w.vars()...)
					env.Setenv(configVariable, w.writeConfig(t, env.WorkDir))
					return nil
				},
				Cmds: w.commands(t),
			})
		})
	}
}

// commands are what scripts can do besides running the program.
func (w *world) commands(t *testing.T) map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		// code N PROGRAM ARGS: runs it and insists on the exit code.
		"code": func(ts *testscript.TestScript, _ bool, args []string) {
			got := 0
			err := ts.Exec(args[1], args[2:]...)
			if exit, ok := errors.AsType[*exec.ExitError](err); ok {
				got = exit.ExitCode()
			} else {
				ts.Check(err)
			}
			if strconv.Itoa(got) != args[0] {
				ts.Fatalf("exit code %d, not %s", got, args[0])
			}
		},
		// reset: the simulator counts calls from zero.
		"reset": func(*testscript.TestScript, bool, []string) { w.sim.Reset() },
		// calls-at-most N: the simulator has got so many calls since reset, or fewer. A page that is
		// no call of the interface costs none.
		"calls-at-most": func(ts *testscript.TestScript, _ bool, args []string) {
			most, err := strconv.Atoi(args[0])
			ts.Check(err)
			var sum int64
			for path, n := range w.sim.Calls() {
				if path != "unknown" {
					sum += n
				}
			}
			if sum > int64(most) {
				ts.Fatalf("%d calls, not at most %d: %v", sum, most, w.sim.Calls())
			}
		},
		// called PATH: waits until the simulator has got such a call.
		"called": func(ts *testscript.TestScript, _ bool, args []string) {
			ts.Check(poll(func() error {
				if w.sim.Calls()[args[0]] == 0 {
					return fmt.Errorf("no call of %s", args[0])
				}
				return nil
			}))
		},
		// append FILE: rewrites the standard config.yaml with FILE at its end.
		"append": func(ts *testscript.TestScript, _ bool, args []string) {
			more := ts.ReadFile(args[0])
			ts.Check(os.WriteFile(filepath.Join(w.dir, "config.yaml"), []byte(w.config(more)),
				0o600))
		},
		// configure FILE: it becomes config.yaml, with the variables replaced.
		"configure": func(ts *testscript.TestScript, _ bool, args []string) {
			text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
			ts.Check(os.WriteFile(filepath.Join(w.dir, "config.yaml"), []byte(text), 0o600))
		},
		// mini-users: the apps have inserted their users.
		"mini-users": func(*testscript.TestScript, bool, []string) {
			w.insertMiniUsers(t, dbtest.Open(t, w.dsn))
		},
		// sql STATEMENT
		"sql": func(ts *testscript.TestScript, _ bool, args []string) {
			_, err := dbtest.Open(t, w.dsn).Exec(args[0])
			ts.Check(err)
		},
		// query VALUE STATEMENT: waits until the statement's one value is this, for at most 30
		// seconds: what a daemon does for another process, it sees every 20.
		"query": func(ts *testscript.TestScript, _ bool, args []string) {
			db := dbtest.Open(t, w.dsn)
			answers := func() error {
				var got string
				if err := db.Get(&got, args[1]); err != nil {
					return err
				}
				if got != args[0] {
					return fmt.Errorf("%s: %q", args[1], got)
				}
				return nil
			}
			if poll(answers) != nil {
				ts.Check(poll(answers))
			}
		},
		// becomes PATTERN PROGRAM ARGS: runs it until its output matches.
		"becomes": func(ts *testscript.TestScript, _ bool, args []string) {
			pattern := regexp.MustCompile(args[0])
			ts.Check(poll(func() error {
				if err := ts.Exec(args[1], args[2:]...); err != nil {
					return err
				}
				if out := ts.ReadFile("stdout"); !pattern.MatchString(out) {
					return fmt.Errorf("%q does not match:\n%s", args[0], out)
				}
				return nil
			}))
		},
		// shape FILE: the last output is JSON whose keys and types are those in FILE.
		"shape": func(ts *testscript.TestScript, _ bool, args []string) {
			var got any
			ts.Check(json.Unmarshal([]byte(ts.ReadFile("stdout")), &got))
			text, err := json.Marshal(shape(got))
			ts.Check(err)
			if want := strings.TrimSpace(ts.ReadFile(args[0])); string(text) != want {
				ts.Fatalf("the shape is\n%s\nand not\n%s", text, want)
			}
		},
		// crlf FROM TO: copies a file the way a spreadsheet on Windows writes it.
		"crlf": func(ts *testscript.TestScript, _ bool, args []string) {
			text := "\ufeff" + strings.ReplaceAll(ts.ReadFile(args[0]), "\n", "\r\n")
			ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o600))
		},
		// last-run VAR: the number of the newest run.
		"last-run": func(ts *testscript.TestScript, _ bool, args []string) {
			var id int64
			ts.Check(dbtest.Open(t, w.dsn).Get(&id, `SELECT MAX(id) FROM sync_run`))
			ts.Setenv(args[0], strconv.FormatInt(id, 10))
		},
		// ready [not WORDS]: waits until the daemon is ready, or is not and says WORDS.
		"ready": func(ts *testscript.TestScript, neg bool, args []string) {
			ts.Check(poll(func() error {
				status, body, err := w.get("/readyz")
				if err != nil {
					return err
				}
				if (status == http.StatusOK) == neg || len(args) > 0 &&
					!strings.Contains(body, args[0]) {
					return fmt.Errorf("readyz answers %d %s", status, body)
				}
				return nil
			}))
		},
		// metric TEXT: waits until /metrics has a line that begins so.
		"metric": func(ts *testscript.TestScript, _ bool, args []string) {
			ts.Check(poll(func() error { return w.metric(args[0]) }))
		},
		// delivered N: the simulator has delivered so many messages, each to OPENID.
		"delivered": func(ts *testscript.TestScript, _ bool, args []string) {
			n, _ := w.sim.Delivered(wechatsim.StandardAppID)
			if strconv.FormatInt(n, 10) != args[0] {
				ts.Fatalf("%d messages were delivered, not %s", n, args[0])
			}
		},
		// fault JSON: a simulator's fault, "none" ends all.
		"fault": func(ts *testscript.TestScript, _ bool, args []string) {
			if args[0] == "none" {
				w.sim.ClearFaults()
				return
			}
			var fault wechatsim.Fault
			ts.Check(json.Unmarshal([]byte(args[0]), &fault))
			w.sim.SetFault(fault)
		},
		// accept MINI_OPENID TEMPLATE: the person allows one message, which no event says.
		"accept": func(ts *testscript.TestScript, _ bool, args []string) {
			who, _ := w.sim.Identify(wechatsim.StandardMiniAppID, args[0])
			w.sim.Grant(wechatsim.StandardMiniAppID, who.Person, args[1], 1)
		},
		// leave N: so many followers unfollow.
		"leave": func(ts *testscript.TestScript, _ bool, args []string) {
			n, err := strconv.Atoi(args[0])
			ts.Check(err)
			w.sim.Leave(wechatsim.StandardAppID, n)
		},
	}
}

// shape replaces what a JSON document says by the types of it; of a list the first element stands
// for all.
func shape(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for key, value := range v {
			v[key] = shape(value)
		}
		return v
	case []any:
		if len(v) > 0 {
			return []any{shape(v[0])}
		}
		return v
	case nil:
		return nil
	}
	return strings.NewReplacer("float64", "number").Replace(fmt.Sprintf("%T", v))
}

// result is what one command line did.
type result struct {
	code           int
	stdout, stderr string
}

// do runs one command line in this process.
func do(ctx context.Context, stdin string, args ...string) result {
	var stdout, stderr bytes.Buffer
	code := run(ctx, args, strings.NewReader(stdin), &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}
