package bridge

import (
	"context"
	"fmt"

	"github.com/unionbridge/unionbridge/internal/database"
)

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
	const without = `SELECT COUNT(*) FROM mini_user WHERE unionid IS NULL`
	if err := m.db.GetContext(ctx, &miniWithoutUnionID, without); err != nil {
		return nil, 0, fmt.Errorf("counting mini users without unionid: %w", database.Explain(err))
	}
	return list, miniWithoutUnionID, nil
}
