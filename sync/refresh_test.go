package sync

import (
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// TestRefreshSettlesDoubts walks every doubt through every answer.
func TestRefreshSettlesDoubts(t *testing.T) {
	const person = 3
	for _, c := range []struct {
		name       string
		doubt      bridge.RecheckReason
		attempts   int // questions that settled nothing before
		leaves     bool
		unknown    bool // WeChat answers 40003
		subscribed bool // as the map has it afterwards
		settled    bool
		next       bridge.RecheckReason // of the question that stays open
	}{
		{name: "refused send, follows", doubt: bridge.RecheckSendRefused, subscribed: true,
			settled: true},
		{name: "refused send, left", doubt: bridge.RecheckSendRefused, leaves: true, settled: true},
		{name: "refused send, unknown", doubt: bridge.RecheckSendInvalid, unknown: true,
			subscribed: true, next: bridge.RecheckSendInvalid},
		{name: "refused send, unknown for the third time", doubt: bridge.RecheckSendInvalid,
			attempts: 2, unknown: true, settled: true},
		{name: "not subscribed, follows", doubt: bridge.RecheckNotSubscribed, subscribed: true,
			settled: true},
		{name: "not subscribed, left", doubt: bridge.RecheckNotSubscribed, leaves: true,
			settled: true},
		{name: "no unionid, has one", doubt: bridge.RecheckNoUnionID, subscribed: true,
			settled: true},
		{name: "no unionid, left: asked once more", doubt: bridge.RecheckNoUnionID, leaves: true,
			subscribed: true, next: bridge.RecheckNotSubscribed},
		{name: "followed, follows", doubt: bridge.RecheckFollowed, subscribed: true, settled: true},
		{name: "followed, unknown", doubt: bridge.RecheckFollowed, attempts: 4, unknown: true,
			subscribed: true,
			next:       bridge.RecheckFollowed},
		{name: "no unionid, unknown after other answers", doubt: bridge.RecheckNoUnionID,
			attempts: 4, unknown: true, subscribed: true, next: bridge.RecheckUnknownOpenID},
		{name: "unionid twice, unknown after other answers", doubt: bridge.RecheckUnionIDTwice,
			attempts: 4, unknown: true, subscribed: true, next: bridge.RecheckUnknownOpenID},
		{name: "followed, left", doubt: bridge.RecheckFollowed, leaves: true, subscribed: true,
			next: bridge.RecheckFollowed},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			options := wechatsim.Standard(10, 0, 0)
			if c.unknown {
				options.Accounts[0].Quirks.ListedUnknown = 1
			}
			b := newFixture(t, options)
			b.sweepOnce(t)
			openid := b.sim.OpenID(appid, person)
			if c.leaves {
				b.sim.Unfollow(appid, person)
			}
			_, err := b.db.ExecContext(t.Context(),
				`INSERT INTO follower_recheck (appid, openid, reason, attempts) VALUES (?, ?, ?, ?)`, appid, openid, c.doubt, c.attempts)
			if err != nil {
				t.Fatal(err)
			}
			run, err := b.Refresh(t.Context(), appid)
			if err != nil || run.State != StateDone || run.Calls[endpointUserInfo] != 1 {
				t.Fatalf("run %+v, error %v; want one question and no error", run, err)
			}
			got := b.count(t,
				`SELECT COUNT(*) FROM follower WHERE openid = ? AND subscribed = 1 AND unionid IS NOT NULL`, openid) == 1
			if got != c.subscribed {
				t.Errorf("subscribed with a unionid: %v, want %v", got, c.subscribed)
			}
			open := b.count(t, `SELECT COUNT(*) FROM follower_recheck WHERE openid = ?`, openid)
			if (open == 0) != c.settled {
				t.Errorf("%d questions are open, want them settled: %v", open, c.settled)
			}
			if c.settled {
				return
			}
			asked := 1
			if c.next == c.doubt {
				asked += c.attempts // a new reason restarts it
			}
			later := b.count(t,
				`SELECT COUNT(*) FROM follower_recheck WHERE reason = ? AND attempts = ? AND due_at > CURRENT_TIMESTAMP(3)`,
				c.next, asked)
			if later != 1 {
				t.Error("the open question is not put off with the right reason")
			}
		})
	}
}

func TestRefreshWithoutDoubtsLeavesNoRun(t *testing.T) {
	b := newFixture(t, wechatsim.Standard(1, 0, 0))
	if run, err := b.Refresh(t.Context(), appid); err != nil || run.ID != 0 {
		t.Errorf("got the run %+v and the error %v", run, err)
	}
	if n := b.count(t, `SELECT COUNT(*) FROM sync_run`); n != 0 {
		t.Errorf("%d runs in the ledger", n)
	}
}

// TestMinuteQuotaIsWaitedFor: 45011 costs a minute, not the run; and not for ever.
func TestMinuteQuotaIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sweep{
			svc: &Service{cfg: Config{Logger: slog.New(slog.DiscardHandler)}},
			run: newRun(kindSweep, appid, time.Now()),
		}
		slow := &wechat.Error{Code: 45011, Policy: wechat.PolicyQuotaMinute}
		begin, failures := time.Now(), 2
		page, err := call(t.Context(), s, endpointFollowers, func() (string, error) {
			if failures--; failures >= 0 {
				return "", slow
			}
			return "page", nil
		})
		if waited := time.Since(begin); err != nil || page != "page" || waited != 2*time.Minute {
			t.Errorf("got %q, %v after %v, want success after two minutes", page, err, waited)
		}
		if n := s.run.snapshot().Calls[endpointFollowers]; n != 3 {
			t.Errorf("%d calls counted, want 3", n)
		}
		_, err = call(t.Context(), s, endpointFollowers, func() (string, error) { return "", slow })
		if !errors.Is(err, slow) {
			t.Errorf("got %v, want the quota's error in the end", err)
		}
	})
}
