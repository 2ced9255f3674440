package sync

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// misaligned is batchget as it has been reported of a list with an unknown openid: every unionid
// behind it stands one place too high. The unknown one's own record is taken out, so that the set
// looks right.
func misaligned(at int) func(context.Context, API, []string) ([]wechat.UserInfo, error) {
	return func(ctx context.Context, api API, openids []string) ([]wechat.UserInfo, error) {
		infos, err := api.BatchUserInfo(ctx, openids)
		if err != nil {
			return nil, err
		}
		for i := at; i < len(infos); i++ {
			infos[i].UnionID = ""
			if i+1 < len(infos) {
				infos[i].UnionID = infos[i+1].UnionID
			}
		}
		return infos, nil
	}
}

func TestMisalignedBatches(t *testing.T) {
	for _, at := range []int{0, 1, 50, 98, 99} {
		b := newFixture(t, wechatsim.Standard(300, 0, 0))
		b.api.batch = misaligned(at)
		b.sweepOnce(t)
		b.wantTruth(t)
	}
}

// TestBatchThatLooksRight: a batch answer is wrong in a way that nothing in it shows. What
// conflicts with the map is fetched one by one; nobody gets another person's unionid.
func TestBatchThatLooksRight(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(200, 0, 0))
	b.sweepOnce(t)
	joined := b.sim.Join(appid, 2)
	victim := b.union(0)
	b.api.batch = func(ctx context.Context, api API, openids []string) ([]wechat.UserInfo, error) {
		infos, err := api.BatchUserInfo(ctx, openids)
		for i := range infos {
			if infos[i].OpenID == b.sim.OpenID(appid, joined[0]) {
				infos[i].UnionID = victim // of somebody who is in the map already
			}
		}
		return infos, err
	}
	b.sweepOnce(t)
	b.wantTruth(t)
}

// TestUnionIDChangesHands: the map itself is wrong, and both people's own answers agree on it.
func TestUnionIDChangesHands(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(200, 0, 0))
	b.sweepOnce(t)
	joined := b.sim.Join(appid, 1)
	b.exec(t, `UPDATE follower SET unionid = ? WHERE openid = ?`, b.union(joined[0]),
		b.sim.OpenID(appid, 7))
	b.sweepOnce(t)
	b.wantTruth(t)
}

// TestTwoClaimOneUnionID: WeChat itself insists that two followers are one. Neither is reached by
// it, and both stay in question.
func TestTwoClaimOneUnionID(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(50, 0, 0))
	b.sweepOnce(t)
	joined := b.sim.Join(appid, 1)
	newcomer, claimed := b.sim.OpenID(appid, joined[0]), b.union(7)
	claim := func(u *wechat.UserInfo) {
		if u.OpenID == newcomer {
			u.UnionID = claimed
		}
	}
	b.api.batch = func(ctx context.Context, api API, openids []string) ([]wechat.UserInfo, error) {
		infos, err := api.BatchUserInfo(ctx, openids)
		for i := range infos {
			claim(&infos[i])
		}
		return infos, err
	}
	b.api.single = claim
	b.sweepOnce(t)
	found, err := b.identities.Resolve(t.Context(), appid, []bridge.Recipient{{UnionID: claimed}})
	if err != nil || found[0].Reachability != bridge.Ambiguous {
		t.Errorf("resolved to %+v, %v; want it ambiguous", found, err)
	}
	if n := b.count(t, `SELECT COUNT(*) FROM follower_recheck WHERE reason = 'unionid_twice'`); n != 1 {
		t.Errorf("%d questions are open, want the holder's", n)
	}
	// The question stays as long as the claim does, and ends with it.
	if _, err := b.Refresh(t.Context(), appid); err != nil {
		t.Fatal(err)
	}
	if n := b.count(t, `SELECT COUNT(*) FROM follower_recheck WHERE attempts = 1`); n != 2 {
		t.Error("the questions were settled although both still claim the unionid")
	}
	b.api.single = nil
	b.exec(t, `UPDATE follower_recheck SET due_at = CURRENT_TIMESTAMP(3)`)
	if _, err := b.Refresh(t.Context(), appid); err != nil {
		t.Fatal(err)
	}
	b.wantTruth(t)
	if n := b.count(t, `SELECT COUNT(*) FROM follower_recheck`); n != 0 {
		t.Errorf("%d questions are open, want none", n)
	}
}

