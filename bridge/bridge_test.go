package bridge

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/wechat"
)

const (
	oa, oa2 = "wx0a00000000000001", "wx0a00000000000002"
	mp, mp2 = "wx0b00000000000001", "wx0b00000000000002"
)

func exec(t *testing.T, db *sqlx.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

func follower(openid, unionid string) wechat.UserInfo {
	return wechat.UserInfo{OpenID: openid, UnionID: unionid, Subscribed: true,
		SubscribeTime:  1_700_000_000,
		SubscribeScene: "ADD_SCENE_QR_CODE", QRSceneStr: "门店-7", TagIDs: []int64{2,
			5}, Language: "zh_CN"}
}

type row struct {
	OpenID        string     `db:"openid"`
	UnionID       *string    `db:"unionid"`
	Subscribed    bool       `db:"subscribed"`
	SubscribeTime *time.Time `db:"subscribe_time"`
	QRSceneStr    *string    `db:"qr_scene_str"`
	Tags          *string    `db:"tags"`
}

func rows(t *testing.T, db *sqlx.DB) []row {
	t.Helper()
	var got []row
	err := db.SelectContext(t.Context(), &got, `
		SELECT openid, unionid, subscribed, subscribe_time, qr_scene_str,
		       REPLACE(CAST(tagid_list AS CHAR), ' ', '') AS tags
		  FROM follower ORDER BY appid, openid`)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// now is a moment of the database's clock that all earlier writes of the test precede.
func now() time.Time { return time.Now().Add(time.Millisecond) }

func ptr[T any](v T) *T { return &v }

func TestStore(t *testing.T) {
	db := dbtest.New(t)
	m := New(db)
	long := make([]byte, 1000)
	for i := range long {
		long[i] = 'x'
	}
	when := time.Unix(1_700_000_000, 0).UTC()
	full := func(unionid *string) row {
		return row{OpenID: "oA", UnionID: unionid, Subscribed: true, SubscribeTime: &when,
			QRSceneStr: ptr("门店-7"), Tags: ptr("[2,5]")}
	}
	for _, step := range []struct {
		name string
		do   func() error
		want row
	}{
		{"new", func() error {
			return m.Store(t.Context(), oa, []wechat.UserInfo{follower("oA", "u1")}, now())
		}, full(ptr("u1"))},
		{"an answer without unionid does not wipe it", func() error {
			return m.Store(t.Context(), oa, []wechat.UserInfo{follower("oA", "")}, now())
		}, full(ptr("u1"))},
		{"odd values do not fail the batch", func() error {
			u := follower("oA", "u1")
			u.SubscribeTime, u.QRSceneStr, u.TagIDs, u.GroupID = 1<<40, string(long), nil, 1<<40
			return m.Store(t.Context(), oa, []wechat.UserInfo{u}, now())
		}, row{OpenID: "oA", UnionID: ptr("u1"), Subscribed: true, QRSceneStr: ptr(string(long[:128]))}},
		{"gone", func() error {
			_, err := m.MarkGone(t.Context(), oa, []string{"oA", "oNobody"}, now())
			return err
		}, row{OpenID: "oA", UnionID: ptr("u1"), QRSceneStr: ptr(string(long[:128]))}},
		{"back", func() error {
			return m.Store(t.Context(), oa, []wechat.UserInfo{follower("oA", "u1")}, now())
		}, full(ptr("u1"))},
	} {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		if diff := cmp.Diff([]row{step.want}, rows(t, db)); diff != "" {
			t.Errorf("%s: rows differ (-want +got):\n%s", step.name, diff)
		}
	}
}

func TestStoreManyInOneCall(t *testing.T) {
	db := dbtest.New(t)
	m := New(db)
	infos := make([]wechat.UserInfo, 2*maxUpsert+1)
	for i := range infos {
		infos[i] = follower(string(rune('A'+i/1000))+string(rune('0'+i/100%10))+string(rune('0'+i/10%10))+string(rune('0'+i%10)), "")
	}
	if err := m.Store(t.Context(), oa, infos, now()); err != nil {
		t.Fatal(err)
	}
	if n := len(rows(t, db)); n != len(infos) {
		t.Errorf("%d rows, want %d", n, len(infos))
	}
}

func TestMarkGoneCountsOnlyFollowers(t *testing.T) {
	db := dbtest.New(t)
	m := New(db)
	if err := m.Store(t.Context(), oa, []wechat.UserInfo{follower("oA", "u1"), follower("oB", "u2")}, now()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int64{1, 0} {
		if n, err := m.MarkGone(t.Context(), oa, []string{"oA"}, now()); err != nil || n != want {
			t.Errorf("%d rows marked, error %v, want %d", n, err, want)
		}
	}
	if n, err := m.MarkGone(t.Context(), oa, nil, now()); n != 0 || err != nil {
		t.Errorf("nobody: %d rows, error %v", n, err)
	}
}

// TestOldAnswers: what the map learnt after the question stays, whatever the answer is.
func TestOldAnswers(t *testing.T) {
	db := dbtest.New(t)
	m := New(db)
	const follow = 1_700_000_000
	for i, test := range []struct {
		name       string
		subscribed bool // before the question
		fact       func(openid string) error
		want       bool // subscribed afterwards
	}{
		{"unfollow", true, func(id string) error {
			return m.NoteUnfollow(t.Context(), oa, id, time.Unix(follow+10, 0))
		}, false},
		{"unfollow of one who had left", false, func(id string) error {
			return m.NoteUnfollow(t.Context(), oa, id, time.Unix(follow+10, 0))
		}, false},
		{"a newer answer", false, func(id string) error {
			return m.Store(t.Context(), oa, []wechat.UserInfo{follower(id, "uNew")}, now())
		}, true},
		{"a newer answer that says gone", true, func(id string) error {
			_, err := m.MarkGone(t.Context(), oa, []string{id}, now())
			return err
		}, false},
	} {
		openid := "o" + string(rune('A'+i))
		exec(t, db, `INSERT INTO follower (appid, openid, unionid, subscribed, subscribe_time, info_at)
			VALUES (?, ?, 'uOld', ?, ?, CURRENT_TIMESTAMP(3) - INTERVAL 1 HOUR)`,
			oa, openid, test.subscribed, time.Unix(follow, 0).UTC())
		asked, err := m.Now(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		asked = asked.Add(-time.Millisecond)
		if err := test.fact(openid); err != nil {
			t.Fatal(err)
		}
		want := rows(t, db)[i]
		if want.Subscribed != test.want {
			t.Errorf("%s: subscribed %v before the answer", test.name, want.Subscribed)
		}
		old := []wechat.UserInfo{{OpenID: openid, UnionID: "uOlder", Subscribed: true}}
		if err := m.Store(t.Context(), oa, old, asked); err != nil {
			t.Fatal(err)
		}
		if n, err := m.MarkGone(t.Context(), oa, []string{openid}, asked); n != 0 || err != nil {
			t.Errorf("%s: %d marked as gone, %v", test.name, n, err)
		}
		if diff := cmp.Diff(want, rows(t, db)[i]); diff != "" {
			t.Errorf("%s: an older answer changes it (-want +got):\n%s", test.name, diff)
		}
	}
	exec(t, db, `UPDATE follower SET subscribed = 1`)
	if err := m.NoteFollow(t.Context(), oa, "oA", time.Now()); err != nil {
		t.Fatal(err)
	}
	if n, err := m.MarkGone(t.Context(), oa, []string{"oA"}, now()); n != 0 || err != nil {
		t.Errorf("an announced follower is marked as gone: %d, %v", n, err)
	}
}

func TestScanIsInByteOrder(t *testing.T) {
	db := dbtest.New(t)
	m := New(db)
	exec(t, db, `INSERT INTO follower (appid, openid, subscribed, info_at, unionid) VALUES
		(?, 'oa', 1, NULL, NULL), (?, 'oB', 0, CURRENT_TIMESTAMP(3), 'uB'), (?, 'o-', 1, CURRENT_TIMESTAMP(3), NULL),
		(?, 'o_', 1, NULL, NULL), (?, 'oX', 1, NULL, NULL)`,
		oa, oa, oa, oa, oa2)
	want := []Entry{{"o-", true, true, false}, {"oB", false, true, true},
		{"o_", true, false, false}, {"oa", true, false, false}}
	var got []Entry
	for after := ""; ; {
		page, err := m.Scan(t.Context(), oa, Page{After: after, Limit: 3})
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, page...)
		if len(page) < 3 {
			break
		}
		after = page[len(page)-1].OpenID
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries differ (-want +got):\n%s", diff)
	}
	later, err := m.Scan(t.Context(), oa, Page{Limit: 9, Since: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range later {
		if e.Asked {
			t.Errorf("%s counts as asked since a moment to come", e.OpenID)
		}
	}
}

func TestConflicts(t *testing.T) {
	db := dbtest.New(t)
	seed(t, db)
	m := New(db)
	for _, c := range []struct {
		name             string
		answer           wechat.UserInfo
		openids, holders []string
	}{
		{"as known", follower("oAnn", "uAnn"), nil, nil},
		{"new", follower("oNew", "uNew"), nil, nil},
		{"without unionid", follower("oAnn", ""), nil, nil},
		{"another unionid for a known openid", follower("oAnn", "uNew"), []string{"oAnn"}, nil},
		{"the unionid of another follower", follower("oNew", "uAnn"), []string{"oNew"},
			[]string{"oAnn"}},
		{"the unionid of a former follower", follower("oNew", "uBob"), nil, nil},
		{"both", follower("oCat", "uAnn"), []string{"oCat", "oCat"}, []string{"oAnn"}},
	} {
		openids, holders, err := m.Conflicts(t.Context(), oa, []wechat.UserInfo{c.answer})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([][]string{c.openids, c.holders}, [][]string{openids, holders}, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
	twins, err := m.DuplicateUnionIDs(t.Context(), oa, 10)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"oDupA", "oDupB"}, twins, cmpopts.SortSlices(func(a, b string) bool { return a < b })); diff != "" {
		t.Errorf("twins (-want +got):\n%s", diff)
	}
	exec(t, db, `UPDATE follower SET info_at = CURRENT_TIMESTAMP(3)
		WHERE openid IN ('oAnn', 'oDupA')`)
	exec(t, db, `UPDATE follower SET info_at = CURRENT_TIMESTAMP(3) - INTERVAL 1 DAY
		WHERE openid IN ('oCat', 'oDupB')`)
	sample, err := m.Sample(t.Context(), oa, 3)
	if err != nil {
		t.Fatal(err)
	}
	var openids []string
	for _, u := range sample {
		openids = append(openids, u.OpenID)
	}
	if diff := cmp.Diff([]string{"oCat", "oDupB", "oAnn"}, openids); diff != "" {
		t.Errorf("sample, the oldest answers first (-want +got):\n%s", diff)
	}
}

func seed(t *testing.T, db *sqlx.DB) {
	t.Helper()
	exec(t, db, `INSERT INTO follower (appid, openid, unionid, subscribed) VALUES
		(?, 'oAnn', 'uAnn', 1), (?, 'oBob', 'uBob', 0), (?, 'oCat', 'uCat', 1), (?, 'oDupA', 'uDup', 1), (?, 'oDupB', 'uDup', 1),
		(?, 'oEve', NULL, 1), (?, 'oAnn2', 'uAnn', 1), (?, 'oBob2', 'uBob', 1)`,
		oa, oa, oa, oa, oa, oa, oa2, oa2)
	exec(t, db, `INSERT INTO mini_user (appid, openid, unionid) VALUES
		(?, 'mAnn', 'uAnn'), (?, 'mBob', 'uBob'), (?, 'mFay', 'uFay'), (?, 'mGus', NULL), (?, 'mAnn', 'uCat'), (?, 'mANN', 'uFay')`,
		mp, mp, mp, mp, mp2, mp)
	exec(t, db,
		`INSERT INTO follower_recheck (appid, openid, reason) VALUES (?, 'oCat', 'send_refused'), (?, 'oAnn', 'no_unionid')`, oa, oa)
}

// anyKeys leaves out what somebody's messages await: see TestAwaits.
var anyKeys = cmpopts.IgnoreFields(Resolution{}, "Awaits")

func TestResolve(t *testing.T) {
	db := dbtest.New(t)
	seed(t, db)
	cases := []struct {
		name string
		rec  Recipient
		want Resolution
	}{
		{"unionid", Recipient{UnionID: "uAnn"},
			Resolution{Reachability: Reachable, OpenID: "oAnn"}},
		{"unionid in other letters", Recipient{UnionID: "uANN"},
			Resolution{Reachability: NotFollowing}},
		{"unionid of a former follower", Recipient{UnionID: "uBob"},
			Resolution{Reachability: NotFollowing}},
		{"unionid in doubt", Recipient{UnionID: "uCat"}, Resolution{Reachability: InDoubt}},
		{"unionid of two", Recipient{UnionID: "uDup"}, Resolution{Reachability: Ambiguous}},
		{"unionid of nobody", Recipient{UnionID: "uNobody"},
			Resolution{Reachability: NotFollowing}},
		{"mini user", Recipient{MiniAppID: mp, MiniOpenID: "mAnn"},
			Resolution{Reachability: Reachable, OpenID: "oAnn"}},
		{"the same openid in another mini program", Recipient{MiniAppID: mp2, MiniOpenID: "mAnn"},
			Resolution{Reachability: InDoubt}},
		{"the same openid in other letters", Recipient{MiniAppID: mp, MiniOpenID: "mANN"},
			Resolution{Reachability: NotFollowing}},
		{"mini user without unionid", Recipient{MiniAppID: mp, MiniOpenID: "mGus"},
			Resolution{Reachability: NoUnionID}},
		{"mini user nobody knows", Recipient{MiniAppID: mp, MiniOpenID: "mNobody"},
			Resolution{Reachability: UnknownUser}},
		{"openid", Recipient{OpenID: "oEve"}, Resolution{Reachability: Reachable, OpenID: "oEve"}},
		{"openid that is not in the map", Recipient{OpenID: "oNew"},
			Resolution{Reachability: Reachable, OpenID: "oNew", Unlisted: true}},
		{"openid of a former follower", Recipient{OpenID: "oBob"},
			Resolution{Reachability: NotFollowing}},
		{"openid in doubt", Recipient{OpenID: "oCat"}, Resolution{Reachability: InDoubt}},
	}
	var recipients []Recipient
	for _, c := range cases {
		recipients = append(recipients, c.rec)
	}
	got, err := New(db).Resolve(t.Context(), oa, recipients)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range cases {
		if diff := cmp.Diff(c.want, got[i], anyKeys); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
	elsewhere, err := New(db).Resolve(t.Context(), oa2,
		[]Recipient{{UnionID: "uBob"}, {UnionID: "uCat"}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Resolution{{Reachability: Reachable, OpenID: "oBob2"}, {Reachability: NotFollowing}}, elsewhere, anyKeys); diff != "" {
		t.Errorf("at the other account (-want +got):\n%s", diff)
	}
	if none, err := New(db).Resolve(t.Context(), oa, nil); err != nil || len(none) != 0 {
		t.Errorf("nobody: %v, %v", none, err)
	}
}

func TestLookup(t *testing.T) {
	db := dbtest.New(t)
	seed(t, db)
	ann := []Identity{
		{UnionID: "uAnn", OAAppID: oa, OAOpenID: "oAnn", Subscribed: true, MiniAppID: mp,
			MiniOpenID: "mAnn"},
		{UnionID: "uAnn", OAAppID: oa2, OAOpenID: "oAnn2", Subscribed: true, MiniAppID: mp,
			MiniOpenID: "mAnn"},
	}
	for id, want := range map[string][]Identity{
		"uAnn":  ann,
		"oAnn":  ann,
		"oAnn2": ann,
		"oEve":  {{OAAppID: oa, OAOpenID: "oEve", Subscribed: true}},
		"mGus":  {{MiniAppID: mp, MiniOpenID: "mGus"}},
		"uFay": {{UnionID: "uFay", MiniAppID: mp, MiniOpenID: "mANN"},
			{UnionID: "uFay", MiniAppID: mp, MiniOpenID: "mFay"}},
		"oNobody": {},
		"张三":      {},
	} {
		got, err := New(db).Lookup(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		byMini := cmpopts.SortSlices(func(a,
			b Identity) bool {
			return a.OAAppID+a.MiniOpenID < b.OAAppID+b.MiniOpenID
		})
		if diff := cmp.Diff(want, got, byMini, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", id, diff)
		}
	}
}

// TestEmptyIDs: an empty unionid is none, also of several people; blanks at the end say nothing.
func TestEmptyIDs(t *testing.T) {
	db := dbtest.New(t)
	seed(t, db)
	m := New(db)
	exec(t, db, `INSERT INTO mini_user (appid, openid, unionid) VALUES
		(?, 'mOne', ''), (?, 'mTwo', ''), (?, 'mSix ', 'uAnn '), (?, 'mBlank', '  ')`, mp, mp, mp, mp)
	got, err := m.Resolve(t.Context(), oa, []Recipient{{MiniAppID: mp, MiniOpenID: "mOne"},
		{MiniAppID: mp, MiniOpenID: "mBlank"}, {MiniAppID: mp, MiniOpenID: "mSix"}})
	want := []Resolution{{Reachability: NoUnionID}, {Reachability: NoUnionID},
		{Reachability: Reachable, OpenID: "oAnn"}}
	if diff := cmp.Diff(want, got, anyKeys); diff != "" || err != nil {
		t.Errorf("resolved (-want +got):\n%s%v", diff, err)
	}
	alone := []Identity{{MiniAppID: mp, MiniOpenID: "mOne"}}
	for id, want := range map[string][]Identity{"mOne": alone, "mOne ": alone, "": nil, " ": nil} {
		got, err := m.Lookup(t.Context(), id)
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" || err != nil {
			t.Errorf("%q (-want +got):\n%s%v", id, diff, err)
		}
	}
	if _, without, err := m.Coverage(t.Context()); err != nil || without != 4 { // mGus too
		t.Errorf("%d without a unionid, want 4 (%v)", without, err)
	}
	users := []MiniUser{{AppID: mp, OpenID: "mOne", UnionID: "uOne"},
		{AppID: mp, OpenID: "mSix", UnionID: "uAnn"}}
	found, err := m.ImportMiniUsers(t.Context(), users, false)
	if err != nil || len(found) > 0 {
		t.Errorf("contradictions %v, %v", found, err)
	}
	if got, err := m.Lookup(t.Context(), "uOne"); err != nil || len(got) != 1 {
		t.Errorf("the import of a unionid where there was an empty one: %v, %v", got, err)
	}
}

func TestUpsertMiniUser(t *testing.T) {
	db := dbtest.New(t)
	m := New(db)
	for _, unionid := range []string{"", "u1", ""} {
		if err := m.UpsertMiniUser(t.Context(), mp, "mA", unionid); err != nil {
			t.Fatal(err)
		}
	}
	var got string
	if err := db.GetContext(t.Context(), &got, `SELECT unionid FROM mini_user WHERE appid = ? AND openid = 'mA'`, mp); err != nil || got != "u1" {
		t.Errorf("unionid %q, error %v, want u1", got, err)
	}
}
