package queue

import (
	"context"
	"database/sql"
	"strings"
)

// Lane is one place of the index send_request_due: the requests of one status, account, priority
// and template. What is claimed, waited for and counted goes by lanes, so that neither the rows of
// other lanes nor those that are due later cost anything.
type Lane struct {
	Status   Status         `db:"status"`
	AppID    sql.NullString `db:"appid"`
	Priority int            `db:"priority"`
	Template string         `db:"template"`
	Due      bool           `db:"due"` // its first row is due
}

// Account is the lane's official account; "": the default one. A producer may have written an empty
// text, or blanks behind an appid, which SQL does not tell apart.
func (l Lane) Account() string { return strings.TrimRight(l.AppID.String, " ") }

// Share is what one claim may take of a lane.
type Share struct {
	Lane
	Quantum int // rows
}

// Lanes returns the lanes that have rows in one of the statuses.
func (q *Queue) Lanes(ctx context.Context, of ...Status) ([]Lane, error) {
	// A loose scan of send_request_due: two dives a lane, whatever the number of rows.
	const query = `
		SELECT status, appid, priority, template, MIN(due_at) <= CURRENT_TIMESTAMP(3) AS due
		  FROM send_request
		 WHERE status IN (?)
		 GROUP BY status, appid, priority, template`
	return find[Lane](ctx, q, lookup{"looking for open requests", query}, of)
}
