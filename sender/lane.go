package sender

import (
	"context"
	"database/sql"
	"slices"
	"sync"
	"time"
)

// lane is one place of the index send_request_due: the requests of one status, account, priority and template.
// What is claimed, waited for and counted goes by lanes, so that neither the rows of other lanes nor those that
// are due later cost anything.
type lane struct {
	Status   status         `db:"status"`
	AppID    sql.NullString `db:"appid"`
	Priority int            `db:"priority"`
	Template string         `db:"template"`
	Due      bool           `db:"due"` // its first row is due
}

// laneAge is how old the list of lanes may be that a claim goes by: what an urgent row waits for at most before a
// busy account notices it.
const laneAge = 150 * time.Millisecond

// laneList is the list of pending lanes that all accounts of this instance share.
type laneList struct {
	mu    sync.Mutex
	read  time.Time
	lanes []lane
}

// pendingLanes returns the lanes of pending rows, at most maxAge old.
func (s *Service) pendingLanes(ctx context.Context, maxAge time.Duration) ([]lane, error) {
	l := &s.lanes
	l.mu.Lock()
	defer l.mu.Unlock()
	// By the clock of this process alone; one that jumped back must not freeze the list.
	if age := s.cfg.Now().Sub(l.read); age >= 0 && age <= maxAge {
		return l.lanes, nil
	}
	lanes, err := s.store.lanes(ctx, statusPending)
	if err != nil {
		return nil, err
	}
	l.lanes, l.read = lanes, s.cfg.Now()
	return lanes, nil
}

// quantum is what one claim may take of a lane.
type quantum struct {
	lane
	maxRows int
}

// maxLanes bounds the lanes of one claim: the query has a branch for each. An account has 25 templates; what
// producers invent beside them takes its turns.
const maxLanes = 40

// quanta divides a claim of limit rows among the lanes that may be claimed now: all priorities, the most urgent
// first, and those of one priority alike, whatever the length of their queues. left reports that not all lanes
// got a quantum. It is for the claim loop only, which it gives another beginning each time.
func (a *account) quanta(lanes []lane, limit int) (quanta []quantum, left bool) {
	var mine []quantum
	for _, l := range lanes {
		if limit := a.claimable(l, limit); limit > 0 {
			mine = append(mine, quantum{l, limit})
		}
	}
	slices.SortStableFunc(mine, func(a, b quantum) int { return a.Priority - b.Priority })
	for begin := 0; begin < len(mine); {
		end := begin + 1
		for end < len(mine) && mine[end].Priority == mine[begin].Priority {
			end++
		}
		group := mine[begin:end]
		rotate(group, a.turn)
		for i := range group {
			group[i].maxRows = min(group[i].maxRows, (limit+len(group)-1)/len(group))
		}
		begin = end
	}
	a.turn++
	if len(mine) > maxLanes {
		return mine[:maxLanes], true
	}
	return mine, false
}

// priorityUrgent is send_request.priority of what goes before everything else.
const priorityUrgent = 0

// knownTemplate returns the id of the template that a row names, or "".
func (s *Service) knownTemplate(name, appid string) string {
	id, _ := s.templateID(name, appid)
	return id
}

// rotate lets the n-th claim begin with the n-th of the quanta.
func rotate(group []quantum, n int) {
	n %= len(group)
	slices.Reverse(group[:n])
	slices.Reverse(group[n:])
	slices.Reverse(group)
}

// claimable tells how many rows of a pending lane this account may claim now.
func (a *account) claimable(l lane, limit int) int {
	if !l.Due || l.Status != statusPending || !a.owns(l) || l.Priority < 0 || l.Priority > 2 {
		return 0
	}
	now := a.svc.cfg.Now()
	if a.breaker.active(now) || !a.budget.allows(l.Priority) || l.Priority != priorityUrgent && a.urgentOnly.Load() {
		return 0
	}
	return a.templatePauses.allowance(a.svc.knownTemplate(l.Template, a.cfg.AppID), now, limit)
}

// owns reports whether a lane's rows are this account's.
func (a *account) owns(l lane) bool {
	return l.AppID.String == a.cfg.AppID || (!l.AppID.Valid && a.cfg.Default)
}
