package harness

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

func TestTryEndsInReverseOrderAndRemovesItsFolder(t *testing.T) {
	var order []string
	var folder string
	broken, second := errors.New("broken"), errors.New("second")
	err := Try(t.Context(), NewScreen(io.Discard, time.Now), func(run *T) {
		folder = run.Path("")
		run.Cleanup(func() error { order = append(order, "database"); return second })
		run.Cleanup(func() error { order = append(order, "daemon"); return nil })
		run.Check(nil)
		run.Checkf(broken, "trying %d", 1)
		order = append(order, "too late")
	})
	if !errors.Is(err, broken) || !errors.Is(err, second) || !strings.HasPrefix(err.Error(), "trying 1: broken") {
		t.Errorf("Try() = %v, want the failure and that of the clean-up", err)
	}
	if want := []string{"daemon", "database"}; !slices.Equal(order, want) {
		t.Errorf("ended %v, want %v", order, want)
	}
	if _, err := os.Stat(folder); folder == "" || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder %q is still there: %v", folder, err)
	}
}

func TestScopeEndsBeforeTheRunGoesOn(t *testing.T) {
	var order []string
	broken := errors.New("broken")
	err := Try(t.Context(), NewScreen(io.Discard, time.Now), func(run *T) {
		run.Scope(func(part *T) {
			part.Cleanup(func() error { order = append(order, "ended"); return nil })
			order = append(order, "part")
		})
		order = append(order, "next")
		run.Scope(func(part *T) { part.Fatal(broken) })
		order = append(order, "too late")
	})
	if want := []string{"part", "ended", "next"}; !errors.Is(err, broken) || !slices.Equal(order, want) {
		t.Errorf("Try() = %v after %v, want %v", err, order, want)
	}
}

func TestGroup(t *testing.T) {
	broken := errors.New("broken")
	var inFlight, most, completed atomic.Int64
	err := Try(t.Context(), NewScreen(io.Discard, time.Now), func(run *T) {
		g := run.Group(3)
		for range 20 {
			g.Go(func(context.Context) {
				if n := inFlight.Add(1); n > most.Load() {
					most.Store(n)
				}
				time.Sleep(time.Millisecond)
				inFlight.Add(-1)
			})
		}
		g.Wait()
		completed.Add(1)
		g = run.Group(2)
		g.Go(func(ctx context.Context) { <-ctx.Done(); run.Fatal(ctx.Err()) })
		g.Go(func(context.Context) { run.Fatal(broken) })
		g.Wait()
		completed.Add(1)
	})
	if !errors.Is(err, broken) || completed.Load() != 1 || most.Load() > 3 {
		t.Errorf("Try() = %v, completed %d, %d at once", err, completed.Load(), most.Load())
	}
}

