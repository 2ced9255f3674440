// Package bridge owns the map: which openid a person has at each account, tied together by the
// unionid. It is the only package that writes the tables follower, follower_recheck and mini_user.
//
// It must not call WeChat and it must not decide who is asked or when: package sync does. It
// guards what is written: an answer without a unionid never wipes a known one, nobody is deleted,
// only marked as no longer subscribed, and whoever was erased does not come back by what is late.
package bridge

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// Map is the identity map in the database. It is safe for concurrent use.
type Map struct {
	db       *sqlx.DB
	erasures *Erasures
	watcher  Watcher // nil: nobody is told of changes
}

// New returns the map that lives in db, whose schema must be migrated.
func New(db *sqlx.DB) *Map {
	return &Map{db: db, erasures: NewErasures(db)}
}

// Entry is what the sweep needs to know of one row of the table follower.
type Entry struct {
	OpenID     string
	Subscribed bool
	Asked      bool // WeChat has told us about this person, since the moment that Scan was given
	HasUnionID bool
}

// Identity is one person at one pair of accounts, as the view v_identity shows it. A side that is
// not known is empty.
type Identity struct {
	UnionID    string `db:"unionid"`
	OAAppID    string `db:"oa_appid"`
	OAOpenID   string `db:"oa_openid"`
	Subscribed bool   `db:"subscribed"` // meaningful where OAOpenID is set
	MiniAppID  string `db:"mini_appid"`
	MiniOpenID string `db:"mini_openid"`
}

// Block is a refusal: the person does not accept an official account's messages.
type Block struct {
	AppID, OpenID string
	At            time.Time // by WeChat's clock
}

// RecordBlock stores a block: Resolve calls the person Blocked for the time d from then on. A
// refusal older than their last follow changes nothing, so that a late repetition does not block
// somebody who has come back. Somebody who is not in the map is not recorded.
func (m *Map) RecordBlock(ctx context.Context, b Block, d time.Duration) error {
	const query = `
		UPDATE follower
		   SET blocked_until = ?
		 WHERE appid = ? AND openid = ? AND (subscribe_time IS NULL OR subscribe_time <= ?)
		   AND (blocked_until IS NULL OR blocked_until < ?)`
	until := database.Storable(b.At.Add(d))
	if err := m.write(ctx, query, until, b.AppID, b.OpenID, b.At.UTC(), until); err != nil {
		return fmt.Errorf("storing a follower's block: %w", err)
	}
	return nil
}

// Coverage is how much of the map of one official account is known: a row of the view v_coverage.
type Coverage struct {
	AppID               string `db:"appid"`
	Followers           int64  `db:"followers"`             // people who follow or followed
	Subscribed          int64  `db:"subscribed"`            // people who follow
	WithUnionID         int64  `db:"with_unionid"`          // of Subscribed
	NotAsked            int64  `db:"not_asked"`             // of Subscribed: WeChat was never asked
	AskedWithoutUnionID int64  `db:"asked_without_unionid"` // of Subscribed: the answer had none
	MiniUsers           int64  `db:"mini_users"`            // of all mini programs
	ReachableMiniUsers  int64  `db:"reachable_mini_users"`  // of MiniUsers: subscribed here
}

// UnionIDs says why followers lack a unionid.
type UnionIDs string

// Why unionids are missing, the gravest reason first.
const (
	UnionIDsNotBound UnionIDs = "not_bound" // no answer had one: no Open Platform account
	UnionIDsNotAsked UnionIDs = "not_asked" // some were never looked up: the next sweep does it
	UnionIDsAbsent   UnionIDs = "absent"    // some answers had none, and WeChat is asked again
	UnionIDsComplete UnionIDs = "complete"  // nobody lacks one
)

// UnionIDs returns why unionids are missing, if any are.
func (c Coverage) UnionIDs() UnionIDs {
	switch {
	case c.WithUnionID == 0 && c.AskedWithoutUnionID > 0:
		return UnionIDsNotBound
	case c.NotAsked > 0:
		return UnionIDsNotAsked
	case c.AskedWithoutUnionID > 0:
		return UnionIDsAbsent
	}
	return UnionIDsComplete
}

// Coverage returns the coverage of each official account in the map, ordered by appid, and the
// number of mini-program users without a unionid. It counts everybody: 2 seconds with a million
// followers and a million mini-program users. So it is for people who ask for it, not for a probe.
func (m *Map) Coverage(ctx context.Context) (list []Coverage, miniWithoutUnionID int64, err error) {
	const query = `
		SELECT appid, followers, subscribed, with_unionid, not_asked, asked_without_unionid,
		       mini_users, reachable_mini_users
		  FROM v_coverage
		 ORDER BY appid`
	if err := m.db.SelectContext(ctx, &list, query); err != nil {
		return nil, 0, fmt.Errorf("counting what the map covers: %w", database.Explain(err))
	}
	// A range of mini_user_unionid alone.
	const without = `SELECT COUNT(*) FROM mini_user WHERE unionid IS NULL OR unionid = ''`
	if err := m.db.GetContext(ctx, &miniWithoutUnionID, without); err != nil {
		return nil, 0, fmt.Errorf("counting mini users without unionid: %w", database.Explain(err))
	}
	return list, miniWithoutUnionID, nil
}