// TestTwinsOfTheFirstSweep: in an empty table there is nothing to contradict; the table itself is
// looked at when it is full.
func TestTwinsOfTheFirstSweep(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(500, 0, 0))
	victim := b.union(0)
	wrong := b.sim.OpenID(appid, 321)
	b.api.batch = func(ctx context.Context, api API, openids []string) ([]wechat.UserInfo, error) {
		infos, err := api.BatchUserInfo(ctx, openids)
		for i := range infos {
			if infos[i].OpenID == wrong && !slices.Contains(openids, b.sim.OpenID(appid, 0)) {
				infos[i].UnionID = victim
			}
		}
		return infos, err
	}
	b.sweepOnce(t)
	b.wantTruth(t)
}

// TestTwinsBesideASlowClock: this machine's clock falls behind the database's during the sweep. What
// the sweep learns last about people whom it has just stored counts nevertheless.
func TestTwinsBesideASlowClock(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(500, 0, 0))
	begin := time.Now()
	b.cfg.Now = func() time.Time { return begin.Add(time.Since(begin) / 2) }
	openids := make([]string, 500)
	for i := range openids {
		openids[i] = b.sim.OpenID(appid, i)
	}
	victim, union := openids[0], b.union(0)
	slices.Sort(openids)
	wrong := openids[(slices.Index(openids, victim)+250)%500] // of another batch
	b.api.batch = func(ctx context.Context, api API, asked []string) ([]wechat.UserInfo, error) {
		infos, err := api.BatchUserInfo(ctx, asked)
		for i := range infos {
			if infos[i].OpenID == wrong {
				infos[i].UnionID = union
			}
		}
		return infos, err
	}
	b.sweepOnce(t)
	b.wantTruth(t)
}

// TestTwinsOfAnOldFirstSweep: the first sweep was stopped so long ago that a new one begins, in a
// table that it has half filled.
func TestTwinsOfAnOldFirstSweep(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(300, 0, 0))
	b.exec(t, `INSERT INTO sync_run (kind, appid, state, holder, started_at)
		VALUES ('sweep', ?, 'interrupted', 'x', CURRENT_TIMESTAMP(3) - INTERVAL 7 HOUR)`, appid)
	for person := range 2 { // person 1 was given the unionid of person 0
		b.exec(t,
			`INSERT INTO follower (appid, openid, unionid, info_at) VALUES (?, ?, ?, CURRENT_TIMESTAMP(3))`,
			appid, b.sim.OpenID(appid, person), b.union(0))
	}
	b.sweepOnce(t)
	b.wantTruth(t)
}

// TestReadAfterFollow: right after a follow WeChat says "not subscribed", or does not know the
// openid. The next refresh has it right.
func TestReadAfterFollow(t *testing.T) {
	for _, unknown := range []bool{false, true} {
		options := wechatsim.Standard(100, 0, 0)
		now := time.Now()
		options.Now = func() time.Time { return now }
		options.Accounts[0].Quirks = wechatsim.Quirks{InfoLag: time.Hour, LagUnknown: unknown}
		b := newFixture(t, options)
		b.sweepOnce(t)
		b.sim.Join(appid, 3)
		b.sweepOnce(t)
		if n := b.count(t, `SELECT COUNT(*) FROM follower_recheck`); n != 3 {
			t.Errorf("%d questions are open, want 3", n)
		}
		now = now.Add(2 * time.Hour)
		if _, err := b.Refresh(t.Context(), appid); err != nil {
			t.Fatal(err)
		}
		b.wantTruth(t)
	}
}

