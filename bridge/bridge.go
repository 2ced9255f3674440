// Package bridge owns the map: which openid a person has at each account, tied together by the
// unionid. It is the only package that writes the tables follower, follower_recheck and mini_user.
//
// It must not call WeChat and it must not decide who is asked or when: package sync does. It
// guards what is written: an answer without a unionid never wipes a known one, and nobody is
// deleted, only marked as no longer subscribed.
package bridge

import (
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
	UnionID    string
	OAAppID    string
	OAOpenID   string
	Subscribed bool // meaningful where OAOpenID is set
	MiniAppID  string
	MiniOpenID string
}
