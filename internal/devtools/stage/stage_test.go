package stage

import (
	"bytes"
	"context"
	"errors"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

func TestStageClosesInReverseOrderAndRemovesItsFolder(t *testing.T) {
	s, err := New("ub-stage-test-")
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	broken := errors.New("broken")
	s.OnClose(func() error { order = append(order, "database"); return nil })
	s.OnClose(func() error { order = append(order, "daemon"); return broken })
	if err := s.Close(); !errors.Is(err, broken) {
		t.Errorf("Close() = %v, want the failure of one closer", err)
	}
	if want := []string{"daemon", "database"}; !slices.Equal(order, want) {
		t.Errorf("closed %v, want %v", order, want)
	}
	if _, err := os.Stat(s.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is still there: %v", err)
	}
	if err := s.Close(); err != nil || len(order) != 2 {
		t.Errorf("a second Close: %v, closed %v", err, order)
	}
}

func TestProcessStop(t *testing.T) {
	p, err := Start(Command{Path: look(t, "sleep"), Args: []string{"600"}, Peak: true})
	if err != nil {
		t.Fatal(err)
	}
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
	p, err := Start(Command{Path: look(t, "sleep"), Args: []string{"600"}})
	if err != nil {
		t.Fatal(err)
	}
	p.Kill()
	if got := p.Ended(); got != "signal: killed" {
		t.Errorf("it ended with %q", got)
	}
	p.Kill() // the dead stay dead
}

func TestProcessWait(t *testing.T) {
	var out bytes.Buffer
	p, err := Start(Command{Path: look(t, "sh"), Args: []string{"-c", "echo said; exit 3"}, Stdout: &out})
	if err != nil {
		t.Fatal(err)
	}
	exit, ok := errors.AsType[*exec.ExitError](p.Wait(t.Context()))
	if !ok || exit.ExitCode() != 3 || out.String() != "said\n" {
		t.Errorf("Wait() = %v with output %q", p.Err(), out.String())
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if p, err = Start(Command{Path: look(t, "sleep"), Args: []string{"600"}}); err != nil {
		t.Fatal(err)
	}
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
	if _, err := Start(Command{Path: "/nowhere/at/all"}); !errors.Is(err, os.ErrNotExist) {
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
	p, err := Start(Command{Path: look(t, "sleep"), Args: []string{"600"}, Peak: true})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Stop() }()
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
	server := httptest.NewServer(wechatsim.New(wechatsim.Standard(10, 0, 0)))
	t.Cleanup(server.Close)
	s := &Simulator{URL: server.URL, client: server.Client()}
	left, err := s.Leave(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	joined, err := s.Join(t.Context(), 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.SetLatency(t.Context(), time.Millisecond); err != nil {
		t.Fatal(err)
	}
	stats, err := s.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(left) != 2 || len(joined) != 3 || stats.Followers[AppID] != 11 {
		t.Errorf("%v left and %v joined ten, there are %d", left, joined, stats.Followers[AppID])
	}
	for _, person := range left {
		if truth, err := s.Truth(t.Context(), person); err != nil || truth.Following {
			t.Errorf("person %d left: %+v, %v", person, truth, err)
		}
	}
}

func TestFirstLine(t *testing.T) {
	var passed bytes.Buffer
	f := &firstLine{next: &passed, line: make(chan string, 1)}
	for _, part := range []string{"http://127.0.0.1:80", "82\nmore\n", "http://other\n"} {
		if _, err := f.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
	}
	if got := <-f.line; got != "http://127.0.0.1:8082" {
		t.Errorf("the first line is %q", got)
	}
	if got := passed.String(); got != "http://127.0.0.1:8082\nmore\nhttp://other\n" {
		t.Errorf("passed on %q", got)
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

// The daemon reads the configuration that the stage writes.
func TestSettingsAreAConfiguration(t *testing.T) {
	text := Settings{
		DSN: `root:p"w\@tcp(127.0.0.1:3306)/ub`, WeChat: "http://127.0.0.1:8082", Listen: "127.0.0.1:8080",
		StateDir: t.TempDir(), Rate: 2000, Concurrency: 64, Questions: 20,
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

// What several daemons and short patience need is written only where it is asked for.
func TestSettingsOfTrouble(t *testing.T) {
	text := Settings{
		DSN: "root@tcp(127.0.0.1:3306)/ub", WeChat: "http://127.0.0.1:8082", Listen: "127.0.0.1:8080",
		StateDir: t.TempDir(), Rate: 400, Concurrency: 32, SendTimeout: 2 * time.Second, ResendWindow: 20 * time.Second,
		WaitForFollower: 30 * time.Second, SyncEvery: 4 * time.Second, Callback: "127.0.0.1:8081",
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

func TestProcessEnvironmentAndSignal(t *testing.T) {
	var out bytes.Buffer
	p, err := Start(Command{Path: look(t, "sh"), Args: []string{"-c", "echo $STAGE_TEST $HOME; kill -STOP $$; echo woken"},
		Env: []string{"STAGE_TEST=added"}, Stdout: &out})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- p.Wait(t.Context()) }()
	for tick := time.Tick(10 * time.Millisecond); ; {
		select {
		case err := <-ended:
			if want := "added " + os.Getenv("HOME") + "\nwoken\n"; err != nil || out.String() != want {
				t.Errorf("Wait() = %v with output %q, want %q", err, out.String(), want)
			}
			p.Signal(syscall.SIGCONT) // the dead do not mind
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
	if diff := cmp.Diff(want, (&Database{settings: settings}).ClientFile()); diff != "" {
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

func look(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is not installed", program)
	}
	return path
}
