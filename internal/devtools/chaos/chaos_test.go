package main

import (
	"bytes"
	"errors"
	"flag"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/devtools/checker"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
)

// Every kind of round once. The rounds that need no server of their own are played on the tests' server, the
// others on private ones, which are stopped, killed and set wrong.
func TestEveryRoundOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes")
	}
	dbtest.Empty(t) // skips, or fails in CI, where there is no server
	o := parse(t, "-short", "-dsn", os.Getenv(dbtest.Variable), "-parallel", "6", "-callbacks")
	// Other packages' tests run beside this one; the promise of 15 s is for a machine that has time.
	o.takeover = 25 * time.Second
	var out bytes.Buffer
	err := harness.Try(t.Context(), harness.NewScreen(&out, time.Now), o.run)
	t.Logf("%s", out.String())
	if errors.Is(err, harness.Failed) {
		t.Error("a promise was broken")
	} else if err != nil {
		t.Fatal(err)
	}
}

func parse(t *testing.T, args ...string) *options {
	t.Helper()
	o := &options{}
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	check := o.define(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	if err := check(); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestFlags(t *testing.T) {
	o := parse(t, "-short", "-only", "kill|clock", "-seed", "7")
	var names []string
	for _, k := range o.chosen() {
		names = append(names, k.name)
	}
	slices.Sort(names)
	want := []any{[]string{"clock", "kill"}, uint64(7), 12, 12 * time.Second}
	if diff := cmp.Diff(want, []any{names, o.seed, o.kills, o.length}); diff != "" {
		t.Error(diff)
	}
	for _, args := range [][]string{
		{"-only", "["}, {"-only", "nothing"}, {"-kills", "0"}, {"-length", "1ms"}, {"-parallel", "0"}, {"word"}, {"-nonsense"},
	} {
		var out, errs bytes.Buffer
		if code := program(&options{}).Execute(t.Context(), args, &out, &errs); code != 2 || errs.Len() == 0 {
			t.Errorf("Execute(%q) = %d, said %q", args, code, errs.String())
		}
	}
}

// Twenty rounds restart the daemon on both sides of the window's end, each at another distance.
func TestRestartsAroundTheWindow(t *testing.T) {
	o := parse(t)
	answer := o.span().answer
	for seed := range uint64(20) {
		c := &cluster{options: o, seed: 1795242103940 + seed, rnd: rand.New(rand.NewPCG(seed, 0))}
		from := float64(14*seed)/20 - 13
		got := float64(c.restartOffset(o.span())) / float64(answer)
		if got < from || got >= from+0.7 {
			t.Errorf("seed %d: %.2f answers from the window's end, want %.2f to %.2f", c.seed, got,
				from, from+0.7)
		}
	}
	if o.real = true; o.span().window != time.Duration(config.MaxResendWindow) {
		t.Errorf("the real length is %s, the configuration allows %s", o.span().window,
			config.MaxResendWindow)
	}
}

func TestPostsAreNoted(t *testing.T) {
	p := &platform{}
	now := time.Now()
	p.note([]byte(`{"touser":"o","client_msg_id":"c","data":{"character_string4":{"value":"C1-2"}}}`), checker.Post{From: "a", At: now})
	p.note([]byte(`{"touser":"o"`), checker.Post{From: "b", At: now.Add(time.Second)})
	want := []checker.Post{
		{Order: "C1-2", ClientMsgID: "c", From: "a", At: now}, {From: "b", At: now.Add(time.Second)},
	}
	if diff := cmp.Diff(want, p.allPosts()); diff != "" {
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
	table := markdown(results)
	for _, line := range []string{
		"| kill: kill -9 of the daemon, restarted at once | 2 | 1,012 | 3,000 | 2,800 | 5 | 20 | 0 | 1 | – | 1 |",
		"| 1 | 1 | 10 | 10 | 0 | 0 | 0 | 0 | 12.3 s of 2 | 0 |",
		"| **all rounds** | 3 | 1,013 | 3,010 | 2,810 | 5 | 20 | 0 | 1 | 12.3 s of 2 | 1 |",
	} {
		if !strings.Contains(table, line) {
			t.Errorf("%q is missing in\n%s", line, table)
		}
	}
}

// What producers may be told amid these faults, and what would be a finding.
func TestExpectedRefusals(t *testing.T) {
	for text, want := range map[string]bool{
		"Error 1213 (40001): Deadlock found":           true,
		"Error 1205 (HY000): Lock wait timeout":        true,
		"Error 1053 (08S01): Server shutdown":          true,
		"Error 1054 (42S22): Unknown column":           false,
		"Error 1265 (01000): Data truncated":           false,
		"Error 12051 (HY000): a number that is longer": false,
	} {
		if got := expectedRefusal.MatchString(text); got != want {
			t.Errorf("%q: expected = %t", text, got)
		}
	}
}