func TestRebinding(t *testing.T) {
	for name, notice := range map[string]func(*testing.T, *fixture){
		"by a sweep that has questions": func(t *testing.T, b *fixture) {
			b.sim.Join(appid, 3)
			b.sweepOnce(t)
		},
		"by a sweep in which nobody joined or left": func(t *testing.T, b *fixture) { b.sweepOnce(t) },
		"between the sweeps":                        func(t *testing.T, b *fixture) { b.checkBinding(t.Context(), appid) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newFixture(t, wechatsim.Standard(3_000, 0, 0))
			b.sweepOnce(t)
			b.checkBinding(t.Context(), appid)
			if n := b.count(t, `SELECT COUNT(*) FROM sync_run`); n != 1 {
				t.Fatalf("%d runs, though nothing has changed", n)
			}
			gone := b.sim.OpenID(appid, b.sim.Leave(appid, 1)[0])
			b.sweepOnce(t)
			b.exec(t, `DELETE FROM sync_run ORDER BY id DESC LIMIT 1`)
			b.sim.Rebind(appid)
			notice(t, b)
			if n := b.count(t, `SELECT COUNT(*) FROM follower WHERE openid = ? AND unionid IS NULL`, gone); n != 1 {
				t.Error("somebody who had left keeps a dead unionid")
			}
			b.wantTruth(t)
			if n := b.count(t, `SELECT COUNT(*) FROM sync_run WHERE mode = 'rebind' AND state = 'done'`); n != 1 {
				t.Errorf("%d runs refreshed everybody, want 1", n)
			}
			b.checkBinding(t.Context(), appid)
			run := b.sweepOnce(t)
			if run.Mode != modeNormal || run.Calls[endpointBatch] != 0 {
				t.Errorf("the run after it is %+v, want a normal one without questions", run)
			}
		})
	}
}

// TestRebindingBesideRefreshed: some have followed again since the rebinding, and the map has their
// new unionids. They agree with WeChat, and prove nothing about the others.
func TestRebindingBesideRefreshed(t *testing.T) {
	t.Parallel()
	b := newFixture(t, wechatsim.Standard(50, 0, 0))
	b.sweepOnce(t)
	b.exec(t, `UPDATE follower SET info_at = info_at - INTERVAL 1 DAY`)
	b.sim.Rebind(appid)
	b.exec(t, `INSERT INTO follower_recheck (appid, openid, reason)
		SELECT appid, openid, 'no_unionid' FROM follower ORDER BY openid LIMIT 5`)
	if _, err := b.Refresh(t.Context(), appid); err != nil {
		t.Fatal(err)
	}
	if run := b.sweepOnce(t); run.Mode != modeRebind {
		t.Errorf("the run is %+v, want one that fetches everybody", run)
	}
	b.wantTruth(t)
}

// TestRebindingIsGoneOnWith: the refresh of everybody is stopped by the quota and goes on without
// asking anybody twice.
func TestRebindingIsGoneOnWith(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(3_000, 0, 0))
	b.sweepOnce(t)
	b.sim.Rebind(appid)
	b.sim.Join(appid, 1)
	used := b.sim.Calls()[wechat.EndpointBatchInfo]
	b.sim.SetDailyLimit(appid, wechat.EndpointBatchInfo, used+12)
	run, err := b.Sweep(t.Context(), appid, nil)
	if err == nil || run.State != StateSuspended {
		t.Fatalf("run %+v, error %v, want it suspended", run, err)
	}
	b.sim.SetDailyLimit(appid, wechat.EndpointBatchInfo, 0)
	b.exec(t, `UPDATE sync_run SET resume_at = CURRENT_TIMESTAMP(3)`)
	b.catchUp(t.Context(), appid, 0)
	b.wantTruth(t)
	if n := b.sim.Calls()[wechat.EndpointBatchInfo] - used; n > 12+31+int64(b.accounts[appid].Concurrency) {
		t.Errorf("%d batchgets for 3001 people in two parts", n)
	}
}

