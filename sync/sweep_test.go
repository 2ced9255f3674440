package sync

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

func TestFirstSweepBuildsTheMap(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(20_500, 0, 0))
	run := b.sweepOnce(t)
	wantRun(t, run,
		Run{State: StateDone, Pages: 3, Listed: 20_500, Added: 20_500, Calls: calls(4, 205, 0)})
	b.wantTruth(t)
	var row struct {
		State string `db:"state"`
		Added int64  `db:"added"`
		Calls string `db:"calls"`
	}
	err := b.db.GetContext(t.Context(), &row,
		`SELECT state, added, calls FROM sync_run WHERE id = ? AND ended_at IS NOT NULL`, run.ID)
	if err != nil {
		t.Fatal(err)
	}
	if row.State != "done" || row.Added != 20_500 || !strings.Contains(row.Calls, `"user/get"`) {
		t.Errorf("the ledger says %+v", row)
	}
	if left := must(os.ReadDir(b.cfg.SpoolDir)); len(left) > 0 {
		t.Errorf("the sweep left %d spool files", len(left))
	}
}

func TestFollowerKeepsWhatWeChatSays(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(1, 0, 0))
	b.sweepOnce(t)
	var row struct {
		SubscribeTime time.Time `db:"subscribe_time"`
		Scene         string    `db:"subscribe_scene"`
		Language      string    `db:"language"`
		Asked         bool      `db:"asked"`
	}
	err := b.db.GetContext(t.Context(), &row,
		`SELECT subscribe_time, subscribe_scene, language, info_at IS NOT NULL AS asked FROM follower`)
	if err != nil {
		t.Fatal(err)
	}
	info := must(b.api.UserInfo(t.Context(), b.sim.OpenID(appid, 0)))
	if row.SubscribeTime.Unix() != info.SubscribeTime || row.Scene != info.SubscribeScene || row.Language != info.Language || !row.Asked {
		t.Errorf("the row says %+v, WeChat %+v", row, info)
	}
}

func TestUnchangedSweepWritesNothing(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(10_000, 0, 0))
	b.sweepOnce(t)
	// Every write to a row of the map moves info_at or changed_at.
	var before, after string
	const fingerprint = `SELECT CONCAT_WS(' ', COUNT(*), MAX(info_at), MAX(changed_at)) FROM follower`
	if err := b.db.GetContext(t.Context(), &before, fingerprint); err != nil {
		t.Fatal(err)
	}
	run := b.sweepOnce(t)
	// One call shows that the account has not been rebound.
	wantRun(t, run, Run{State: StateDone, Pages: 1, Listed: 10_000, Calls: calls(2, 0, 1)})
	if err := b.db.GetContext(t.Context(), &after, fingerprint); err != nil {
		t.Fatal(err)
	}
	if before != after {
		t.Errorf("an unchanged sweep wrote: rows and newest moments were %s, are %s", before, after)
	}
}

func TestSweepFollowsChanges(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(12_000, 0, 0))
	b.sweepOnce(t)
	left := b.sim.Leave(appid, 150)
	b.sim.Join(appid, 330)
	run := b.sweepOnce(t)
	// 330 new people are four batches, 150 missing ones two; one call looks whether the binding is
	// the old one.
	wantRun(t, run,
		Run{State: StateDone, Pages: 2, Listed: 12_180, Added: 330, Gone: 150,
			Calls: calls(3, 6, 1)})
	b.wantTruth(t)

	b.sim.Follow(appid, left[0])
	run = b.sweepOnce(t)
	wantRun(t, run,
		Run{State: StateDone, Pages: 2, Listed: 12_181, Changed: 1, Calls: calls(3, 1, 1)})
	b.wantTruth(t)
}

func TestEmptyAccount(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(0, 0, 0))
	wantRun(t, b.sweepOnce(t), Run{State: StateDone, Calls: calls(1, 0, 0)})
}

