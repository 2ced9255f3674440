package bridge

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

// TestErase: a person goes at every account that shares their unionid, nobody else does, and another
// instance knows for 30 days who it was, without their ids.
func TestErase(t *testing.T) {
	db := dbtest.New(t)
	exec := func(stmt string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), stmt, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec(`INSERT INTO mini_user (appid, openid, unionid) VALUES
		('mp1', 'm1', 'u1'), ('mp2', 'm1b', 'u1'), ('mp1', 'm2', 'u2'), ('mp1', 'm3', NULL)`)
	exec(`INSERT INTO follower (appid, openid, unionid) VALUES ('oa1', 'f1', 'u1'), ('oa1', 'f2', 'u2')`)
	exec(`INSERT INTO follower_recheck (appid, openid, reason) VALUES ('oa1', 'f1', 'followed')`)
	erase := func(who Account, unionid string) (gone []Account) {
		t.Helper()
		err := database.InTx(t.Context(), db, func(ctx context.Context, tx *sqlx.Tx) (err error) {
			gone, err = NewErasures(db).Erase(ctx, tx, who, unionid)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return gone
	}
	if n := len(erase(Account{"mp1", "m1"}, "")); n != 3 {
		t.Errorf("%d accounts were erased, want 3", n)
	}
	erase(Account{"mp1", "m3"}, "")
	var left []string
	if err := db.SelectContext(t.Context(), &left, `
		SELECT openid FROM mini_user UNION ALL SELECT openid FROM follower
		UNION ALL SELECT openid FROM follower_recheck ORDER BY openid`); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"f2", "m2"}, left); diff != "" {
		t.Errorf("who is left (-want +got):\n%s", diff)
	}
	find := func(appid string) map[string]bool {
		t.Helper()
		got, err := NewErasures(db).Find(t.Context(), db, appid, []string{"m1", "m2", "m3", "f1", "m1"})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if diff := cmp.Diff(map[string]bool{"m1": true, "m3": true}, find("mp1")); diff != "" {
		t.Errorf("erased at mp1 (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]bool{"f1": true}, find("oa1")); diff != "" {
		t.Errorf("erased at oa1 (-want +got):\n%s", diff)
	}
	exec(`UPDATE erased_person SET erased_at = CURRENT_TIMESTAMP(3) - INTERVAL 31 DAY`)
	if got := find("mp1"); len(got) != 0 {
		t.Errorf("after 31 days %v are remembered", got)
	}
	erase(Account{"mp1", "m9"}, "u9")
	pace := func(_ context.Context, piece func() error) error { return piece() }
	if err := NewErasures(db).Expire(t.Context(), pace); err != nil {
		t.Fatal(err)
	}
	var hashes int
	if err := db.GetContext(t.Context(), &hashes, `SELECT COUNT(*) FROM erased_person`); err != nil || hashes != 2 {
		t.Errorf("%d hashes are kept (%v), want those of the openid and the unionid", hashes, err)
	}
}

// TestRecordWithdrawal: a late repetition does not move the moment back.
func TestRecordWithdrawal(t *testing.T) {
	db := dbtest.New(t)
	at := time.Unix(1_700_000_000, 0).UTC()
	for _, moment := range []time.Time{at, at.Add(-time.Hour)} {
		if err := New(db).RecordWithdrawal(t.Context(), Account{"mp1", "m1"}, "8", moment); err != nil {
			t.Fatal(err)
		}
	}
	var got time.Time
	if err := db.GetContext(t.Context(), &got, `SELECT withdrawn_at FROM withdrawn_permission`); err != nil || !got.Equal(at) {
		t.Errorf("%s (%v), want %s", got, err, at)
	}
}

// TestFindMany: the copy in memory, which serves long lists, says what the table says, and follows it.
func TestFindMany(t *testing.T) {
	db := dbtest.New(t)
	e, other := NewErasures(db), NewErasures(db)
	remember := func(openids ...string) {
		t.Helper()
		err := database.InTx(t.Context(), db, func(ctx context.Context, tx *sqlx.Tx) error {
			for _, openid := range openids {
				if err := other.Remember(ctx, tx, "wx1", openid); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	many := make([]string, 5*fewIDs)
	for i := range many {
		many[i] = fmt.Sprint("o", i)
	}
	check := func(want ...string) {
		t.Helper()
		for _, tooMany := range []bool{false, true} {
			fresh := NewErasures(db)
			fresh.copied.tooMany = tooMany
			for _, e := range []*Erasures{e, fresh} {
				found, err := e.Find(t.Context(), db, "wx1", many)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, slices.Sorted(maps.Keys(found))); diff != "" {
					t.Errorf("erased, copied %t (-want +got):\n%s", !tooMany, diff)
				}
			}
		}
	}
	check()
	remember("o1", "o99")
	check("o1", "o99")
	remember("o50", "o1")
	check("o1", "o50", "o99")
	if _, err := db.ExecContext(t.Context(), `INSERT INTO mini_user (appid, openid) VALUES ('wx1', 'o50')`); err != nil {
		t.Fatal(err)
	}
	check("o1", "o99")
	if _, err := db.ExecContext(t.Context(), `UPDATE erased_person SET erased_at = erased_at - INTERVAL 31 DAY`); err != nil {
		t.Fatal(err)
	}
	remember("o2")
	fresh, err := NewErasures(db).Find(t.Context(), db, "wx1", many)
	if err != nil || len(fresh) != 1 || !fresh["o2"] {
		t.Errorf("after 31 days: %v (%v)", fresh, err)
	}
}
