package main

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	gosync "sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// buildBinary builds the program as a release does; the build cache makes a second call cheap.
func buildBinary(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "unionbridge")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-trimpath",
		"-o", path, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("building: %v\n%s", err, out)
	}
	return path
}

// process is the real binary as "unionbridge run", with a systemd that only listens.
type process struct {
	cmd    *exec.Cmd
	stderr *lockedBuffer
	notes  *lockedBuffer // what it told systemd
	ended  chan struct{}
	err    error // of Wait, after ended
}

type lockedBuffer struct {
	mu  gosync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// start runs the binary; it is killed at the test's end if it is still there.
func (w *world) start(t *testing.T, binary string, args ...string) *process {
	t.Helper()
	p := &process{stderr: &lockedBuffer{}, notes: &lockedBuffer{}, ended: make(chan struct{})}
	socket := p.listen(t)
	p.cmd = exec.Command(binary, append([]string{"-c", w.writeConfig(t, w.dir)}, args...)...)
	p.cmd.Stderr = p.stderr
	p.cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket, "WATCHDOG_USEC=400000")
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.ended)
		p.err = p.cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // fails if it has ended, as it should have
		<-p.ended
		if t.Failed() {
			t.Logf("%v's standard error:\n%s", args, p.stderr)
		}
	})
	return p
}

// listen is systemd's end of the notification socket.
func (p *process) listen(t *testing.T) (path string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "ub") // t.TempDir is too long for a socket's name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path = filepath.Join(dir, "n")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		note := make([]byte, 4096)
		for {
			n, err := conn.Read(note)
			if err != nil {
				return
			}
			_, _ = fmt.Fprintf(p.notes, "%s\n", note[:n]) // a buffer
		}
	}()
	return path
}

func (p *process) signal(t *testing.T, s os.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// wait returns how the process ended.
func (p *process) wait(t *testing.T) syscall.WaitStatus {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		t.Fatal("the process did not end")
	}
	return p.cmd.ProcessState.Sys().(syscall.WaitStatus)
}

// await polls condition and fails the test with what for.
func await(t *testing.T, what string, condition func() error) {
	t.Helper()
	if err := poll(condition); err != nil {
		t.Fatalf("waiting for %s: %v", what, err)
	}
}

func (p *process) awaitNote(t *testing.T, note string) {
	t.Helper()
	await(t, "systemd to hear "+note, func() error {
		if !strings.Contains(p.notes.String(), note) {
			return fmt.Errorf("it heard %q", p.notes)
		}
		return nil
	})
}

// request inserts n requests for one follower as an app would.
func (w *world) request(t *testing.T, db *sqlx.DB, n int) {
	t.Helper()
	rows := strings.TrimSuffix(strings.Repeat(`(?, 'progress', '{"thing1":"x"}'),`, n), ",")
	args := make([]any, n)
	for i := range args {
		args[i] = w.sim.OpenID(wechatsim.StandardAppID, i)
	}
	if _, err := db.Exec(`INSERT INTO send_request (openid, template, data) VALUES `+rows,
		args...); err != nil {
		t.Fatal(err)
	}
}

func (w *world) posts() int64 { return w.sim.Calls()[wechat.EndpointSendTemplate] }

// TestSigtermDrains: messages on their way at SIGTERM are finished and settled, no other row has
// lost an attempt, the leases are free, and systemd knew of everything.
func TestSigtermDrains(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.Empty(t))
	p := w.start(t, buildBinary(t), "run", "--migrate")
	p.awaitNote(t, "READY=1\nSTATUS=1 official account, listening on "+w.listen)
	await(t, "readiness", w.ready)
	p.awaitNote(t, "WATCHDOG=1\nWATCHDOG=1") // twice: it goes on
	p.signal(t, syscall.SIGHUP)

	db := dbtest.Open(t, w.dsn)
	w.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultSlow, Path: wechat.EndpointSendTemplate,
		Delay: time.Second})
	w.request(t, db, 200)
	await(t, "messages on their way", func() error {
		if n := w.posts(); n < 10 {
			return fmt.Errorf("%d posts", n)
		}
		return nil
	})
	p.signal(t, syscall.SIGTERM)
	if status := p.wait(t); status.ExitStatus() != exitOK {
		t.Errorf("ended with %v, want exit code 0", p.err)
	}
	p.awaitNote(t, "STOPPING=1")
	if !strings.Contains(p.stderr.String(), "SIGHUP changes nothing") {
		t.Error("no word about SIGHUP in the log")
	}

	type counts struct{ Sent, Pending, Touched, Leases int64 }
	var got counts
	err := db.Get(&got, `
		SELECT COALESCE(SUM(status = 'sent'), 0) AS sent, COALESCE(SUM(status = 'pending'), 0) AS pending,
		       COALESCE(SUM(status = 'pending' AND (attempts > 0 OR lease IS NOT NULL)), 0) AS touched,
		       (SELECT COUNT(*) FROM lease WHERE expires_at > CURRENT_TIMESTAMP(3)) AS leases
		  FROM send_request`)
	if err != nil {
		t.Fatal(err)
	}
	delivered, _ := w.sim.Delivered(wechatsim.StandardAppID)
	if diff := cmp.Diff(counts{Sent: delivered, Pending: 200 - delivered}, got); diff != "" {
		t.Errorf("after the drain (-want +got):\n%s", diff)
	}
	if delivered == 0 || delivered == 200 {
		t.Errorf("%d of 200 messages delivered: the signal did not come in the middle", delivered)
	}
}