// TestListMovesDuringTheScan: people join and leave before and behind the cursor while the list is
// read. Whoever the list missed is right after the next sweep, and nobody is wrong after this one.
func TestListMovesDuringTheScan(t *testing.T) {
	options := wechatsim.Standard(30_000, 0, 0)
	options.Accounts[0].Quirks = wechatsim.Quirks{TotalJitter: 40}
	b := newFixture(t, options)
	b.sweepOnce(t)
	b.api.calls = 0
	b.api.beforeFollowers = func(call int, _ string) {
		if call < 2 || call > 4 {
			return
		}
		b.sim.Leave(appid, 20)
		b.sim.FollowAt(appid, 40_000+call, 0)
		b.sim.FollowAt(appid, 50_000+call, 0.999)
	}
	b.sweepOnce(t)
	b.api.beforeFollowers = nil
	for p := range b.subscribed(t) {
		id, ok := b.sim.Identify(appid, p.OpenID)
		if !ok || id.UnionID != p.UnionID {
			t.Fatalf("the map says %+v, the truth is %+v", p, id)
		}
	}
	b.sweepOnce(t)
	b.wantTruth(t)
}

// TestCursorLeaves: the user whose openid is the cursor leaves, and WeChat refuses the cursor.
func TestCursorLeaves(t *testing.T) {
	options := wechatsim.Standard(30_000, 0, 0)
	options.Accounts[0].Quirks = wechatsim.Quirks{GoneCursorFails: true}
	b := newFixture(t, options)
	b.api.beforeFollowers = func(call int, cursor string) {
		if call == 3 {
			id, _ := b.sim.Identify(appid, cursor)
			b.sim.Unfollow(appid, id.Person)
		}
	}
	run := b.sweepOnce(t)
	if run.Calls[endpointFollowers] != 6 {
		t.Errorf("%d list calls, want 6: 4, the refused one and one page again",
			run.Calls[endpointFollowers])
	}
	if run.Pages != 3 || run.Listed != 29_999 {
		t.Errorf("%d pages with %d people, want 3 with 29,999: each page counts once", run.Pages,
			run.Listed)
	}
	b.api.beforeFollowers = nil
	b.sweepOnce(t)
	b.wantTruth(t)
}

// TestUncleanListMarksNobody: a list that breaks off changes nobody to gone.
func TestUncleanListMarksNobody(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault wechatsim.Fault
		code  int
		state State
	}{
		{"html", wechatsim.Fault{Kind: wechatsim.FaultHTML}, 0, StateFailed},
		{"empty body", wechatsim.Fault{Kind: wechatsim.FaultEmpty}, 0, StateFailed},
		{"truncated body", wechatsim.Fault{Kind: wechatsim.FaultTruncate}, 0, StateFailed},
		{"502", wechatsim.Fault{Kind: wechatsim.FaultStatus, Code: 502}, 0, StateFailed},
		{"reset", wechatsim.Fault{Kind: wechatsim.FaultReset}, 0, StateFailed},
		{"quota of the day", wechatsim.Fault{Kind: wechatsim.FaultErrcode, Code: 45009}, 45009,
			StateSuspended},
		{"address not in the whitelist", wechatsim.Fault{Kind: wechatsim.FaultErrcode, Code: 40164},
			40164, StateFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b := newFixture(t, wechatsim.Standard(15_000, 0, 0))
			b.sweepOnce(t)
			b.sim.Leave(appid, 50)
			b.api.calls = 0
			b.api.beforeFollowers = func(call int, _ string) {
				if call == 2 {
					c.fault.Path = "/cgi-bin/user/get"
					b.sim.SetFault(c.fault)
				}
			}
			run, err := b.Sweep(t.Context(), appid, nil)
			if run.State != c.state || run.Gone != 0 || run.Error == "" {
				t.Errorf("run %+v, want a %s one that changed nobody", run, c.state)
			}
			wantWeChat(t, err, c.code)
			if n := b.count(t, `SELECT COUNT(*) FROM follower WHERE subscribed = 1`); n != 15_000 {
				t.Errorf("%d subscribed rows, want all 15000", n)
			}
			if n := b.count(t, `SELECT COUNT(*) FROM sync_run WHERE id = ? AND state = ? AND error IS NOT NULL`, run.ID, c.state); n != 1 {
				t.Errorf("the ledger does not tell of the failure: %v", err)
			}
			b.sim.ClearFaults()
			b.sweepOnce(t)
			b.wantTruth(t)
		})
	}
}

