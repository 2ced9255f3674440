package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/sync"
)

// at is a look at a sweep.
func at(phase string, done, of int64, seconds int) sync.Progress {
	return sync.Progress{
		Run: sync.Run{AppID: "wx1", Calls: map[string]int64{"/cgi-bin/user/get": int64(seconds),
			"/cgi-bin/user/info/batchget": 2}},
		Phase: phase, Done: done, Of: of, Elapsed: time.Duration(seconds) * time.Second,
	}
}

// TestPlainProgress: without a terminal one line for each phase, and one every five seconds.
func TestPlainProgress(t *testing.T) {
	var out bytes.Buffer
	clock := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	p := newProgress(&out, func() time.Time { return clock })
	p.show(at("", 0, 0, 0)) // before anything has begun
	for second := range 13 {
		p.show(at("list", int64(second)*1000, 20_000, second))
		clock = clock.Add(time.Second)
	}
	p.show(at("compare", 0, 12_000, 13))
	p.show(at("gone", 3, 0, 13))
	p.end()
	// The next account's phase is another one, whatever its name.
	p.show(at("gone", 0, 900, 0))
	clock = clock.Add(plainEvery)
	p.show(at("gone", 900, 900, 9))
	p.end()

	want := `wx1: listing: 0 of 20000, 2 calls, 0 seconds
wx1: listing: 5000 of 20000, 1000/s, 15 seconds left, 7 calls, 5 seconds
wx1: listing: 10000 of 20000, 1000/s, 10 seconds left, 12 calls, 10 seconds
wx1: comparing: 0 of 12000, 15 calls, 13 seconds
wx1: checking who left: 3, 15 calls, 13 seconds
wx1: checking who left: 0 of 900, 2 calls, 0 seconds
wx1: checking who left: 900 of 900, 100/s, 11 calls, 9 seconds
`
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("progress (-want +got):\n%s", diff)
	}
}

// TestNarrowBar: at 40 columns the progress stays on one line, which a log line pushes aside.
func TestNarrowBar(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, time.Now)
	p.terminal, p.columns = true, func() int { return 40 }
	p.show(at("list", 0, 10_000_000, 0))
	p.show(at("list", 5_000_000, 10_000_000, 5000))
	if _, err := p.Write([]byte("a log line\n")); err != nil {
		t.Fatal(err)
	}
	p.show(at("gone", 7, 0, 5001))
	p.end()
	want := eraseLine + "listing: 0 of 10000000, 2 calls" +
		eraseLine + "listing: 5000000 of 10000000, 1000/s" + eraseLine + "a log line\n" +
		eraseLine + "checking who left: 7, 5003 calls" + eraseLine
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("terminal (-want +got):\n%s", diff)
	}
}

// TestBar: on a terminal count, phase and calls stand on one line, which a log line pushes aside.
func TestBar(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out, time.Now)
	p.terminal, p.throttle, p.columns = true, 0, func() int { return barColumns }
	p.show(at("list", 0, 0, 0)) // WeChat's total is not known yet
	p.show(at("list", 5000, 20_000, 5))
	p.show(at("list", 21_000, 20_000, 6)) // more came than WeChat announced
	if _, err := p.Write([]byte("a log line\n")); err != nil {
		t.Fatal(err)
	}
	p.show(at("compare", 0, 21_000, 7))
	p.show(at("compare", 10_000, 21_000, 8))
	p.end()

	lines := strings.FieldsFunc(out.String(), func(r rune) bool { return r == '\r' || r == '\n' })
	for _, want := range []string{"wx1 listing, 7 calls", "5000/20000", "21000/21000", "a log line",
		"wx1 comparing, 10 calls", "10000/21000"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the terminal never shows %q", want)
		}
	}
	for _, line := range lines {
		if strings.Contains(line, "a log line") && strings.Contains(line, "wx1") {
			t.Errorf("bar and log line share a line: %q", line)
		}
	}
	if strings.Count(out.String(), "\n") != 1 { // the log line's
		t.Errorf("the bar leaves lines behind: %q", out.String())
	}
}
