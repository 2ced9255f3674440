package sender

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// redeliveries lists the account's requests whose last attempt is in doubt, and when each is due. They are
// repeated ahead of the queue: behind a campaign of an hour their time would run out, and a message whose answer
// was lost would end as unknown although it could have been repeated without harm. The list is a short cut and no
// more. A row that is not in it is claimed when its turn in the queue comes.
type redeliveries struct {
	mu   sync.Mutex
	rows []redelivery
}

type redelivery struct {
	id int64
	at time.Time
}

// maxRedeliveries bounds the list; a storm in which all answers are lost needs no order.
const maxRedeliveries = 20_000

// redeliveryMargin is how much later than planned a row is taken: its due_at is the database's clock, read a little
// later.
const redeliveryMargin = 250 * time.Millisecond

func (r *redeliveries) add(id int64, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.rows) < maxRedeliveries {
		r.rows = append(r.rows, redelivery{id, at.Add(redeliveryMargin)})
	}
}

// take removes and returns up to limit rows that are due, the longest due first.
func (r *redeliveries) take(now time.Time, limit int) []int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	slices.SortFunc(r.rows, func(x, y redelivery) int { return cmp.Or(x.at.Compare(y.at), cmp.Compare(x.id, y.id)) })
	var ids []int64
	for len(ids) < min(limit, len(r.rows)) && !r.rows[len(ids)].at.After(now) {
		ids = append(ids, r.rows[len(ids)].id)
	}
	r.rows = slices.Delete(r.rows, 0, len(ids))
	return ids
}

func (r *redeliveries) due(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.rows, func(x redelivery) bool { return !x.at.After(now) })
}

// loadRedeliveries lists what the account's last claimer left behind: rows that it claimed and did not settle, and those
// that it was to repeat soon.
func (a *account) loadRedeliveries(ctx context.Context) {
	rows, err := a.svc.store.inDoubt(ctx, a.cfg.AppID)
	if err != nil {
		if ctx.Err() == nil {
			a.log.Error("looking for attempts in doubt", "err", err)
		}
		return
	}
	now := a.svc.cfg.Now()
	for _, r := range rows {
		a.redeliveries.add(r.ID, now.Add(time.Duration(r.DueIn)*time.Microsecond))
	}
}

// inDoubtRow is a row whose last attempt is in doubt.
type inDoubtRow struct {
	ID    int64 `db:"id"`
	DueIn int64 `db:"due_in"` // microseconds
}

// inDoubt returns those that are due within the next minutes: a claim's visibility, or the pause before a
// repetition, lies ahead of them. Those whose time came before are in the queue.
func (s store) inDoubt(ctx context.Context, appid string) ([]inDoubtRow, error) {
	lanes, err := s.lanes(ctx, statusPending)
	if err != nil {
		return nil, err
	}
	const query = `
		SELECT id, TIMESTAMPDIFF(MICROSECOND, CURRENT_TIMESTAMP(3), due_at) AS due_in
		  FROM send_request
		 WHERE status = 'pending' AND appid = ? AND priority = ? AND template = ?
		   AND due_at > CURRENT_TIMESTAMP(3) AND due_at < CURRENT_TIMESTAMP(3) + INTERVAL 3 MINUTE
		   AND (lease IS NOT NULL OR uncertain_at IS NOT NULL)
		 LIMIT ?`
	var found []inDoubtRow
	for _, l := range lanes {
		if l.AppID.String != appid {
			continue
		}
		var rows []inDoubtRow
		if err := s.db.SelectContext(ctx, &rows, query, appid, l.Priority, l.Template, maxRedeliveries); err != nil {
			return nil, fmt.Errorf("reading attempts in doubt: %w", database.Explain(err))
		}
		found = append(found, rows...)
	}
	return found, nil
}

// dueByID returns those of the rows that may be claimed.
func (s store) dueByID(ctx context.Context, appid string, ids []int64) ([]request, error) {
	const query = requestColumns + `
		  FROM send_request r FORCE INDEX (PRIMARY)
		 WHERE r.id IN (?) AND r.status = 'pending' AND r.appid = ? AND r.due_at <= CURRENT_TIMESTAMP(3)
		 ORDER BY r.due_at`
	in, args, err := sqlx.In(query, maxData, ids, appid)
	if err != nil {
		return nil, err
	}
	var rows []request
	if err := s.db.SelectContext(ctx, &rows, in, args...); err != nil {
		return nil, fmt.Errorf("reading requests to repeat: %w", database.Explain(err))
	}
	return rows, nil
}
