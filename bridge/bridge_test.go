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
	return wechat.UserInfo{OpenID: openid, UnionID: unionid, Subscribed: true, SubscribeTime: 1_700_000_000,
		SubscribeScene: "ADD_SCENE_QR_CODE", QRSceneStr: "门店-7", TagIDs: []int64{2, 5}, Language: "zh_CN"}
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
			_, err := m.Store(t.Context(), oa, []wechat.UserInfo{follower("oA", "u1")}, 0)
			return err
		},
			full(ptr("u1"))},
		{"an answer without unionid does not wipe it", func() error {
			_, err := m.Store(t.Context(), oa, []wechat.UserInfo{follower("oA", "")}, 1)
			return err
		}, full(ptr("u1"))},
		{"odd values do not fail the batch", func() error {
			u := follower("oA", "u1")
			u.SubscribeTime, u.QRSceneStr, u.TagIDs, u.GroupID = 1<<40, string(long), nil, 1<<40
			_, err := m.Store(t.Context(), oa, []wechat.UserInfo{u}, 1)
			return err
		}, row{OpenID: "oA", UnionID: ptr("u1"), Subscribed: true, QRSceneStr: ptr(string(long[:128]))}},
		{"gone", func() error { _, err := m.MarkGone(t.Context(), oa, []string{"oA", "oNobody"}); return err },
			row{OpenID: "oA", UnionID: ptr("u1"), QRSceneStr: ptr(string(long[:128]))}},
		{"back", func() error {
			_, err := m.Store(t.Context(), oa, []wechat.UserInfo{follower("oA", "u1")}, 1)
			return err
		},
			full(ptr("u1"))},
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
	stored, err := m.Store(t.Context(), oa, infos, 1)
	if err != nil || stored != (Stored{Added: 2 * maxUpsert, Changed: 1}) {
		t.Errorf("stored %+v, error %v", stored, err)
	}
	if n := len(rows(t, db)); n != len(infos) {
		t.Errorf("%d rows, want %d", n, len(infos))
	}
}

func TestMarkGoneCountsOnlyFollowers(t *testing.T) {
	db := dbtest.New(t)
	m := New(db)
	if _, err := m.Store(t.Context(), oa, []wechat.UserInfo{follower("oA", "u1"), follower("oB", "u2")}, 0); err != nil {
		t.Fatal(err)
	}
	for _, want := range []int64{1, 0} {
		if n, err := m.MarkGone(t.Context(), oa, []string{"oA"}); err != nil || n != want {
			t.Errorf("%d rows marked, error %v, want %d", n, err, want)
		}
	}
	if n, err := m.MarkGone(t.Context(), oa, nil); n != 0 || err != nil {
		t.Errorf("nobody: %d rows, error %v", n, err)
	}
}

func TestScanIsInByteOrder(t *testing.T) {
	db := dbtest.New(t)
	m := New(db)
	exec(t, db, `INSERT INTO follower (appid, openid, subscribed, info_at, unionid) VALUES
		(?, 'oa', 1, NULL, NULL), (?, 'oB', 0, CURRENT_TIMESTAMP(3), 'uB'), (?, 'o-', 1, CURRENT_TIMESTAMP(3), NULL),
		(?, 'o_', 1, NULL, NULL), (?, 'oX', 1, NULL, NULL)`,
		oa, oa, oa, oa, oa2)
	want := []Entry{{"o-", true, true, false}, {"oB", false, true, true}, {"o_", true, false, false}, {"oa", true, false, false}}
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
		{"the unionid of another follower", follower("oNew", "uAnn"), []string{"oNew"}, []string{"oAnn"}},
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
	sample, err := m.Sample(t.Context(), oa, 2)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"oAnn": "uAnn", "oCat": "uCat"}, sample); diff != "" {
		t.Errorf("sample (-want +got):\n%s", diff)
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
	exec(t, db, `INSERT INTO follower_recheck (appid, openid, reason) VALUES (?, 'oCat', 'send_refused'), (?, 'oAnn', 'no_unionid')`, oa, oa)
}

