package sync

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// TestRecheckPolicy: what an answer means depends on the recheck alone, not on who asked.
func TestRecheckPolicy(t *testing.T) {
	gone := bridge.Settlement{Gone: true}
	next := func(reason bridge.RecheckReason, attempts int, wait time.Duration) bridge.Settlement {
		return bridge.Settlement{Next: reason, Attempts: attempts, Wait: wait}
	}
	const (
		followed, noUnionID = bridge.RecheckFollowed, bridge.RecheckNoUnionID
		unknown, twice      = bridge.RecheckUnknownOpenID, bridge.RecheckUnionIDTwice
		notSubscribed       = bridge.RecheckNotSubscribed
		refused, invalid    = bridge.RecheckSendRefused, bridge.RecheckSendInvalid
		second, minute      = time.Second, time.Minute
	)
	for _, test := range []struct {
		reason                        bridge.RecheckReason
		attempts                      int
		left, unknownID, anotherError bridge.Settlement
	}{
		{followed, 0, next(followed, 1, 3*second), next(followed, 1, 3*second),
			next(followed, 1, 3*second)},
		{followed, 4, next(followed, 5, 48*second), next(followed, 5, 48*second),
			next(followed, 5, 48*second)},
		{followed, 5, next(notSubscribed, 0, 0), next(unknown, 0, 0), next(followed, 6, 3*minute)},
		{followed, 7, next(notSubscribed, 0, 0), next(unknown, 0, 0), next(followed, 8, 12*minute)},
		{followed, 900, next(notSubscribed, 0, 0), next(unknown, 0, 0),
			next(followed, 901, 15*minute)},
		{noUnionID, 0, next(notSubscribed, 1, 5*minute), next(unknown, 1, 5*minute),
			next(noUnionID, 0, 15*minute)},
		{noUnionID, 3, next(notSubscribed, 1, 40*minute), next(unknown, 1, 5*minute),
			next(noUnionID, 3, 15*minute)},
		{twice, 3, gone, next(unknown, 1, 5*minute), next(twice, 3, 15*minute)},
		{notSubscribed, 0, gone, next(notSubscribed, 1, 5*minute),
			next(notSubscribed, 0, 15*minute)},
		{unknown, 1, gone, next(unknown, 2, 10*minute), next(unknown, 1, 15*minute)},
		{unknown, 2, gone, gone, next(unknown, 2, 15*minute)},
		{refused, 0, gone, next(refused, 1, 5*minute), next(refused, 0, 15*minute)},
		{invalid, 2, gone, gone, next(invalid, 2, 15*minute)},
	} {
		r := bridge.Recheck{Reason: test.reason, Attempts: test.attempts}
		got := []bridge.Settlement{afterNotSubscribed(r), afterUnknown(r), afterError(r)}
		want := []bridge.Settlement{test.left, test.unknownID, test.anotherError}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s after %d answers (-want +got):\n%s", test.reason, test.attempts, diff)
		}
	}
}

func TestRecheckBackoff(t *testing.T) {
	for attempts, want := range map[int]time.Duration{
		0: 5 * time.Minute, 1: 10 * time.Minute, 4: 80 * time.Minute,
		10: 5120 * time.Minute, 11: 7 * 24 * time.Hour, 1000: 7 * 24 * time.Hour,
	} {
		got := postponed(bridge.Recheck{Attempts: attempts}, bridge.RecheckNoUnionID)
		if got.Wait != want || got.Attempts != attempts+1 {
			t.Errorf("after %d answers: %+v, want %s", attempts, got, want)
		}
	}
}

