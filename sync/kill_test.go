package sync

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// childVariable makes this test binary sweep once and end: a process that can be killed.
const childVariable = "UNIONBRIDGE_SWEEP_CHILD"

type child struct{ DSN, BaseURL, SpoolDir, Holder string }

func TestMain(m *testing.M) {
	if settings := os.Getenv(childVariable); settings != "" {
		if err := sweepAsChild(settings); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func sweepAsChild(settings string) error {
	var c child
	if err := json.Unmarshal([]byte(settings), &c); err != nil {
		return err
	}
	ctx := context.Background()
	db, err := database.Open(ctx, database.Config{DSN: c.DSN})
	if err != nil {
		return err
	}
	leases := database.NewLeases(db, database.LeaseConfig{Holder: c.Holder})
	go func() { _ = leases.Run(ctx) }()
	service := New(Config{
		DB: db, Leases: leases, SpoolDir: c.SpoolDir, Holder: c.Holder, Logger: slog.New(slog.DiscardHandler),
		Registerer: prometheus.NewRegistry(), Now: time.Now,
		Accounts: []Account{{AppID: appid, MaxGone: 0.5, Concurrency: 4,
			API: wechat.New(wechat.Config{
				AppID: appid, Secret: wechatsim.StandardSecret, BaseURL: c.BaseURL, MaxConnections: 8,
			})}},
	})
	_, err = service.Sweep(ctx, appid, nil)
	return err
}

// TestKilledSweep kills the sweeping process at random moments, again and again. The next start
// goes on, the map is the truth in the end, and what is asked twice is bounded by what was under
// way.
func TestKilledSweep(t *testing.T) {
	const followers, kills = 60_000, 8
	seed := uint64(time.Now().UnixNano())
	rnd := rand.New(rand.NewPCG(seed, 1))
	options := wechatsim.Standard(followers, 0, 0)
	options.Latency = time.Millisecond
	b := newFixture(t, options)
	self := must(os.Executable())
	settings := child{DSN: dbtest.DSN(t, b.db), BaseURL: b.url, SpoolDir: t.TempDir()}
	killed := 0
	for i := 0; ; i++ {
		settings.Holder = fmt.Sprint("child-", i)
		text := must(json.Marshal(settings))
		cmd := exec.CommandContext(t.Context(), self)
		cmd.Env = append(os.Environ(), childVariable+"="+string(text))
		cmd.Stderr = os.Stderr
		// A dead holder's lease would have to run out first.
		if _, err := b.db.ExecContext(t.Context(), `DELETE FROM lease`); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if killed < kills {
			time.Sleep(time.Duration(20+rnd.IntN(250)) * time.Millisecond)
			_ = cmd.Process.Kill()
		}
		if err := cmd.Wait(); err == nil {
			break
		}
		killed++
	}
	b.wantTruth(t)
	calls := b.sim.Calls()
	t.Logf("seed %d, %d kills: %d list calls, %d batchgets", seed, killed,
		calls[wechat.EndpointFollowers], calls[wechat.EndpointBatchInfo])
	const pages, batches = followers/10_000 + 1, followers / 100
	// A kill loses at most the page under way, and of the questions those in flight and those whose
	// answers wait to be written: a full batch of rows and what the writers hold.
	const flight = 4 + 4 + (1+storeWriters)*storeBatch/batchSize
	if n := calls[wechat.EndpointFollowers]; n > int64(pages+2*killed) {
		t.Errorf("seed %d: %d list calls, want at most %d and two a kill", seed, n, pages)
	}
	if n := calls[wechat.EndpointBatchInfo]; n > int64(batches+flight*killed) {
		t.Errorf("seed %d: %d batchgets, want at most %d and %d a kill", seed, n, batches, flight)
	}
	if n := b.count(t, `SELECT COUNT(*) FROM sync_run`); n != 1 {
		t.Errorf("seed %d: %d runs in the ledger, want the resumed one", seed, n)
	}
}
