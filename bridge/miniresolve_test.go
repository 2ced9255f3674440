package bridge

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

// TestResolveMini: who a row names at a mini program, by each of the ids that it may have.
func TestResolveMini(t *testing.T) {
	db := dbtest.New(t)
	exec(t, db, `
		INSERT INTO mini_user (appid, openid, unionid) VALUES
		(?, 'mAnn', 'uAnn'), (?, 'nAnn', 'uAnn'), (?, 'nBob', NULL), (?, 'nCat', 'uCat'),
		(?, 'mDup', 'uDup'), (?, 'mDup2', 'uDup'), (?, 'mEmpty', '')`, mp, mp2, mp2, mp2, mp, mp, mp)
	exec(t, db, `INSERT INTO follower (appid, openid, unionid, subscribed) VALUES
		(?, 'oAnn', 'uAnn', 0), (?, 'oBob', NULL, 1)`, oa, oa)
	at := func(openid string) Resolution {
		return Resolution{Reachability: Reachable, OpenID: openid}
	}
	no := func(r Reachability) Resolution { return Resolution{Reachability: r} }
	open := func(appid, openid string) Key { return Key{KeyOpenID, appid, openid} }
	union := func(unionid string) Key { return Key{KeyUnionID, mp, unionid} }
	cases := []struct {
		name   string
		rec    Recipient
		want   Resolution
		awaits Key
	}{
		{"unionid", Recipient{UnionID: "uAnn"}, at("mAnn"),
			union("uAnn")},
		{"unionid in other letters", Recipient{UnionID: "uANN"}, no(UnknownUser),
			union("uANN")},
		{"unionid of nobody", Recipient{UnionID: "uNobody"}, no(UnknownUser),
			union("uNobody")},
		{"unionid of a user of another mini program", Recipient{UnionID: "uCat"}, no(UnknownUser),
			union("uCat")},
		{"unionid of two", Recipient{UnionID: "uDup"}, no(Ambiguous),
			union("uDup")},
		{"an openid of this mini program", Recipient{OpenID: "mAnn"}, at("mAnn"),
			open(mp, "mAnn")},
		{"one that is not in the map", Recipient{OpenID: "mNew"}, at("mNew"),
			open(mp, "mNew")},
		{"a mini openid of it", Recipient{MiniAppID: mp, MiniOpenID: "mAnn"}, at("mAnn"),
			open(mp, "mAnn")},
		{"one without a unionid", Recipient{MiniAppID: mp, MiniOpenID: "mEmpty"}, at("mEmpty"),
			open(mp, "mEmpty")},
		{"a new one", Recipient{MiniAppID: mp, MiniOpenID: "mNew"}, at("mNew"),
			open(mp, "mNew")},
		{"of another mini program", Recipient{MiniAppID: mp2, MiniOpenID: "nAnn"}, at("mAnn"),
			union("uAnn")},
		{"of another one, not here", Recipient{MiniAppID: mp2, MiniOpenID: "nCat"}, no(UnknownUser),
			union("uCat")},
		{"of another one, no unionid", Recipient{MiniAppID: mp2, MiniOpenID: "nBob"}, no(NoUnionID),
			open(mp2, "nBob")},
		{"an openid at an official account", Recipient{OpenID: "oAnn", OfficialAppID: oa}, at("mAnn"),
			union("uAnn")},
		{"one there without a unionid", Recipient{OpenID: "oBob", OfficialAppID: oa}, no(NoUnionID),
			open(oa, "oBob")},
		{"nobody there", Recipient{OpenID: "mAnn", OfficialAppID: oa}, no(NoUnionID),
			open(oa, "mAnn")},
		{"of another one, nobody", Recipient{MiniAppID: mp2, MiniOpenID: "mAnn"}, no(UnknownUser),
			open(mp2, "mAnn")},
	}
	var people []Recipient
	want := make(map[string]Resolution)
	for _, c := range cases {
		people = append(people, c.rec)
		c.want.Awaits = []Key{c.awaits}
		want[c.name] = c.want
	}
	found, err := New(db).ResolveMini(t.Context(), mp, people)
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]Resolution)
	for i, c := range cases {
		got[c.name] = found[i]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if none, err := New(db).ResolveMini(t.Context(), mp, nil); err != nil || len(none) != 0 {
		t.Errorf("nobody: %v, %v", none, err)
	}
}
