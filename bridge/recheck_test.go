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

// TestFollowEvents holds events against what the map may know already. Times are seconds around the
// last follow that the map knows.
func TestFollowEvents(t *testing.T) {
	db := dbtest.New(t)
	m := New(db)
	const last = 1_700_000_000
	asked := eventState{Row: true, Subscribed: true, Note: RecheckFollowed, Later: true}
	for i, test := range []struct {
		name     string
		unknown  bool // no row in the map
		left     bool // the row says so
		blocked  bool
		note     RecheckReason // that is open already
		followed bool
		at       int64
		want     eventState
	}{
		{name: "a new person", unknown: true, followed: true,
			want: eventState{Note: RecheckFollowed, Later: true}},
		{name: "a new person again", unknown: true, note: RecheckFollowed, followed: true,
			want: eventState{Note: RecheckFollowed, Later: true}},
		{name: "one who came back", left: true, followed: true, at: 10,
			want: eventState{Row: true, Note: RecheckFollowed, Later: true}},
		{name: "a follow that the map knows", followed: true,
			want: eventState{Row: true, Subscribed: true}},
		{name: "an older follow", followed: true, at: -10,
			want: eventState{Row: true, Subscribed: true}},
		{name: "an older follow of one who left", left: true, followed: true, at: -10,
			want: eventState{Row: true}},
		{name: "the follow before the leaving, repeated", left: true, followed: true,
			want: eventState{Row: true, Note: RecheckFollowed, Later: true}},
		{name: "a newer follow of a follower", followed: true, at: 10, want: asked},
		{name: "a follow ends the block", blocked: true, followed: true, at: 10, want: asked},
		{name: "a sweep was faster than the follow's event", blocked: true, followed: true,
			want: eventState{Row: true, Subscribed: true}},
		{name: "an older follow ends no block", blocked: true, followed: true, at: -10,
			want: eventState{Row: true, Subscribed: true, Blocked: true}},
		{name: "a follow restarts an older recheck", note: RecheckNoUnionID, followed: true,
			at: 10, want: asked},

		{name: "unfollow", at: 10, want: eventState{Row: true}},
		{name: "unfollow, again", left: true, at: 10, want: eventState{Row: true}},
		{name: "leaving before the last follow", at: -10,
			want: eventState{Row: true, Subscribed: true}},
		{name: "leaving before the last follow, block and note stay", at: -10, blocked: true,
			note: RecheckSendRefused,
			want: eventState{Row: true, Subscribed: true, Blocked: true, Note: RecheckSendRefused,
				Attempts: 3}},
		{name: "both in one second",
			want: eventState{Row: true, Note: RecheckFollowed, Later: true}},
		{name: "unfollow during a recheck", note: RecheckFollowed, at: 10,
			want: eventState{Row: true, Note: RecheckFollowed, Later: true}},
		{name: "unfollow of a stranger", unknown: true, want: eventState{Row: true}},
		{name: "unfollow of a stranger during a recheck", unknown: true,
			note: RecheckFollowed, at: 10,
			want: eventState{Row: true, Note: RecheckFollowed, Later: true}},
		{name: "other doubts stay", note: RecheckSendRefused, at: 10,
			want: eventState{Row: true, Note: RecheckSendRefused, Attempts: 3}},
	} {
		openid := "o" + string(rune('A'+i))
		if !test.unknown {
			exec(t, db,
				`INSERT INTO follower (appid, openid, unionid, subscribed, subscribe_time, blocked_until) VALUES (?, ?, ?, ?, ?, ?)`,
				oa, openid, "u"+openid, !test.left, time.Unix(last,
					0).UTC(), blockedUntil(test.blocked))
		}
		if test.note != "" {
			exec(t, db,
				`INSERT INTO follower_recheck (appid, openid, reason, attempts) VALUES (?, ?, ?, 3)`, oa, openid, test.note)
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

func readRecheck(t *testing.T, m *Map, openid string) Recheck {
	t.Helper()
	due, err := m.DueRechecks(t.Context(), oa, Due{Within: time.Hour, Limit: 100})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range due {
		if r.OpenID == openid {
			return r
		}
	}
	t.Fatalf("%s has no recheck: %+v", openid, due)
	return Recheck{}
}

func TestDueRechecks(t *testing.T) {
	db := dbtest.New(t)
	m := New(db)
	exec(t, db, `INSERT INTO follower_recheck (appid, openid, reason, due_at) VALUES
		(?, 'oSoon', 'followed', CURRENT_TIMESTAMP(3) + INTERVAL 60 SECOND),
		(?, 'oDue', 'no_unionid', CURRENT_TIMESTAMP(3) - INTERVAL 1 SECOND),
		(?, 'oFirst', 'followed', CURRENT_TIMESTAMP(3) - INTERVAL 2 SECOND),
		(?, 'oElsewhere', 'followed', CURRENT_TIMESTAMP(3) - INTERVAL 2 SECOND)`, oa, oa, oa, oa2)
	for _, test := range []struct {
		due  Due
		want []string
	}{
		{Due{Limit: 9}, []string{"oFirst", "oDue"}},
		{Due{Limit: 1}, []string{"oFirst"}},
		{Due{Within: 2 * time.Minute, Limit: 9}, []string{"oFirst", "oDue", "oSoon"}},
		{Due{Within: 2 * time.Minute, Reason: RecheckFollowed, Limit: 9},
			[]string{"oFirst", "oSoon"}},
	} {
		due, err := m.DueRechecks(t.Context(), oa, test.due)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range due {
			got = append(got, r.OpenID)
			if ripe := r.OpenID != "oSoon"; ripe != (r.WaitMS <= 0) || r.WaitMS > 60_000 {
				t.Errorf("%s waits %d ms", r.OpenID, r.WaitMS)
			}
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", test.due, diff)
		}
	}
}

// TestRequestRecheck holds each request against what may be open already.
func TestRequestRecheck(t *testing.T) {
	db := dbtest.New(t)
	m := New(db)
	for i, test := range []struct {
		name    string
		open    RecheckReason // "": none
		later   bool          // the open one is not due
		request RecheckReason
		want    eventState
		moved   bool // due_at is another one
	}{
		{"new", "", false, RecheckNoUnionID, eventState{Note: RecheckNoUnionID}, true},
		{"the same keeps its turn", RecheckNoUnionID, true, RecheckNoUnionID,
			eventState{Note: RecheckNoUnionID, Attempts: 3, Later: true}, false},
		{"the same, due", RecheckNoUnionID, false, RecheckNoUnionID,
			eventState{Note: RecheckNoUnionID, Attempts: 3}, false},
		{"another restarts", RecheckNoUnionID, true, RecheckSendRefused,
			eventState{Note: RecheckSendRefused}, true},
		{"reading leaves a follow to the events", RecheckFollowed, true, RecheckNotSubscribed,
			eventState{Note: RecheckFollowed, Attempts: 3, Later: true}, false},
		{"a refused message does not", RecheckFollowed, true, RecheckSendInvalid,
			eventState{Note: RecheckSendInvalid}, true},
		{"refused again, recheck due", RecheckSendRefused, false, RecheckSendRefused,
			eventState{Note: RecheckSendRefused, Attempts: 3}, true},
		{"refused again, recheck later", RecheckSendRefused, true, RecheckSendRefused,
			eventState{Note: RecheckSendRefused, Attempts: 3, Later: true}, false},
	} {
		openid := "o" + string(rune('A'+i))
		var before Recheck
		if test.open != "" {
			exec(t, db, `INSERT INTO follower_recheck (appid, openid, reason, attempts, due_at)
				VALUES (?, ?, ?, 3, CURRENT_TIMESTAMP(3) + INTERVAL ? SECOND)`,
				oa, openid, test.open, map[bool]int{true: 600, false: -600}[test.later])
			before = readRecheck(t, m, openid)
		}
		if err := m.RequestRecheck(t.Context(), oa, []string{openid}, test.request); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, readEventState(t, db, openid)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
		if moved := !readRecheck(t, m, openid).DueAt.Equal(before.DueAt); moved != test.moved {
			t.Errorf("%s: moved %v", test.name, moved)
		}
	}
	if err := m.RequestRecheck(t.Context(), oa, nil, RecheckNoUnionID); err != nil {
		t.Errorf("nobody: %v", err)
	}
}

// settlements are all kinds of them about one person.
func settlements(openid string) map[string]Settlement {
	info := follower(openid, "uAnswer")
	return map[string]Settlement{
		"settled":               {},
		"stored":                {Store: &info},
		"stored, another asked": {Store: &info, Next: RecheckUnionIDTwice},
		"gone":                  {Gone: true},
		"postponed":             {Next: RecheckSendRefused, Attempts: 4, Wait: time.Minute},
		"escalated":             {Next: RecheckNotSubscribed},
	}
}

func TestSettleRecheck(t *testing.T) {
	db := dbtest.New(t)
	m := New(db)
	for name, want := range map[string]struct {
		eventState
		wrote int64
	}{
		"settled": {eventState{Row: true, Subscribed: true}, 0},
		"stored":  {eventState{Row: true, Subscribed: true}, 1},
		"stored, another asked": {eventState{Row: true, Subscribed: true,
			Note: RecheckUnionIDTwice}, 1},
		"gone": {eventState{Row: true}, 1},
		"postponed": {eventState{
			Row: true, Subscribed: true, Note: RecheckSendRefused, Attempts: 4, Later: true}, 0},
		"escalated": {eventState{Row: true, Subscribed: true, Note: RecheckNotSubscribed}, 0},
	} {
		const openid = "oA"
		exec(t, db, `REPLACE INTO follower (appid, openid, subscribed) VALUES (?, ?, 1)`, oa,
			openid)
		exec(t, db,
			`REPLACE INTO follower_recheck (appid, openid, reason, attempts) VALUES (?, ?, 'send_refused', 3)`,
			oa, openid)
		wrote, err := m.SettleRecheck(t.Context(), oa, readRecheck(t, m, openid),
			settlements(openid)[name])
		if err != nil || wrote != want.wrote {
			t.Errorf("%s: wrote %d, %v", name, wrote, err)
		}
		if diff := cmp.Diff(want.eventState, readEventState(t, db, openid)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestSettleRecheckIsFenced: an answer that is older than what the map has learnt meanwhile changes
// nothing, whatever it says and whatever was asked.
func TestSettleRecheckIsFenced(t *testing.T) {
	db := dbtest.New(t)
	m := New(db)
	const follow = 1_700_000_000
	facts := map[string]func(openid string) error{
		"follow": func(id string) error {
			return m.NoteFollow(t.Context(), oa, id, time.Unix(follow+10, 0))
		},
		"unfollow": func(id string) error {
			return m.NoteUnfollow(t.Context(), oa, id, time.Unix(follow+10, 0))
		},
		"refused message": func(id string) error {
			return m.RequestRecheck(t.Context(), oa, []string{id}, RecheckSendRefused)
		},
	}
	for _, reason := range []RecheckReason{RecheckFollowed, RecheckSendRefused, RecheckUnknownOpenID} {
		for _, subscribed := range []bool{true, false} {
			for fact, happen := range facts {
				for answer := range settlements("") {
					const openid = "oA"
					exec(t, db,
						`REPLACE INTO follower (appid, openid, subscribed, subscribe_time) VALUES (?, ?, ?, ?)`,
						oa, openid, subscribed, time.Unix(follow, 0).UTC())
					exec(t, db, `REPLACE INTO follower_recheck (appid, openid, reason, due_at)
						VALUES (?, ?, ?, CURRENT_TIMESTAMP(3) - INTERVAL 1 MINUTE)`, oa, openid, reason)
					old := readRecheck(t, m, openid)
					if err := happen(openid); err != nil {
						t.Fatal(err)
					}
					want := readEventState(t, db, openid)
					wrote, err := m.SettleRecheck(t.Context(), oa, old, settlements(openid)[answer])
					if err != nil || wrote != 0 {
						t.Errorf("%s, %s, %s: wrote %d, %v", reason, fact, answer, wrote, err)
					}
					if diff := cmp.Diff(want, readEventState(t, db, openid)); diff != "" {
						t.Errorf("%s, subscribed %v, %s, %s (-want +got):\n%s", reason, subscribed,
							fact, answer, diff)
					}
				}
			}
		}
	}
}

// TestNewerAnswerWins: another run has stored an answer while this one was under way; its recheck
// was not touched.
func TestNewerAnswerWins(t *testing.T) {
	db := dbtest.New(t)
	m := New(db)
	for _, subscribed := range []bool{true, false} {
		for answer, s := range settlements("oA") {
			exec(t, db, `REPLACE INTO follower (appid, openid, subscribed) VALUES (?, 'oA', ?)`, oa,
				!subscribed)
			exec(t, db,
				`REPLACE INTO follower_recheck (appid, openid, reason) VALUES (?, 'oA', 'send_refused')`, oa)
			old := readRecheck(t, m, "oA")
			exec(t, db, `UPDATE follower SET subscribed = ?, info_at = CURRENT_TIMESTAMP(3)`,
				subscribed)
			if _, err := m.SettleRecheck(t.Context(), oa, old, s); err != nil {
				t.Fatal(err)
			}
			if got := readEventState(t, db, "oA"); got.Subscribed != subscribed {
				t.Errorf("%s: subscribed %v, a newer answer said %v", answer, got.Subscribed,
					subscribed)
			}
		}
	}
}

// TestFollowKeepsSendsGoing: an announced follow puts nobody in doubt.
func TestFollowKeepsSendsGoing(t *testing.T) {
	db := dbtest.New(t)
	m := New(db)
	if err := m.Store(t.Context(), oa, []wechat.UserInfo{follower("oA", "u1")}, now()); err != nil {
		t.Fatal(err)
	}
	if err := m.NoteFollow(t.Context(), oa, "oA", time.Unix(1_800_000_000, 0)); err != nil {
		t.Fatal(err)
	}
	got, err := m.Resolve(t.Context(), oa, []Recipient{{UnionID: "u1"}})
	if err != nil {
		t.Fatal(err)
	}
	want := []Resolution{{Reachability: Reachable, OpenID: "oA",
		FollowedAt: time.Unix(follower("oA", "u1").SubscribeTime, 0).UTC()}}
	if diff := cmp.Diff(want, got, anyKeys); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
