package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

// game is what all rounds share.
type game struct {
	options
	binary string
	dsn    string // of the server that is not hurt
}

// play plays one round and judges it. An error means that nothing could be judged.
func (g *game) play(ctx context.Context, r round, seed uint64) (_ result, err error) {
	s, err := stage.New("ub-chaos-")
	if err != nil {
		return result{}, err
	}
	s.Binary = g.binary
	w := &world{options: g.options, round: r, seed: seed, rnd: rand.New(rand.NewPCG(seed, 0)), stage: s}
	defer func() { err = errors.Join(err, w.close()) }()
	begin := time.Now()
	if err := w.build(ctx, g.dsn); err != nil {
		return result{}, fmt.Errorf("setting the scene of %s: %w", r.name, err)
	}
	if err := r.trouble(ctx, w); err != nil {
		return result{}, fmt.Errorf("making trouble in %s: %w%s", r.name, err, w.logs())
	}
	healed := time.Now()
	if err := w.heal(ctx); err != nil {
		return result{}, fmt.Errorf("healing %s: %w%s", r.name, err, w.logs())
	}
	e, err := w.collect(ctx)
	if err != nil {
		return result{}, err
	}
	v := judge(e)
	if err := w.addWorldly(ctx, &v); err != nil {
		return result{}, err
	}
	result := w.result(v)
	result.Started, result.Seconds = begin.UTC(), time.Since(begin).Seconds()
	result.HealSeconds = time.Since(healed).Seconds()
	if len(v.violations) > 0 {
		result.Evidence = w.keepLogs(g.keep)
	}
	return result, nil
}

// addWorldly adds what no request tells: daemons that ended by themselves, a wrong map, leaked secrets.
func (w *world) addWorldly(ctx context.Context, v *verdict) error {
	wrong, err := w.wrongMap(ctx)
	if err != nil {
		return err
	}
	if wrong > 0 {
		v.violations = append(v.violations, violation{text: fmt.Sprintf("%d people are wrong in the map", wrong)})
	}
	for _, text := range w.outcome.wrong {
		v.violations = append(v.violations, violation{text: text})
	}
	for _, d := range w.daemons {
		for _, life := range d.unplanned() {
			v.violations = append(v.violations, violation{text: "a daemon ended by itself: " + life})
		}
	}
	for _, p := range w.producers {
		p.failures.Range(func(text, _ any) bool {
			if !expected().MatchString(text.(string)) {
				v.violations = append(v.violations, violation{text: fmt.Sprint("a producer was refused: ", text)})
			}
			return true
		})
	}
	return nil
}

// expected are the refusals that a producer may get in this trouble: deadlocks and lock waits, which he
// repeats, and a server that is just stopping or has no room.
func expected() *regexp.Regexp {
	return regexp.MustCompile(`^Error (1205|1213|1053|1927|1021|1114|3|28|1040|1129|1158|1159|1160|1161)\b`)
}

func (w *world) logs() string {
	var b strings.Builder
	for _, d := range w.daemons {
		fmt.Fprintf(&b, "\n---- the end of the log of daemon %s\n%s", d.name, w.stage.LogTail(d.logName()))
	}
	return b.String()
}

// keepLogs copies the daemons' logs to a folder and returns its name; empty: there is none to keep them in.
func (w *world) keepLogs(dir string) string {
	if dir == "" {
		return ""
	}
	dir = filepath.Join(dir, fmt.Sprintf("%s-%d", w.round.name, w.seed))
	if os.MkdirAll(dir, 0o700) != nil {
		return ""
	}
	for _, d := range w.daemons {
		text, err := os.ReadFile(w.stage.Path(d.logName()))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, d.logName()), text, 0o600)
		}
		if err != nil {
			return ""
		}
	}
	return dir
}

// result turns the verdict into what is reported.
func (w *world) result(v verdict) result {
	r := result{
		Round: w.round.name, Seed: w.seed, Kills: w.outcome.kills, Flying: w.outcome.flying,
		Rows: v.rows, Committed: v.committed + v.lost, Unconfirmed: v.unconfirmed,
		Sent: v.status["sent"], Failed: v.status["failed"], Expired: v.status["expired"], Cancelled: v.status["cancelled"],
		Unknown: v.status["unknown"], Open: v.status["pending"] + v.status["waiting"],
		Posts: v.posts, Repeats: v.repeats, Lost: v.lost, Twice: v.twice,
		Window: w.window.String(), Repeat: string(w.repeat), Acts: w.outcome.acts, Slowest: v.slowest,
	}
	for _, took := range w.outcome.takeovers {
		r.Takeovers = append(r.Takeovers, took.Seconds())
	}
	for _, violation := range v.violations {
		r.Violations = append(r.Violations, strings.TrimSpace(violation.order+" "+violation.text))
		r.stories = append(r.stories, violation.story)
	}
	return r
}
