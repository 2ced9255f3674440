package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/checker"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

func (o *options) play(t *harness.T, k kind, seed uint64) (r result, err error) {
	var logs string
	err = harness.Try(t.Context(), t.Screen, func(t *harness.T) {
		c := &cluster{T: t, options: o, kind: k, seed: seed, rnd: rand.New(rand.NewPCG(seed, 0))}
		defer func() { logs = c.logs() }()
		begin := time.Now()
		c.build()
		k.nemesis(c)
		healed := time.Now()
		c.heal()
		if k.verify != nil {
			k.verify(c)
		}
		v := checker.Check(c.history())
		c.addGlobal(&v)
		c.sumUp(v)
		r = c.result
		r.Started, r.Seconds = begin.UTC(), time.Since(begin).Seconds()
		r.HealSeconds = time.Since(healed).Seconds()
	})
	if err != nil {
		err = fmt.Errorf("%w%s", err, logs)
	}
	return r, err
}

func (c *cluster) history() checker.History {
	h := checker.History{
		Requests: map[string]checker.Request{},
		Messages: c.messages(), Posts: c.platform.allPosts(),
		Rows:   checker.ReadRows(c.db, "send_request"),
		NewIDs: c.repeat == wechatsim.RepeatNewID,
	}
	h.Rows = slices.DeleteFunc(h.Rows, func(r checker.Row) bool {
		return strings.HasPrefix(r.Order, miniOrder) // see miniRows
	})
	for _, p := range c.producers {
		for _, r := range p.records {
			r.Note = fmt.Sprintf("key=%q recipient=%s standing=%s priority=%d expires=%s way=%+v",
				r.key, r.recipient, r.standing, r.priority, r.expires, r.way)
			h.Requests[r.Order] = r.Request
		}
	}
	if !c.kind.jumps {
		h.Times = &checker.Times{
			Window: c.settings.ResendWindow, Slack: postLasts + c.frozen,
			Overdue: 15*time.Second + c.frozen,
		}
		if c.kind.quick {
			h.Times.Overdue = 5 * time.Second
		}
	}
	if c.mini != nil {
		c.mini.addHistory(&h)
		return h
	}
	if c.callbacks {
		_, givenUp := c.platform.Pushes()
		h.AllReceipts = givenUp == 0
		c.db.FetchAll(&h.Receipts, `SELECT msgid, openid FROM send_receipt WHERE appid = ?`,
			harness.AppID)
	}
	return h
}

// addGlobal adds what no request shows: daemons that ended, a wrong map, refusals, late takeovers.
func (c *cluster) addGlobal(v *checker.Verdict) {
	violate := func(format string, args ...any) {
		violation := checker.Violation{Text: fmt.Sprintf(format, args...)}
		v.Violations = append(v.Violations, violation)
	}
	f := checker.CompareMap(c.T, c.db, harness.AppID, c.platform)
	if f.Misattributed > 0 {
		violate("%d people are wrong in the map", f.Misattributed)
	}
	if c.mini != nil {
		c.wrong = append(c.wrong, c.mini.check()...)
	}
	for _, text := range c.wrong {
		violate("%s", text)
	}
	for _, d := range c.daemons {
		d.alive()
		for _, life := range d.ended {
			violate("a daemon ended unexpectedly: %s", life)
		}
	}
	for _, p := range c.producers {
		p.refusals.Range(func(text, _ any) bool {
			if !expectedRefusal.MatchString(text.(string)) {
				violate("a producer was refused: %s", text)
			}
			return true
		})
	}
}

// expectedRefusal is what a producer may be told amid these faults: deadlocks and lock waits, after
// which it repeats, and a server that is just stopping or has no room.
var expectedRefusal = regexp.MustCompile(
	`^Error (1205|1213|1053|1927|1021|1114|3|28|1040|1129|1158|1159|1160|1161)\b`)

func (c *cluster) logs() string {
	var b strings.Builder
	for _, d := range c.daemons {
		fmt.Fprintf(&b, "\n---- the end of the log of %s\n%s", d.Name, d.LogTail())
	}
	return b.String()
}

// keepLogs copies the daemons' logs to a folder and returns its name; empty: there is none to keep
// them in.
func (c *cluster) keepLogs() string {
	if c.keep == "" {
		return ""
	}
	dir := filepath.Join(c.keep, fmt.Sprintf("%s-%d", c.kind.name, c.seed))
	c.Check(os.MkdirAll(dir, 0o700))
	for _, d := range c.daemons {
		name := d.Name + ".log"
		text, err := os.ReadFile(c.Path(name))
		c.Check(err)
		c.Check(os.WriteFile(filepath.Join(dir, name), text, 0o600))
	}
	return dir
}

func (c *cluster) sumUp(v checker.Verdict) {
	r := &c.result
	r.Round, r.Seed, r.Repeat = c.kind.name, c.seed, string(c.repeat)
	r.Window = c.settings.ResendWindow.String()
	r.Committed, r.Unconfirmed = v.Committed+v.Lost, v.Unconfirmed
	r.Sent, r.Failed, r.Expired = v.Status["sent"], v.Status["failed"], v.Status["expired"]
	r.Cancelled, r.Unknown = v.Status["cancelled"], v.Status["unknown"]
	r.Open = v.Status["pending"] + v.Status["waiting"]
	for _, n := range v.Status {
		r.Rows += n
	}
	r.Posts, r.Repeats = len(c.platform.allPosts()), v.Repeats
	r.Lost, r.Twice, r.Slowest = v.Lost, v.Twice, v.Slowest
	for _, violation := range v.Violations {
		r.Violations = append(r.Violations, violation.String())
		r.stories = append(r.stories, violation.Story)
	}
	if len(v.Violations) > 0 {
		r.Evidence = c.keepLogs()
	}
}
