package sender

import (
	"context"
	"database/sql"
	"slices"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/sender/queue"
)

// laneAge is how old the list of lanes may be that a claim goes by: what an urgent row waits for at
// most before a busy account notices it.
const laneAge = 150 * time.Millisecond

// laneList is the list of pending lanes that all accounts of this instance share.
type laneList struct {
	watch *queue.Watch
	now   func() time.Time

	mu    sync.Mutex
	read  time.Time
	lanes []queue.Lane
}

// pending returns the lanes of pending rows, at most maxAge old.
func (l *laneList) pending(ctx context.Context, maxAge time.Duration) ([]queue.Lane, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// By the clock of this process alone; one that jumped back must not freeze the list.
	if age := l.now().Sub(l.read); age >= 0 && age <= maxAge {
		return l.lanes, nil
	}
	lanes, err := l.watch.Look(ctx)
	if err != nil {
		return nil, err
	}
	l.lanes, l.read = lanes, l.now()
	return lanes, nil
}

// drop takes lanes from the list until they are found again.
func (l *laneList) drop(gone []queue.Lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watch.Drop(gone)
	dropped := make(map[queue.Lane]bool, len(gone))
	for _, lane := range gone {
		dropped[lane] = true
	}
	// Others read the old list.
	l.lanes = slices.DeleteFunc(slices.Clone(l.lanes), func(lane queue.Lane) bool {
		return dropped[lane]
	})
}

// aliasLanes are the pending lanes of all templates that the configuration names for the accounts.
func aliasLanes(cfg Config) (lanes []queue.Lane) {
	for _, a := range cfg.Accounts {
		appids := []sql.NullString{{String: a.AppID, Valid: true}}
		if a.Default {
			// Some producers write '' where they mean NULL.
			appids = append(appids, sql.NullString{}, sql.NullString{Valid: true})
		}
		for alias := range cfg.Templates {
			if cfg.Templates.Known(alias, a.AppID) == "" {
				continue
			}
			for priority := range lowestPriority + 1 {
				for _, appid := range appids {
					lanes = append(lanes, queue.Lane{
						Status: queue.Pending, AppID: appid, Priority: priority, Template: alias,
					})
				}
			}
		}
	}
	return lanes
}
