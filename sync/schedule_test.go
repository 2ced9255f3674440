package sync

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// TestCatchUp: what did not end well is done again, but not too soon, and what ended well is not.
func TestCatchUp(t *testing.T) {
	for _, c := range []struct {
		name  string
		last  string // state of the last sweep; "": none
		age   int    // minutes
		after time.Duration
		want  bool
	}{
		{"never swept", "", 0, retryAfter, true},
		{"done", "done", 600, 0, false},
		{"blocked waits for an operator", "blocked", 600, 0, false},
		{"failed just now", "failed", 9, retryAfter, false},
		{"failed a while ago", "failed", 11, retryAfter, true},
		{"failed just now, but the daemon starts", "failed", 0, 0, true},
		{"suspended, its quota is there again", "suspended", 0, retryAfter, true},
		{"interrupted", "interrupted", 0, 0, true},
		{"crashed", "running", 0, 0, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newFixture(t, wechatsim.Standard(5, 0, 0))
			if c.last != "" {
				_, err := b.db.ExecContext(t.Context(), `INSERT INTO sync_run (kind, appid, state, holder, updated_at, resume_at)
					VALUES ('sweep', ?, ?, 'x', CURRENT_TIMESTAMP(3) - INTERVAL ? MINUTE, CURRENT_TIMESTAMP(3))`, appid, c.last, c.age)
				if err != nil {
					t.Fatal(err)
				}
			}
			b.catchUp(t.Context(), appid, c.after)
			if swept := b.api.calls > 0; swept != c.want {
				t.Errorf("swept: %v, want %v", swept, c.want)
			}
		})
	}
}

func TestStartRefusesBadCronLines(t *testing.T) {
	for _, change := range []func(*Account){
		func(a *Account) { a.Sweep = "61 * * * *" },
		func(a *Account) { a.Refresh = "every day" },
	} {
		b := newFixture(t, wechatsim.Standard(0, 0, 0))
		change(&b.cfg.Accounts[0])
		if err := b.Start(t.Context()); err == nil || !strings.Contains(err.Error(), appid) {
			t.Errorf("got %v, want an error that names the account", err)
		}
		if err := b.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// TestCronRunsBothJobs: the schedule really runs what it was told to.
func TestCronRunsBothJobs(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(5, 0, 0))
	b.sweepOnce(t)
	b.cfg.Accounts[0].Sweep, b.cfg.Accounts[0].Refresh = "@every 1s", "@every 1s"
	if err := b.identities.RequestRecheck(t.Context(), appid, []string{b.sim.OpenID(appid, 1)}, bridge.RecheckSendRefused); err != nil {
		t.Fatal(err)
	}
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		return b.count(t,
			`SELECT COUNT(DISTINCT kind) FROM sync_run WHERE state = 'done' AND id > 1`) == 2
	})
	for range 2 { // Stop may be called twice
		if err := b.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDatabaseGoesAway: the database is cut off in mid-sweep. The run fails and says so, nobody is
// marked, and the next sweep completes the map.
func TestDatabaseGoesAway(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(30_000, 0, 0))
	proxy := dbtest.NewProxy(t, dbtest.DSN(t, b.db))
	direct := b.db
	b.db = dbtest.Open(t, proxy.DSN())
	b.Service = b.instance(t, "one")
	b.db = direct
	b.api.beforeFollowers = func(call int, _ string) {
		if call == 2 {
			proxy.Cut()
		}
	}
	if _, err := b.Sweep(t.Context(), appid, nil); err == nil {
		t.Error("the sweep succeeded without a database")
	}
	b.api.beforeFollowers = nil
	proxy.Restore()
	// The lease could not be given back: it has to run out first.
	waitFor(t, func() bool {
		_, err := b.Sweep(t.Context(), appid, nil)
		if err != nil && !errors.Is(err, ErrBusy) {
			t.Fatal(err)
		}
		return err == nil
	})
	b.wantTruth(t)
	if n := b.count(t, `SELECT COUNT(*) FROM sync_run`); n != 1 {
		t.Errorf("%d runs, want the the resumed one", n)
	}
}

// TestOrphanIsAdopted: an instance dies in mid-sweep, and another one that is running goes on with
// it.
func TestOrphanIsAdopted(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(50, 0, 0))
	b.sweepOnce(t)
	b.adoptEvery = 50 * time.Millisecond
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.sim.Join(appid, 1)
	b.exec(t,
		`UPDATE lease SET holder = 'dead', expires_at = CURRENT_TIMESTAMP(3) + INTERVAL 1 SECOND WHERE name = ?`, "sweep:"+appid)
	b.exec(t, `INSERT INTO sync_run (id, kind, appid, state, holder, updated_at)
		VALUES (77, 'sweep', ?, 'running', 'dead', CURRENT_TIMESTAMP(3) - INTERVAL 6 SECOND)`, appid)
	waitFor(t, func() bool {
		return b.count(t,
			`SELECT COUNT(*) FROM sync_run WHERE id = 77 AND state = 'done' AND holder = 'one'`) == 1
	})
	if err := b.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.wantTruth(t)
}

// TestStuckAccountDelaysNoOther: WeChat does not answer for one account; the other one is swept
// nevertheless.
func TestStuckAccountDelaysNoOther(t *testing.T) {
	const second = "wx0a00000000000002"
	options := wechatsim.Standard(20, 0, 0)
	other := options.Accounts[0]
	other.AppID = second
	options.Accounts = append(options.Accounts, other)
	b := newFixture(t, options)
	stuck := make(chan struct{})
	b.api.beforeFollowers = func(int, string) { <-stuck }
	free := b.cfg.Accounts[0]
	free.AppID = second
	free.API = wechat.New(wechat.Config{AppID: second, Secret: wechatsim.StandardSecret,
		BaseURL: b.url, MaxConnections: 4})
	b.cfg.Accounts = append(b.cfg.Accounts, free)
	b.accounts[second] = free
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		return b.count(t, `SELECT COUNT(*) FROM sync_run WHERE appid = ? AND state = 'done'`,
			second) == 1
	})
	waitFor(t, func() bool { // its start may be the later one
		return b.count(t, `SELECT COUNT(*) FROM sync_run WHERE appid = ? AND state = 'running'`,
			appid) == 1
	})
	close(stuck)
	if err := b.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}
