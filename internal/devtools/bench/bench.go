package main

import (
	"context"
	"database/sql"
	"fmt"
	"runtime"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// bench is a run of the benchmark.
type bench struct {
	options
	stage  *stage.Stage
	screen *stage.Screen

	database  *stage.Database
	server    stage.Server
	simulator *stage.Simulator
	users     []wechatsim.Identity
	db        *sql.DB
	listen    string

	figures []figure
}

func (b *bench) add(f figure) { b.figures = append(b.figures, f) }

func (b *bench) run(ctx context.Context) error {
	b.screen.Title("unionbridge bench")
	if err := b.prepare(ctx); err != nil {
		return err
	}
	if b.wants("sweep") {
		if err := b.measureSweeps(ctx); err != nil {
			return err
		}
	} else if _, err := b.stage.Run(ctx, "sync"); err != nil {
		return err
	}
	if b.wants("send") || b.wants("idle") || b.wants("latency") {
		if err := b.measureDaemon(ctx); err != nil {
			return err
		}
	}
	report(b.screen, b.machine(), b.figures)
	return nil
}

func (b *bench) machine() string {
	return fmt.Sprintf("machine: %d cores, %s/%s, %s; %s, buffer pool %d MiB, %s; simulator without latency",
		runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), b.server.Version, b.server.BufferPool>>20, b.server.Durability)
}

// privatePool is the buffer pool of a private server: the map of a million followers fits in, as it does
// on any server that has been given memory.
const privatePool = 512 << 20

func (b *bench) prepare(ctx context.Context) (err error) {
	b.screen.Step("preparing: programs, database, simulator with %s followers", stage.Count(int64(b.followers)))
	if err := b.programs(ctx); err != nil {
		return err
	}
	b.database, err = stage.OpenDatabase(ctx, stage.DatabaseConfig{DSN: b.dsn, BufferPool: privatePool, Output: b.screen.Lines()})
	if err != nil {
		return err
	}
	b.stage.OnClose(b.database.Close)
	if b.server, err = b.database.Describe(ctx); err != nil {
		return err
	}
	if b.db, err = b.database.Client(ctx); err != nil {
		return err
	}
	b.stage.OnClose(b.db.Close)
	if err := b.startSimulator(ctx); err != nil {
		return err
	}
	if b.listen, err = stage.FreeAddr(ctx); err != nil {
		return err
	}
	_, err = b.stage.WriteConfig(stage.Settings{
		DSN: b.database.DSN(), WeChat: b.simulator.URL, Listen: b.listen, StateDir: b.stage.Path("state"),
		Rate: 100_000, Concurrency: 64, // no limit but the machine's
	})
	if err != nil {
		return err
	}
	if _, err := b.stage.Run(ctx, "migrate", "up"); err != nil {
		return err
	}
	b.screen.Say("%s", b.machine())
	return stage.InsertMiniUsers(ctx, b.db, b.users)
}

func (b *bench) programs(ctx context.Context) error {
	if b.binary == "" {
		return b.stage.Build(ctx, "unionbridge", "wechatsim")
	}
	b.stage.Binary = b.binary
	return b.stage.Build(ctx, "wechatsim")
}

func (b *bench) startSimulator(ctx context.Context) error {
	log, err := b.stage.Log("wechatsim.log")
	if err != nil {
		return err
	}
	b.simulator, err = stage.StartSimulator(ctx, stage.SimulatorConfig{
		Path: b.stage.Path("wechatsim"), Followers: b.followers, MiniUsers: b.requests, NoLimits: true, Log: log,
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, b.stage.LogTail("wechatsim.log"))
	}
	b.stage.OnClose(b.simulator.Stop)
	b.users, err = b.simulator.MiniUsers(ctx)
	return err
}

const (
	pathList  = "/cgi-bin/user/get"
	pathInfo  = "/cgi-bin/user/info"
	pathBatch = "/cgi-bin/user/info/batchget"
	pathSend  = "/cgi-bin/message/template/send"
)
