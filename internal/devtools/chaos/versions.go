package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/devtools/checker"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
)

// previousCommit is the last state with the schema before the second channel's: three migrations.
const previousCommit = "b6ecf89"

// noPrevious says why the older program cannot be built here: an archive of the sources has no
// history, a shallow clone not all of it.
func noPrevious(t *harness.T) error {
	if _, err := exec.LookPath("git"); err != nil {
		return errors.New("there is no git to take the older program's sources from; give -previous")
	}
	//nolint:gosec // a constant
	git := exec.CommandContext(t.Context(), "git", "cat-file", "-e", previousCommit+"^{commit}")
	if err := git.Run(); err != nil {
		return errors.New("this checkout does not have the commit " + previousCommit + "; in a " +
			"shallow clone `git fetch --unshallow` brings it, or give -previous")
	}
	return nil
}

// preparePrevious builds the older program from the repository's history, if a kind needs it.
func (o *options) preparePrevious(t *harness.T, list []kind) {
	needs := func(k kind) bool { return k.previous }
	if o.previous != "" || !slices.ContainsFunc(list, needs) {
		return
	}
	t.Status("building %s", previousCommit)
	run := func(path string, args ...string) string {
		out, err := t.Output(harness.Command{Path: path, Args: args})
		t.Checkf(err, "building %s", previousCommit)
		return strings.TrimSpace(out)
	}
	sources, archive := t.Path("previous"), t.Path("previous.tar")
	t.Check(os.Mkdir(sources, 0o700))
	root := run("git", "rev-parse", "--show-toplevel") // elsewhere only a part is archived
	run("git", "-C", root, "archive", "-o", archive, previousCommit)
	run("tar", "-xf", archive, "-C", sources)
	o.previous = t.Path("unionbridge-previous")
	// Without the temporary folder's name in it the second build comes from the cache.
	run("go", "-C", sources, "build", "-trimpath", "-buildvcs=false", "-o", o.previous,
		"./cmd/unionbridge")
}

// miniSends makes the mini program an account of the new daemon.
func miniSends(c *cluster) { c.settings.Mini = &harness.Mini{Apart: true, Grants: "none"} }

// addPrevious adds the older daemons: one that is stopped in the end, and those that are killed. A
// killed one does not come back: it refuses the schema that a newer program has migrated. Unknown
// keys of the configuration are an error, so they get one of their time.
func (c *cluster) addPrevious() []*instance {
	begin := len(c.daemons)
	settings := c.settings
	settings.Mini = nil
	for i := range 4 + c.kills/20 {
		c.addDaemon(fmt.Sprintf("previous-%d", i), c.previous, settings)
	}
	return c.daemons[begin:]
}

// upgrade replaces the older daemons by the new one while requests come: it migrates their schema
// while they work, and kills now one of them, now the new one, until the last of them is stopped.
func upgrade(c *cluster) {
	c.platform.SetLatency(c.between(20*time.Millisecond, 100*time.Millisecond))
	present, previous := c.daemons[0], c.daemons[1:]
	c.awaitLeader()
	present.Run("migrate", "up")
	c.did("migration")
	minis := &miniRows{cluster: c}
	minis.leftAlone(&previous)
	c.awaitLevel(0)
	stop := minis.insertOn()
	present.start()
	present.AwaitReady(present.process)
	each := max(c.kills/len(previous), 1)
	for n := range c.kills {
		c.Sleep(c.between(200*time.Millisecond, 1500*time.Millisecond))
		if n%each == each-1 && len(previous) > 1 {
			c.retire(c.pick(&previous), c.rnd.IntN(4) > 0)
		} else {
			c.restart(present, c.rnd.IntN(8) > 0)
		}
	}
	for _, d := range previous {
		c.did("stop of an old daemon")
		d.retired = true
		c.Check(d.process.Stop())
	}
	since := time.Now()
	c.await("the new daemon to send alone", time.Minute, func() bool {
		_, sends := c.platform.firstPost(since, func(name string) bool { return name == present.Name })
		return sends
	})
	c.awaitLevel(database.FeatureLevel)
	stop()
	for _, p := range c.platform.allPosts() {
		if p.From != present.Name {
			c.did("post of an old daemon")
		}
	}
}

