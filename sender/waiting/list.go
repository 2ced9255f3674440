package waiting

import (
	"maps"
	"slices"
	"sync"

	"github.com/unionbridge/unionbridge/sender/queue"
)

// list is what is to be looked at soon: rows that wait, and what the map has learnt.
type list struct {
	mu   sync.Mutex
	ids  map[int64]struct{}
	keys map[queue.Wait]struct{}
}

// maxListed bounds either list. What does not fit is found by the walk through all that waits.
const maxListed = 100_000

func newList() list {
	return list{ids: make(map[int64]struct{}), keys: make(map[queue.Wait]struct{})}
}

// add lists rows and keys.
func (l *list) add(ids []int64, keys []queue.Wait) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range ids {
		if len(l.ids) < maxListed {
			l.ids[id] = struct{}{}
		}
	}
	for _, key := range keys {
		if len(l.keys) < maxListed {
			l.keys[key] = struct{}{}
		}
	}
}

// take empties the lists.
func (l *list) take() (ids []int64, keys []queue.Wait) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ids, keys = slices.Sorted(maps.Keys(l.ids)), slices.Collect(maps.Keys(l.keys))
	clear(l.ids)
	clear(l.keys)
	return ids, keys
}
