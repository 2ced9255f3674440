package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	gosync "sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/unionbridge/unionbridge/sync"
)

// plainEvery is the pace of progress lines where no terminal is: logs of cron and CI stay readable.
const plainEvery = 5 * time.Second

func phaseWords(phase string) string {
	words := map[string]string{
		"list": "listing", "compare": "comparing", "gone": "checking who left",
	}
	return cmp.Or(words[phase], phase)
}

// progress shows how sweeps go: a bar on a terminal, a line now and then elsewhere. It is an
// io.Writer for log lines, which push the bar aside. Safe for concurrent use.
type progress struct {
	out      io.Writer
	terminal bool
	now      func() time.Time
	throttle time.Duration // of the bar's drawings

	mu gosync.Mutex
	// of the present phase; nil between phases and without a terminal
	bar     *progressbar.ProgressBar
	phase   string
	entered sync.Progress // the first look at the present phase
	said    time.Time     // when the last plain line was written
}

func newProgress(out io.Writer, now func() time.Time) *progress {
	f, ok := out.(*os.File)
	terminal := ok && term.IsTerminal(int(f.Fd()))
	return &progress{out: out, terminal: terminal, now: now, throttle: drawEvery}
}

// end is called after each sweep. It takes the bar away: the summary says it all.
func (p *progress) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	p.bar, p.phase = nil, ""
}

// Write passes a log line on to where the progress is shown.
func (p *progress) Write(line []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	return p.out.Write(line)
}

func (p *progress) clear() {
	if p.bar != nil {
		_ = p.bar.Clear() // a terminal that cannot be written to has nobody before it
	}
}

// show is what a sweep calls a few times a second.
func (p *progress) show(now sync.Progress) {
	if now.Phase == "" {
		return // nothing has begun, or it failed before it could
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	changed := now.Phase != p.phase
	p.phase = now.Phase
	if changed {
		p.entered = now
	}
	if p.terminal {
		p.draw(now, changed)
		return
	}
	if changed || p.now().Sub(p.said) >= plainEvery {
		p.said = p.now()
		_, _ = fmt.Fprintln(p.out, p.plain(now)) // progress is not worth failing for
	}
}

func (p *progress) plain(now sync.Progress) string {
	of := ""
	if now.Of > 0 {
		of = fmt.Sprintf(" of %d", now.Of)
	}
	return fmt.Sprintf("%s: %s: %d%s%s, %d calls, %.0f seconds", now.AppID, phaseWords(now.Phase),
		now.Done, of, p.pace(now), totalCalls(now.Run), now.Elapsed.Seconds())
}

// pace is the phase's rate so far and, where its end is known, the time that is left at that rate.
// What a resumed run had done before does not count.
func (p *progress) pace(now sync.Progress) string {
	done, took := now.Done-p.entered.Done, now.Elapsed-p.entered.Elapsed
	if done <= 0 || took <= 0 {
		return ""
	}
	rate := float64(done) / took.Seconds()
	words := fmt.Sprintf(", %.0f/s", rate)
	if left := now.Of - now.Done; left > 0 {
		words += fmt.Sprintf(", %.0f seconds left", float64(left)/rate)
	}
	return words
}

// drawEvery is below the pace of the sweep's own reports: each of them draws once, though several
// changes of the bar make it up.
const drawEvery = 100 * time.Millisecond

// draw moves the bar. Each phase has its own, with its rate and remaining time.
func (p *progress) draw(now sync.Progress, changed bool) {
	words := fmt.Sprintf("%s %s, %d calls", now.AppID, phaseWords(now.Phase), totalCalls(now.Run))
	if changed || p.bar == nil {
		p.clear()
		p.bar = progressbar.NewOptions64(barLength(now), progressbar.OptionSetDescription(words),
			progressbar.OptionSetWriter(p.out), progressbar.OptionShowCount(),
			progressbar.OptionShowIts(), progressbar.OptionSetItsString("people"),
			progressbar.OptionSetPredictTime(true), progressbar.OptionSetElapsedTime(true),
			// Or a goroutine of the bar's own, which nobody ends, draws between our lines.
			progressbar.OptionSetSpinnerChangeInterval(0),
			progressbar.OptionFullWidth(), progressbar.OptionUseANSICodes(true),
			progressbar.OptionThrottle(p.throttle), progressbar.OptionSetRenderBlankState(true))
		return // what is done by now was not done in no time: the rate begins with the next look
	}
	_ = p.bar.Set64(now.Done) // as in clear
	p.bar.Describe(words)
	if length := barLength(now); length != p.bar.GetMax64() {
		p.bar.ChangeMax64(length)
	}
}

// barLength is what a phase has to do; -1: not known. WeChat's total moves while the list is read,
// and may be smaller than what has come.
func barLength(now sync.Progress) int64 {
	if now.Of <= 0 {
		return -1
	}
	return max(now.Of, now.Done)
}
