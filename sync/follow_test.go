package sync

import (
	"context"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechat/push"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// startEvents runs the events of a fixture's service until the test ends.
func startEvents(t *testing.T, s *Service) *Events {
	t.Helper()
	e := NewEvents(s)
	e.pause = 10 * time.Millisecond
	e.Start(context.Background())
	t.Cleanup(func() { stopEvents(t, e) })
	return e
}

func stopEvents(t *testing.T, e *Events) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := e.Stop(ctx); err != nil {
		t.Errorf("stopping: %v", err)
	}
}

// follows announces what a person does now.
func follows(t *testing.T, e *Events, openid string, followed bool) {
	t.Helper()
	event := push.FollowEvent{OpenID: openid, Followed: followed,
		At: time.Now().UTC().Truncate(time.Second)}
	if err := e.Follow(t.Context(), appid, event); err != nil {
		t.Fatal(err)
	}
}

// eventually polls until the condition holds.
func eventually(t *testing.T, limit time.Duration, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (b *fixture) notes(t *testing.T) int { return b.count(t, `SELECT COUNT(*) FROM follower_recheck`) }

// TestFollowIsInTheMapSoon: whatever WeChat answers in the first seconds after a follow.
func TestFollowIsInTheMapSoon(t *testing.T) {
	for name, quirks := range map[string]wechatsim.Quirks{
		"at once":            {},
		"not subscribed":     {InfoLag: 4 * time.Second},
		"40003":              {InfoLag: 4 * time.Second, LagUnknown: true},
		"misaligned batches": {Misalign: true, FalseZero: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			options := wechatsim.Standard(20, 0, 0)
			options.Accounts[0].Quirks = quirks
			b := newFixture(t, options)
			b.exec(t,
				`INSERT INTO follower (appid, openid, unionid) VALUES (?, 'oOther', 'uOther')`,
				appid)
			e := startEvents(t, b.Service)
			const person = 500
			b.sim.Follow(appid, person)
			openid := b.sim.OpenID(appid, person)
			for range 3 { // deliveries
				follows(t, e, openid, true)
			}
			eventually(t, 20*time.Second, "the follower is in the map", func() bool {
				return b.subscribed(t)[person2(openid, b.union(person))]
			})
			eventually(t, 5*time.Second, "no note is left", func() bool { return b.notes(t) == 0 })
			if n := b.count(t, `SELECT COUNT(*) FROM sync_run`); n != 0 {
				t.Errorf("%d runs in the ledger", n)
			}
		})
	}
}

func person2(openid, unionid string) person { return person{OpenID: openid, UnionID: unionid} }

// TestLateUnionID: a follower without a unionid is stored at once, and rechecked if the account has
// unionids.
func TestLateUnionID(t *testing.T) {
	t.Parallel()
	for _, bound := range []bool{true, false} {
		b := newFixture(t, wechatsim.Standard(20, 0, 0))
		if bound {
			b.exec(t,
				`INSERT INTO follower (appid, openid, unionid) VALUES (?, 'oOther', 'uOther')`,
				appid)
		}
		b.api.single = func(u *wechat.UserInfo) { u.UnionID = "" }
		e := NewEvents(b.Service)
		openid := b.sim.OpenID(appid, 3)
		follows(t, e, openid, true)
		b.exec(t, `UPDATE follower_recheck SET due_at = CURRENT_TIMESTAMP(3)`)
		if _, err := e.pass(t.Context(), appid); err != nil {
			t.Fatal(err)
		}
		if !b.subscribed(t)[person{OpenID: openid}] {
			t.Errorf("bound %v: the follower is not in the map", bound)
		}
		if n := b.notes(t); (n == 1) != bound {
			t.Errorf("bound %v: %d notes are open", bound, n)
		}
		if !bound {
			continue
		}
		b.api.single = nil
		b.exec(t, `UPDATE follower_recheck SET due_at = CURRENT_TIMESTAMP(3)`)
		if wait, err := e.pass(t.Context(), appid); err != nil || wait != 0 {
			t.Fatalf("wait %v, %v", wait, err)
		}
		if !b.subscribed(t)[person2(openid, b.union(3))] || b.notes(t) != 0 {
			t.Errorf("the unionid that came late is not in the map")
		}
	}
}

// TestConfirmFollowGivesUp: what no quick question settles is left to the refresh, with the doubt
// that fits.
func TestConfirmFollowGivesUp(t *testing.T) {
	t.Parallel()
	b := newFixture(t, wechatsim.Standard(20, 0, 0))
	b.exec(t, `INSERT INTO follower (appid, openid, unionid) VALUES (?, 'oOther', 'uOther')`, appid)
	e := NewEvents(b.Service)
	left, unknown, twin := b.sim.OpenID(appid,
		3), "oNobodyHasThisOpenid00000000", b.sim.OpenID(appid, 5)
	b.sim.Unfollow(appid, 3)
	b.exec(t, `INSERT INTO follower (appid, openid, unionid) VALUES (?, ?, ?)`, appid,
		b.sim.OpenID(appid, 6), b.union(5))
	b.api.single = func(u *wechat.UserInfo) { // two people claim one unionid, in single answers too
		if u.OpenID == b.sim.OpenID(appid, 6) {
			u.UnionID = b.union(5)
		}
	}
	for _, openid := range []string{left, unknown, twin} {
		follows(t, e, openid, true)
	}
	for asked := 1; asked <= 6; asked++ {
		b.exec(t,
			`UPDATE follower_recheck SET due_at = CURRENT_TIMESTAMP(3) WHERE reason = 'followed'`)
		wait, err := e.pass(t.Context(), appid)
		if err != nil {
			t.Fatal(err)
		}
		want := []time.Duration{3 * time.Second, 6 * time.Second, 12 * time.Second,
			24 * time.Second, 48 * time.Second, 0}[asked-1]
		if wait > want || wait < want-want/3 {
			t.Errorf("after question %d the next one waits %v, want %v", asked, wait, want)
		}
	}
	for openid, doubt := range map[string]bridge.RecheckReason{
		left: bridge.RecheckNotSubscribed, unknown: bridge.RecheckUnknownOpenID, twin: bridge.RecheckUnionIDTwice,
	} {
		if n := b.count(t, `SELECT COUNT(*) FROM follower_recheck WHERE openid = ? AND reason = ? AND due_at <= CURRENT_TIMESTAMP(3)`, openid, doubt); n != 1 {
			t.Errorf("%s is not in doubt as %s", openid, doubt)
		}
	}
}