// TestSecondSignal: the drain waits for a slow answer, and a second signal does not.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.Empty(t))
	p := w.start(t, buildBinary(t), "run", "--migrate")
	await(t, "readiness", w.ready)
	w.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultSlow, Path: wechat.EndpointSendTemplate,
		Delay: time.Minute})
	w.request(t, dbtest.Open(t, w.dsn), 1)
	await(t, "a message on its way", func() error {
		if w.posts() == 0 {
			return fmt.Errorf("no post")
		}
		return nil
	})
	p.signal(t, syscall.SIGTERM)
	p.awaitNote(t, "STOPPING=1")
	await(t, "the drain to show", func() error {
		status, body, err := w.get("/readyz")
		if err == nil && (status != http.StatusServiceUnavailable ||
			!strings.Contains(body, "stopping")) {
			err = fmt.Errorf("%d %s", status, body)
		}
		return err
	})
	second := time.Now()
	p.signal(t, syscall.SIGTERM)
	if status := p.wait(t); !status.Signaled() || status.Signal() != syscall.SIGTERM {
		t.Errorf("ended with %v, want death by SIGTERM", p.err)
	}
	if took := time.Since(second); took > 2*time.Second {
		t.Errorf("the second signal took %s", took)
	}
}

// TestDatabaseComesAndGoes: a daemon outlives its database, before its start and in the middle.
func TestDatabaseComesAndGoes(t *testing.T) {
	t.Parallel()
	proxy := newProxy(t, dbtest.Empty(t))
	w := newWorld(t, proxy.dsn)
	p := w.start(t, buildBinary(t), "run", "--migrate")
	p.awaitNote(t, "STATUS=waiting for the database: ")
	if status, _, err := w.get("/healthz"); err != nil || status != http.StatusOK {
		t.Errorf("healthz while it waits: %d, %v", status, err)
	}

	proxy.start(t)
	await(t, "readiness after the first outage", w.ready)
	await(t, "the first sweep", func() error {
		return w.metric(`unionbridge_sync_runs_total{appid="` + wechatsim.StandardAppID +
			`",kind="sweep",state="done"} 1`)
	})
	proxy.stop()
	await(t, "the outage to show", func() error {
		if w.ready() == nil {
			return fmt.Errorf("still ready")
		}
		return nil
	})
	if status, _, err := w.get("/healthz"); err != nil || status != http.StatusOK {
		t.Errorf("healthz during the outage: %d, %v", status, err)
	}
	proxy.start(t)
	await(t, "readiness after the second outage", w.ready)

	w.request(t, dbtest.Open(t, proxy.dsn), 1)
	await(t, "a message after the outage", func() error {
		if n, _ := w.sim.Delivered(wechatsim.StandardAppID); n != 1 {
			return fmt.Errorf("%d messages", n)
		}
		return nil
	})
	checkMetrics(t, w)
	p.signal(t, syscall.SIGTERM)
	if status := p.wait(t); status.ExitStatus() != exitOK {
		t.Errorf("ended with %v, want exit code 0", p.err)
	}
	if n := strings.Count(p.stderr.String(), "waiting for the database"); n != 1 {
		t.Errorf("%d lines about waiting for the database, want 1", n)
	}
}

// metric fails unless /metrics has a line that begins with want.
func (w *world) metric(want string) error {
	status, body, err := w.get("/metrics")
	if err == nil && (status != http.StatusOK || !strings.Contains(body, "\n"+want)) {
		err = fmt.Errorf("/metrics answers %d without %s", status, want)
	}
	return err
}

// checkMetrics looks for a figure of each part of a daemon that has sent one message.
func checkMetrics(t *testing.T, w *world) {
	t.Helper()
	for _, want := range []string{
		`unionbridge_wechat_calls_total{appid="` + wechatsim.StandardAppID +
			`",endpoint="/cgi-bin/message/template/send",reason="ok"} 1`,
		`unionbridge_wechat_call_seconds_count{endpoint="/cgi-bin/message/template/send"} 1`,
		`unionbridge_build_info{`, `go_goroutines `, `process_resident_memory_bytes `,
		`go_sql_open_connections{db_name="unionbridge"} `,
	} {
		// WeChat has the message a moment before its answer is counted here.
		await(t, "the metric", func() error { return w.metric(want) })
	}
}

// TestListenTaken: a taken port ends the start before anything else is touched.
func TestListenTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "")
	listener, err := net.Listen("tcp", w.listen)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	got := do(t.Context(), "", "-c", w.writeConfig(t, w.dir), "run")
	if got.code != exitFailed || !strings.Contains(got.stderr,
		"unionbridge: listening (http.listen): ") {
		t.Errorf("exit code %d and %q, want 1 and the address", got.code, got.stderr)
	}
	if strings.Contains(got.stderr, "database") {
		t.Errorf("the database was asked before the port: %q", got.stderr)
	}
}
