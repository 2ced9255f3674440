package bridge

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/wechat"
)

// TestAwaits: a recipient's messages wait for what the map may learn about them.
func TestAwaits(t *testing.T) {
	db := dbtest.New(t)
	seed(t, db)
	unionid := func(value string) Key { return Key{KeyUnionID, oa, value} }
	openid := func(value string) Key { return Key{KeyOpenID, oa, value} }
	for _, c := range []struct {
		name string
		rec  Recipient
		want []Key
	}{
		{"a follower", Recipient{UnionID: "uAnn"}, []Key{unionid("uAnn")}},
		{"who has left", Recipient{UnionID: "uBob"}, []Key{unionid("uBob")}},
		{"nobody", Recipient{UnionID: "uNobody"}, []Key{unionid("uNobody")}},
		{"one of two", Recipient{UnionID: "uDup"},
			[]Key{unionid("uDup"), openid("oDupA"), openid("oDupB")}},
		{"an openid", Recipient{OpenID: "oBob"}, []Key{openid("oBob")}},
		{"an unlisted openid", Recipient{OpenID: "oNew"}, []Key{openid("oNew")}},
		{"a mini user", Recipient{MiniAppID: mp, MiniOpenID: "mBob"}, []Key{unionid("uBob")}},
		{"a login", Recipient{MiniAppID: mp, MiniOpenID: "mNew"}, []Key{{KeyOpenID, mp, "mNew"}}},
		{"a unionid", Recipient{MiniAppID: mp, MiniOpenID: "mGus"}, []Key{{KeyOpenID, mp, "mGus"}}},
	} {
		got, err := New(db).Resolve(t.Context(), oa, []Recipient{c.rec})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, got[0].Awaits); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// told is a watcher.
type told []Key

func (w *told) Changed(_ context.Context, keys []Key) { *w = append(*w, keys...) }

// TestWatcherIsTold: of everything by which somebody may have become reachable.
func TestWatcherIsTold(t *testing.T) {
	db := dbtest.New(t)
	seed(t, db)
	var heard told
	m := New(db).Watched(&heard)
	bob, left := []Key{{KeyOpenID, oa, "oBob"}, {KeyUnionID, oa, "uBob"}}, []Key{{KeyOpenID, oa, "oAnn"}}
	recheck := func(openid string, s Settlement) error {
		exec(t, db, `REPLACE INTO follower_recheck (appid, openid, reason) VALUES (?, ?, 'send_refused')`,
			oa, openid)
		_, err := m.SettleRecheck(t.Context(), oa, readRecheck(t, m, openid), s)
		return err
	}
	known, unknown := follower("oBob", "uBob"), follower("oBob", "")
	for _, c := range []struct {
		name string
		do   func() error
		want []Key
	}{
		{"a stored answer", func() error {
			return m.Store(t.Context(), oa, []wechat.UserInfo{known}, now())
		}, bob},
		{"an answer without the unionid that is known", func() error {
			return m.Store(t.Context(), oa, []wechat.UserInfo{unknown}, now())
		}, bob},
		{"one whose unionid nobody knows", func() error {
			return m.Store(t.Context(), oa, []wechat.UserInfo{follower("oNew", "")}, now())
		}, []Key{{KeyOpenID, oa, "oNew"}}},
		{"a recheck", func() error { return recheck("oBob", Settlement{Store: &known}) }, bob},
		{"a recheck without unionid", func() error {
			return recheck("oBob", Settlement{Store: &unknown})
		}, bob},
		{"a recheck that settles nothing", func() error {
			return recheck("oBob", Settlement{Next: RecheckSendRefused, Wait: time.Minute})
		}, nil},
		{"a recheck of one who left", func() error {
			return recheck("oAnn", Settlement{Gone: true})
		}, left},
		{"an unfollow", func() error {
			return m.NoteUnfollow(t.Context(), oa, "oAnn", time.Now())
		}, left},
		{"who is marked as gone", func() error {
			_, err := m.MarkGone(t.Context(), oa, []string{"oBob"}, now())
			return err
		}, bob[:1]},
		{"who was so already", func() error {
			_, err := m.MarkGone(t.Context(), oa, []string{"oBob"}, now())
			return err
		}, nil},
		{"a login", func() error { return m.UpsertMiniUser(t.Context(), mp, "mGus", "uGus") },
			[]Key{{KeyOpenID, mp, "mGus"}, {KeyUnionID, mp, "uGus"}}},
		{"an import", func() error {
			_, err := m.ImportMiniUsers(t.Context(), []MiniUser{
				{AppID: mp2, OpenID: "mHal", UnionID: "uHal"}, {AppID: mp2, OpenID: "mIda"}}, false)
			return err
		}, []Key{{KeyOpenID, mp2, "mHal"}, {KeyUnionID, mp2, "uHal"}}},
	} {
		heard = nil
		if err := c.do(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if diff := cmp.Diff(c.want, []Key(heard)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// TestLogins: every user of the time comes once, however many share a moment, by the index alone.
func TestLogins(t *testing.T) {
	db := dbtest.New(t)
	m := New(db)
	moment := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	var want []string
	for i := range 12 { // six at one moment
		at := moment.Add(time.Duration(max(0, i-5)) * time.Second)
		openid := fmt.Sprintf("m%02d", i)
		exec(t, db, `INSERT INTO mini_user (appid, openid, unionid, seen_at) VALUES (?, ?, 'u', ?)`,
			map[bool]string{true: mp2, false: mp}[i == 5], openid, at)
		want = append(want, openid)
	}
	exec(t, db, `INSERT INTO mini_user (appid, openid, seen_at) VALUES (?, 'mBefore', ?), (?, 'mAfter', ?)`,
		mp, moment.Add(-time.Millisecond), mp, moment.Add(time.Hour))
	var got []string
	for last := (Login{SeenAt: moment.Add(-time.Microsecond)}); ; {
		page, err := m.Logins(t.Context(), last, moment.Add(time.Minute), 5)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range page {
			got = append(got, l.OpenID)
		}
		if len(page) < 5 {
			break
		}
		last = page[len(page)-1]
	}
	if !slices.Equal(want, got) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestLoginsReadFew: with many users, those of the last moments alone are read, also with the
// statistics of an empty table.
func TestLoginsReadFew(t *testing.T) {
	db := dbtest.New(t)
	db.SetMaxOpenConns(1) // the counters are a session's
	exec(t, db, `ANALYZE TABLE mini_user`)
	exec(t, db, `INSERT INTO mini_user (appid, openid, unionid, seen_at)
		WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900)
		SELECT ?, CONCAT('m', i), 'u', CURRENT_TIMESTAMP(3) - INTERVAL 1 DAY FROM n`, mp)
	exec(t, db, `INSERT INTO mini_user (appid, openid, unionid) VALUES (?, 'mNow', 'uNow')`, mp)
	before := handlerReads(t, db)
	until, err := New(db).Now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	logins, err := New(db).Logins(t.Context(), Login{SeenAt: until.Add(-time.Hour)}, until, 1000)
	if err != nil || len(logins) != 1 || !slices.Equal(logins[0].Keys(),
		[]Key{{KeyOpenID, mp, "mNow"}, {KeyUnionID, mp, "uNow"}}) {
		t.Fatal(logins, err)
	}
	if n := handlerReads(t, db) - before; n > 30 {
		t.Errorf("%d entries were read for one login", n)
	}
}

// handlerReads is how many entries of indexes and tables this session has read.
func handlerReads(t *testing.T, db *sqlx.DB) (n int) {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), `SHOW SESSION STATUS LIKE 'Handler_read%'`)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	counters := 0
	for rows.Next() {
		var name string
		var value int
		if err := rows.Scan(&name, &value); err != nil {
			t.Fatal(err)
		}
		n, counters = n+value, counters+1
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if counters == 0 {
		t.Skip("TiDB counts no reads of entries")
	}
	return n
}
