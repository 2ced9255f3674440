// Package bridge owns the map: which openid a person has at each account, tied together by the
// unionid. It is the only package that writes the tables follower, follower_recheck and mini_user.
//
// It must not call WeChat and it must not decide who is asked or when: package sync does. It
// guards what is written: an answer without a unionid never wipes a known one, and nobody is
// deleted, only marked as no longer subscribed.
package bridge

import (
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

// RecheckReason says why WeChat must be asked about a person again. It is stored in
// follower_recheck.reason.
type RecheckReason string

// The doubts. Those of the first group come from reading, the last two from a refused send; a person under
// one of the latter is not sent to until the question is answered.
const (
	RecheckNoUnionID     RecheckReason = "no_unionid"     // the account has unionids, this answer had none
	RecheckNotSubscribed RecheckReason = "not_subscribed" // listed as a follower, user/info said subscribe: 0
	RecheckUnknownOpenID RecheckReason = "unknown_openid" // listed as a follower, user/info said 40003
	RecheckUnionIDTwice  RecheckReason = "unionid_twice"  // two followers of one account carry one unionid
	RecheckSendRefused   RecheckReason = "send_refused"   // template/send said 43004: not a follower
	RecheckSendInvalid   RecheckReason = "send_invalid"   // template/send said 40003: invalid openid
)

// Recheck is one person about whom WeChat must be asked again.
type Recheck struct {
	OpenID   string        `db:"openid"`
	Reason   RecheckReason `db:"reason"`
	Attempts int           `db:"attempts"` // questions asked so far that did not settle the doubt
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

// Stored counts what one Store changed.
type Stored struct {
	Added   int64 // rows that did not exist
	Changed int64 // rows that existed
}

// recheckBackoff is how long a doubt waits after its n-th unsettled answer: 5 minutes doubled up to a
// week. A follower who really has no unionid costs nine calls in his first day and one a week from
// then on.
func recheckBackoff(attempts int) time.Duration {
	const first, last = 5 * time.Minute, 7 * 24 * time.Hour
	if attempts > 11 {
		return last
	}
	return min(first<<max(attempts-1, 0), last)
}
