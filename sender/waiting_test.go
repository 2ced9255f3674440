package sender

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/bridge/grants"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/channel/oatemplate"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// watched is the map whose changes the stepper is told of.
func (s *stepper) watched() *bridge.Map { return s.identities.Watched(s.svc) }

// follow stores people as followers.
func (s *stepper) follow(t *testing.T, m *bridge.Map, infos ...wechat.UserInfo) {
	t.Helper()
	for i := range infos {
		infos[i].Subscribed = true
	}
	if err := m.Store(t.Context(), appid, infos, time.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
}

func newcomer(i int) wechat.UserInfo {
	return wechat.UserInfo{OpenID: fmt.Sprint("oNew", i), UnionID: fmt.Sprint("uNew", i)}
}

// look does what the releaser does when it is woken.
func (s *stepper) look(t *testing.T) {
	t.Helper()
	if err := s.svc.releaser.Work(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// wantHints compares what a row waits for.
func (s *stepper) wantHints(t *testing.T, id int64, want ...queue.Wait) {
	t.Helper()
	got, err := s.svc.queue.Waits(t.Context(), []int64{id})
	if err != nil || fmt.Sprint(got[id]) != fmt.Sprint(queue.Waits(want)) {
		t.Errorf("request %d waits for %v, %v; want %v", id, got[id], err, want)
	}
}

func (s *stepper) wantStatus(t *testing.T, id int64, want queue.Status) {
	t.Helper()
	if r := s.row(t, id); r.Status != string(want) {
		t.Errorf("request %d is %s (%s), want %s", id, r.Status, r.reason(), want)
	}
}

// oldWaiting makes a row of an older program, which knows no send_wait.
func (s *stepper) oldWaiting(t *testing.T, c columns) int64 {
	t.Helper()
	c["status"], c["appid"] = "waiting", appid
	c["due_at"] = time.Now().UTC().Add(time.Hour)
	return s.insert(t, c)
}

// between is a channel between whose answers and their settling something happens.
type between struct {
	channel.Channel
	happens func()
}

func (b *between) Resolve(ctx context.Context, to []channel.Target) ([]channel.Address, error) {
	found, err := b.Channel.Resolve(ctx, to)
	if b.happens != nil {
		b.happens()
	}
	return found, err
}

// TestFollowBetweenResolveAndSettle: people who are stored as followers after the map was asked
// about them, and before their rows wait, are told of in vain. None of their rows sleeps.
func TestFollowBetweenResolveAndSettle(t *testing.T) {
	const people = 1000
	f := newFixture(t)
	b := &between{Channel: oatemplate.New(f.channel)}
	f.config.Accounts[0].Channels = []channel.Channel{b}
	s := newStepper(t, f)
	for i := range people {
		s.insert(t, columns{"unionid": newcomer(i).UnionID})
	}
	follows := 0
	b.happens = func() {
		// Each time those of the claim that is under way, and they are told of.
		var infos []wechat.UserInfo
		for ; len(infos) < initialClaim && follows < people; follows++ {
			infos = append(infos, newcomer(follows))
		}
		if len(infos) > 0 {
			s.follow(t, s.watched(), infos...)
		}
	}
	const waits = `SELECT COUNT(*) FROM send_request WHERE status = 'waiting'`
	for follows < people {
		s.attempt(t)
	}
	if n := s.count(t, waits); n != people {
		t.Fatalf("%d rows wait, want %d: the test has no effect", n, people)
	}
	b.happens = nil
	s.look(t)
	if n := s.count(t, waits); n != 0 {
		t.Errorf("%d of %d rows sleep", n, people)
	}
	if n := s.count(t, `SELECT COUNT(*) FROM send_wait`); n != 0 {
		t.Errorf("%d hints are left", n)
	}
}

// TestReleaseByKey: whoever appears in the map releases all requests to them, and no others.
func TestReleaseByKey(t *testing.T) {
	s := newStepper(t, newFixture(t))
	first, second := s.insert(t, columns{"unionid": "uNew1"}), s.insert(t, columns{"unionid": "uNew1"})
	other := s.insert(t, columns{"unionid": "uNew2"})
	s.exec(t, `INSERT INTO follower (appid, openid, subscribed) VALUES (?, 'oNew1', 0)`, appid)
	byOpenID := s.insert(t, columns{"openid": "oNew1"})
	s.attempt(t)
	s.look(t)
	for _, id := range []int64{first, second, other, byOpenID} {
		s.wantStatus(t, id, queue.Waiting)
	}
	s.wantHints(t, byOpenID, queue.Wait{Kind: "openid", AppID: appid, Value: "oNew1"})
	s.follow(t, s.watched(), newcomer(1))
	s.wantStatus(t, first, queue.Pending)
	s.wantStatus(t, second, queue.Pending)
	s.wantStatus(t, byOpenID, queue.Pending)
	s.wantStatus(t, other, queue.Waiting)
	s.wantHints(t, first)
	s.wantHints(t, byOpenID)
	s.wantHints(t, other, queue.Wait{Kind: "unionid", AppID: appid, Value: "uNew2"})
}

// TestReleaseOfOneOfTwo: two followers have the unionid. When the other one's changes, nobody tells
// of the unionid that they share.
func TestReleaseOfOneOfTwo(t *testing.T) {
	for name, separate := range map[string]func(s *stepper){
		"another unionid": func(s *stepper) {
			s.follow(t, s.watched(), wechat.UserInfo{OpenID: "oTwin", UnionID: "uOwn"})
		},
		"unfollow": func(s *stepper) {
			if err := s.watched().NoteUnfollow(t.Context(), appid, "oTwin", time.Now()); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStepper(t, newFixture(t))
			s.follow(t, s.identities, newcomer(1), wechat.UserInfo{OpenID: "oTwin", UnionID: "uNew1"})
			id := s.insert(t, columns{"unionid": "uNew1"})
			s.attempt(t)
			s.wantStatus(t, id, queue.Waiting)
			s.wantHints(t, id, queue.Wait{Kind: "openid", AppID: appid, Value: "oNew1"},
				queue.Wait{Kind: "openid", AppID: appid, Value: "oTwin"},
				queue.Wait{Kind: "unionid", AppID: appid, Value: "uNew1"})
			separate(s)
			s.wantStatus(t, id, queue.Pending)
			s.wantHints(t, id)
		})
	}
}

// TestReleaseAfterDoubt: a refused follower is reachable when WeChat has said that they follow,
// also without a word about the unionid.
func TestReleaseAfterDoubt(t *testing.T) {
	s := newStepper(t, newFixture(t))
	s.follow(t, s.identities, newcomer(1))
	id := s.insert(t, columns{"unionid": "uNew1"})
	s.attempt(t) // the simulator knows no such follower
	s.look(t)
	s.wantStatus(t, id, queue.Waiting)
	due, err := s.identities.DueRechecks(t.Context(), appid, bridge.Due{Limit: 1})
	if err != nil || len(due) != 1 {
		t.Fatal(due, err)
	}
	answer := wechat.UserInfo{OpenID: "oNew1", Subscribed: true}
	_, err = s.watched().SettleRecheck(t.Context(), appid, due[0], bridge.Settlement{Store: &answer})
	if err != nil {
		t.Fatal(err)
	}
	s.wantStatus(t, id, queue.Pending)
}

// TestReleaseByLogin: apps store logins by SQL. The row waits for the login, then for the follow.
func TestReleaseByLogin(t *testing.T) {
	f := newFixture(t)
	f.config.Logins = f.identities.Logins
	s := newStepper(t, f)
	login := func() {
		t.Helper()
		if err := s.svc.releaser.ReadLogins(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	s.account.owner.Store(true)
	followed, stranger := s.unionid(7), "uNew1"
	unknown := s.insert(t, columns{"mini_openid": "mNew1"})
	nameless := s.insert(t, columns{"mini_openid": "mNew2"})
	s.exec(t, `INSERT INTO mini_user (appid, openid) VALUES (?, 'mNew2')`, miniID)
	s.attempt(t)
	s.look(t)
	for id, openid := range map[int64]string{unknown: "mNew1", nameless: "mNew2"} {
		s.wantStatus(t, id, queue.Waiting)
		s.wantHints(t, id, queue.Wait{Kind: "openid", AppID: miniID, Value: openid})
	}
	login() // the map's users are known, and nobody waits for them
	const upsert = `INSERT INTO mini_user (appid, openid, unionid, seen_at)
		VALUES (?, ?, ?, CURRENT_TIMESTAMP(3)) ON DUPLICATE KEY UPDATE unionid = VALUES(unionid), seen_at = VALUES(seen_at)`
	s.exec(t, upsert, miniID, "mNew1", stranger)
	s.exec(t, upsert, miniID, "mNew2", followed)
	login()
	s.wantStatus(t, nameless, queue.Pending)
	s.wantStatus(t, unknown, queue.Waiting)
	s.wantHints(t, unknown, queue.Wait{Kind: "unionid", AppID: appid, Value: stranger})
	s.follow(t, s.watched(), newcomer(1))
	s.wantStatus(t, unknown, queue.Pending)
	login() // nobody waits
	if s.svc.releaser.AwaitingLogin() {
		t.Error("logins are read although nobody waits for one")
	}
}

// TestReleaseByLoginOfUnionID: a row that goes by a mini program may name the person by their unionid.
// It waits for their login there, which an app stores by SQL.
func TestReleaseByLoginOfUnionID(t *testing.T) {
	f := newMiniFixture(t, grants.None)
	f.config.Logins = f.identities.Logins
	s := newStepper(t, f.fixture)
	login := func() {
		t.Helper()
		if err := s.svc.releaser.ReadLogins(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	s.account.owner.Store(true)
	id, other := s.insert(t, columns{"unionid": "uNew1"}), s.insert(t, columns{"unionid": "uNew2"})
	s.attempt(t)
	s.look(t)
	s.wantHints(t, id, queue.Wait{Kind: "unionid", AppID: miniID, Value: "uNew1"})
	s.exec(t, `INSERT INTO mini_user (appid, openid, unionid) VALUES (?, 'mNew1', 'uNew1')`, miniID)
	login()
	s.wantStatus(t, id, queue.Pending)
	s.wantStatus(t, other, queue.Waiting)
	if !s.svc.releaser.AwaitingLogin() {
		t.Error("no logins are read, although a row waits for one")
	}
	s.exec(t, `UPDATE send_request SET cancel = 1 WHERE id = ?`, other)
	s.exec(t, `INSERT INTO mini_user (appid, openid, unionid) VALUES (?, 'mNew2', 'uNew2')`, miniID)
	login()
	if login(); s.svc.releaser.AwaitingLogin() {
		t.Error("logins are read although nobody waits for one")
	}
}

// TestReleaseOfLockedRow: a row that a producer's transaction holds is released a little later.
func TestReleaseOfLockedRow(t *testing.T) {
	s := newStepper(t, newFixture(t))
	id := s.insert(t, columns{"unionid": "uNew1"})
	s.attempt(t)
	tx, err := s.db.BeginTxx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	if _, err := tx.ExecContext(t.Context(), `UPDATE send_request SET url = 'held' WHERE id = ?`, id); err != nil {
		t.Fatal(err)
	}
	s.follow(t, s.watched(), newcomer(1))
	s.wantStatus(t, id, queue.Waiting)
	_ = tx.Rollback()
	s.look(t)
	s.wantStatus(t, id, queue.Pending)
}

// TestReleaseThatFailed: the map's change is told once. What could not be done then is done later.
func TestReleaseThatFailed(t *testing.T) {
	f := newFixture(t)
	b := &between{Channel: oatemplate.New(f.channel)}
	f.config.Accounts[0].Channels = []channel.Channel{b}
	s := newStepper(t, f)
	id := s.insert(t, columns{"unionid": "uNew1"})
	s.attempt(t)
	s.look(t)
	s.exec(t, `RENAME TABLE send_wait TO elsewhere`)
	s.follow(t, s.watched(), newcomer(1))
	s.exec(t, `RENAME TABLE elsewhere TO send_wait`)
	s.wantStatus(t, id, queue.Waiting)
	s.look(t)
	s.wantStatus(t, id, queue.Pending)
}

// TestWalk: what nobody was told of is found: rows that an older program made wait, whether their
// recipients follow by now or not, hints of rows that it released, and withdrawn rows.
func TestWalk(t *testing.T) {
	s := newStepper(t, newFixture(t))
	s.follow(t, s.identities, newcomer(1)) // and its instance died
	reachable := s.oldWaiting(t, columns{"unionid": "uNew1"})
	waits := s.oldWaiting(t, columns{"unionid": "uNew2"})
	withdrawn := s.oldWaiting(t, columns{"unionid": "uNew3", "cancel": 1})
	released := s.insert(t, columns{"unionid": "uNew4", "due_at": time.Now().UTC().Add(time.Hour)})
	stale := queue.Wait{Kind: "unionid", AppID: appid, Value: "uNew4"}
	s.exec(t, `INSERT INTO send_wait (request_id, kind, appid, value) VALUES (?, ?, ?, ?)`,
		released, stale.Kind, stale.AppID, stale.Value)
	s.wantHints(t, released, stale)
	s.maintain(t)
	s.wantStatus(t, reachable, queue.Pending)
	s.wantStatus(t, withdrawn, queue.Cancelled)
	s.wantStatus(t, waits, queue.Waiting)
	s.wantHints(t, waits, queue.Wait{Kind: "unionid", AppID: appid, Value: "uNew2"})
	s.wantHints(t, released)
	s.follow(t, s.watched(), newcomer(2))
	s.wantStatus(t, waits, queue.Pending)
}

// TestWalkIsSlow: however many rows wait, a round looks at few, and all come in turn. After a
// takeover it looks at all.
func TestWalkIsSlow(t *testing.T) {
	const rows, lanes = 50_000, 3
	f := newFixture(t)
	s := newStepper(t, f)
	s.account.owner.Store(true)
	for left := rows; left > 0; left -= 500 {
		s.exec(t, `INSERT INTO send_request (appid, unionid, template, data, status, due_at)
			WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
			SELECT ?, CONCAT('uWaits', ?, '-', i), CONCAT('t', i % ?), '{}', 'waiting',
			       CURRENT_TIMESTAMP(3) + INTERVAL 1 DAY FROM n`, appid, left, lanes)
	}
	const hints = `SELECT COUNT(*) FROM send_wait`
	m := newMaintenance(s.svc)
	once := func() {
		t.Helper()
		if err := m.once(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	once()
	if n := s.count(t, hints); n != queue.PageSize/2 {
		t.Errorf("a round looked at %d rows", n)
	}
	took := time.Now()
	s.account.since.Store(&took)
	s.svc.Now = func() time.Time { return took } // all in one round, however long that is
	once()
	if n := s.count(t, hints); n != rows {
		t.Fatalf("after a takeover, %d rows of %d were looked at", n, rows)
	}
	// From now on each round is one of the walk. The last rows of the last lane come in the end.
	s.db.SetMaxOpenConns(1) // the counters are a session's
	const budget = 500
	most := int(maintainEvery/time.Second) * budget
	for range 3 {
		before := s.handlerReads(t)
		once()
		if n := s.handlerReads(t) - before; n > most {
			t.Errorf("a round read %d entries, want at most %d: %d a second", n, most, budget)
		}
	}
	s.exec(t, `DELETE FROM send_wait WHERE request_id IN (SELECT MAX(id) FROM send_request)`)
	eventually(t, "the last row is looked at", func() bool {
		once()
		return s.count(t, hints) == rows
	})
}

// handlerReads is how many entries of indexes and tables this session has read.
func (f *fixture) handlerReads(t *testing.T) (n int) {
	t.Helper()
	var counters []struct {
		Name  string `db:"Variable_name"`
		Value int    `db:"Value"`
	}
	err := f.db.SelectContext(t.Context(), &counters, `SHOW SESSION STATUS LIKE 'Handler_read%'`)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range counters {
		n += c.Value
	}
	if len(counters) == 0 {
		t.Skip("TiDB counts no reads of entries")
	}
	return n
}

// TestRunningReleases: a running service releases and sends, whichever instance's map was told.
func TestRunningReleases(t *testing.T) {
	f := newFixture(t)
	f.config.Logins = f.identities.Logins
	f.start(t, "one")
	id := f.insert(t, columns{"mini_openid": "mNew1"})
	f.await(t, id, queue.Waiting)
	f.exec(t, `INSERT INTO mini_user (appid, openid, unionid) VALUES (?, 'mNew1', ?)`, miniID, f.unionid(3))
	f.await(t, id, queue.Sent)
	if n := len(f.messagesTo(3)); n != 1 {
		t.Errorf("%d messages", n)
	}
}
