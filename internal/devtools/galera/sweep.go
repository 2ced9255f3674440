package main

import (
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/checker"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/devtools/link"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

const (
	sweepSchema = "unionbridge_sweep"

	// latency of WeChat's answers, so that a sweep lasts long enough for a death in its middle.
	latency = 25 * time.Millisecond

	// flight is how many batchgets a death may lose: 8 in flight, 8 in the queue, and three writes
	// of ten whose answers nobody could store.
	flight = 48

	// syncDatabase is the exit code of a command whose database refuses or is away.
	syncDatabase = 4

	// syncBusy is the exit code of a command that finds the lease taken: that of a process which
	// could not release it expires after 10 s.
	syncBusy = 6

	// recoverWithin bounds how long the sweep may be refused after the death: the group's own
	// detection of a lost member takes 5 s by default, a lease 10 s.
	recoverWithin = 60 * time.Second
)

type sweepTest struct {
	*harness.T
	nodes     []*node
	followers int
	instance  *harness.Instance
	link      *link.Link
}

func (t *sweepTest) run() {
	options := wechatsim.Standard(t.followers, 0, 0)
	options.Latency = latency
	sim := wechatsim.New(options) // in this process, which knows the truth
	t.prepare(t.Serve(sim))
	dead := t.killInMidSweep()
	t.sweepAgain(time.Now())
	for _, n := range t.nodes {
		if n != dead {
			t.check(n, sim)
		}
	}
	t.checkCalls(sim.Calls())
}

func (t *sweepTest) checkCalls(calls map[string]int64) {
	lists, batches := calls[harness.PathList], calls[harness.PathBatch]
	minLists, minBatches := int64(harness.Pages(t.followers)), int64(harness.Batches(t.followers))
	words := fmt.Sprintf("%d calls of user/get and %d of batchget, "+
		"where an undisturbed sweep takes %d and %d", lists, batches, minLists, minBatches)
	if lists > minLists+1 || batches > minBatches+flight {
		t.Fatalf("the sweeps made %s: more than %d batchgets are repeated", words, flight)
	}
	t.Good("%s", words)
}

// prepare makes the program, the link, the configuration and the schema. The link stands where
// HAProxy or a virtual address stands in production: it leads to one node at a time, and to the
// next one once that one accepts no connections.
func (t *sweepTest) prepare(wechat string) {
	t.Build("unionbridge")
	var servers []string
	for _, n := range t.nodes {
		servers = append(servers, n.sql)
	}
	var err error
	t.link, err = link.Open(servers[0])
	t.Check(err)
	t.Cleanup(t.link.Close)
	go t.link.Failover(t.Context(), servers)
	first := t.nodes[0]
	first.admin.Do("CREATE DATABASE " + sweepSchema + " CHARACTER SET utf8mb4")
	t.instance = t.NewInstance(t.Path("unionbridge"), "sweep", harness.Settings{
		DSN: first.dsn(t.link.Addr(), sweepSchema), WeChat: wechat, Rate: 100, Concurrency: 8,
	})
	t.instance.Run("migrate", "up")
}

func (t *sweepTest) inUse() *node {
	upstream := t.link.Upstream()
	return t.nodes[slices.IndexFunc(t.nodes, func(n *node) bool { return n.sql == upstream })]
}

func (t *sweepTest) killInMidSweep() *node {
	process := t.instance.StartLogged("sync")
	n := t.inUse()
	var rows int64
	t.Await(harness.Wait{
		For: "followers in the map", Every: 10 * time.Millisecond, Most: time.Minute,
		Process: process, Log: t.instance.LogTail,
	}, func() bool {
		rows = n.admin.Count(`SELECT COUNT(*) FROM ` + sweepSchema + `.follower`)
		return rows >= int64(t.followers/3)
	})
	t.Say("killing node %s (pid %d) with %s followers in the map", n.name, n.process.Pid(), harness.Count(rows))
	n.process.Kill()
	err := process.Wait(t.Context())
	t.Check(t.Context().Err())
	if err == nil {
		t.Say("the sweep survived it")
	} else {
		t.Say("it ended with %s: %s", process.Ended(), lastLine(t.instance.LogTail()))
	}
	return n
}

// sweepAgain starts the sweep that ended until it succeeds. Only two refusals are temporary: the
// lease of the process that lost its database has not expired, or the cluster has not noticed the
// death.
func (t *sweepTest) sweepAgain(ended time.Time) {
	said, out := "", ""
	t.Await(harness.Wait{
		For: "a sweep that succeeds", Every: time.Second, Most: recoverWithin,
		Log: func() string { return out },
	}, func() bool {
		var err error
		if out, err = t.Output(t.instance.Command("sync")); err == nil {
			return true
		}
		if words := lastLine(out); words != said {
			t.Say("started again: %s", words)
			said = words
		}
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok || exit.ExitCode() != syncBusy && exit.ExitCode() != syncDatabase {
			t.Fatal(err)
		}
		return false
	})
	t.Good("node %s, %.1f s after that: %s", t.inUse().name, time.Since(ended).Seconds(), lastLine(out))
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}

func (t *sweepTest) check(n *node, known *wechatsim.Server) {
	// The read waits until the node has applied everything that the group has committed.
	db := n.open(t.T, sweepSchema, map[string]string{"wsrep_sync_wait": "1"})
	f := checker.CompareMap(t.T, db, harness.AppID, known)
	if want := known.FollowerCount(harness.AppID); f.Subscribed != want {
		f.Wrong++
		f.Differences = append(f.Differences,
			fmt.Sprintf("the map has %d followers, WeChat has %d", f.Subscribed, want))
	}
	if f.Wrong > 0 {
		t.Fatalf("the map on %s is not the truth, %d differences: %s", n.name, f.Wrong,
			strings.Join(f.Differences, "; "))
	}
	var runs struct{ Total, Done int }
	db.Fetch(&runs, `
		SELECT COUNT(*) AS total, COALESCE(SUM(state = 'done'), 0) AS done
		  FROM sync_run
		 WHERE kind = 'sweep'`)
	if runs.Total != 1 || runs.Done != 1 {
		t.Fatalf("node %s has %d sweeps in sync_run, %d of them done; want one that was resumed",
			n.name, runs.Total, runs.Done)
	}
	t.Good("node %s: %s rows, each as WeChat has it; one run in the ledger, done", n.name,
		harness.Count(f.Right))
}