func TestQuota(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(25_000, 0, 0))
	// The list needs 4 calls, and a day holds 6 besides the reserve; but of today's only 3 are
	// left.
	account := b.accounts[appid]
	account.QuotaReserve = 0.4
	b.accounts[appid] = account
	b.exec(t,
		`INSERT INTO sync_run (kind, appid, state, holder, listed) VALUES ('sweep', ?, 'done', 'x', 25000)`, appid)
	b.sim.SetDailyLimit(appid, wechat.EndpointFollowers, 10)
	for range 3 {
		must(b.API().Followers(t.Context(), ""))
	}
	run, err := b.Sweep(t.Context(), appid, nil)
	if !errors.Is(err, errBudget) || run.State != StateSuspended || run.Calls[endpointFollowers] != 0 {
		t.Errorf("run %+v, error %v, want it postponed without a call", run, err)
	}
	if err != nil && !strings.Contains(err.Error(), "needs about 4 calls of user/get, and 3 are left") {
		t.Errorf("the error says %q", err)
	}
	if left := time.Until(run.ResumeAt); left <= 0 || left > 25*time.Hour {
		t.Errorf("it goes on in %s", left)
	}
	b.catchUp(t.Context(), appid, 0)
	if n := b.sim.Calls()[wechat.EndpointFollowers]; n != 3 {
		t.Errorf("%d list calls before the quota is there again", n)
	}
	// The next day: the list fits, the questions do not.
	b.sim.SetDailyLimit(appid, wechat.EndpointFollowers, 0)
	b.sim.SetDailyLimit(appid, wechat.EndpointBatchInfo, 100)
	run, err = b.Sweep(t.Context(), appid, nil)
	if !errors.Is(err, errBudget) || run.State != StateSuspended || run.Calls[endpointBatch] != 60 {
		t.Errorf("run %+v, error %v, want it suspended with 60 of 100 batchgets made", run, err)
	}
	if n := b.count(t, `SELECT COUNT(*) FROM follower`); n != 6_000 {
		t.Errorf("%d followers are stored, want those 60 batches'", n)
	}
	b.sim.SetDailyLimit(appid, wechat.EndpointBatchInfo, 0)
	run = b.sweepOnce(t)
	if run.Calls[endpointBatch] != 250 || run.Calls[endpointFollowers] != 4 {
		t.Errorf("run %+v, want 250 batchgets and 4 list calls in all", run)
	}
	b.wantTruth(t)
}

// TestListLargerThanTheQuota: a list that no day's quota holds is spread over the days.
func TestListLargerThanTheQuota(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(55_000, 0, 0))
	b.exec(t,
		`INSERT INTO sync_run (kind, appid, state, holder, listed) VALUES ('sweep', ?, 'done', 'x', 55000)`, appid)
	for day := int64(1); ; day++ {
		b.sim.SetDailyLimit(appid, wechat.EndpointFollowers, 3*day)
		run, err := b.Sweep(t.Context(), appid, nil)
		if err == nil {
			if day != 3 || run.Calls[endpointFollowers] != 7 {
				t.Errorf("run %+v on day %d, want it done on the third one with 7 list calls", run,
					day)
			}
			break
		}
		if !errors.Is(err, errBudget) || run.State != StateSuspended || day > 3 {
			t.Fatalf("day %d: run %+v, error %v", day, run, err)
		}
		b.exec(t, `UPDATE sync_run SET started_at = started_at - INTERVAL 24 HOUR WHERE id = ?`,
			run.ID)
	}
	b.wantTruth(t)
}

