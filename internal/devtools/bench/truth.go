package main

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// truth knows who everybody is. It is a second simulator, in this process and never asked over HTTP: what
// exists follows from the seed and the number of followers, so it has the people of the one that was swept.
type truth struct {
	people *wechatsim.Server
	rows   int // everybody who ever followed: nobody is deleted from the map
}

func newTruth(followers int) *truth {
	return &truth{people: wechatsim.New(wechatsim.Standard(followers, 0, 0)), rows: followers}
}

// left and joined repeat here what happened to the account.
func (t *truth) left(persons []int) {
	for _, person := range persons {
		t.people.Unfollow(stage.AppID, person)
	}
}

func (t *truth) joined(persons []int) {
	for _, person := range persons {
		t.people.Follow(stage.AppID, person)
	}
	t.rows += len(persons)
}

// compare reads the whole map, row by row, and counts the people whom it has wrong or does not have.
func (t *truth) compare(ctx context.Context, db *sql.DB) (wrong int, err error) {
	rows, err := db.QueryContext(ctx, `SELECT openid, COALESCE(unionid, ''), subscribed FROM follower WHERE appid = ?`, stage.AppID)
	if err != nil {
		return 0, fmt.Errorf("reading the map: %w", err)
	}
	defer func() { _ = rows.Close() }()
	var openid, unionid string
	var subscribed bool
	right := 0
	for rows.Next() {
		if err := rows.Scan(&openid, &unionid, &subscribed); err != nil {
			return 0, fmt.Errorf("reading the map: %w", err)
		}
		if t.has(openid, unionid, subscribed) {
			right++
		} else {
			wrong++
		}
	}
	if err := rows.Err(); err != nil {
		return 0, fmt.Errorf("reading the map: %w", err)
	}
	// The openids of the rows differ, so as many right ones as there are people are all people.
	return max(wrong, t.rows-right), nil
}

func (t *truth) has(openid, unionid string, subscribed bool) bool {
	person, ok := t.people.Identify(stage.AppID, openid)
	return ok && person.UnionID == unionid && person.Following == subscribed
}
