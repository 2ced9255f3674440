package sync

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// TestEndlessList: WeChat's list leads nowhere. The sweep ends with an error, and keeps nothing
// that would lead there again.
func TestEndlessList(t *testing.T) {
	t.Parallel()
	fresh := 0
	for name, c := range map[string]struct {
		page  func(p *wechat.FollowerPage)
		calls int
		says  string
	}{
		"in a circle": {func(p *wechat.FollowerPage) {
			if p.End() {
				p.OpenIDs, p.NextOpenID = []string{"oX"}, "oX"
			}
		}, 5, "twice"},
		"back to the first cursor": {func(p *wechat.FollowerPage) {
			if p.End() {
				p.OpenIDs, p.NextOpenID = []string{"oX"}, "oA"
			} else {
				p.NextOpenID = map[int]string{10_000: "oA"}[len(p.OpenIDs)]
			}
		}, 5, "the cursor"},
		"far more than there are": {func(p *wechat.FollowerPage) {
			fresh++
			p.NextOpenID = fmt.Sprint("oFresh", fresh)
			p.OpenIDs = make([]string, 10_000)
			for i := range p.OpenIDs {
				p.OpenIDs[i] = fmt.Sprint("o", fresh, "-", i)
			}
		}, 20, "WeChat counts 25000"},
		"many small pages": {func(p *wechat.FollowerPage) {
			fresh++
			p.OpenIDs, p.NextOpenID = []string{fmt.Sprint("o", fresh)}, fmt.Sprint("o", fresh)
		}, 200, "does not end"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newFixture(t, wechatsim.Standard(25_000, 0, 0))
			b.api.API = anyCursor{b.api.API}
			b.api.page = c.page
			run, err := b.Sweep(t.Context(), appid, nil)
			if !errors.Is(err, errEndless) || !strings.Contains(err.Error(), c.says) ||
				run.State != StateFailed {
				t.Errorf("%s with %v, want it failed with %q", run.State, err, c.says)
			}
			if b.api.calls > c.calls {
				t.Errorf("%d calls, want at most %d", b.api.calls, c.calls)
			}
			if left := must(os.ReadDir(b.cfg.SpoolDir)); len(left) > 0 {
				t.Errorf("the sweep left %d spool files", len(left))
			}
			b.api.page = nil
			b.sweepOnce(t)
			b.wantTruth(t)
		})
	}
}

// anyCursor answers about cursors that the simulator does not know with an empty page.
type anyCursor struct{ API }

func (a anyCursor) Followers(ctx context.Context, cursor string) (wechat.FollowerPage, error) {
	p, err := a.API.Followers(ctx, cursor)
	if isInvalidOpenID(err) {
		return wechat.FollowerPage{Total: 25_000}, nil
	}
	return p, err
}

// leaveAfterListing lets n people leave between the list and the questions.
func (b *fixture) leaveAfterListing(n int) {
	b.api.beforeFollowers = func(_ int, cursor string) {
		if cursor != "" {
			p, err := b.API().Followers(context.Background(), cursor)
			if err == nil && p.End() {
				b.sim.Leave(appid, n)
			}
		}
	}
}

// TestLeftAfterListing: 1 % leave between the list and the question. That costs 15 % more calls at
// most, and nobody is wrong.
func TestLeftAfterListing(t *testing.T) {
	t.Parallel()
	const followers, most = 40_000, 1.15 * 40_000 / batchSize
	b := newFixture(t, wechatsim.Standard(followers, 0, 0))
	b.leaveAfterListing(followers / 100)
	run := b.sweepOnce(t)
	b.wantTruth(t)
	if calls := run.Calls[endpointBatch] + run.Calls[endpointUserInfo]; float64(calls) > most {
		t.Errorf("%d batchget and user/info calls, want at most %.0f: %v", calls, most, run.Calls)
	}
	if doubts := b.count(t, `SELECT COUNT(*) FROM follower_recheck`); doubts == 0 {
		t.Error("nobody is to be checked again")
	}
}

// BenchmarkLeftAfterListing is that with a million followers.
func BenchmarkLeftAfterListing(b *testing.B) {
	const followers = 1_000_000
	for b.Loop() {
		f := newFixture(b, wechatsim.Standard(followers, 0, 0))
		f.leaveAfterListing(followers / 100)
		run := f.sweepOnce(b)
		b.ReportMetric(float64(run.Calls[endpointBatch]), "batchgets")
		b.ReportMetric(float64(run.Calls[endpointUserInfo]), "user/info")
		calls := run.Calls[endpointBatch] + run.Calls[endpointUserInfo]
		b.ReportMetric(float64(calls)/(followers/batchSize), "calls/batch")
	}
}

// TestShiftBesideLeavers: people have left, and the answers are shifted as well. Everywhere in a
// batch the sweep sees it, also where the last person of the batch is one who left. Whom it cannot
// afford to look up is without a unionid until the refresh, never with another one's.
func TestShiftBesideLeavers(t *testing.T) {
	t.Parallel()
	for _, at := range []int{0, 40, 97, 98, 99} {
		for _, unioned := range []bool{false, true} {
			options := wechatsim.Standard(300, 0, 0)
			options.Accounts[0].Quirks.NonFollowerUnion = unioned
			b := newFixture(t, options)
			b.api.batch = func(ctx context.Context, api API, openids []string) ([]wechat.UserInfo, error) {
				for _, i := range []int{20, len(openids) - 1} {
					if id, ok := b.sim.Identify(appid, openids[i]); ok && id.Following {
						b.sim.Unfollow(appid, id.Person)
					}
				}
				return misaligned(at)(ctx, api, openids)
			}
			b.sweepOnce(t)
			if n := b.sim.FollowerCount(appid); n != 294 {
				t.Fatalf("%d people follow, want 294", n)
			}
			for p := range b.subscribed(t) {
				id, _ := b.sim.Identify(appid, p.OpenID)
				if p.UnionID != "" && p.UnionID != id.UnionID {
					t.Fatalf("shifted from %d on: the map has %+v, the truth is %+v", at, p, id)
				}
			}
			if _, err := b.Refresh(t.Context(), appid); err != nil {
				t.Fatal(err)
			}
			b.wantTruth(t)
		}
	}
}

