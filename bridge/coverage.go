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
	NotAsked            int64  `db:"not_asked"`             // of Subscribed: no unionid, and WeChat has not been asked
	AskedWithoutUnionID int64  `db:"asked_without_unionid"` // of Subscribed: WeChat has answered without one
	MiniUsers           int64  `db:"mini_users"`            // of all mini programs
	ReachableMiniUsers  int64  `db:"reachable_mini_users"`  // of MiniUsers: subscribed to this account
}

// UnionIDs says what is to be thought of followers without a unionid.
type UnionIDs string

// Why unionids are missing, the most grave reason first.
const (
	UnionIDsNotBound UnionIDs = "not_bound" // nobody has one, and people were asked: no Open Platform account
	UnionIDsNotAsked UnionIDs = "not_asked" // some were not asked yet: the next sweep or refresh does
	UnionIDsAbsent   UnionIDs = "absent"    // WeChat answers without one about some, and goes on being asked
	UnionIDsComplete UnionIDs = "complete"  // nobody lacks one
)

// UnionIDs tells why unionids are missing, if they are.
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

// Coverage returns the coverage of all official accounts that the map has, in the order of their appids,
// and how many mini-program users have no unionid. It counts everybody: with a million followers and a
// million mini-program users that took 2 seconds, so it is for people who asked for it and not for a
// probe.
func (m *Map) Coverage(ctx context.Context) (list []Coverage, miniUsersWithoutUnionID int64, err error) {
	const query = `
		SELECT appid, followers, subscribed, with_unionid, not_asked, asked_without_unionid, mini_users,
		       reachable_mini_users
		  FROM v_coverage
		 ORDER BY appid`
	if err := m.db.SelectContext(ctx, &list, query); err != nil {
		return nil, 0, fmt.Errorf("counting what the map covers: %w", database.Explain(err))
	}
	// A range of mini_user_unionid alone.
	const without = `SELECT COUNT(*) FROM mini_user WHERE unionid IS NULL`
	if err := m.db.GetContext(ctx, &miniUsersWithoutUnionID, without); err != nil {
		return nil, 0, fmt.Errorf("counting mini-program users without unionid: %w", database.Explain(err))
	}
	return list, miniUsersWithoutUnionID, nil
}