func TestAwait(t *testing.T) {
	for name, test := range map[string]struct {
		wait Wait
		ctx  func() (context.Context, context.CancelFunc)
		want string
	}{
		"time": {Wait{For: "x", Most: time.Millisecond, Log: func() string { return "the log" }}, nil,
			"waiting for x: it did not happen within 1ms\nthe log"},
		"process":   {Wait{For: "x", Most: time.Minute, Process: ended(t)}, nil, "waiting for x: the process ended: exit status 3"},
		"interrupt": {Wait{For: "x", Most: time.Minute}, func() (context.Context, context.CancelFunc) { return context.WithTimeout(t.Context(), 0) }, "context deadline exceeded"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		if test.ctx != nil {
			ctx, cancel = test.ctx()
		}
		test.wait.Every = 5 * time.Millisecond
		err := Try(ctx, NewScreen(io.Discard, time.Now), func(run *T) {
			run.Await(test.wait, func() bool { return false })
		})
		cancel()
		if err == nil || err.Error() != test.want {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
	n := 0
	err := Try(t.Context(), NewScreen(io.Discard, time.Now), func(run *T) {
		run.Await(Wait{Every: time.Millisecond, Most: time.Minute}, func() bool { n++; return n == 3 })
	})
	if err != nil || n != 3 {
		t.Errorf("%v after %d times", err, n)
	}
}

func ended(t *testing.T) *Process {
	t.Helper()
	p := start(t, Command{Path: look(t, "sh"), Args: []string{"-c", "exit 3"}})
	<-p.Done()
	return p
}

func TestMainSpeaksToTheOperatingSystem(t *testing.T) {
	interrupted, cancel := context.WithCancel(t.Context())
	cancel()
	for name, test := range map[string]struct {
		args []string
		run  func(*T)
		ctx  context.Context
		code ExitCode
		out  string
		errs string
	}{
		"success":     {run: func(*T) {}},
		"failure":     {run: func(run *T) { run.Fatalf("broken") }, code: 1, out: "\nIt did not work\nbroken\n"},
		"said so":     {run: func(run *T) { run.Fatal(Failed) }, code: 1},
		"own code":    {run: func(run *T) { run.Fatal(ExitCode(77)) }, code: 77},
		"interrupted": {run: func(run *T) { run.Sleep(time.Minute) }, ctx: interrupted, code: 130, out: "\ninterrupted; everything has been ended and removed\n"},
		"time over":   {run: func(run *T) { run.Sleep(time.Minute) }, args: []string{"-longest", "1ms"}, code: 1, out: "\nIt did not work\ncontext deadline exceeded\n"},
		"argument":    {args: []string{"word"}, code: 2, errs: "tool: there are no arguments but flags\n"},
		"flag":        {args: []string{"-nonsense"}, code: 2, errs: "flag provided but not defined: -nonsense\n"},
		"help":        {args: []string{"-h"}, code: 2, errs: "Usage of tool:\n"},
	} {
		longest := time.Minute
		program := Program{
			Name: "tool", Run: func(run *T) { run.Limit(longest); test.run(run) }, Failed: "It did not work",
			Flags: func(flags *flag.FlagSet) func() error {
				flags.DurationVar(&longest, "longest", time.Minute, "")
				return func() error { return nil }
			},
		}
		if test.ctx == nil {
			test.ctx = t.Context()
		}
		var out, errs bytes.Buffer
		code := program.Execute(test.ctx, test.args, &out, &errs)
		if code != test.code || out.String() != test.out || !strings.HasPrefix(errs.String(), test.errs) || (errs.Len() > 0) != (test.errs != "") {
			t.Errorf("%s: exit code %d, said %q and %q", name, code, out.String(), errs.String())
		}
	}
}

func TestInsertManyRows(t *testing.T) {
	run := ForTest(t, NewScreen(io.Discard, time.Now))
	db := run.Wrap(dbtest.New(t))
	db.Insert("mini_user (appid, openid)", 2345, func(i int) []any { return []any{"a", fmt.Sprint("o", i)} })
	if n := db.Count("SELECT COUNT(DISTINCT openid) FROM mini_user"); n != 2345 {
		t.Errorf("%d rows", n)
	}
	err := Try(t.Context(), NewScreen(io.Discard, time.Now), func(run *T) {
		DB{db.DB, run}.Do("SELECT nonsense\n FROM nowhere")
	})
	if err == nil || !strings.HasPrefix(err.Error(), "SELECT nonsense FROM nowhere: Error 1146") {
		t.Errorf("a wrong statement: %v", err)
	}
}

func TestProcessStop(t *testing.T) {
	p := start(t, Command{Path: look(t, "sleep"), Args: []string{"600"}})
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	if got := p.Ended(); got != "signal: terminated" {
		t.Errorf("it ended with %q", got)
	}
	if err := p.Stop(); err != nil {
		t.Errorf("a second Stop: %v", err)
	}
}

func TestProcessKill(t *testing.T) {
	p := start(t, Command{Path: look(t, "sleep"), Args: []string{"600"}})
	p.Kill()
	if got := p.Ended(); got != "signal: killed" {
		t.Errorf("it ended with %q", got)
	}
	p.Kill() // it may be called again
}

func TestProcessWait(t *testing.T) {
	var out bytes.Buffer
	p := start(t, Command{Path: look(t, "sh"), Args: []string{"-c", "echo said; exit 3"}, Stdout: &out})
	err := p.Wait(t.Context())
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.ExitCode() != 3 || out.String() != "said\n" {
		t.Errorf("Wait() = %v with output %q", err, out.String())
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	p = start(t, Command{Path: look(t, "sleep"), Args: []string{"600"}})
	if err := p.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait() = %v after the context's end", err)
	}
	select {
	case <-p.Done():
	default:
		t.Error("the process outlives Wait")
	}
}

func TestProcessThatIsNotThere(t *testing.T) {
	err := Try(t.Context(), NewScreen(io.Discard, time.Now), func(run *T) {
		run.Start(Command{Path: "/nowhere/at/all"})
	})
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Start() = %v", err)
	}
}

func TestPeakMemory(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("known on Linux only")
	}
	memory := make([]byte, 64<<20)
	for i := 0; i < len(memory); i += 4096 {
		memory[i] = 1
	}
	if peak := peakOf(os.Getpid()); peak < 64<<20 || peak > 4<<30 {
		t.Errorf("this process had %d bytes, it holds 64 MiB", peak)
	}
	runtime.KeepAlive(memory)

	// A child must not inherit the figure of its large parent.
	p := start(t, Command{Path: look(t, "sleep"), Args: []string{"600"}})
	go p.watchMemory()
	deadline := time.Now().Add(10 * time.Second)
	for p.PeakMemory() == 0 && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	if peak := p.PeakMemory(); peak == 0 || peak > 32<<20 {
		t.Errorf("sleep had %d bytes", peak)
	}
}

func TestFreeDisk(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("known on Linux only")
	}
	if free, ok := FreeDisk(t.TempDir()); !ok || free <= 0 || free > 1<<60 {
		t.Errorf("FreeDisk() = %d, %t", free, ok)
	}
	if _, ok := FreeDisk("/nowhere/at/all"); ok {
		t.Error("there is disk nowhere")
	}
}

