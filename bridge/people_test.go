package bridge

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

// TestPeople: an application learns what its accounts know, by the ids that they know; what others know
// neither answers nor leads to an answer.
func TestPeople(t *testing.T) {
	db := dbtest.New(t)
	for _, query := range []string{
		`INSERT INTO follower (appid, openid, unionid, subscribed) VALUES
			('wxA', 'oA1', 'u1', 1), ('wxA', 'oA2', 'u2', 0), ('wxB', 'oB1', 'u1', 1), ('wxB', 'oB3', 'u3', 1), ('wxA', 'oA4', NULL, 1)`,
		`INSERT INTO mini_user (appid, openid, unionid) VALUES ('wxM', 'oM1', 'u1'), ('wxM', 'oM3', 'u3'), ('wxM', 'oM5', NULL)`,
	} {
		if _, err := db.Exec(query); err != nil {
			t.Fatal(err)
		}
	}
	m := New(db)
	a1 := PersonAccount{AppID: "wxA", OpenID: "oA1", UnionID: "u1", Subscribed: true}
	m1 := PersonAccount{AppID: "wxM", OpenID: "oM1", UnionID: "u1", Mini: true}
	for name, tc := range map[string]struct {
		appids, ids []string
		want        []Person
	}{
		"by unionid":                   {[]string{"wxA", "wxM"}, []string{"u1"}, []Person{{"u1", "u1", []PersonAccount{a1, m1}}}},
		"by an openid":                 {[]string{"wxA", "wxM"}, []string{"oM1"}, []Person{{"oM1", "u1", []PersonAccount{a1, m1}}}},
		"of one account alone":         {[]string{"wxM"}, []string{"u1"}, []Person{{"u1", "u1", []PersonAccount{m1}}}},
		"another account's openid":     {[]string{"wxA", "wxM"}, []string{"oB1", "oB3"}, nil},
		"a unionid that others know":   {[]string{"wxA"}, []string{"u3"}, nil},
		"without a unionid":            {[]string{"wxA", "wxM"}, []string{"oA4"}, []Person{{"oA4", "", []PersonAccount{{AppID: "wxA", OpenID: "oA4", Subscribed: true}}}}},
		"nobody, and in another case":  {[]string{"wxA", "wxM"}, []string{"oX", "oa1", "U1"}, nil},
		"no accounts":                  {nil, []string{"u1"}, nil},
		"several, in their order":      {[]string{"wxM"}, []string{"oM5", "oX", "oM1"}, []Person{{"oM5", "", []PersonAccount{{AppID: "wxM", OpenID: "oM5", Mini: true}}}, {"oM1", "u1", []PersonAccount{m1}}}},
		"who has gone, with the state": {[]string{"wxA"}, []string{"oA2"}, []Person{{"oA2", "u2", []PersonAccount{{AppID: "wxA", OpenID: "oA2", UnionID: "u2"}}}}},
	} {
		got, err := m.People(t.Context(), tc.appids, tc.ids)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s, -want +got:\n%s", name, diff)
		}
	}
	if _, err := m.People(t.Context(), []string{"wxA"}, make([]string, MaxPeople+1)); err == nil {
		t.Error("too many ids are taken")
	}
	for openid, want := range map[string][2]bool{"oM1": {true, false}, "oA2": {false, true}, "oX": {}} {
		user, err := m.IsUser(t.Context(), "wxM", openid)
		if err != nil {
			t.Fatal(err)
		}
		follower, err := m.IsFollower(t.Context(), "wxA", openid)
		if err != nil || user != want[0] || follower != want[1] {
			t.Errorf("%s: user %t, follower %t, %v", openid, user, follower, err)
		}
	}
	for appid, want := range map[string]bool{"wxM": true, "wxX": false} {
		if has, err := m.HasUnionIDs(t.Context(), appid); err != nil || has != want {
			t.Errorf("%s has unionids: %t, %v", appid, has, err)
		}
	}
}
