package bridge

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

func TestCoverage(t *testing.T) {
	db := dbtest.New(t)
	exec(t, db, `INSERT INTO follower (appid, openid, unionid, subscribed, info_at) VALUES
		(?, 'a', 'u1', 1, NOW()), (?, 'b', NULL, 1, NOW()), (?, 'c', NULL, 1, NULL), (?, 'd', 'u2', 0, NOW()),
		(?, 'a', NULL, 1, NOW())`, oa, oa, oa, oa, oa2)
	exec(t, db, `INSERT INTO mini_user (appid, openid, unionid) VALUES
		(?, 'm1', 'u1'), (?, 'm2', 'u2'), (?, 'm3', NULL)`, mp, mp, mp)
	list, without, err := New(db).Coverage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := []Coverage{
		{AppID: oa, Followers: 4, Subscribed: 3, WithUnionID: 1, NotAsked: 1,
			AskedWithoutUnionID: 1, MiniUsers: 3,
			ReachableMiniUsers: 1},
		{AppID: oa2, Followers: 1, Subscribed: 1, AskedWithoutUnionID: 1, MiniUsers: 3},
	}
	if diff := cmp.Diff(want, list); diff != "" {
		t.Errorf("coverage (-want +got):\n%s", diff)
	}
	if without != 1 {
		t.Errorf("%d mini-program users are without unionid, want 1", without)
	}
	for _, c := range []struct {
		of   Coverage
		want UnionIDs
	}{
		{list[0], UnionIDsNotAsked}, {list[1], UnionIDsNotBound},
		{Coverage{Subscribed: 2, WithUnionID: 1, AskedWithoutUnionID: 1}, UnionIDsAbsent},
		{Coverage{Subscribed: 2, WithUnionID: 2}, UnionIDsComplete}, {Coverage{}, UnionIDsComplete},
		{Coverage{Subscribed: 2, NotAsked: 2}, UnionIDsNotAsked},
	} {
		if got := c.of.UnionIDs(); got != c.want {
			t.Errorf("%+v: %s, want %s", c.of, got, c.want)
		}
	}
}