// The wire of the control interface, against the real simulator.
func TestSimulatorControl(t *testing.T) {
	run := ForTest(t, NewScreen(io.Discard, time.Now))
	s := run.Simulator(run.Serve(wechatsim.New(wechatsim.Standard(10, 0, 0))))
	left, joined := s.Leave(2), s.Join(3)
	s.SetLatency(time.Millisecond)
	if n := s.Stats().Followers[AppID]; len(left) != 2 || len(joined) != 3 || n != 11 {
		t.Errorf("%v left and %v joined ten, there are %d", left, joined, n)
	}
	for _, person := range left {
		if truth := s.Truth(person); truth.Following {
			t.Errorf("person %d left: %+v", person, truth)
		}
	}
	s.Follow(left[0])
	if !s.Truth(left[0]).Following {
		t.Errorf("person %d does not follow again", left[0])
	}
}

// What people accept of a mini program that is alone, and what the real simulator says of it.
func TestSimulatorGrants(t *testing.T) {
	run := ForTest(t, NewScreen(io.Discard, time.Now))
	options := wechatsim.Standard(0, 10, 0)
	options.Accounts = nil
	s := run.Simulator(run.Serve(wechatsim.New(options)))
	s.Tap(3)
	s.Grant(3, 2)
	want := []wechatsim.GrantState{{OpenID: s.MiniUsers()[3].OpenID, Person: 3,
		TemplateID: MiniTemplateID(), Left: 3, Accepts: 3}}
	s.SetFault(wechatsim.Fault{Kind: wechatsim.FaultReset, Path: PathSubscribe, Next: 1})
	s.SetCallbackOf(MiniAppID, &wechatsim.Callback{URL: "http://127.0.0.1:9/", Token: CallbackToken})
	if diff := cmp.Diff(want, s.Grants()); diff != "" {
		t.Error(diff)
	}
}

