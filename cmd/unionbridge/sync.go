package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	gosync "sync"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sync"
)

func (c *cli) syncCommand() *cobra.Command {
	var appids []string
	var acceptGone int64
	cmd := &cobra.Command{
		Use:   "sync",
		Short: "Sweep the follower lists now, and show the progress",
		Long: `Compare WeChat's whole follower list with the map now, as the daemon does on its schedule.
It may run beside the daemon: only one of them sweeps an account at a time.

The progress goes to standard error, a summary line for each account to standard output.
Interrupted by Ctrl-C nothing is lost: what was stored stays, and nobody is marked as gone.
The next sweep resumes where this one stopped.

A sweep that would mark more followers as gone than max_gone allows marks nobody and is
blocked. If they really left, --accept-gone RUN sweeps that run's account once more and
allows as many as RUN has missed, and 100 more, as people go on leaving. Each of them is
checked first, as always. The error message and "unionbridge status" name RUN.`,
		Args: cobra.NoArgs,
	}
	cmd.RunE = c.work(func(cmd *cobra.Command, _ []string) error {
		if cmd.Flags().Changed("accept-gone") && acceptGone <= 0 {
			return usageError("--accept-gone %d: the number of a run is above 0", acceptGone)
		}
		return c.sync(cmd.Context(), appids, acceptGone)
	})
	cmd.Flags().Int64Var(&acceptGone, "accept-gone", 0,
		"confirm the blocked `run`: its missing followers really left")
	cmd.Flags().StringArrayVar(&appids, "account", nil,
		"`appid` of an official account to sweep; repeatable; default: all")
	cmd.MarkFlagsMutuallyExclusive("account", "accept-gone") // the run names its account
	return cmd
}

// sync sweeps accounts, or that of the blocked run acceptGone if it is not 0.
func (c *cli) sync(ctx context.Context, appids []string, acceptGone int64) error {
	if err := c.loadConfig(); err != nil {
		return err
	}
	accounts, err := officialAccounts(c.cfg, appids)
	if err != nil {
		return err
	}
	screen := newProgress(c.stderr, time.Now)
	needs := access{check: database.CheckSchema, log: screen}
	return c.withDatabase(ctx, needs, func(db *sqlx.DB) (err error) {
		p := newParts(c.cfg, commandLogger(c.cfg.Log, screen), prometheus.NewRegistry(), db)
		if err := database.AnnounceInstance(ctx, db, p.holder); err != nil {
			return databaseError(err)
		}
		// A signal ends the sweep first, and then its lease.
		detached := context.WithoutCancel(ctx)
		leasing := startTask(detached, p.renewLeases)
		defer func() { _ = leasing.stop(detached) }() // it waits without a limit
		// It sends nothing, and releases the requests that wait for those whom the sweep finds.
		sending, err := p.sender()
		if err != nil {
			return err
		}
		service := p.sync(sending)
		if acceptGone > 0 {
			run, err := service.AcceptGone(ctx, acceptGone, screen.show)
			screen.end()
			return c.swept(ctx, run, err)
		}
		for _, account := range accounts {
			run, failure := service.Sweep(ctx, account.AppID, screen.show)
			screen.end()
			// The other accounts have nothing to do with this one's failure.
			err = errors.Join(err, c.swept(ctx, run, failure))
			if ctx.Err() != nil {
				return err
			}
		}
		return err
	})
}

// swept prints what a sweep did, and says what its error means here.
func (c *cli) swept(ctx context.Context, run sync.Run, err error) error {
	if run.ID == 0 { // nothing has begun: ErrBusy, or a run that cannot be accepted
		return err
	}
	if err := printLine(c.stdout, summary(accountName(c.cfg, run.AppID), run)); err != nil {
		return err
	}
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return exitError{exitInterrupted, errInterrupted}
	}
	return fmt.Errorf("sweeping %s: %w", run.AppID, err)
}

func accountName(cfg *config.Config, appid string) string {
	for _, a := range cfg.OfficialAccounts {
		if a.AppID == appid && a.Name != appid {
			return appid + " " + a.Name
		}
	}
	return appid
}

func summary(name string, run sync.Run) string {
	line := fmt.Sprintf("%s: %s: %d listed, %d added, %d changed, %d gone, %d calls, %.1f seconds",
		name, run.State, run.Listed, run.Added, run.Changed, run.Gone, totalCalls(run),
		run.Ended.Sub(run.Started).Seconds())
	if run.State == sync.StateSuspended {
		line += "; out of quota, a running daemon resumes it at " +
			run.ResumeAt.Local().Format(time.RFC3339)
	}
	return line
}

func totalCalls(run sync.Run) int64 {
	var n int64
	for _, calls := range run.Calls {
		n += calls
	}
	return n
}

const (
	// plainEvery is the pace of lines where no terminal is: logs of cron and CI stay readable.
	plainEvery = 5 * time.Second
	// drawEvery is below the pace of the sweep's own reports: each of them draws once, though
	// several changes of the bar make it up.
	drawEvery = 100 * time.Millisecond
	// barColumns is what a bar with its words needs; on a narrower terminal each drawing of it
	// would take a new line.
	barColumns = 100
)

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
	columns  func() int    // of the terminal

	mu gosync.Mutex
	// of the present phase; nil between phases and without a terminal
	bar     *progressbar.ProgressBar
	phase   string
	entered sync.Progress // the first look at the present phase
	said    time.Time     // when the last plain line was written
	drawn   bool          // a line instead of the bar is on the terminal
}

func newProgress(out io.Writer, now func() time.Time) *progress {
	f, ok := out.(*os.File)
	terminal := ok && term.IsTerminal(int(f.Fd()))
	columns := func() int {
		width, _, err := term.GetSize(int(f.Fd()))
		if err != nil {
			return barColumns
		}
		return width
	}
	return &progress{out: out, terminal: terminal, now: now, throttle: drawEvery, columns: columns}
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
	if p.drawn {
		_, _ = io.WriteString(p.out, eraseLine)
		p.drawn = false
	}
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

const eraseLine = "\r\x1b[K"

// drawNarrow shows as much as fits on one line of a narrow terminal, without the appid.
func (p *progress) drawNarrow(now sync.Progress, columns int) {
	if p.bar != nil { // the terminal was wider
		p.clear()
		p.bar = nil
	}
	line := strings.TrimPrefix(p.plain(now), now.AppID+": ")
	// One column stays free: a terminal goes to the next line when the last one is written.
	for len(line) >= columns && line != "" { // by parts: half a number is another number
		line = line[:max(strings.LastIndex(line, ", "), 0)]
	}
	_, _ = io.WriteString(p.out, eraseLine+line) // as in clear
	p.drawn = true
}

// draw moves the bar. Each phase has its own, with its rate and remaining time.
func (p *progress) draw(now sync.Progress, changed bool) {
	if columns := p.columns(); columns < barColumns {
		p.drawNarrow(now, columns)
		return
	}
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
