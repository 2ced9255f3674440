package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

const (
	sweepSchema = "unionbridge_sweep"

	// latency of WeChat's answers, so that a sweep lasts long enough for a death in its middle.
	latency = 25 * time.Millisecond

	// flight is how many batchgets a death may lose: 8 under way, 8 in the queue, and three writes of ten
	// whose answers nobody could store.
	flight = 48

	// syncDatabase is the exit code of a command whose database refuses or is away.
	syncDatabase = 4

	// syncBusy is the exit code of a command that finds the lease taken: that of a process which could not
	// give it back runs out after 10 s.
	syncBusy = 6

	// recoverWithin bounds how long the sweep may be refused after the death: the group's own detection of
	// a lost member takes 5 s by default, a lease 10 s.
	recoverWithin = 60 * time.Second
)

// sweepTest is a sweep whose database node dies in the middle.
type sweepTest struct {
	stage     *stage.Stage
	screen    *stage.Screen
	nodes     []*node
	followers int
}

func sweepThroughFailover(ctx context.Context, t sweepTest) (err error) {
	sim, url, err := t.startSimulator(ctx)
	if err != nil {
		return err
	}
	p, err := t.prepare(ctx, url)
	if err != nil {
		return err
	}
	dead, err := t.killInMidSweep(ctx, p)
	if err != nil {
		return err
	}
	if err := t.sweepAgain(ctx, p, time.Now()); err != nil {
		return err
	}
	for i, n := range t.nodes {
		if i == dead {
			continue
		}
		if err := t.check(ctx, n, sim); err != nil {
			return err
		}
	}
	return t.checkCalls(sim.Calls())
}

// checkCalls makes sure that what was listed and stored before the death is not asked for again.
func (t sweepTest) checkCalls(calls map[string]int64) error {
	lists, batches := calls["/cgi-bin/user/get"], calls["/cgi-bin/user/info/batchget"]
	leastLists, leastBatches := int64(t.followers+9_999)/10_000+1, int64(t.followers+99)/100
	words := fmt.Sprintf("%d calls of user/get and %d of batchget, where an undisturbed sweep takes %d and %d",
		lists, batches, leastLists, leastBatches)
	if lists > leastLists+1 || batches > leastBatches+flight {
		t.screen.Bad("%s", words)
		return fmt.Errorf("the sweeps made %s: more than %d batchgets are repeated", words, flight)
	}
	t.screen.Good("%s", words)
	return nil
}

// startSimulator starts the simulated WeChat in this process, whose truth is then at hand.
func (t sweepTest) startSimulator(ctx context.Context) (*wechatsim.Server, string, error) {
	options := wechatsim.Standard(t.followers, 0, 0)
	options.Latency = latency
	sim := wechatsim.New(options)
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", fmt.Errorf("starting the simulator: %w", err)
	}
	server := &http.Server{Handler: sim, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.stage.OnClose(func() error {
		err := server.Close()
		if serveErr := <-ended; !errors.Is(serveErr, http.ErrServerClosed) {
			err = errors.Join(err, serveErr)
		}
		return err
	})
	return sim, "http://" + listener.Addr().String(), nil
}

// prepare makes the program, the proxy, the configuration and the schema.
func (t sweepTest) prepare(ctx context.Context, wechat string) (*proxy, error) {
	if err := t.stage.Build(ctx, "unionbridge"); err != nil {
		return nil, err
	}
	var targets []string
	for _, n := range t.nodes {
		targets = append(targets, n.sql)
	}
	p, err := newProxy(ctx, targets)
	if err != nil {
		return nil, err
	}
	t.stage.OnClose(p.close)
	if _, err := t.nodes[0].admin.ExecContext(ctx, "CREATE DATABASE "+sweepSchema+" CHARACTER SET utf8mb4"); err != nil {
		return nil, fmt.Errorf("creating the schema: %w", err)
	}
	state := t.stage.Path("state")
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, fmt.Errorf("making the state folder: %w", err)
	}
	_, err = t.stage.WriteConfig(stage.Settings{
		DSN: t.nodes[0].dsn(p.addr(), sweepSchema), WeChat: wechat, Listen: "127.0.0.1:0", StateDir: state, Rate: 100, Concurrency: 8,
	})
	if err != nil {
		return nil, err
	}
	_, err = t.stage.Run(ctx, "migrate", "up")
	return p, err
}

// killInMidSweep sweeps, kills the node in use when a third of the map is written, and returns which it was.
func (t sweepTest) killInMidSweep(ctx context.Context, p *proxy) (int, error) {
	var out strings.Builder
	c := t.stage.Unionbridge("sync")
	c.Stdout, c.Stderr = &out, &out
	process, err := stage.Start(c)
	if err != nil {
		return 0, err
	}
	t.stage.OnClose(process.Stop)
	at := p.current()
	n := t.nodes[at]
	written, err := n.awaitFollowers(ctx, process, t.followers/3)
	if err != nil {
		return 0, errors.Join(err, process.Stop(), errors.New(out.String()))
	}
	t.screen.Say("killing node %s (pid %d) with %s followers in the map", n.name, n.process.Pid(), stage.Count(int64(written)))
	if err := n.kill(); err != nil {
		return 0, err
	}
	err = process.Wait(ctx)
	if ctx.Err() != nil {
		return 0, err
	}
	if err == nil {
		t.screen.Say("the sweep went on by itself")
		return at, nil
	}
	t.screen.Say("it ended with exit code %d: %s", process.ExitCode(), lastLine(out.String()))
	return at, nil
}

// awaitFollowers waits until the map has so many rows, and returns how many it has.
func (n *node) awaitFollowers(ctx context.Context, sweeping *stage.Process, want int) (rows int, err error) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := n.admin.QueryRowContext(ctx, `SELECT COUNT(*) FROM `+sweepSchema+`.follower`).Scan(&rows)
		if err != nil {
			return 0, fmt.Errorf("counting followers: %w", err)
		}
		if rows >= want {
			return rows, nil
		}
		select {
		case <-sweeping.Done():
			return 0, fmt.Errorf("the sweep ended (%s) before its node could be killed", sweeping.Ended())
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-tick.C:
		}
	}
}

// sweepAgain starts the sweep that ended until it succeeds. Only two refusals count as passing: the lease of the
// process that lost its database has not run out, or the cluster has not noticed the death.
func (t sweepTest) sweepAgain(ctx context.Context, p *proxy, ended time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, recoverWithin)
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for said := ""; ; {
		out, err := t.stage.Run(ctx, "sync")
		if err == nil {
			t.screen.Good("node %s, %.1f s after that: %s", t.nodes[p.current()].name, time.Since(ended).Seconds(), lastLine(out))
			return nil
		}
		if words := lastLine(out); words != said {
			t.screen.Say("started again: %s", words)
			said = words
		}
		if !strings.Contains(err.Error(), fmt.Sprintf("exit status %d", syncBusy)) &&
			!strings.Contains(err.Error(), fmt.Sprintf("exit status %d", syncDatabase)) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return lines[len(lines)-1]
}