func load(t *testing.T, text string) *config.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// The daemon reads the configuration that the harness writes.
func TestSettingsAreAConfiguration(t *testing.T) {
	text := Settings{
		DSN: `root:p"w\@tcp(127.0.0.1:3306)/ub`, WeChat: "http://127.0.0.1:8082", Listen: "127.0.0.1:8080",
		StateDir: t.TempDir(), Rate: 2000, Concurrency: 64, Batchgets: 20,
	}.YAML()
	cfg := load(t, text)
	account := cfg.OfficialAccounts[0]
	got := []any{cfg.Database.DSN.Reveal(), account.AppID, account.Secret.Reveal(), account.Send.Rate, account.Send.Concurrency,
		account.Sync.Concurrency, cfg.MiniPrograms[0].AppID, cfg.Templates[Template].Official.ID}
	want := []any{`root:p"w\@tcp(127.0.0.1:3306)/ub`, AppID, Secret, 2000.0, 64, 20, MiniAppID, TemplateID()}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// What several daemons and short timeouts need is written only where it is wanted.
func TestSettingsOfFaults(t *testing.T) {
	text := Settings{
		DSN: "root@tcp(127.0.0.1:3306)/ub", WeChat: "http://127.0.0.1:8082", Listen: "127.0.0.1:8080",
		StateDir: t.TempDir(), Rate: 400, Concurrency: 32, Callback: "127.0.0.1:8081",
		Times: Times{SendTimeout: 2 * time.Second, ResendWindow: 20 * time.Second,
			WaitForFollower: 30 * time.Second, SyncEvery: 4 * time.Second},
	}.YAML()
	cfg := load(t, text)
	account := cfg.OfficialAccounts[0]
	got := []any{cfg.WeChat.SendTimeout.Std(), account.Send.ResendWindow.Std(), account.Send.WaitForFollower.Std(),
		account.Sync.Sweep, account.Sync.Refresh, cfg.HTTP.CallbackListen, account.Callback.Token.Reveal(), account.Callback.AESKey.Reveal()}
	want := []any{2 * time.Second, 20 * time.Second, 30 * time.Second, "@every 4s", "@every 4s", "127.0.0.1:8081", CallbackToken, CallbackKey}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A mini program sends beside the official account, or without one.
func TestSettingsOfAMiniProgram(t *testing.T) {
	settings := Settings{
		DSN: "root@tcp(127.0.0.1:3306)/ub", WeChat: "http://127.0.0.1:8082", Listen: "127.0.0.1:8080",
		StateDir: t.TempDir(), Rate: 400, Concurrency: 32, Callback: "127.0.0.1:8081",
		Mini: &Mini{Grants: "both"}, Times: Times{WaitForGrant: 20 * time.Second},
	}
	for _, alone := range []bool{false, true} {
		settings.Mini.Alone = alone
		cfg := load(t, settings.YAML())
		mini := cfg.MiniPrograms[0]
		got := []any{len(cfg.OfficialAccounts), mini.Sends, mini.Secret.Reveal(), mini.Callback.AESKey.Reveal(), mini.Grants,
			mini.Send.Rate, mini.Send.Concurrency, mini.Send.WaitForGrant.Std(), cfg.Templates[Template].Mini.IDs}
		want := []any{1, true, MiniSecret, CallbackKey, "both", 400.0, 32, 20 * time.Second,
			map[string]string{MiniAppID: MiniTemplateID()}}
		if alone {
			want[0] = 0
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("alone %t: %s", alone, diff)
		}
	}
}

func TestProcessEnvironmentAndSignal(t *testing.T) {
	var out bytes.Buffer
	p := start(t, Command{Path: look(t, "sh"), Args: []string{"-c", "echo $HARNESS_TEST $HOME; kill -STOP $$; echo woken"},
		Env: []string{"HARNESS_TEST=added"}, Stdout: &out})
	ended := make(chan error, 1)
	go func() { ended <- p.Wait(t.Context()) }()
	for tick := time.Tick(10 * time.Millisecond); ; {
		select {
		case err := <-ended:
			if want := "added " + os.Getenv("HOME") + "\nwoken\n"; err != nil || out.String() != want {
				t.Errorf("Wait() = %v with output %q, want %q", err, out.String(), want)
			}
			p.Signal(syscall.SIGCONT) // one that has ended does not mind
			return
		case <-tick:
			p.Signal(syscall.SIGCONT)
		}
	}
}

func TestClientFile(t *testing.T) {
	settings := mysql.NewConfig()
	settings.User, settings.Passwd, settings.Net, settings.Addr, settings.DBName = "root", `a"b\c`, "tcp", "127.0.0.1:3307", "ub"
	want := `[client]
default-character-set="utf8mb4"
user="root"
password="a\"b\\c"
host="127.0.0.1"
port="3307"
protocol="tcp"
[mysql]
database="ub"
[mariadb-client]
database="ub"
`
	if diff := cmp.Diff(want, (&Database{settings: settings, Addr: settings.Addr, Schema: "ub"}).ClientFile()); diff != "" {
		t.Error(diff)
	}
}

func TestScreen(t *testing.T) {
	var out bytes.Buffer
	now := time.Unix(0, 0)
	s := NewScreen(&out, func() time.Time { return now })
	now = now.Add(1500 * time.Millisecond)
	s.Step("first")
	s.Status("not on a pipe")
	lines := s.Lines()
	for _, part := range []string{"a li", "ne\nanother\nrest"} {
		if _, err := lines.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	if err := lines.Close(); err != nil {
		t.Fatal(err)
	}
	s.Bad("%d", 1)
	want := strings.Join([]string{
		"[  1.5 s]  1  first",
		"              a line",
		"              another",
		"              rest",
		"              WRONG 1",
		"",
	}, "\n")
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestScreenOverwritesStatusOnATerminal(t *testing.T) {
	var out bytes.Buffer
	s := NewScreen(&out, time.Now)
	s.Terminal = true
	s.Status("1 pending")
	s.Status("1 pending")
	s.Status("0 pending")
	s.Line("done")
	pad := strings.Repeat(" ", indent)
	want := pad + "1 pending\r\x1b[K" + pad + "0 pending\r\x1b[Kdone\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Error(diff)
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000", -999: "-999"} {
		if got := Count(n); got != want {
			t.Errorf("Count(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestQuantile(t *testing.T) {
	var hundred []time.Duration
	for i := range 100 {
		hundred = append(hundred, time.Duration(i+1))
	}
	for _, test := range []struct {
		sorted []time.Duration
		q      float64
		want   time.Duration
	}{
		{nil, 0.5, 0},
		{hundred[:1], 0.99, 1},
		{hundred, 0.5, 50},
		{hundred, 0.99, 99},
		{hundred, 1, 100},
		{hundred, 0, 1},
		{hundred[:3], 0.5, 2},
	} {
		if got := Quantile(test.sorted, test.q); got != test.want {
			t.Errorf("Quantile(%d values, %v) = %d, want %d", len(test.sorted), test.q, got, test.want)
		}
	}
}

func start(t *testing.T, c Command) *Process {
	t.Helper()
	return ForTest(t, NewScreen(io.Discard, time.Now)).Start(c)
}

func look(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is not installed", program)
	}
	return path
}

func TestPagesAndBatches(t *testing.T) {
	for _, test := range []struct{ people, pages, batches int }{
		{1, 2, 1}, {100, 2, 1}, {101, 2, 2}, {10_000, 2, 100}, {10_001, 3, 101}, {1_000_000, 101, 10_000}, {10_000_000, 1001, 100_000},
	} {
		if p, n := Pages(test.people), Batches(test.people); p != test.pages || n != test.batches {
			t.Errorf("%d people: %d pages, %d batches; want %d and %d", test.people, p, n, test.pages, test.batches)
		}
	}
}
