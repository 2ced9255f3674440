package sender

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// redelivery lists the account's requests whose last attempt is in doubt, and when each is due.
// They are repeated ahead of the queue: behind a campaign of an hour their time would run out, and
// a message whose answer was lost would end as unknown although it could have been repeated without
// harm. The list is a short cut and no more. A row that is not in it is claimed when its turn in
// the queue comes.
type redelivery struct {
	mu   sync.Mutex
	rows []redeliveryRow
}

type redeliveryRow struct {
	id int64
	at time.Time
}

const (
	// maxRedelivery bounds the list; a storm in which all answers are lost needs no order.
	maxRedelivery = 20_000
	// redeliveryMargin is how much later than planned a row is taken: its due_at is the database's
	// clock, read a little later.
	redeliveryMargin = 250 * time.Millisecond
)

func (r *redelivery) add(id int64, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.rows) < maxRedelivery {
		r.rows = append(r.rows, redeliveryRow{id, at.Add(redeliveryMargin)})
	}
}

// take removes and returns up to limit rows that are due, the longest due first.
func (r *redelivery) take(now time.Time, limit int) []int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.SortFunc(r.rows, func(x, y redeliveryRow) int {
		return cmp.Or(x.at.Compare(y.at), cmp.Compare(x.id, y.id))
	})
	var ids []int64
	for len(ids) < min(limit, len(r.rows)) && !r.rows[len(ids)].at.After(now) {
		ids = append(ids, r.rows[len(ids)].id)
	}
	r.rows = slices.Delete(r.rows, 0, len(ids))
	return ids
}

func (r *redelivery) due(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.rows, func(row redeliveryRow) bool { return !row.at.After(now) })
}
