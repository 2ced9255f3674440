package database_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

func seed(t *testing.T, stmts ...string) *sqlx.DB {
	t.Helper()
	db := dbtest.New(t)
	for _, stmt := range stmts {
		if _, err := db.ExecContext(t.Context(), stmt); err != nil {
			t.Fatalf("%s: %v", stmt, err)
		}
	}
	return db
}

func selectAll[T any](t *testing.T, db *sqlx.DB, query string) []T {
	t.Helper()
	var rows []T
	if err := db.SelectContext(t.Context(), &rows, query); err != nil {
		t.Fatal(err)
	}
	return rows
}

// people: u1 on two official accounts and two mini programs, u2 follows only, u3 uses the mini
// program only; a follower and a mini-program user without unionid must not find each other.
var people = []string{
	`INSERT INTO follower (appid, openid, unionid, subscribed, info_at) VALUES
		('oa1', 'f1', 'u1', 1, NOW()), ('oa2', 'g1', 'u1', 0, NOW()),
		('oa1', 'f2', 'u2', 1, NOW()), ('oa1', 'f9', NULL, 1, NOW()), ('oa1', 'f8', NULL, 1, NULL)`,
	`INSERT INTO mini_user (appid, openid, unionid) VALUES
		('mp1', 'm1', 'u1'), ('mp2', 'n1', 'u1'), ('mp1', 'm3', 'u3'), ('mp1', 'm9', NULL),
		('mp1', 'm7', ''), ('mp1', 'm8', '')`,
}

func TestViewIdentity(t *testing.T) {
	db := seed(t, people...)
	got := selectAll[string](t, db, `
		SELECT CONCAT_WS(' ', COALESCE(unionid, '-'), COALESCE(oa_appid, '-'), COALESCE(oa_openid, '-'),
		                 COALESCE(subscribed, '-'), COALESCE(mini_appid, '-'), COALESCE(mini_openid, '-')) AS line
		  FROM v_identity ORDER BY line`)
	want := []string{
		"- - - - mp1 m7",
		"- - - - mp1 m8",
		"- - - - mp1 m9",
		"- oa1 f8 1 - -",
		"- oa1 f9 1 - -",
		"u1 oa1 f1 1 mp1 m1",
		"u1 oa1 f1 1 mp2 n1",
		"u1 oa2 g1 0 mp1 m1",
		"u1 oa2 g1 0 mp2 n1",
		"u2 oa1 f2 1 - -",
		"u3 - - - mp1 m3",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("v_identity (-want +got):\n%s", diff)
	}
}

func TestViewCoverage(t *testing.T) {
	db := seed(t, people...)
	type row struct {
		AppID      string `db:"appid"`
		Followers  int    `db:"followers"`
		Subscribed int    `db:"subscribed"`
		Known      int    `db:"with_unionid"`
		NotAsked   int    `db:"not_asked"`
		Without    int    `db:"asked_without_unionid"`
		MiniUsers  int    `db:"mini_users"`
		Reachable  int    `db:"reachable_mini_users"`
	}
	got := selectAll[row](t, db, `
		SELECT appid, followers, subscribed, with_unionid, not_asked, asked_without_unionid, mini_users, reachable_mini_users
		  FROM v_coverage ORDER BY appid`)
	want := []row{
		{AppID: "oa1", Followers: 4, Subscribed: 4, Known: 2, NotAsked: 1, Without: 1, MiniUsers: 6,
			Reachable: 2},
		// u1 left oa2: on the map, but out of reach.
		{AppID: "oa2", Followers: 1, Subscribed: 0, MiniUsers: 6},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("v_coverage (-want +got):\n%s", diff)
	}
}

func TestViewSendStatus(t *testing.T) {
	db := seed(t,
		`INSERT INTO send_request (id, appid, openid, template, data, status, cancel, lease, uncertain_at, msgid) VALUES
			(1, 'oa1', 'o', 't', '{}', 'pending', 0, NULL, NULL, NULL),
			(2, 'oa1', 'o', 't', '{}', 'pending', 1, NULL, NULL, NULL),
			(3, 'oa1', 'o', 't', '{}', 'waiting', 1, NULL, NULL, NULL),
			(4, 'oa1', 'o', 't', '{}', 'pending', 1, 'held', NULL, NULL),
			(5, 'oa1', 'o', 't', '{}', 'pending', 1, NULL, NOW(), NULL),
			(6, 'oa1', 'o', 't', '{}', 'sent', 1, NULL, NULL, 9007199254740993),
			(7, 'oa2', 'o', 't', '{}', 'sent', 0, NULL, NULL, 9007199254740993)`,
		`INSERT INTO send_receipt (appid, msgid, openid, status) VALUES ('oa1', `+
			`9007199254740993, 'o', 'failed:user block')`,
	)
	got := selectAll[string](t, db, `
		SELECT CONCAT_WS(' ', id, status, COALESCE(msgid, '-'), COALESCE(receipt_status, '-')) AS line
		  FROM v_send_status ORDER BY id`)
	want := []string{
		"1 pending - -",
		"2 cancelled - -",
		"3 cancelled - -",
		"4 pending - -", // an attempt holds it, it may still go out
		"5 pending - -", // one may have gone out already
		"6 sent 9007199254740993 failed:user block",
		"7 sent 9007199254740993 -", // the receipt is another account's
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("v_send_status (-want +got):\n%s", diff)
	}
}