// TestEventDuringRefresh: what WeChat pushes while the answer to a refresh is under way is newer
// than that answer, so the map follows the event.
func TestEventDuringRefresh(t *testing.T) {
	t.Parallel()
	const person = 1
	for _, reason := range []bridge.RecheckReason{
		bridge.RecheckNotSubscribed, bridge.RecheckUnknownOpenID, bridge.RecheckSendRefused,
		bridge.RecheckUnionIDTwice, bridge.RecheckFollowed,
	} {
		for _, followed := range []bool{true, false} {
			b := newFixture(t, wechatsim.Standard(3, 0, 0))
			b.sweepOnce(t)
			id := b.sim.OpenID(appid, person)
			e := NewEvents(b.Service)
			turn := func(follow bool) {
				if follow {
					b.sim.Follow(appid, person)
				} else {
					b.sim.Unfollow(appid, person)
				}
			}
			turn(!followed)
			b.exec(t, `UPDATE follower SET subscribed = ? WHERE openid = ?`, !followed, id)
			b.exec(t, `INSERT INTO follower_recheck (appid, openid, reason) VALUES (?, ?, ?)`,
				appid, id, reason)
			pushed := false
			b.api.answered = func(string) {
				if !pushed {
					pushed = true
					turn(followed)
					follows(t, e, id, followed)
				}
			}
			if _, err := b.Refresh(t.Context(), appid); err != nil {
				t.Fatal(err)
			}
			subscribed := b.count(t, `SELECT subscribed FROM follower WHERE openid = ?`, id) == 1
			open := b.count(t,
				`SELECT COUNT(*) FROM follower_recheck WHERE openid = ? AND reason = 'followed'`,
				id)
			switch {
			case followed && !subscribed && open == 0:
				t.Errorf("%s: nobody checks the follow before the next sweep", reason)
			case !followed && subscribed:
				t.Errorf("%s: the map says that somebody follows who left", reason)
			}
			b.exec(t, `UPDATE follower_recheck SET due_at = CURRENT_TIMESTAMP(3)`)
			if _, err := e.pass(t.Context(), appid); err != nil {
				t.Fatal(err)
			}
			if followed {
				b.wantTruth(t)
			}
		}
	}
}

// TestEventDuringSweep: the answers of a sweep wait for others to be stored with; an event that
// comes meanwhile is newer.
func TestEventDuringSweep(t *testing.T) {
	t.Parallel()
	const leaves, wasAway, returns = 1, 2, 3
	b := newFixture(t, wechatsim.Standard(200, 0, 0))
	b.sweepOnce(t)
	e := NewEvents(b.Service)
	id := func(person int) string { return b.sim.OpenID(appid, person) }
	b.exec(t, `UPDATE follower SET info_at = NULL WHERE openid = ?`,
		id(leaves)) // so that the sweep asks
	b.exec(t, `UPDATE follower SET subscribed = 0 WHERE openid = ?`, id(wasAway))
	b.sim.Unfollow(appid, returns)
	pushed := map[string]bool{}
	push := func(person int, followed bool) {
		if pushed[id(person)] {
			return
		}
		pushed[id(person)] = true
		if followed {
			b.sim.Follow(appid, person)
		} else {
			b.sim.Unfollow(appid, person)
		}
		follows(t, e, id(person), followed)
	}
	b.api.answered = func(openid string) {
		switch openid {
		case id(leaves):
			push(leaves, false)
		case id(wasAway):
			push(wasAway, false)
		case id(returns):
			push(returns, true)
		}
	}
	b.sweepOnce(t)
	if len(pushed) != 3 {
		t.Fatalf("the sweep fetched %d of 3", len(pushed))
	}
	for person, want := range map[int]int{leaves: 0, wasAway: 0, returns: 1} {
		if got := b.count(t, `SELECT subscribed FROM follower WHERE openid = ?`, id(person)); got != want {
			t.Errorf("person %d: subscribed %d, want %d", person, got, want)
		}
	}
	b.exec(t, `UPDATE follower_recheck SET due_at = CURRENT_TIMESTAMP(3)`)
	if _, err := e.pass(t.Context(), appid); err != nil {
		t.Fatal(err)
	}
	b.wantTruth(t)
}

// TestRefreshBesideEvents: a refresh at the wrong moment does not delay a new follower.
func TestRefreshBesideEvents(t *testing.T) {
	t.Parallel()
	const first, people = 500, 10
	options := wechatsim.Standard(20, 0, 0)
	options.Accounts[0].Quirks = wechatsim.Quirks{InfoLag: 4 * time.Second}
	b := newFixture(t, options)
	b.exec(t, `INSERT INTO follower (appid, openid, unionid) VALUES (?, 'oOther', 'uOther')`, appid)
	e := startEvents(t, b.Service)
	for person := first; person < first+people; person++ {
		b.sim.Follow(appid, person)
		follows(t, e, b.sim.OpenID(appid, person), true)
	}
	eventually(t, 20*time.Second, "the followers are in the map", func() bool {
		if _, err := b.Refresh(t.Context(), appid); err != nil {
			t.Fatal(err)
		}
		return len(b.subscribed(t)) == people+1
	})
	eventually(t, 5*time.Second, "no note is left", func() bool { return b.notes(t) == 0 })
}
