package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

// Every kind of round once. The rounds that need no server of their own are played on the tests' server, the
// others on private ones, which are stopped, killed and set wrong.
func TestEveryRoundOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes")
	}
	dbtest.Empty(t) // skips, or fails in CI, where there is no server
	o, err := parse([]string{"-short", "-dsn", os.Getenv(dbtest.Variable), "-parallel", "6", "-callbacks"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	// Other packages' tests run beside this one; the promise of 15 s is for a machine that has time.
	o.takeover = 25 * time.Second
	var out bytes.Buffer
	kept, err := perform(t.Context(), o, stage.NewScreen(&out, time.Now))
	t.Logf("%s", out.String())
	if err != nil {
		t.Fatal(err)
	}
	if !kept {
		t.Error("a promise was broken")
	}
}

func TestParse(t *testing.T) {
	o, err := parse([]string{"-short", "-only", "kill|clock", "-seed", "7"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range o.chosen() {
		names = append(names, r.name)
	}
	if diff := cmp.Diff([]any{[]string{"clock", "kill"}, uint64(7), 12, 12 * time.Second}, []any{sorted(names), o.seed, o.kills, o.length}); diff != "" {
		t.Error(diff)
	}
	for _, args := range [][]string{{"-only", "["}, {"-only", "nothing"}, {"-kills", "0"}, {"-length", "1ms"}, {"-parallel", "0"}, {"word"}, {"-nonsense"}} {
		if _, err := parse(args, io.Discard); err == nil || errors.Is(err, flag.ErrHelp) {
			t.Errorf("parse(%q) = %v", args, err)
		}
	}
}

func sorted(names []string) []string {
	slices.Sort(names)
	return names
}

// A link loses, delays and comes back; a toxic that is stuck does not keep it from healing.
func TestLink(t *testing.T) {
	upstream := echo(t)
	n := newNetwork()
	t.Cleanup(func() { _ = n.close() })
	l, err := n.add("test", upstream)
	if err != nil {
		t.Fatal(err)
	}
	if err := say(t, l.addr); err != nil {
		t.Fatalf("a good link: %v", err)
	}
	for name, spoil := range map[string]func() error{
		"mute":  func() error { return l.poison(mute()) },
		"deaf":  func() error { return l.poison(deaf()) },
		"reset": func() error { return l.poison(toxic{"reset_peer", "downstream", `"timeout": 0`, ""}) },
		"half":  func() error { return l.poison(toxic{"limit_data", "upstream", `"bytes": 2`, ""}) },
		"cut":   func() error { l.cut(); return nil },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if err := say(t, l.addr); err == nil {
			t.Errorf("%s: the link is as good as ever", name)
		}
		if err := n.healAll(); err != nil {
			t.Fatal(err)
		}
		if err := say(t, l.addr); err != nil {
			t.Errorf("%s: healed, but %v", name, err)
		}
	}
}

func echo(t *testing.T) (addr string) {
	t.Helper()
	var lc net.ListenConfig
	listener, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(conn, conn); _ = conn.Close() }()
		}
	}()
	return listener.Addr().String()
}

// say sends a word to the echo and waits, not long, for it to come back.
func say(t *testing.T, addr string) error {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "hello"); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 5))
	return err
}

func TestPostsAreNoted(t *testing.T) {
	p := &platform{}
	now := time.Now()
	p.note([]byte(`{"touser":"o","client_msg_id":"c","data":{"character_string4":{"value":"C1-2"}}}`), "a", now)
	p.note([]byte(`{"touser":"o"`), "b", now.Add(time.Second))
	want := []post{{"C1-2", "c", "a", now}, {"", "", "b", now.Add(time.Second)}}
	if diff := cmp.Diff(want, p.allPosts(), cmp.AllowUnexported(post{})); diff != "" {
		t.Error(diff)
	}
	anybody := func(string) bool { return true }
	if at, ok := p.firstPost(now.Add(-time.Millisecond), anybody); !ok || !at.Equal(now) {
		t.Errorf("the first post arrived at %v, %t", at, ok)
	}
	if at, ok := p.firstPost(now.Add(-time.Millisecond), func(daemon string) bool { return daemon == "b" }); !ok || !at.Equal(now.Add(time.Second)) {
		t.Errorf("the first post of b arrived at %v, %t", at, ok)
	}
	if at, ok := p.firstPost(now.Add(time.Second), anybody); ok {
		t.Errorf("a post after the last one: %v", at)
	}
}

func TestResultsFileAndReport(t *testing.T) {
	path := filepath.Join(t.TempDir(), "results.json")
	saved := []result{
		{Round: "kill", Kills: 12, Rows: 1500, Sent: 1400, Unknown: 5, Repeats: 20},
		{Round: "kill", Kills: 1000, Rows: 1500, Sent: 1400, Violations: []string{"x"}, Twice: 1},
		{Round: "leader", Kills: 1, Rows: 10, Sent: 10, Takeovers: []float64{9.8, 12.34}},
	}
	for _, r := range saved {
		if err := r.save(path); err != nil {
			t.Fatal(err)
		}
	}
	results, err := load(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(saved, results, cmp.AllowUnexported(result{})); diff != "" {
		t.Error(diff)
	}
	var out strings.Builder
	markdown(results, &out)
	for _, line := range []string{
		"| kill: kill -9 of the daemon, restarted at once | 2 | 1,012 | 3,000 | 2,800 | 5 | 20 | 0 | 1 | – | 1 |",
		"| 1 | 1 | 10 | 10 | 0 | 0 | 0 | 0 | 12.3 s of 2 | 0 |",
		"| **all rounds** | 3 | 1,013 | 3,010 | 2,810 | 5 | 20 | 0 | 1 | 12.3 s of 2 | 1 |",
	} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("%q is missing in\n%s", line, out.String())
		}
	}
}

func TestPollEndsWithItsTime(t *testing.T) {
	err := poll(t.Context(), time.Millisecond, func(context.Context) (bool, error) { return false, nil })
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("poll() = %v, want a word on how long it has waited", err)
	}
}

// What producers may be told in this trouble, and what would be a finding.
func TestExpectedRefusals(t *testing.T) {
	for text, want := range map[string]bool{
		"Error 1213 (40001): Deadlock found":           true,
		"Error 1205 (HY000): Lock wait timeout":        true,
		"Error 1053 (08S01): Server shutdown":          true,
		"Error 1054 (42S22): Unknown column":           false,
		"Error 1265 (01000): Data truncated":           false,
		"Error 12051 (HY000): a number that is longer": false,
	} {
		if got := expected().MatchString(text); got != want {
			t.Errorf("%q: expected = %t", text, got)
		}
	}
}