func TestAcceptGone(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(5_000, 0, 0))
	done := b.sweepOnce(t)
	b.sim.Leave(appid, 900)
	blocked, err := b.Sweep(t.Context(), appid, nil)
	if !errors.Is(err, ErrTooManyGone) || !strings.Contains(err.Error(), fmt.Sprint("--accept-gone ", blocked.ID)) {
		t.Fatalf("got %v", err)
	}
	for _, id := range []int64{done.ID, 999} {
		if _, err := b.AcceptGone(t.Context(), id, nil); err == nil || !strings.Contains(err.Error(), "not a blocked sweep") {
			t.Errorf("accepting run %d: %v", id, err)
		}
	}
	b.sim.Leave(appid, freeGone+1) // more than the operator has seen
	again, err := b.AcceptGone(t.Context(), blocked.ID, nil)
	if !errors.Is(err, ErrTooManyGone) {
		t.Errorf("got %v, want it blocked again", err)
	}
	if _, err := b.AcceptGone(t.Context(), blocked.ID, nil); err == nil || !strings.Contains(err.Error(), "not the last sweep") {
		t.Errorf("an old run was accepted: %v", err)
	}
	run, err := b.AcceptGone(t.Context(), again.ID, nil)
	if err != nil || run.Gone != 900+freeGone+1 {
		t.Errorf("run %+v, error %v", run, err)
	}
	b.wantTruth(t)
}

// TestEverythingAtOnce mixes what WeChat has been seen to do, people who come and go at every
// moment, and stops. No entry is ever wrong; when it gets quiet, the map is the truth.
func TestEverythingAtOnce(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 2))
	options := wechatsim.Standard(12_000, 0, 0)
	options.Seed = seed
	options.Accounts[0].Quirks = wechatsim.Quirks{
		TotalJitter: 50, GoneCursorFails: true, FalseZero: 0.0005, ListedUnknown: 0.0005, Misalign: true, OldNonFollower: rnd.IntN(2) == 0,
	}
	b := newFixture(t, options)
	for round := range 6 {
		ctx, cancel := context.WithCancel(t.Context())
		stopAt := 1 + rnd.IntN(6)
		churn := func(call int) {
			switch rnd.IntN(4) {
			case 0:
				b.sim.Leave(appid, rnd.IntN(30))
			case 1:
				b.sim.Join(appid, rnd.IntN(30))
			case 2:
				b.sim.FollowAt(appid, 100_000+100*round+call, float64(rnd.IntN(2))*0.999)
			}
			if call == stopAt && rnd.IntN(2) == 0 {
				cancel()
			}
		}
		b.api.calls = 0
		b.api.beforeFollowers = func(call int, _ string) { churn(call) }
		if rnd.IntN(2) == 0 {
			b.api.batch = misaligned(rnd.IntN(100))
		}
		if round == 4 {
			b.sim.Rebind(appid)
		}
		_, err := b.Sweep(ctx, appid, nil)
		if err != nil && ctx.Err() == nil {
			t.Fatalf("seed %d, round %d: %v", seed, round, err)
		}
		cancel()
		b.api.batch = nil
		if round < 4 {
			b.wantNobodyWrong(t, seed)
		}
	}
	b.api.beforeFollowers = nil
	b.sim.SetQuirks(appid, wechatsim.Quirks{})
	for range 4 { // two answers are needed before somebody is gone
		b.sweepOnce(t)
		b.exec(t, `UPDATE follower_recheck SET due_at = CURRENT_TIMESTAMP(3)`)
		if _, err := b.Refresh(t.Context(), appid); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	b.wantTruth(t)
	if t.Failed() {
		t.Logf("seed %d", seed)
	}
}

func (b *fixture) wantNobodyWrong(t *testing.T, seed uint64) {
	t.Helper()
	for p := range b.subscribed(t) {
		if id, ok := b.sim.Identify(appid, p.OpenID); !ok || (p.UnionID != "" && id.UnionID != p.UnionID) {
			t.Fatalf("seed %d: the map says %+v, the truth is %+v", seed, p, id)
		}
	}
}