func TestTooManyGone(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(5_000, 0, 0))
	b.sweepOnce(t)
	b.sim.Leave(appid, 251)
	run, err := b.Sweep(t.Context(), appid, nil)
	if !errors.Is(err, ErrTooManyGone) || run.State != StateBlocked || run.Gone != 0 {
		t.Errorf("run %+v with the error %v, want it blocked", run, err)
	}
	if n := b.count(t, `SELECT COUNT(*) FROM follower WHERE subscribed = 1`); n != 5_000 {
		t.Errorf("%d subscribed rows, want all 5000", n)
	}
	for _, w := range []string{"251 of 5000", "max_gone"} {
		if err != nil && !strings.Contains(err.Error(), w) {
			t.Errorf("the error %q lacks %q", err, w)
		}
	}
}

// TestOddBatchAnswers: the oddities seen of batchget end in a right map.
func TestOddBatchAnswers(t *testing.T) {
	for name, quirks := range map[string]wechatsim.Quirks{
		"false subscribe 0":   {FalseZero: 0.01},
		"listed, yet unknown": {FalseZero: 0.01, ListedUnknown: 0.01},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options := wechatsim.Standard(3_000, 0, 0)
			options.Accounts[0].Quirks = quirks
			b := newFixture(t, options)
			run := b.sweepOnce(t)
			if run.Calls[endpointUserInfo] == 0 {
				t.Error("nobody was looked up singly")
			}
			for p := range b.subscribed(t) {
				if id, ok := b.sim.Identify(appid, p.OpenID); !ok || id.UnionID != p.UnionID {
					t.Fatalf("the map says %+v, the truth is %+v", p, id)
				}
			}
			missing := 3_000 - len(b.subscribed(t))
			if doubts := b.count(t, `SELECT COUNT(*) FROM follower_recheck`); doubts != missing {
				t.Errorf("%d followers are missing, %d people are to be asked again", missing,
					doubts)
			}
		})
	}
}

func TestUnboundAccountNeedsNoUnionIDs(t *testing.T) {
	options := wechatsim.Standard(300, 0, 0)
	options.Accounts[0].Unbound = true
	b := newFixture(t, options)
	wantRun(t, b.sweepOnce(t),
		Run{State: StateDone, Pages: 1, Listed: 300, Added: 300, Calls: calls(2, 3, 0)})
	if n := b.count(t, `SELECT COUNT(*) FROM follower_recheck`); n != 0 {
		t.Errorf("%d people are to be asked for a unionid that their account does not have", n)
	}
}

// TestTwoInstances: the second one does not sweep what the first one sweeps.
func TestTwoInstances(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(10, 0, 0))
	other := b.instance(t, "two")
	inside, leave := make(chan struct{}), make(chan struct{})
	b.api.beforeFollowers = func(call int, _ string) {
		if call == 1 {
			close(inside)
			<-leave
		}
	}
	first := make(chan error, 1)
	go func() {
		_, err := b.Sweep(context.Background(), appid, nil)
		first <- err
	}()
	<-inside
	if _, err := other.Sweep(t.Context(), appid, nil); !errors.Is(err, ErrBusy) {
		t.Errorf("the second instance got %v, want ErrBusy", err)
	}
	close(leave)
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	if _, err := other.Sweep(t.Context(), appid, nil); err != nil {
		t.Errorf("after the first one ended, the second one got %v", err)
	}
}

func TestInterruptedSweepGoesOn(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(25_000, 0, 0))
	ctx, cancel := context.WithCancel(t.Context())
	b.api.beforeFollowers = func(call int, _ string) {
		if call == 2 {
			cancel()
		}
	}
	run, err := b.Sweep(ctx, appid, nil)
	if err == nil || run.State != StateInterrupted {
		t.Errorf("run %+v with the error %v, want it interrupted", run, err)
	}
	b.api.beforeFollowers = nil
	// The schedule begins at once with what did not end well.
	if err := b.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		return b.count(t, `SELECT COUNT(*) FROM sync_run WHERE state = 'done'`) == 1
	})
	if err := b.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.wantTruth(t)
}

