package waiting

import (
	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// groups are rows that one statement changes.
type groups struct{ ids map[group][]int64 }

// group is the account in whose queue rows stand, the one that they go to, and why they waited.
type group struct{ at, to, reason string }

func newGroups() groups { return groups{make(map[group][]int64)} }

// add adds a row; to is "" if it stays.
func (g groups) add(row queue.Request, to string) {
	key := group{at: bridge.ID(row.AppID.String), to: to}
	if to != "" {
		key.reason = row.Reason.String
	}
	g.ids[key] = append(g.ids[key], row.ID)
}
