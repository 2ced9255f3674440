package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

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

// addPrevious adds the older daemons: one that is stopped in the end, and those that are killed. A
// killed one does not come back: it refuses the schema that a newer program has migrated.
func (c *cluster) addPrevious() []*instance {
	begin := len(c.daemons)
	for i := range 3 + c.kills/20 {
		c.addDaemon(fmt.Sprintf("previous-%d", i), c.previous)
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
	c.awaitLeader()
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