// TestCrashedRunIsResumed: whatever a dead instance left open is resumed or closed.
func TestCrashedRunIsResumed(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(10, 0, 0))
	const insert = `INSERT INTO sync_run (id, kind, appid, state, holder, started_at, listed, calls)
		VALUES (?, ?, ?, ?, 'dead', CURRENT_TIMESTAMP(3) - INTERVAL ? HOUR, 7, '{"user/get": 4}')`
	for id, row := range map[int][]any{1: {"sweep", "running", 7}, 2: {"refresh", "running", 1}, 3: {"sweep", "failed", 1}} {
		if _, err := b.db.ExecContext(t.Context(), insert, id, row[0], appid, row[1], row[2]); err != nil {
			t.Fatal(err)
		}
	}
	run := b.sweepOnce(t)
	// Its spool is on another machine, so the list was read again; its calls still count.
	if run.ID != 3 || run.State != StateDone || run.Listed != 10 || run.Calls[endpointFollowers] != 6 {
		t.Errorf("run %+v, want the third one, resumed", run)
	}
	if err := b.identities.RequestRecheck(t.Context(), appid, []string{b.sim.OpenID(appid, 1)}, bridge.RecheckSendRefused); err != nil {
		t.Fatal(err)
	}
	if run, err := b.Refresh(t.Context(), appid); err != nil || run.ID <= 3 {
		t.Errorf("run %+v, error %v, want a new one", run, err)
	}
	if n := b.count(t, `SELECT COUNT(*) FROM sync_run WHERE id = 2 AND state = 'interrupted' AND ended_at IS NOT NULL`); n != 1 {
		t.Error("the crashed refresh is still open")
	}
}

func TestLedgerKeepsSoManyRuns(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(1, 0, 0))
	account := b.accounts[appid]
	account.KeepRuns = 3
	b.accounts[appid] = account
	var ids []int64
	for range 6 {
		ids = append(ids, b.sweepOnce(t).ID)
	}
	if n := b.count(t, `SELECT COUNT(*) FROM sync_run`); n != 3 {
		t.Errorf("%d runs in the ledger, want 3", n)
	}
	if n := b.count(t, `SELECT MIN(id) FROM sync_run`); int64(n) != ids[3] {
		t.Errorf("the oldest run is %d, want %d", n, ids[3])
	}
}

func TestUnknownAccount(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(1, 0, 0))
	_, err := b.Sweep(t.Context(), "wx00000000000000ff", nil)
	if err == nil || !strings.Contains(err.Error(), "official_accounts") {
		t.Errorf("got %v, want an error that names official_accounts", err)
	}
}

func TestProgress(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(2_000, 0, 0))
	var last Progress
	if _, err := b.Sweep(t.Context(), appid, func(p Progress) { last = p }); err != nil {
		t.Fatal(err)
	}
	if last.Phase != phaseCompare || last.Done != 2_000 || last.Of != 2_000 {
		t.Errorf("the last progress is %+v, want 2000 of 2000 in the phase compare", last)
	}
}

// waitFor polls a condition for a bounded time.
func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatal("the condition did not come true within 20 s")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestNewestRunHasTheLargestID: AUTO_INCREMENT of a TiDB cluster gives the later run the lower id.
// insert_id makes one server do so.
func TestNewestRunHasTheLargestID(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(1, 0, 0))
	account := b.accounts[appid]
	account.KeepRuns = 2
	b.exec(t, `INSERT INTO sync_run (id, kind, appid, state, holder) VALUES (30001, 'sweep', ?, 'failed', 'x'),
		(30002, 'sweep', ?, 'done', 'x')`, appid, appid)
	b.db = dbtest.Open(t, dbtest.DSN(t, b.db)+"?insert_id=7")
	b.Service = b.instance(t, "two")
	b.accounts[appid] = account
	run := b.sweepOnce(t)
	if h := must(ReadHistory(t.Context(), b.db, appid)); h.Sweep.ID != run.ID || h.GoodSweep.ID != run.ID {
		t.Errorf("the newest sweeps are %d and %d, want %d", h.Sweep.ID, h.GoodSweep.ID, run.ID)
	}
	if n := b.count(t, `SELECT MIN(id) FROM sync_run`); n != 30002 {
		t.Errorf("the oldest run is %d, want 30002: the first to be deleted was another", n)
	}
}

// TestRunsOpenedAtOnce: accounts have leases of their own, so their runs are numbered side by side.
func TestRunsOpenedAtOnce(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(1, 0, 0))
	var group errgroup.Group
	for n := range 40 {
		group.Go(func() error {
			l := ledger{db: b.db, holder: "x"}
			_, err := l.insert(t.Context(), Run{Kind: kindSweep, AppID: fmt.Sprint("wx", n%8)})
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	if n := b.count(t, `SELECT COUNT(DISTINCT id) FROM sync_run`); n != 40 {
		t.Errorf("%d runs, want 40", n)
	}
}