// awaitLevel waits until the lowest of what the instances say they can do is this. A dead one counts
// until its leases expire.
func (c *cluster) awaitLevel(want int) {
	levels := database.NewFeatureLevels(c.db.DB, time.Now)
	c.await(fmt.Sprintf("feature level %d", want), time.Minute, func() bool {
		level, _, err := levels.Lowest(c.Context())
		return err == nil && level == want
	})
}

// pick takes the one that sends now out of the list, or else any.
func (c *cluster) pick(list *[]*instance) *instance {
	i := max(slices.Index(*list, c.leader()), 0)
	d := (*list)[i]
	*list = slices.Delete(slices.Clone(*list), i, i+1)
	return d
}

// retire kills an old daemon for good.
func (c *cluster) retire(d *instance, quickly bool) {
	pid := c.kill(d, "kill of an old daemon")
	d.retired = true
	if quickly {
		c.endLeases(pid)
	}
}

// miniRows are requests that name the mini program as their account, which the old daemons do not
// know. They are checked here: the others are all the official account's.
type miniRows struct {
	*cluster
	serial int
}

// miniOrder is what the order numbers of these rows begin with.
const miniOrder = "mini-"

func (m *miniRows) insert(appid string) {
	person := m.serial % followers
	order := fmt.Sprintf("%s%d", miniOrder, m.serial)
	m.serial++
	m.platform.Grant(harness.MiniAppID, person, harness.MiniTemplateID(), 1)
	m.db.Do(`INSERT INTO send_request (appid, openid, template, data) VALUES (?, ?, ?, ?)`,
		appid, m.platform.OpenID(harness.MiniAppID, person), harness.MiniTemplate,
		checker.Data(checker.Text("货", "1.00元", order), true))
}

// leftAlone inserts rows before the new daemon has ever run, and waits until an old one has looked
// at all that it cannot send: it has failed rows of other accounts on both sides of these. One that
// takes over looks at once.
func (m *miniRows) leftAlone(previous *[]*instance) {
	const rows = 5
	for range rows {
		m.insert(harness.MiniAppID)
	}
	others := []string{"wx0000000000000000", "wxffffffffffffffff"}
	for _, appid := range others {
		m.insert(appid)
	}
	m.retire(m.pick(previous), true)
	m.await("an old daemon to fail rows of unknown accounts", time.Minute, func() bool {
		return m.db.Count(`SELECT COUNT(*) FROM send_request WHERE appid IN (?, ?)
			AND status = 'failed'`, others[0], others[1]) == int64(len(others))
	})
	if n := m.count(`status = 'pending'`); n != rows {
		m.wrong = append(m.wrong, fmt.Sprintf(
			"%d of %d rows of the mini program are pending after an old daemon has seen them", n, rows))
	}
}

// insertOn goes on inserting until the returned function is called.
func (m *miniRows) insertOn() (stop func()) {
	ctx, cancel := context.WithCancel(m.Context())
	group := m.Group(1)
	group.Go(func(context.Context) {
		for sleep(ctx, 50*time.Millisecond) {
			m.insert(harness.MiniAppID)
		}
	})
	return func() { cancel(); group.Wait() }
}

func (m *miniRows) count(where string) int64 {
	return m.db.Count(`SELECT COUNT(*) FROM send_request WHERE appid = ? AND `+where,
		harness.MiniAppID)
}

// checkMinis: these rows are sent or in doubt, and each was delivered once at most, by the mini
// program.
func checkMinis(c *cluster) {
	m := &miniRows{cluster: c}
	if n := m.count(`status NOT IN ('sent', 'unknown')`); n > 0 {
		m.wrong = append(m.wrong, fmt.Sprintf("%d rows of the mini program failed", n))
	}
	delivered := map[string]int{}
	for _, message := range m.platform.Messages(harness.MiniAppID) {
		delivered[checker.Order(message.Data)]++
	}
	for order, n := range delivered {
		if n > 1 {
			m.wrong = append(m.wrong, fmt.Sprintf("%s was delivered %d times", order, n))
		}
	}
	sent, unknown := m.count(`status = 'sent'`), m.count(`status = 'unknown'`)
	if n := int64(len(delivered)); n < sent || n > sent+unknown {
		m.wrong = append(m.wrong, fmt.Sprintf(
			"%d messages of the mini program arrived for %d rows that are sent and %d unknown", n, sent,
			unknown))
	}
	m.result.Acts["rows of the mini program"] = int(sent + unknown)
}
