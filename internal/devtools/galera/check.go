package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// truth is what the simulator knows.
type truth interface {
	Identify(appid, openid string) (wechatsim.Identity, bool)
	FollowerCount(appid string) int
}

// entry is a row of the map.
type entry struct {
	openid, unionid string
	subscribed      bool
}

// check compares the map on one node with the truth, and the ledger with what happened.
func (t sweepTest) check(ctx context.Context, n *node, known truth) (err error) {
	// The read waits until the node has applied everything that the group has committed.
	db, err := n.open(sweepSchema, map[string]string{"wsrep_sync_wait": "1"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	entries, err := readMap(ctx, db)
	if err != nil {
		return fmt.Errorf("reading the map on %s: %w", n.name, err)
	}
	if wrong := differences(entries, known); len(wrong) > 0 {
		t.screen.Bad("node %s: %d differences", n.name, len(wrong))
		return fmt.Errorf("the map on %s is not the truth: %s", n.name, strings.Join(wrong[:min(len(wrong), 5)], "; "))
	}
	var runs, done int
	err = db.QueryRowContext(ctx, `SELECT COUNT(*), COALESCE(SUM(state = 'done'), 0) FROM sync_run WHERE kind = 'sweep'`).Scan(&runs, &done)
	if err != nil {
		return fmt.Errorf("reading the ledger on %s: %w", n.name, err)
	}
	if runs != 1 || done != 1 {
		return fmt.Errorf("the ledger on %s has %d sweeps, %d of them done; want one that was gone on with", n.name, runs, done)
	}
	t.screen.Good("node %s: %s rows, each as WeChat has it; one run in the ledger, done", n.name, stage.Count(int64(len(entries))))
	return nil
}

func readMap(ctx context.Context, db *sql.DB) (entries []entry, err error) {
	rows, err := db.QueryContext(ctx, `SELECT openid, COALESCE(unionid, ''), subscribed FROM follower WHERE appid = ?`, stage.AppID)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // rows.Err tells
	for rows.Next() {
		var e entry
		if err := rows.Scan(&e.openid, &e.unionid, &e.subscribed); err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, rows.Err()
}

// differences says what is wrong with the map, one line an entry. The key keeps an openid from occurring
// twice; so if nobody in the map is wrong, equal numbers mean that nobody is missing.
func differences(entries []entry, known truth) (wrong []string) {
	followers := 0
	for _, e := range entries {
		person, ok := known.Identify(stage.AppID, e.openid)
		switch {
		case !ok:
			wrong = append(wrong, e.openid+" is nobody's openid")
		case person.UnionID != e.unionid:
			wrong = append(wrong, fmt.Sprintf("%s has the unionid %q, the truth is %q", e.openid, e.unionid, person.UnionID))
		case person.Following != e.subscribed:
			wrong = append(wrong, fmt.Sprintf("%s: subscribed is %t, the truth is %t", e.openid, e.subscribed, person.Following))
		}
		if e.subscribed {
			followers++
		}
	}
	if want := known.FollowerCount(stage.AppID); followers != want {
		wrong = append(wrong, fmt.Sprintf("the map has %d followers, WeChat has %d", followers, want))
	}
	return wrong
}
