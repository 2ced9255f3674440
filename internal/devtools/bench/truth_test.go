package main

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

// TestTruth spoils a right map in every way that the comparison has to see.
func TestTruth(t *testing.T) {
	const followers = 20
	db := dbtest.New(t)
	people := newTruth(followers)
	people.left([]int{3})
	people.joined([]int{1 << 30})
	store := func(person int) {
		id := people.people.OpenID(stage.AppID, person)
		_, err := db.ExecContext(t.Context(), "REPLACE INTO follower (appid, openid, unionid, subscribed) VALUES (?, ?, ?, ?)",
			stage.AppID, id, people.people.UnionID(person), people.people.IsFollower(stage.AppID, person))
		if err != nil {
			t.Fatal(err)
		}
	}
	storeAll := func() {
		for person := range followers {
			store(person)
		}
		store(1 << 30)
	}
	for _, test := range []struct {
		name, spoil string
		want        int
	}{
		{"right", "DO 1", 0},
		{"empty", "DELETE FROM follower", followers + 1},
		{"one missing", "DELETE FROM follower WHERE subscribed = 1 ORDER BY openid LIMIT 1", 1},
		{"back from the dead", "UPDATE follower SET subscribed = 1", 1},
		{"gone by mistake", "UPDATE follower SET subscribed = 0 WHERE subscribed = 1 ORDER BY openid LIMIT 2", 2},
		{"without a unionid", "UPDATE follower SET unionid = NULL ORDER BY openid LIMIT 1", 1},
		{"another's unionid", "UPDATE follower SET unionid = 'oAnother' ORDER BY openid LIMIT 1", 1},
		{"a stranger", "INSERT INTO follower (appid, openid) VALUES ('" + stage.AppID + "', 'oStranger')", 1},
		{"another account's rows do not count", "INSERT INTO follower (appid, openid) VALUES ('wx1', 'oStranger')", 0},
	} {
		if _, err := db.ExecContext(t.Context(), "DELETE FROM follower"); err != nil {
			t.Fatal(err)
		}
		storeAll()
		if _, err := db.ExecContext(t.Context(), test.spoil); err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		if wrong, err := people.compare(t.Context(), db.DB); err != nil || wrong != test.want {
			t.Errorf("%s: %d wrong, want %d; %v", test.name, wrong, test.want, err)
		}
	}
}

// The floor's statement stores what the sweep would: quotes survive, and what is empty is NULL.
func TestInsertText(t *testing.T) {
	db := dbtest.New(t)
	people := []followerInfo{
		{OpenID: "o1", UnionID: "u1", Time: 1_600_000_000, Scene: "ADD_SCENE_QR_CODE", QRScene: 7, QRStr: `a'b\c`, Remark: "老王", Group: 2, Tags: json.RawMessage("[2,128]"), Language: "zh_CN"},
		{OpenID: "o2", Time: 1_600_000_001, Tags: json.RawMessage("[]")},
	}
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE floor_follower LIKE follower"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), insertText(people)); err != nil {
		t.Fatal(err)
	}
	type row struct {
		OpenID         string    `db:"openid"`
		UnionID        *string   `db:"unionid"`
		SubscribeTime  time.Time `db:"subscribe_time"`
		SubscribeScene *string   `db:"subscribe_scene"`
		QRScene        int64     `db:"qr_scene"`
		QRStr          *string   `db:"qr_scene_str"`
		Remark         *string   `db:"remark"`
		Group          int64     `db:"groupid"`
		Tags           *string   `db:"tagid_list"`
		Language       *string   `db:"language"`
	}
	var got []row
	err := db.SelectContext(t.Context(), &got, `
		SELECT openid, unionid, subscribe_time, subscribe_scene, qr_scene, qr_scene_str, remark, groupid, tagid_list, language
		  FROM floor_follower
		 WHERE appid = ? AND subscribed = 1 AND info_at IS NOT NULL
		 ORDER BY openid`, stage.AppID)
	if err != nil {
		t.Fatal(err)
	}
	want := []row{
		{"o1", new("u1"), time.Unix(1_600_000_000, 0).UTC(), new("ADD_SCENE_QR_CODE"), 7, new(`a'b\c`), new("老王"), 2, new("[2,128]"), new("zh_CN")},
		{OpenID: "o2", SubscribeTime: time.Unix(1_600_000_001, 0).UTC()},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestPagesAndBatches(t *testing.T) {
	for _, test := range []struct{ people, pages, batches int }{
		{1, 2, 1}, {100, 2, 1}, {101, 2, 2}, {10_000, 2, 100}, {10_001, 3, 101}, {1_000_000, 101, 10_000}, {10_000_000, 1001, 100_000},
	} {
		if p, n := pages(test.people), batches(test.people); p != test.pages || n != test.batches {
			t.Errorf("%d people: %d pages, %d batches; want %d and %d", test.people, p, n, test.pages, test.batches)
		}
	}
}
