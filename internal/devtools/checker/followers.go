package checker

import (
	"fmt"

	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// Truth is what the simulator knows of people.
type Truth interface {
	Identify(appid, openid string) (wechatsim.Identity, bool)
}

// Follower is a row of the map.
type Follower struct {
	OpenID, UnionID string
	Subscribed      bool
}

// Followers is how much of the map is the truth. The key keeps an openid from occurring twice; so
// if as many rows are right as there are people, nobody is missing.
type Followers struct {
	Right, Wrong int
	// Misattributed of the wrong ones have another person's unionid or nobody's openid. The others
	// are late: the program has not looked them up yet.
	Misattributed int
	Subscribed    int
	Differences   []string // the first ones
}

// CompareMap reads an account's whole map row by row, since ten million do not fit into memory, and
// compares it with the truth.
func CompareMap(t *harness.T, db harness.DB, appid string, truth Truth) (f Followers) {
	rows, err := db.QueryContext(t.Context(), `
		SELECT openid, COALESCE(unionid, '') AS unionid, subscribed
		  FROM follower
		 WHERE appid = ?`, appid)
	t.Checkf(err, "reading the map")
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var row Follower
		err := rows.Scan(&row.OpenID, &row.UnionID, &row.Subscribed)
		t.Checkf(err, "reading the map")
		f.add(row, appid, truth)
	}
	t.Checkf(rows.Err(), "reading the map")
	return f
}

func (f *Followers) add(row Follower, appid string, truth Truth) {
	if row.Subscribed {
		f.Subscribed++
	}
	difference, misattributed := row.compare(appid, truth)
	if difference == "" {
		f.Right++
		return
	}
	if misattributed {
		f.Misattributed++
	}
	const most = 5
	if f.Wrong++; f.Wrong <= most {
		f.Differences = append(f.Differences, difference)
	}
}

// compare says how the row differs from the truth; "": not at all.
func (r Follower) compare(appid string, truth Truth) (difference string, misattributed bool) {
	person, ok := truth.Identify(appid, r.OpenID)
	switch {
	case !ok:
		return r.OpenID + " is nobody's openid", true
	case person.UnionID != r.UnionID:
		return fmt.Sprintf("%s has the unionid %q, the truth is %q", r.OpenID, r.UnionID, person.UnionID), r.UnionID != ""
	case person.Following != r.Subscribed:
		return fmt.Sprintf("%s: subscribed is %t, the truth is %t", r.OpenID, r.Subscribed, person.Following), false
	}
	return "", false
}
