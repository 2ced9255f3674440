package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// play is the demo while it runs.
type play struct {
	options
	stage  *stage.Stage
	screen *stage.Screen

	database  *stage.Database
	simulator *stage.Simulator
	daemon    *stage.Process
	app       *sql.DB // the app's own connection: it knows the tables and nothing else
	listen    string

	sweep     time.Duration
	wants     []want
	delivered []wechatsim.Message
	late      int           // the last of the delivered, whose recipients had to follow first
	sending   time.Duration // first insert to the last row's end
}

// play is the order of the steps; the first one that fails ends the demo.
func (p *play) play(ctx context.Context) error {
	p.screen.Title("unionbridge demo: from WeChat's follower list to the right person's phone")
	for _, step := range []func(context.Context) error{
		p.build, p.openDatabase, p.startSimulator, p.migrate, p.insertMiniUsers, p.firstSweep, p.startDaemon,
		p.sendRequests, p.check, p.someFollow,
	} {
		if err := step(ctx); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	p.summarise()
	if !p.screen.Terminal {
		return nil
	}
	return p.stayUp(ctx)
}

func (p *play) build(ctx context.Context) error {
	p.screen.Step("Programs: compiling unionbridge and the WeChat simulator")
	return p.stage.Build(ctx, "unionbridge", "wechatsim")
}

func (p *play) openDatabase(ctx context.Context) error {
	if p.dsn == "" {
		p.screen.Step("Database: starting a private server")
	} else {
		p.screen.Step("Database: a schema of its own on the given server")
	}
	database, err := stage.OpenDatabase(ctx, stage.DatabaseConfig{DSN: p.dsn, Output: p.screen.Lines()})
	if err != nil {
		return err
	}
	p.stage.OnClose(database.Close)
	p.database = database
	server, err := database.Describe(ctx)
	if err != nil {
		return err
	}
	if p.app, err = database.Client(ctx); err != nil {
		return err
	}
	p.stage.OnClose(p.app.Close)
	if err := os.WriteFile(p.stage.Path("client.cnf"), []byte(database.ClientFile()), 0o600); err != nil {
		return fmt.Errorf("writing the option file for the database's client: %w", err)
	}
	p.screen.Say("%s at %s, schema %s", server.Version, database.Addr(), database.Schema())
	return nil
}

func (p *play) startSimulator(ctx context.Context) error {
	p.screen.Step("WeChat: starting the simulator")
	log, err := p.stage.Log("wechatsim.log")
	if err != nil {
		return err
	}
	p.simulator, err = stage.StartSimulator(ctx, stage.SimulatorConfig{
		Path: p.stage.Path("wechatsim"), Followers: p.followers, MiniUsers: p.miniUsers, NotFollowing: p.notFollowing, Log: log,
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, p.stage.LogTail("wechatsim.log"))
	}
	p.stage.OnClose(p.simulator.Stop)
	p.screen.Say("%s: %s followers, %s mini-program users, a third of whom do not follow",
		p.simulator.URL, count(p.followers), count(p.miniUsers))
	return nil
}

func (p *play) migrate(ctx context.Context) error {
	p.screen.Step("Schema: unionbridge migrate up")
	var err error
	if p.listen, err = stage.FreeAddr(ctx); err != nil {
		return err
	}
	_, err = p.stage.WriteConfig(stage.Settings{
		DSN: p.database.DSN(), WeChat: p.simulator.URL, Listen: p.listen, StateDir: p.stage.Path("state"),
		Rate: 2000, Concurrency: 64,
	})
	if err != nil {
		return err
	}
	_, err = p.stage.Run(ctx, "migrate", "up")
	return err
}

func (p *play) firstSweep(ctx context.Context) error {
	p.screen.Step("First sweep: unionbridge sync reads the follower list and asks who everybody is")
	begin := time.Now()
	if err := p.sync(ctx); err != nil {
		return err
	}
	p.sweep = time.Since(begin)
	var coverage struct{ subscribed, known, miniUsers, reachable int64 }
	err := p.app.QueryRowContext(ctx,
		`SELECT subscribed, with_unionid, mini_users, reachable_mini_users FROM v_coverage WHERE appid = ?`, stage.AppID).
		Scan(&coverage.subscribed, &coverage.known, &coverage.miniUsers, &coverage.reachable)
	if err != nil {
		return fmt.Errorf("reading v_coverage: %w", err)
	}
	if coverage.known != int64(p.followers) {
		return fmt.Errorf("the sweep has found %d followers with a unionid, there are %d", coverage.known, p.followers)
	}
	p.screen.Good("v_coverage: %s followers, %s of %s mini-program users can be reached",
		stage.Count(coverage.subscribed), stage.Count(coverage.reachable), stage.Count(coverage.miniUsers))
	return nil
}

// sync runs `unionbridge sync`. On a terminal it shows its own progress bar.
func (p *play) sync(ctx context.Context) error {
	c := p.stage.Unionbridge("sync")
	lines := p.screen.Lines()
	c.Stdout, c.Stderr = lines, lines
	if p.screen.Terminal {
		c.Stdout, c.Stderr = os.Stdout, os.Stdout
	}
	process, err := stage.Start(c)
	if err != nil {
		return err
	}
	err = process.Wait(ctx)
	if err := errors.Join(err, lines.Close()); err != nil {
		return fmt.Errorf("unionbridge sync: %w", err)
	}
	return nil
}

func (p *play) startDaemon(ctx context.Context) error {
	p.screen.Step("Daemon: unionbridge run")
	var err error
	if p.daemon, err = p.stage.StartDaemon(ctx, p.listen); err != nil {
		return err
	}
	p.screen.Say("pid %d, http://%s", p.daemon.Pid(), p.listen)
	return nil
}

// patience is how long the demo waits for the daemon to end its rows.
const patience = 60 * time.Second

// follow waits until no row is pending, and shows how they go.
func (p *play) follow(ctx context.Context, done func(counts map[string]int64) bool) (map[string]int64, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errPatience)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		counts, err := statusCounts(ctx, p.app)
		if err != nil {
			return nil, err
		}
		p.screen.Status("%s", describe(counts))
		if done(counts) {
			return counts, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("following the requests: %w\n%s\n%s", context.Cause(ctx), describe(counts), p.stage.LogTail(stage.DaemonLog))
		case <-p.daemon.Done():
			return nil, fmt.Errorf("the daemon ended by itself: %s\n%s", p.daemon.Ended(), p.stage.LogTail(stage.DaemonLog))
		case <-tick.C:
		}
	}
}

var errPatience = fmt.Errorf("they had not ended after %s", patience)

func statusCounts(ctx context.Context, app *sql.DB) (map[string]int64, error) {
	rows, err := app.QueryContext(ctx, `SELECT status, COUNT(*) FROM v_send_status GROUP BY status`)
	if err != nil {
		return nil, fmt.Errorf("reading v_send_status: %w", err)
	}
	defer func() { _ = rows.Close() }()
	counts := make(map[string]int64)
	for rows.Next() {
		var status string
		var n int64
		if err := rows.Scan(&status, &n); err != nil {
			return nil, fmt.Errorf("reading v_send_status: %w", err)
		}
		counts[status] = n
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("reading v_send_status: %w", err)
	}
	return counts, nil
}

// describe lists the counts in the order of a row's life.
func describe(counts map[string]int64) string {
	var parts []string
	for _, status := range []string{"pending", "waiting", "sent", "failed", "expired", "cancelled", "unknown"} {
		if n := counts[status]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", stage.Count(n), status))
		}
	}
	return strings.Join(parts, ", ")
}

func count(n int) string { return stage.Count(int64(n)) }
