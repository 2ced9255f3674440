// Package bridge owns the map: which openid a person has at each account, tied together by the
// unionid. It is the only package that writes the tables follower, follower_recheck and mini_user.
//
// It must not call WeChat and it must not decide who is asked or when: package sync does. It
// guards what is written: an answer without a unionid never wipes a known one, and nobody is
// deleted, only marked as no longer subscribed.
package bridge

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
)

// Map is the identity map in the database. It is safe for concurrent use.
type Map struct {
	db *sqlx.DB
}

// New returns the map that lives in db, whose schema must be migrated.
func New(db *sqlx.DB) *Map {
	return &Map{db: db}
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
	until := b.At.Add(d).UTC()
	if err := m.write(ctx, query, until, b.AppID, b.OpenID, b.At.UTC(), until); err != nil {
		return fmt.Errorf("storing a follower's block: %w", err)
	}
	return nil
}
