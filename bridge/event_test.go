package bridge

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/wechat"
)

// eventState is what events are about: one person in both tables.
type eventState struct {
	Row        bool
	Subscribed bool
	Blocked    bool
	Note       RecheckReason // "": none
	Attempts   int
	Later      bool // the note is not due yet
}

func readEventState(t *testing.T, db *sqlx.DB, openid string) eventState {
	t.Helper()
	var followers []struct {
		Subscribed bool `db:"subscribed"`
		Blocked    bool `db:"blocked"`
	}
	var notes []struct {
		Reason   RecheckReason `db:"reason"`
		Attempts int           `db:"attempts"`
		Later    bool          `db:"later"`
	}
	err := db.SelectContext(t.Context(), &followers,
		`SELECT subscribed, blocked_until IS NOT NULL AS blocked FROM follower WHERE appid = ? AND openid = ?`, oa, openid)
	if err == nil {
		err = db.SelectContext(t.Context(), &notes,
			`SELECT reason, attempts, due_at > CURRENT_TIMESTAMP(3) AS later FROM follower_recheck WHERE appid = ? AND openid = ?`, oa, openid)
	}
	if err != nil {
		t.Fatal(err)
	}
	var s eventState
	if len(followers) == 1 {
		s.Row, s.Subscribed, s.Blocked = true, followers[0].Subscribed, followers[0].Blocked
	}
	if len(notes) == 1 {
		s.Note, s.Attempts, s.Later = notes[0].Reason, notes[0].Attempts, notes[0].Later
	}
	return s
}

// TestFollowEvents walks events through what the map may know already. Times are seconds around the last follow
// that the map knows.
func TestFollowEvents(t *testing.T) {
	db := dbtest.New(t)
	m := New(db)
	const last = 1_700_000_000
	asked := eventState{Row: true, Subscribed: true, Note: RecheckFollowed, Later: true}
	for i, test := range []struct {
		name     string
		unknown  bool // no row in the map
		left     bool // the row says that he left
		blocked  bool
		note     RecheckReason // that is open already
		followed bool
		at       int64
		want     eventState
	}{
		{name: "a new person", unknown: true, followed: true, want: eventState{Note: RecheckFollowed, Later: true}},
		{name: "a new person again", unknown: true, note: RecheckFollowed, followed: true, want: eventState{Note: RecheckFollowed, Later: true}},
		{name: "one who came back", left: true, followed: true, at: 10, want: eventState{Row: true, Note: RecheckFollowed, Later: true}},
		{name: "a follow that the map knows", followed: true, want: eventState{Row: true, Subscribed: true}},
		{name: "an older follow", followed: true, at: -10, want: eventState{Row: true, Subscribed: true}},
		{name: "an older follow of one who left", left: true, followed: true, at: -10, want: eventState{Row: true}},
		{name: "the follow before the leaving, repeated", left: true, followed: true, want: eventState{Row: true, Note: RecheckFollowed, Later: true}},
		{name: "a newer follow of a follower", followed: true, at: 10, want: asked},
		{name: "a follow ends the block", blocked: true, followed: true, at: 10, want: asked},
		{name: "a sweep was faster than the follow's event", blocked: true, followed: true, want: eventState{Row: true, Subscribed: true}},
		{name: "an older follow ends no block", blocked: true, followed: true, at: -10, want: eventState{Row: true, Subscribed: true, Blocked: true}},
		{name: "a follow begins an older question anew", note: RecheckNoUnionID, followed: true, at: 10, want: asked},

		{name: "he left", at: 10, want: eventState{Row: true}},
		{name: "he left, again", left: true, at: 10, want: eventState{Row: true}},
		{name: "leaving before the last follow", at: -10, want: eventState{Row: true, Subscribed: true}},
		{name: "leaving before the last follow, block and note stay", at: -10, blocked: true, note: RecheckSendRefused,
			want: eventState{Row: true, Subscribed: true, Blocked: true, Note: RecheckSendRefused, Attempts: 3}},
		{name: "both in one second", want: eventState{Row: true, Note: RecheckFollowed, Later: true}},
		{name: "he left while he is being asked about", note: RecheckFollowed, at: 10, want: eventState{Row: true, Note: RecheckFollowed, Later: true}},
		{name: "a stranger left", unknown: true, want: eventState{}},
		{name: "a stranger left while he is being asked about", unknown: true, note: RecheckFollowed, at: 10, want: eventState{Note: RecheckFollowed, Later: true}},
		{name: "other doubts stay", note: RecheckSendRefused, at: 10, want: eventState{Row: true, Note: RecheckSendRefused, Attempts: 3}},
	} {
		openid := "o" + string(rune('A'+i))
		if !test.unknown {
			exec(t, db, `INSERT INTO follower (appid, openid, unionid, subscribed, subscribe_time, blocked_until) VALUES (?, ?, ?, ?, ?, ?)`,
				oa, openid, "u"+openid, !test.left, time.Unix(last, 0).UTC(), blockedUntil(test.blocked))
		}
		if test.note != "" {
			exec(t, db, `INSERT INTO follower_recheck (appid, openid, reason, attempts) VALUES (?, ?, ?, 3)`, oa, openid, test.note)
		}
		note := m.NoteUnfollow
		if test.followed {
			note = m.NoteFollow
		}
		for delivery := range 2 { // every one comes twice
			if err := note(t.Context(), oa, openid, time.Unix(last+test.at, 0)); err != nil {
				t.Fatalf("%s: %v", test.name, err)
			}
			if diff := cmp.Diff(test.want, readEventState(t, db, openid)); diff != "" {
				t.Errorf("%s, delivery %d (-want +got):\n%s", test.name, delivery+1, diff)
			}
		}
	}
}