// TestUnfollowWhileAsked: an unfollow arrives before the older answer about the follow. The truth
// must win.
func TestUnfollowWhileAsked(t *testing.T) {
	t.Parallel()
	b := newFixture(t, wechatsim.Standard(20, 0, 0))
	e := NewEvents(b.Service)
	openid := b.sim.OpenID(appid, 3)
	follows(t, e, openid, true)
	b.exec(t, `UPDATE follower_recheck SET due_at = CURRENT_TIMESTAMP(3)`)
	left := false
	b.api.single = func(u *wechat.UserInfo) {
		if !left {
			left = true
			b.sim.Unfollow(appid, 3)
			event := push.FollowEvent{OpenID: openid, At: time.Now().UTC().Truncate(time.Second)}
			if err := e.Follow(context.Background(), appid, event); err != nil {
				t.Error(err)
			}
		}
	}
	if _, err := e.pass(t.Context(), appid); err != nil {
		t.Fatal(err)
	}
	if n := b.notes(t); n != 1 {
		t.Fatalf("%d notes are open, want the one that the unfollow has renewed", n)
	}
	for range 6 {
		b.exec(t, `UPDATE follower_recheck SET due_at = CURRENT_TIMESTAMP(3)`)
		if _, err := e.pass(t.Context(), appid); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Refresh(t.Context(), appid); err != nil {
		t.Fatal(err)
	}
	if len(b.subscribed(t)) != 0 || b.notes(t) != 0 {
		t.Errorf("followers %v, %d notes; want none", b.subscribed(t), b.notes(t))
	}
}

// TestEventsBesideASweep: events during a sweep's list and comparison; in the end the map is the
// truth.
func TestEventsBesideASweep(t *testing.T) {
	t.Parallel()
	b := newFixture(t, wechatsim.Standard(25_000, 0, 0))
	b.sweepOnce(t)
	e := startEvents(t, b.Service)
	b.api.calls = 0
	b.api.beforeFollowers = func(call int, _ string) {
		for _, p := range b.sim.Join(appid, 20) {
			follows(t, e, b.sim.OpenID(appid, p), true)
		}
		for p := range 20 {
			b.sim.Unfollow(appid, 1000*call+p)
			follows(t, e, b.sim.OpenID(appid, 1000*call+p), false)
		}
	}
	b.sweepOnce(t)
	eventually(t, 30*time.Second, "all are rechecked", func() bool {
		return b.count(t, `SELECT COUNT(*) FROM follower_recheck WHERE reason = 'followed'`) == 0
	})
	if _, err := b.Refresh(t.Context(), appid); err != nil { // what the sweep itself found doubtful
		t.Fatal(err)
	}
	b.wantTruth(t)
}

// TestEventsOfTwoInstances: a third one took the events and died. Both find them, and a restart
// finds what is left.
func TestEventsOfTwoInstances(t *testing.T) {
	t.Parallel()
	b := newFixture(t, wechatsim.Standard(20, 0, 0))
	silent := NewEvents(b.Service) // never started: it has died
	for person := range 20 {
		follows(t, silent, b.sim.OpenID(appid, person), true)
	}
	first, second := startEvents(t, b.instance(t, "two")), startEvents(t, b.instance(t, "three"))
	eventually(t, 20*time.Second, "all are in the map",
		func() bool { return len(b.subscribed(t)) == 20 && b.notes(t) == 0 })
	b.wantTruth(t)
	stopEvents(t, first)
	stopEvents(t, first) // idempotent
	b.sim.Unfollow(appid, 7)
	event := push.FollowEvent{OpenID: b.sim.OpenID(appid, 7),
		At: time.Now().Add(2 * time.Second)} // surely later than the follow
	if err := first.Follow(t.Context(), appid, event); err != nil { // a stopped one still writes
		t.Fatal(err)
	}
	if b.subscribed(t)[person2(b.sim.OpenID(appid, 7), b.union(7))] {
		t.Error("somebody who left still follows in the map")
	}
	stopEvents(t, second)
	if n := b.count(t, `SELECT COUNT(*) FROM lease WHERE name = ? AND expires_at > CURRENT_TIMESTAMP(3)`, LeaseName(kindFollow, appid)); n != 0 {
		t.Error("a stopped instance keeps the lease")
	}
}

func TestEventsOfAnUnknownAccount(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(1, 0, 0))
	if err := NewEvents(b.Service).Follow(t.Context(), "wx0000000000000000", push.FollowEvent{}); err == nil {
		t.Error("an event of an account that is not configured is taken")
	}
	if err := NewEvents(b.Service).Stop(t.Context()); err != nil {
		t.Errorf("stopping what never started: %v", err)
	}
}
