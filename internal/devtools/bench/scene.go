package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

// scene is one account: a simulator, an empty schema and a configuration of its own. Leaving it ends the
// simulator and drops the schema, so that no part of the benchmark works beside what another one left in
// the server's buffer pool, and the disk is that of one scene at the most.
type scene struct {
	stage     *stage.Stage
	database  *stage.Database
	simulator *stage.Simulator
	db        *sql.DB
	listen    string
	size      int     // followers at the start
	questions int     // batchgets under way at once
	highest   int64   // id of a request that was deleted
	light     *weight // of the sender on a table with nothing else in it, once it is known
}

// sceneConfig says what a scene is like.
type sceneConfig struct {
	followers int
	miniUsers int
	questions int // batchgets under way at once
}

// within sets a scene, measures in it, and strikes it, whatever happens.
func (b *bench) within(ctx context.Context, cfg sceneConfig, measure func(context.Context) error) (err error) {
	folder, err := stage.New("ub-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, folder.Close()) }()
	b.scene = &scene{stage: folder, size: cfg.followers, questions: cfg.questions}
	if err := b.set(ctx, cfg); err != nil {
		return err
	}
	return measure(ctx)
}

func (b *bench) set(ctx context.Context, cfg sceneConfig) (err error) {
	s := b.scene
	s.stage.Binary = b.programs.Binary
	if s.database, err = stage.OpenDatabase(ctx, stage.DatabaseConfig{DSN: b.host.DSN()}); err != nil {
		return err
	}
	s.stage.OnClose(s.database.Close)
	if s.db, err = s.database.Client(ctx); err != nil {
		return err
	}
	s.stage.OnClose(s.db.Close)
	if err := b.startSimulator(ctx, cfg); err != nil {
		return err
	}
	if s.listen, err = stage.FreeAddr(ctx); err != nil {
		return err
	}
	if err := b.configure(s.stage, s.listen, unlimited()); err != nil {
		return err
	}
	_, err = s.stage.Run(ctx, "migrate", "up")
	return err
}

// configure writes the configuration of an instance that lives in a folder of its own and listens at listen.
func (b *bench) configure(folder *stage.Stage, listen string, p pace) error {
	_, err := folder.WriteConfig(stage.Settings{
		DSN: b.database.DSN(), WeChat: b.simulator.URL, Listen: listen, StateDir: folder.Path("state"),
		Rate: p.rate, Concurrency: p.concurrency, Questions: b.questions,
	})
	return err
}

func (b *bench) startSimulator(ctx context.Context, cfg sceneConfig) error {
	log, err := b.stage.Log("wechatsim.log")
	if err != nil {
		return err
	}
	b.simulator, err = stage.StartSimulator(ctx, stage.SimulatorConfig{
		Path: b.programs.Path("wechatsim"), Followers: cfg.followers, MiniUsers: cfg.miniUsers, NoLimits: true, Log: log,
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, b.stage.LogTail("wechatsim.log"))
	}
	b.stage.OnClose(b.simulator.Stop)
	return nil
}

// pages is the number of calls that the list of so many followers takes, the empty last page included.
func pages(followers int) int { return ceil(followers, 10_000) + 1 }

// batches is the number of batchgets that so many people take.
func batches(people int) int { return ceil(people, 100) }

func ceil(n, of int) int { return (n + of - 1) / of }

// mebibytes of a byte count.
func mebibytes(n int64) float64 { return float64(n) / (1 << 20) }

// life is one run of `unionbridge sync`, from the start of the process to its end.
type life struct {
	took time.Duration
	peak int64 // bytes; 0: not known
}

// sweep runs `unionbridge sync` to its end.
func (b *bench) sweep(ctx context.Context) (life, error) {
	begin := time.Now()
	process, err := b.startSweep()
	if err != nil {
		return life{}, err
	}
	if err := process.Wait(ctx); err != nil {
		return life{}, fmt.Errorf("unionbridge sync: %w\n%s", err, b.stage.LogTail(syncLog))
	}
	return life{time.Since(begin), process.PeakMemory()}, nil
}

// syncLog is the file that gets what the sweeps say.
const syncLog = "sync.log"

func (b *bench) startSweep() (*stage.Process, error) {
	log, err := b.stage.Log(syncLog)
	if err != nil {
		return nil, err
	}
	c := b.stage.Unionbridge("sync")
	c.Stdout, c.Stderr, c.Peak = log, log, true
	return stage.Start(c)
}

func (b *bench) say(l life) {
	b.screen.Say("%.1f s, peak memory %.1f MiB", l.took.Seconds(), mebibytes(l.peak))
}

// addMemory adds a process's peak memory, where it is known.
func (b *bench) addMemory(name string, peak int64, goal target, what string) {
	b.addKnown(figure{name, mebibytes(peak), "MiB", goal, what})
}