func TestResolve(t *testing.T) {
	db := dbtest.New(t)
	seed(t, db)
	cases := []struct {
		name string
		rec  Recipient
		want Resolution
	}{
		{"unionid", Recipient{UnionID: "uAnn"}, Resolution{Reachability: Reachable, OpenID: "oAnn"}},
		{"unionid in other letters", Recipient{UnionID: "uANN"}, Resolution{Reachability: NotFollowing}},
		{"unionid of a former follower", Recipient{UnionID: "uBob"}, Resolution{Reachability: NotFollowing}},
		{"unionid in doubt", Recipient{UnionID: "uCat"}, Resolution{Reachability: InDoubt}},
		{"unionid of two", Recipient{UnionID: "uDup"}, Resolution{Reachability: Ambiguous}},
		{"unionid of nobody", Recipient{UnionID: "uNobody"}, Resolution{Reachability: NotFollowing}},
		{"mini user", Recipient{MiniAppID: mp, MiniOpenID: "mAnn"}, Resolution{Reachability: Reachable, OpenID: "oAnn"}},
		{"the same openid in another mini program", Recipient{MiniAppID: mp2, MiniOpenID: "mAnn"}, Resolution{Reachability: InDoubt}},
		{"the same openid in other letters", Recipient{MiniAppID: mp, MiniOpenID: "mANN"}, Resolution{Reachability: NotFollowing}},
		{"mini user without unionid", Recipient{MiniAppID: mp, MiniOpenID: "mGus"}, Resolution{Reachability: NoUnionID}},
		{"mini user nobody knows", Recipient{MiniAppID: mp, MiniOpenID: "mNobody"}, Resolution{Reachability: UnknownUser}},
		{"openid", Recipient{OpenID: "oEve"}, Resolution{Reachability: Reachable, OpenID: "oEve"}},
		{"openid that is not in the map", Recipient{OpenID: "oNew"}, Resolution{Reachable, "oNew", true}},
		{"openid of a former follower", Recipient{OpenID: "oBob"}, Resolution{Reachability: NotFollowing}},
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
		if got[i] != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got[i], c.want)
		}
	}
	elsewhere, err := New(db).Resolve(t.Context(), oa2, []Recipient{{UnionID: "uBob"}, {UnionID: "uCat"}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Resolution{{Reachability: Reachable, OpenID: "oBob2"}, {Reachability: NotFollowing}}, elsewhere); diff != "" {
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
		{UnionID: "uAnn", OAAppID: oa, OAOpenID: "oAnn", Subscribed: true, MiniAppID: mp, MiniOpenID: "mAnn"},
		{UnionID: "uAnn", OAAppID: oa2, OAOpenID: "oAnn2", Subscribed: true, MiniAppID: mp, MiniOpenID: "mAnn"},
	}
	for id, want := range map[string][]Identity{
		"uAnn":    ann,
		"oAnn":    ann,
		"oAnn2":   ann,
		"oEve":    {{OAAppID: oa, OAOpenID: "oEve", Subscribed: true}},
		"mGus":    {{MiniAppID: mp, MiniOpenID: "mGus"}},
		"uFay":    {{UnionID: "uFay", MiniAppID: mp, MiniOpenID: "mANN"}, {UnionID: "uFay", MiniAppID: mp, MiniOpenID: "mFay"}},
		"oNobody": {},
		"张三":      {},
	} {
		got, err := New(db).Lookup(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		byMini := cmpopts.SortSlices(func(a, b Identity) bool { return a.OAAppID+a.MiniOpenID < b.OAAppID+b.MiniOpenID })
		if diff := cmp.Diff(want, got, byMini, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", id, diff)
		}
	}
}

func TestRechecks(t *testing.T) {
	db := dbtest.New(t)
	m := New(db)
	if err := m.RequestRecheck(t.Context(), oa, []string{"oA", "oB"}, RecheckNoUnionID); err != nil {
		t.Fatal(err)
	}
	if err := m.PostponeRecheck(t.Context(), oa, Recheck{OpenID: "oA"}); err != nil {
		t.Fatal(err)
	}
	wantDue := func(want ...Recheck) {
		t.Helper()
		due, err := m.DueRechecks(t.Context(), oa, 10)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, due, cmpopts.SortSlices(func(a, b Recheck) bool { return a.OpenID < b.OpenID })); diff != "" {
			t.Errorf("due (-want +got):\n%s", diff)
		}
	}
	if err := m.RequestRecheck(t.Context(), oa, []string{"oA", "oB"}, RecheckNoUnionID); err != nil {
		t.Fatal(err)
	}
	wantDue(Recheck{"oB", RecheckNoUnionID, 0}) // oA keeps his later turn
	if err := m.RequestRecheck(t.Context(), oa, []string{"oA"}, RecheckSendRefused); err != nil {
		t.Fatal(err)
	}
	wantDue(Recheck{"oA", RecheckSendRefused, 0}, Recheck{"oB", RecheckNoUnionID, 0})
	if err := m.SettleRecheck(t.Context(), oa, "oA"); err != nil {
		t.Fatal(err)
	}
	if err := m.SettleRecheck(t.Context(), oa, "oB"); err != nil {
		t.Fatal(err)
	}
	if due, err := m.DueRechecks(t.Context(), oa, 10); err != nil || len(due) != 0 {
		t.Errorf("after settling: %v, %v", due, err)
	}
}

func TestRecheckBackoff(t *testing.T) {
	for attempts, want := range map[int]time.Duration{
		0: 5 * time.Minute, 1: 5 * time.Minute, 2: 10 * time.Minute, 5: 80 * time.Minute,
		11: 5120 * time.Minute, 12: 7 * 24 * time.Hour, 1000: 7 * 24 * time.Hour,
	} {
		if got := recheckBackoff(attempts); got != want {
			t.Errorf("after %d answers: %s, want %s", attempts, got, want)
		}
	}
}

func TestSeeMiniUser(t *testing.T) {
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
