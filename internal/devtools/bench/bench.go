package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// bench is a run of the benchmark.
type bench struct {
	options
	screen   *stage.Screen
	programs *stage.Stage    // holds what was built
	host     *stage.Database // the server in which the scenes make their schemas
	server   stage.Server
	users    []wechatsim.Identity // of the mini program, in the scene with a daemon

	*scene // the present one

	figures []figure
}

func (b *bench) add(f figure) { b.figures = append(b.figures, f) }

// sweepQuestions is how many batchgets are under way at once unless a figure says otherwise: the default of
// official_accounts[].sync.concurrency.
const sweepQuestions = 8

// run measures one part after the other. What was measured is reported also where a later part failed.
func (b *bench) run(ctx context.Context) error {
	b.screen.Title("unionbridge bench")
	if err := b.prepare(ctx); err != nil {
		return err
	}
	err := b.measure(ctx)
	if len(b.figures) > 0 {
		report(b.screen, b.machine(), b.figures)
	}
	return err
}

func (b *bench) measure(ctx context.Context) error {
	for _, part := range []struct {
		wanted  bool
		scene   sceneConfig
		measure func(context.Context) error
	}{
		{b.wants("sweep") || b.wantsAnySender(), sceneConfig{b.mainSize(), b.requests, sweepQuestions}, b.measureMain},
		{b.wantsAny("slow", "change"), sceneConfig{b.followers, 0, slowQuestions}, b.measureSlow},
		{b.wants("kill"), sceneConfig{b.killFollowers, 0, sweepQuestions}, b.measureKills},
		{b.wants("large") && b.tenMillion, sceneConfig{b.largeSize(), 0, sweepQuestions}, b.measureLarge},
	} {
		if !part.wanted {
			continue
		}
		if err := b.within(ctx, part.scene, part.measure); err != nil {
			return err
		}
	}
	return nil
}

// mainSize: where nobody measures sweeps, there need be no more followers than requests.
func (b *bench) mainSize() int {
	if b.wants("sweep") {
		return b.followers
	}
	return b.requests
}

func (b *bench) measureMain(ctx context.Context) (err error) {
	if b.users, err = b.simulator.MiniUsers(ctx); err != nil {
		return err
	}
	if err := stage.InsertMiniUsers(ctx, b.db, b.users); err != nil {
		return err
	}
	if b.wants("sweep") {
		err = b.measureSweeps(ctx)
	} else {
		_, err = b.sweep(ctx)
	}
	if err != nil {
		return err
	}
	return b.measureSender(ctx)
}

func (b *bench) wantsAnySender() bool { return slices.ContainsFunc(senderParts(), b.wantsSender) }

func (b *bench) machine() string {
	return fmt.Sprintf("machine: %d cores, %s/%s, %s; %s, buffer pool %d MiB, %s; simulator without latency but where it is named",
		runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version(), b.server.Version, b.server.BufferPool>>20, b.server.Durability)
}

// privatePool is the buffer pool of a private server: the map of a million followers fits in, as it does
// on any server that has been given memory. That of ten million does not.
const privatePool = 512 << 20

func (b *bench) prepare(ctx context.Context) (err error) {
	b.screen.Step("preparing: programs and database")
	if err := b.build(ctx); err != nil {
		return err
	}
	b.host, err = stage.OpenDatabase(ctx, stage.DatabaseConfig{DSN: b.dsn, BufferPool: privatePool, Output: b.screen.Lines()})
	if err != nil {
		return err
	}
	b.programs.OnClose(b.host.Close)
	if b.server, err = b.host.Describe(ctx); err != nil {
		return err
	}
	b.screen.Say("%s", b.machine())
	return b.checkDisk(ctx)
}

func (b *bench) build(ctx context.Context) error {
	if b.binary != "" {
		b.programs.Binary = b.binary
		return b.programs.Build(ctx, "wechatsim")
	}
	b.programs.Binary = b.programs.Path("unionbridge")
	return b.programs.Build(ctx, "unionbridge", "wechatsim")
}

const (
	pathList  = "/cgi-bin/user/get"
	pathInfo  = "/cgi-bin/user/info"
	pathBatch = "/cgi-bin/user/info/batchget"
	pathSend  = "/cgi-bin/message/template/send"
)
