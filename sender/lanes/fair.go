package lanes

import (
	"slices"

	"github.com/unionbridge/unionbridge/sender/queue"
)

const (
	// MaxLanes bounds the lanes of one claim: the query has a branch for each.
	MaxLanes = 40
	// One in strangerShare of them is for templates that the configuration does not name, where
	// there are more lanes than that: producers can invent any number.
	strangerShare = 5
)

// Divider divides the claims of one account among lanes. It belongs to one goroutine.
type Divider struct {
	Named func(queue.Lane) bool // the configuration names its template
	turn  int                   // counts the claims: each begins with other lanes
}

// Shares divides a claim of limit rows among lanes, each with the most that may be claimed of it:
// all priorities, the most urgent first, and those of one priority alike, whatever the length of
// their queues. left reports that not all got a share.
func (d *Divider) Shares(lanes []queue.Share, limit int) (shares []queue.Share, left bool) {
	d.turn++
	slices.SortFunc(lanes, func(a, b queue.Share) int {
		return a.Compare(b.Lane)
	})
	for len(lanes) > 0 && len(shares) < MaxLanes {
		n := slices.IndexFunc(lanes, func(l queue.Share) bool { return l.Priority != lanes[0].Priority })
		if n < 0 {
			n = len(lanes)
		}
		room := MaxLanes - len(shares)
		shares = append(shares, d.window(lanes[:n], limit, room)...)
		lanes, left = lanes[n:], left || n > room
	}
	return shares, left || len(lanes) > 0
}

// window chooses at most room lanes of one priority. Where there are more, those of the aliases and
// the others take turns among themselves, and the others together are one to the aliases.
func (d *Divider) window(lanes []queue.Share, limit, room int) []queue.Share {
	if len(lanes) <= room {
		rotate(lanes, d.turn)
		return divide(lanes, limit)
	}
	var named, strangers []queue.Share
	for _, l := range lanes {
		if d.Named(l.Lane) {
			named = append(named, l)
		} else {
			strangers = append(strangers, l)
		}
	}
	// Where there is no room for a share, as behind many lanes of a higher priority, they take turns.
	share, turn := room/strangerShare, d.turn
	if share == 0 && d.turn%strangerShare == 0 {
		share = 1
	}
	if room < strangerShare && room <= len(named) {
		turn /= strangerShare // or some would never come, where 5 divides their number
	}
	places := min(len(strangers), max(room-len(named), share))
	named = next(named, room-places, d.turn)
	parts := len(named) + min(places, 1)
	each := (limit + parts - 1) / parts
	return append(divide(named, each*len(named)), divide(next(strangers, places, turn), each)...)
}

// next returns n lanes: each turn goes on where the one before ended.
func next(lanes []queue.Share, n, turn int) []queue.Share {
	n = min(n, len(lanes))
	if n > 0 {
		rotate(lanes, turn*n)
	}
	return lanes[:n]
}

// divide gives each lane the same part of limit rows.
func divide(lanes []queue.Share, limit int) []queue.Share {
	for i := range lanes {
		lanes[i].Quantum = min(lanes[i].Quantum, (limit+len(lanes)-1)/len(lanes))
	}
	return lanes
}

// rotate lets the n-th claim begin with the n-th of the shares.
func rotate(group []queue.Share, n int) {
	n %= len(group)
	slices.Reverse(group[:n])
	slices.Reverse(group[n:])
	slices.Reverse(group)
}

// Exhausts reports whether a lane gave all of its share, and may have more.
func Exhausts(rows []queue.Request, shares []queue.Share) bool {
	taken := make([]int, len(shares))
	for _, r := range rows {
		if taken[r.Lane]++; taken[r.Lane] >= shares[r.Lane].Quantum {
			return true
		}
	}
	return false
}
