package applications

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// idleSeconds is how long a portion must have been untouched before another instance takes it back.
// What is reserved is spent long before.
const idleSeconds = 5

// usedRow is what is to be counted in a row of this instance.
type usedRow struct {
	application string
	period      int
	begins      time.Time
	n           int64
}

// usedRows adds reservations up by row, in the order of the primary key: who locks several rows
// locks them in this order.
func usedRows(reservations []Reservation) []usedRow {
	var rows []usedRow
	for _, res := range reservations {
		for period, begins := range res.periods {
			if begins.IsZero() || res.N == 0 {
				continue
			}
			same := func(r usedRow) bool {
				return r.application == res.app && r.period == period && r.begins.Equal(begins)
			}
			if i := slices.IndexFunc(rows, same); i >= 0 {
				rows[i].n += res.N
			} else {
				rows = append(rows, usedRow{res.app, period, begins, res.N})
			}
		}
	}
	slices.SortFunc(rows, func(a, b usedRow) int {
		return cmp.Or(cmp.Compare(a.application, b.application), cmp.Compare(a.period, b.period),
			a.begins.Compare(b.begins))
	})
	return rows
}

// spend reports false if the row has less left.
func (r *Registry) spend(ctx context.Context, tx *sqlx.Tx, row usedRow) (bool, error) {
	const query = `
		UPDATE application_usage
		   SET used = used + ?, touched_at = CURRENT_TIMESTAMP(3)
		 WHERE application = ? AND period = ? AND begins_at = ? AND holder = ? AND used + ? <= allocated`
	res, err := tx.ExecContext(ctx, query, row.n, row.application, periodName(row.period), row.begins,
		r.holder, row.n)
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n == 1, err
}

// allocated is a row of application_usage.
type allocated struct {
	Holder    string `db:"holder"`
	Allocated int64  `db:"allocated"`
	Used      int64  `db:"used"`
	Idle      bool   `db:"idle"`
}

// fetch takes portions of the windows that lack something, in one transaction, and returns what it
// got of each.
func (r *Registry) fetch(
	ctx context.Context, application string, want *request, lack [2]int64,
) (got [2]int64, err error) {
	// Whoever hands out writes this row first: instances do so one after the other, and in Galera,
	// where a lock holds on one node alone, the second of two transactions fails and is repeated.
	const lock = `
		INSERT INTO application (name, allocations) VALUES (?, 1)
		ON DUPLICATE KEY UPDATE allocations = allocations + 1`
	err = database.InTx(ctx, r.db, func(ctx context.Context, tx *sqlx.Tx) error {
		got = [2]int64{}
		if _, err := tx.ExecContext(ctx, lock, application); err != nil {
			return err
		}
		for period, begins := range want.begins {
			if begins.IsZero() || lack[period] == 0 {
				continue
			}
			p := portion{r: r, tx: tx, row: usedRow{application, period, begins, lack[period]}}
			var err error
			if got[period], err = p.allocate(ctx, want.limits[period]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return got, fmt.Errorf("allocating requests of application %s: %w", application, err)
	}
	return got, nil
}

// portion is to be allocated in tx.
type portion struct {
	r   *Registry
	tx  *sqlx.Tx
	row usedRow // n: what is lacking
}

// allocate gives this instance a portion of what is left of the limit: at least what is lacking, if
// there is so much.
func (p portion) allocate(ctx context.Context, limit int64) (int64, error) {
	const query = `
		SELECT holder, allocated, used,
		       touched_at < CURRENT_TIMESTAMP(3) - INTERVAL ? SECOND AS idle
		  FROM application_usage
		 WHERE application = ? AND period = ? AND begins_at = ?
		 ORDER BY holder
		   FOR UPDATE`
	var rows []allocated
	err := p.tx.SelectContext(ctx, &rows, query, idleSeconds, p.row.application,
		periodName(p.row.period), p.row.begins)
	if err != nil {
		return 0, err
	}
	free, own := limit, false
	for _, row := range rows {
		free -= row.Allocated
		own = own || row.Holder == p.r.holder
	}
	if free < p.row.n { // below zero where the limit was lowered
		taken, err := p.takeBack(ctx, rows, p.row.n-free)
		if err != nil {
			return 0, err
		}
		free += taken
	}
	got := min(free, max(p.row.n, min(maxPortion, free/portionShare)))
	if !own {
		if err := p.forgetOld(ctx); err != nil {
			return 0, err
		}
	}
	if got <= 0 {
		return 0, nil
	}
	const give = `
		INSERT INTO application_usage (application, period, begins_at, holder, allocated)
		VALUES (?, ?, ?, ?, ?)
		ON DUPLICATE KEY UPDATE
		    allocated = allocated + VALUES(allocated), touched_at = CURRENT_TIMESTAMP(3)`
	_, err = p.tx.ExecContext(ctx, give, p.row.application, periodName(p.row.period), p.row.begins,
		p.r.holder, got)
	return got, err
}

// takeBack takes what was not used and does not seem to be needed: of instances that have died, and
// of this one what it lost count of.
func (p portion) takeBack(ctx context.Context, rows []allocated, n int64) (taken int64, err error) {
	const query = `
		UPDATE application_usage SET allocated = allocated - ?
		 WHERE application = ? AND period = ? AND begins_at = ? AND holder = ?`
	for _, row := range rows {
		unused := min(row.Allocated-row.Used, n-taken)
		if unused <= 0 || !row.Idle {
			continue
		}
		_, err := p.tx.ExecContext(ctx, query, unused, p.row.application, periodName(p.row.period),
			p.row.begins, row.Holder)
		if err != nil {
			return taken, err
		}
		taken += unused
	}
	return taken, nil
}

// forgetOld deletes rows of earlier periods, a few at a time: an instance comes here once a period.
func (p portion) forgetOld(ctx context.Context) error {
	const query = `
		DELETE FROM application_usage
		 WHERE application = ? AND period = ? AND begins_at < ?
		 ORDER BY application, period, begins_at, holder
		 LIMIT 100`
	before := p.row.begins.Add(-10 * time.Minute)
	if p.row.period == day {
		before = p.row.begins.Add(-7 * 24 * time.Hour)
	}
	_, err := p.tx.ExecContext(ctx, query, p.row.application, periodName(p.row.period), before)
	return err
}

// Used returns how many requests of an application were accepted in this minute and this day. Where
// there is no limit nothing is counted.
func (r *Registry) Used(ctx context.Context, application string) (Limit, error) {
	now := request{limits: [2]int64{1, 1}}
	if err := r.begin(ctx, &now); err != nil {
		return Limit{}, err
	}
	const query = `
		SELECT COALESCE(SUM(CASE WHEN period = 'minute' THEN used END), 0) AS minute,
		       COALESCE(SUM(CASE WHEN period = 'day' THEN used END), 0) AS day
		  FROM application_usage
		 WHERE application = ?
		   AND (period = 'minute' AND begins_at = ? OR period = 'day' AND begins_at = ?)`
	var used Limit
	err := r.db.GetContext(ctx, &used, query, application, now.begins[minute], now.begins[day])
	if err != nil {
		return Limit{}, fmt.Errorf("reading what application %s has used: %w", application,
			database.Explain(err))
	}
	return used, nil
}
