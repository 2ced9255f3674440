package sender

import (
	"slices"

	"github.com/unionbridge/unionbridge/sender/queue"
)

// priorityUrgent is send_request.priority of what goes before everything else.
const priorityUrgent = 0

// claimable returns how many rows of a pending lane, up to limit, this account may claim now.
func (a *account) claimable(l queue.Lane, limit int) int {
	if !l.Due || l.Status != queue.Pending || !a.owns(l) || !validPriority(l.Priority) {
		return 0
	}
	return a.throttle.Claimable(l.Priority == priorityUrgent, a.Templates.Known(l.Template, a.AppID), limit)
}

func validPriority(priority int) bool { return priority >= 0 && priority <= 2 }

// maxLanes bounds the lanes of one claim: the query has a branch for each. An account has 25
// templates; what producers invent beside them takes its turns.
const maxLanes = 40

// fairShares divides a claim of limit rows among lanes, each with the most that may be claimed of
// it: all priorities, the most urgent first, and those of one priority alike, whatever the length
// of their queues. The turn lets each claim begin with another lane. left reports that not all got
// a share.
func fairShares(lanes []queue.Share, limit, turn int) (shares []queue.Share, left bool) {
	slices.SortStableFunc(lanes, func(a, b queue.Share) int { return a.Priority - b.Priority })
	for begin := 0; begin < len(lanes); {
		end := begin + 1
		for end < len(lanes) && lanes[end].Priority == lanes[begin].Priority {
			end++
		}
		group := lanes[begin:end]
		rotate(group, turn)
		for i := range group {
			group[i].Quantum = min(group[i].Quantum, (limit+len(group)-1)/len(group))
		}
		begin = end
	}
	if len(lanes) > maxLanes {
		return lanes[:maxLanes], true
	}
	return lanes, false
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