// TestUnreadableRecords: one costs itself, all of them cost the sweep.
func TestUnreadableRecords(t *testing.T) {
	t.Parallel()
	b := newFixture(t, wechatsim.Standard(500, 0, 0))
	every, named := 100, false
	b.api.batch = func(ctx context.Context, api API, openids []string) ([]wechat.UserInfo, error) {
		infos, err := api.BatchUserInfo(ctx, openids)
		for i := every - 1; i < len(infos); i += every {
			openid := map[bool]string{true: infos[i].OpenID}[named]
			infos[i] = wechat.UserInfo{OpenID: openid, Unreadable: true}
		}
		return infos, err
	}
	run := b.sweepOnce(t)
	b.wantTruth(t)
	// Each of them, and the witness before it.
	if n := run.Calls[endpointUserInfo]; n > 10 {
		t.Errorf("%d calls of user/info for 5 records", n)
	}
	b.sim.Leave(appid, 3)
	every = 1
	for _, named = range []bool{false, true} {
		b.sweepOnce(t)
		if n := b.count(t, `SELECT COUNT(*) FROM follower WHERE subscribed = 0`); n != 0 {
			t.Errorf("%d people are gone by records that nobody could read", n)
		}
	}
	b.sim.Join(appid, 100)
	if _, err := b.Sweep(t.Context(), appid, nil); !errors.Is(err, errUnreadable) {
		t.Errorf("got %v", err)
	}
}

// TestManyUnreadableRecords: more than the sweep can afford to look up are left to the refresh, also
// where a record does not say whose it is.
func TestManyUnreadableRecords(t *testing.T) {
	t.Parallel()
	b := newFixture(t, wechatsim.Standard(500, 0, 0))
	b.api.batch = func(ctx context.Context, api API, openids []string) ([]wechat.UserInfo, error) {
		infos, err := api.BatchUserInfo(ctx, openids)
		for i := range len(infos) / 5 {
			infos[i] = wechat.UserInfo{Unreadable: true}
		}
		return infos, err
	}
	run := b.sweepOnce(t)
	if n := b.count(t, `SELECT COUNT(*) FROM follower_recheck
		WHERE reason = 'unknown_openid' AND openid <> ''`); n != 100 || run.Added != 400 {
		t.Errorf("%d people are stored, %d are left to the refresh", run.Added, n)
	}
	if _, err := b.Refresh(t.Context(), appid); err != nil {
		t.Fatal(err)
	}
	b.wantTruth(t)
}

// TestRebindingForgets: after a rebinding nobody keeps a unionid of the former one: neither a
// follower whose answer has none, nor one whom the list misses. Both are asked again.
func TestRebindingForgets(t *testing.T) {
	t.Parallel()
	b := newFixture(t, wechatsim.Standard(300, 0, 0))
	b.sweepOnce(t)
	b.sim.Rebind(appid)
	without, unlisted := b.sim.OpenID(appid, 5), b.sim.OpenID(appid, 6)
	b.api.batch = func(ctx context.Context, api API, openids []string) ([]wechat.UserInfo, error) {
		infos, err := api.BatchUserInfo(ctx, openids)
		for i := range infos {
			if infos[i].OpenID == without {
				infos[i].UnionID = ""
			}
		}
		return infos, err
	}
	b.api.single = func(u *wechat.UserInfo) {
		if u.OpenID == without {
			u.UnionID = ""
		}
	}
	b.api.page = func(p *wechat.FollowerPage) {
		for i, id := range p.OpenIDs {
			if id == unlisted {
				p.OpenIDs[i] = p.OpenIDs[0]
			}
		}
	}
	b.sweepOnce(t)
	if n := b.count(t, `SELECT COUNT(*) FROM follower JOIN follower_recheck USING (appid, openid)
		WHERE unionid IS NULL AND subscribed = 1 AND reason = 'no_unionid'`); n != 2 {
		t.Errorf("%d followers without a unionid are to be asked again, want 2", n)
	}
	b.api.single, b.api.page = nil, nil
	if _, err := b.Refresh(t.Context(), appid); err != nil {
		t.Fatal(err)
	}
	b.wantTruth(t)
}

// TestStrangerLeavesDuringSweep: a new follower, whom the map does not know, leaves between the
// answer and its storing. There is no row that could say so, unless the event makes one.
func TestStrangerLeavesDuringSweep(t *testing.T) {
	t.Parallel()
	b := newFixture(t, wechatsim.Standard(200, 0, 0))
	b.sweepOnce(t)
	e := NewEvents(b.Service)
	stranger := b.sim.Join(appid, 1)[0]
	id := b.sim.OpenID(appid, stranger)
	left := false
	b.api.answered = func(openid string) {
		if openid == id && !left {
			left = true
			b.sim.Unfollow(appid, stranger)
			follows(t, e, id, false)
		}
	}
	b.sweepOnce(t)
	if !left {
		t.Fatal("nobody looked the new follower up")
	}
	b.wantTruth(t)
}