func blockedUntil(blocked bool) any {
	if blocked {
		return time.Unix(1_900_000_000, 0).UTC()
	}
	return nil
}

// TestFollowNotesAreFenced: an answer settles only the note that it was asked for.
func TestFollowNotesAreFenced(t *testing.T) {
	db := dbtest.New(t)
	m := New(db)
	const openid = "oA"
	read := func() Follow {
		t.Helper()
		due, err := m.DueFollows(t.Context(), oa, 10)
		if err != nil || len(due) != 1 || due[0].OpenID != openid {
			t.Fatalf("due %+v, %v", due, err)
		}
		return due[0]
	}
	event := func() {
		t.Helper()
		if err := m.NoteFollow(t.Context(), oa, openid, time.Unix(1_700_000_000, 0)); err != nil {
			t.Fatal(err)
		}
	}
	event()
	if f := read(); f.Attempts != 0 || f.WaitMS <= 0 || f.WaitMS > FollowDelay.Milliseconds() {
		t.Errorf("a new note: %+v, want it due in %v", f, FollowDelay)
	}
	for name, answer := range map[string]func(Follow) error{
		"settled":     func(f Follow) error { return m.SettleFollow(t.Context(), oa, f) },
		"postponed":   func(f Follow) error { return m.PostponeFollow(t.Context(), oa, f, time.Minute) },
		"handed over": func(f Follow) error { return m.EscalateFollow(t.Context(), oa, f, RecheckNotSubscribed) },
	} {
		old := read()
		exec(t, db, `UPDATE follower_recheck SET due_at = due_at - INTERVAL 1 SECOND`) // as another event's note has another moment
		if err := answer(old); err != nil {
			t.Fatal(err)
		}
		if f := read(); f.Attempts != 0 {
			t.Errorf("%s by an older answer: %+v", name, f)
		}
	}
	if err := m.PostponeFollow(t.Context(), oa, read(), 40*time.Second); err != nil {
		t.Fatal(err)
	}
	if f := read(); f.Attempts != 1 || f.WaitMS < 30_000 || f.WaitMS > 40_000 {
		t.Errorf("postponed: %+v", f)
	}
	if err := m.EscalateFollow(t.Context(), oa, read(), RecheckNotSubscribed); err != nil {
		t.Fatal(err)
	}
	want := eventState{Note: RecheckNotSubscribed}
	if diff := cmp.Diff(want, readEventState(t, db, openid)); diff != "" {
		t.Errorf("handed over (-want +got):\n%s", diff)
	}
	event()
	if err := m.SettleFollow(t.Context(), oa, read()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(eventState{}, readEventState(t, db, openid)); diff != "" {
		t.Errorf("settled (-want +got):\n%s", diff)
	}
}

// TestFollowKeepsSendsGoing: whoever is asked about because he followed is not in doubt.
func TestFollowKeepsSendsGoing(t *testing.T) {
	db := dbtest.New(t)
	m := New(db)
	if _, err := m.Store(t.Context(), oa, []wechat.UserInfo{follower("oA", "u1")}, 0); err != nil {
		t.Fatal(err)
	}
	if err := m.NoteFollow(t.Context(), oa, "oA", time.Unix(1_800_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	got, err := m.Resolve(t.Context(), oa, []Recipient{{UnionID: "u1"}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Resolution{{Reachability: Reachable, OpenID: "oA"}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestPutOffIsFenced: a doubt waits uncounted, unless another event or doubt has come in since it was read.
func TestPutOffIsFenced(t *testing.T) {
	db := dbtest.New(t)
	m := New(db)
	const openid = "oA"
	read := func() Recheck {
		t.Helper()
		due, err := m.DueRechecks(t.Context(), oa, 10)
		if err != nil || len(due) != 1 {
			t.Fatalf("due %+v, %v", due, err)
		}
		return due[0]
	}
	putOff := func(r Recheck, wait time.Duration) eventState {
		t.Helper()
		if err := m.DeferRecheck(t.Context(), oa, r, wait); err != nil {
			t.Fatal(err)
		}
		return readEventState(t, db, openid)
	}
	exec(t, db, `INSERT INTO follower_recheck (appid, openid, reason, attempts) VALUES (?, ?, 'no_unionid', 3)`, oa, openid)
	old := read()
	if err := m.RequestRecheck(t.Context(), oa, []string{openid}, RecheckSendRefused); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(eventState{Note: RecheckSendRefused}, putOff(old, time.Minute)); diff != "" {
		t.Errorf("a new doubt is put off by an older question (-want +got):\n%s", diff)
	}
	exec(t, db, `UPDATE follower_recheck SET reason = 'followed', attempts = 3`)
	old = read()
	if err := m.NoteFollow(t.Context(), oa, openid, time.Unix(1_700_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	putOff(old, time.Hour)
	if due, err := m.DueFollows(t.Context(), oa, 1); err != nil || len(due) != 1 || due[0].WaitMS > FollowDelay.Milliseconds() {
		t.Errorf("a new follow is put off by an older question: %+v, %v", due, err)
	}
	exec(t, db, `UPDATE follower_recheck SET due_at = CURRENT_TIMESTAMP(3), attempts = 3`)
	if diff := cmp.Diff(eventState{Note: RecheckFollowed, Attempts: 3, Later: true}, putOff(read(), time.Hour)); diff != "" {
		t.Errorf("put off (-want +got):\n%s", diff)
	}
}
