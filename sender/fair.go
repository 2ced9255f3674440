package sender

import (
	"slices"

	"github.com/unionbridge/unionbridge/sender/queue"
)

// priorityUrgent is send_request.priority of what goes before everything else, lowestPriority of
// what goes last.
const (
	priorityUrgent = 0
	lowestPriority = 2
)

// claimable returns how many rows of a pending lane, up to limit, this account may claim now.
func (a *account) claimable(l queue.Lane, limit int) int {
	if !l.Due || l.Status != queue.Pending || !a.owns(l) || !validPriority(l.Priority) || a.impossible(l) {
		return 0
	}
	return a.throttle.Claimable(l.Priority == priorityUrgent, a.Templates.Known(l.Template, a.AppID), limit)
}

// configured reports whether a lane's template is an alias of the configuration.
func (a *account) configured(l queue.Lane) bool {
	_, alias := a.Templates[l.Template]
	return alias
}

func validPriority(priority int) bool { return priority >= 0 && priority <= lowestPriority }

const (
	// maxLanes bounds the lanes of one claim: the query has a branch for each.
	maxLanes = 40
	// One in strangerShare of them is for templates that the configuration does not name, where
	// there are more lanes than that: producers can invent any number.
	strangerShare = 5
)

// fair divides claims among lanes.
type fair struct {
	configured func(queue.Lane) bool // its template is an alias
	turn       int                   // counts the claims: each begins with other lanes
}

// shares divides a claim of limit rows among lanes, each with the most that may be claimed of it:
// all priorities, the most urgent first, and those of one priority alike, whatever the length of
// their queues. left reports that not all got a share.
func (f *fair) shares(lanes []queue.Share, limit int) (shares []queue.Share, left bool) {
	f.turn++
	slices.SortFunc(lanes, func(a, b queue.Share) int {
		return a.Compare(b.Lane)
	})
	for len(lanes) > 0 && len(shares) < maxLanes {
		n := slices.IndexFunc(lanes, func(l queue.Share) bool { return l.Priority != lanes[0].Priority })
		if n < 0 {
			n = len(lanes)
		}
		room := maxLanes - len(shares)
		shares = append(shares, f.window(lanes[:n], limit, room)...)
		lanes, left = lanes[n:], left || n > room
	}
	return shares, left || len(lanes) > 0
}

// window chooses at most room lanes of one priority. Where there are more, those of the aliases and
// the others take turns among themselves, and the others together are one to the aliases.
func (f *fair) window(lanes []queue.Share, limit, room int) []queue.Share {
	if len(lanes) <= room {
		rotate(lanes, f.turn)
		return divide(lanes, limit)
	}
	var named, strangers []queue.Share
	for _, l := range lanes {
		if f.configured(l.Lane) {
			named = append(named, l)
		} else {
			strangers = append(strangers, l)
		}
	}
	// Where there is no room for a share, as behind many lanes of a higher priority, they take turns.
	share := room / strangerShare
	if share == 0 && f.turn%strangerShare == 0 {
		share = 1
	}
	places := min(len(strangers), max(room-len(named), share))
	named = f.next(named, room-places)
	parts := len(named) + min(places, 1)
	each := (limit + parts - 1) / parts
	return append(divide(named, each*len(named)), divide(f.next(strangers, places), each)...)
}

// next returns the next n lanes: each claim goes on where the one before ended.
func (f *fair) next(lanes []queue.Share, n int) []queue.Share {
	n = min(n, len(lanes))
	if n > 0 {
		rotate(lanes, f.turn*n)
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

// exhausts reports whether a lane gave all of its share, and may have more.
func exhausts(rows []queue.Request, shares []queue.Share) bool {
	taken := make([]int, len(shares))
	for _, r := range rows {
		if taken[r.Lane]++; taken[r.Lane] >= shares[r.Lane].Quantum {
			return true
		}
	}
	return false
}
