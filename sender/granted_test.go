package sender

import (
	"context"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/bridge/grants"
	"github.com/unionbridge/unionbridge/internal/wechat/push"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// told tells a Service what people have accepted.
type told struct{ service func() *Service }

func (w told) Granted(ctx context.Context, appid string, granted []grants.Grant) {
	for _, g := range granted {
		w.service().Changed(ctx, []bridge.Key{bridge.GrantKey(appid, g.OpenID, g.TemplateID)})
	}
}

// accepts is a person who accepts the template once, whose event arrives.
func (f *miniFixture) accepts(t *testing.T, user int, at time.Time) {
	t.Helper()
	f.sim.Grant(miniID, f.sim.MiniUser(miniID, user), f.templateID, 1)
	ledger := grants.New(grants.Config{
		DB: f.db, Sources: map[string]grants.Source{miniID: grants.Events},
		Watcher: told{func() *Service { return f.running }}, Logger: f.config.Logger,
	})
	if err := ledger.Popup(t.Context(), miniID, []push.Choice{
		{OpenID: f.openid(user), TemplateID: f.templateID, Result: "accept", At: at},
	}); err != nil {
		t.Fatal(err)
	}
}

// TestGranted: an acceptance releases the request whose turn it is, and no other.
func TestGranted(t *testing.T) {
	f := newMiniFixture(t, grants.Events)
	bulk := f.insert(t, columns{"openid": f.openid(1), "priority": 2})
	first := f.insert(t, columns{"unionid": f.unionidOf(1)})
	second := f.insert(t, columns{"openid": f.openid(1)})
	urgent := f.insert(t, columns{"openid": f.openid(1), "priority": 0})
	unlisted := f.insert(t, columns{"openid": f.openid(2)})
	f.exec(t, `DELETE FROM mini_user WHERE openid = ?`, f.openid(2))
	f.start(t, "a")
	turn := []int64{urgent, first, second, bulk}
	for _, id := range append(turn, unlisted) {
		if r := f.await(t, id, queue.Waiting); r.reason() != "no_grant" || r.ErrMsg == nil || r.Attempts != 0 {
			t.Errorf("%+v", r)
		}
	}
	begin := time.Now().Add(-time.Minute)
	for i, id := range turn {
		f.accepts(t, 1, begin.Add(time.Duration(i)*time.Second))
		f.await(t, id, queue.Sent)
		if n := f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'waiting'`); n != len(turn)-i {
			t.Errorf("after %d acceptances %d requests wait, want %d", i+1, n, len(turn)-i)
		}
	}
	f.accepts(t, 2, begin)
	f.await(t, unlisted, queue.Sent)
	if n := f.count(t, `SELECT COUNT(*) FROM send_wait`); n != 0 {
		t.Errorf("%d hints are left", n)
	}
}

// TestGrantEnds: waiting for a grant ends like other waits, and says for what it was.
func TestGrantEnds(t *testing.T) {
	f := newMiniFixture(t, grants.Events)
	over := f.insert(t, columns{"openid": f.openid(1)})
	f.config.Accounts[0].Wait = time.Millisecond
	f.start(t, "a")
	if r := f.await(t, over, queue.Failed); r.reason() != "no_grant" {
		t.Errorf("%+v", r)
	}
}

// TestEndSaysTheLastReason: who was not known and has logged in since has not accepted the template when
// the wait ends, whichever account waits.
func TestEndSaysTheLastReason(t *testing.T) {
	f := newMiniFixture(t, grants.Events)
	s := newStepper(t, f.fixture)
	s.account.owner.Store(true)
	unknown, nameless := s.insert(t, columns{"unionid": "uNew1"}), s.insert(t, columns{"unionid": "uNew2"})
	s.attempt(t)
	s.look(t)
	s.wantReason(t, unknown, "unknown_user")
	if err := s.watched().UpsertMiniUser(t.Context(), miniID, "mNew1", "uNew1"); err != nil {
		t.Fatal(err)
	}
	s.wantReason(t, unknown, "no_grant")
	s.exec(t, `UPDATE send_request SET due_at = CURRENT_TIMESTAMP(3) - INTERVAL 1 SECOND`)
	s.maintain(t)
	for id, want := range map[int64]string{unknown: "no_grant", nameless: "unknown_user"} {
		s.wantStatus(t, id, queue.Failed)
		s.wantReason(t, id, want)
	}
}

// TestKnownAndNoFollower is the same of an official account: the person has to follow.
func TestKnownAndNoFollower(t *testing.T) {
	s := newStepper(t, newFixture(t))
	id := s.insert(t, columns{"mini_openid": "mNew1"})
	s.attempt(t)
	s.look(t)
	s.wantReason(t, id, "unknown_user")
	if err := s.watched().UpsertMiniUser(t.Context(), miniID, "mNew1", "uNew1"); err != nil {
		t.Fatal(err)
	}
	s.wantReason(t, id, "not_following")
}

// wantReason compares why a row waits or has ended.
func (s *stepper) wantReason(t *testing.T, id int64, want string) {
	t.Helper()
	if r := s.row(t, id); r.reason() != want {
		t.Errorf("request %d is %s (%s), want %s", id, r.Status, r.reason(), want)
	}
}

// TestUnknownUser: who is not in the map waits for their login, and then for what they accept.
func TestUnknownUser(t *testing.T) {
	f := newMiniFixture(t, grants.Events)
	f.exec(t, `DELETE FROM mini_user WHERE openid = ?`, f.openid(4))
	id := f.insert(t, columns{"unionid": f.unionidOf(4)})
	f.start(t, "a")
	if r := f.await(t, id, queue.Waiting); r.reason() != "unknown_user" {
		t.Errorf("%+v", r)
	}
	identities := f.identities.Watched(f.running)
	if err := identities.UpsertMiniUser(t.Context(), miniID, f.openid(4), f.unionidOf(4)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it waits for the grant", func() bool {
		return f.count(t, `SELECT COUNT(*) FROM send_wait WHERE request_id = ? AND kind = 'grant'`, id) == 1
	})
	if r := f.row(t, id); r.reason() != "no_grant" || r.ErrMsg == nil || *r.ErrMsg != explain(channel.NoGrant) {
		t.Errorf("it waits for a grant, and says %+v", r)
	}
	f.accepts(t, 4, time.Now())
	f.await(t, id, queue.Sent)
}

// TestNoMoreThanGrants: however often an acceptance is told, it lets go as many requests as it allows.
func TestNoMoreThanGrants(t *testing.T) {
	f := newMiniFixture(t, grants.Events)
	stop := f.start(t, "a")
	var ids []int64
	for range 4 {
		ids = append(ids, f.insert(t, columns{"openid": f.openid(1)}))
	}
	for _, id := range ids {
		f.await(t, id, queue.Waiting)
	}
	stop()
	at := time.Now()
	for range 3 {
		f.accepts(t, 1, at)
	}
	if n := f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'pending'`); n != 1 {
		t.Errorf("%d requests were released by one acceptance", n)
	}
}
