package requests

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
)

// maxOpen is how many open requests of one account and status are counted. A campaign leaves
// millions, and each scrape of each instance counts them.
const maxOpen = 10_000

// OpenCount counts the requests of one account in one open status.
type OpenCount struct {
	// AppID is "" for rows of the default account that no instance has claimed yet.
	AppID    string
	Status   string // "pending" or "waiting"
	Requests int64
	Late     int64 // of these, pending ones whose due_at has passed
	// Oldest is the smallest due_at; of a waiting request that is the end of its wait.
	Oldest time.Time
	// Capped: counting stopped at maxOpen requests, the most urgent ones first.
	Capped     bool
	Priorities []PriorityCount // in their order
}

// PriorityCount counts the requests of one priority.
type PriorityCount struct {
	Priority int
	Requests int64
}

type openRow struct {
	AppID    string    `db:"appid"`
	Status   string    `db:"status"`
	Priority int       `db:"priority"`
	Requests int64     `db:"requests"`
	Late     int64     `db:"late"`
	Oldest   time.Time `db:"oldest"`
}

// open counts open requests through send_request_due alone. appids are the accounts that are counted
// each for itself; all others, which producers may invent, share one count.
func (s Store) open(ctx context.Context, appids []string) ([]OpenCount, error) {
	const branch = `(
		    SELECT appid, status, priority, due_at
		      FROM send_request FORCE INDEX (send_request_due)
		     WHERE status = ? AND `
	const end = `
		     LIMIT ?)`
	var branches []string
	var args []any
	add := func(status, condition string, values ...any) {
		branches = append(branches, branch+condition+end)
		args = append(append(append(args, status), values...), maxOpen)
	}
	for _, status := range []string{"pending", "waiting"} {
		add(status, "appid IS NULL")
		for _, appid := range appids {
			add(status, "appid = ?", appid)
		}
		others, values := "appid IS NOT NULL", []any(nil)
		if len(appids) > 0 {
			others = "appid NOT IN (?" + strings.Repeat(", ?", len(appids)-1) + ")"
			for _, appid := range appids {
				values = append(values, appid)
			}
		}
		add(status, others, values...)
	}
	query := `
		SELECT COALESCE(appid, '') AS appid, status, priority, COUNT(*) AS requests,
		       MIN(due_at) AS oldest,
		       SUM(CASE WHEN status = 'pending' AND due_at <= CURRENT_TIMESTAMP(3)
		                THEN 1 ELSE 0 END) AS late
		  FROM (` + strings.Join(branches, " UNION ALL ") + `) o
		 GROUP BY o.status, o.appid, o.priority
		 ORDER BY status, appid, priority`
	var rows []openRow
	if err := s.DB.SelectContext(ctx, &rows, query, args...); err != nil {
		return nil, fmt.Errorf("counting open requests: %w", database.Explain(err))
	}
	return sumOpen(rows, appids), nil
}

// sumOpen adds up what belongs to one account and status, in the order of rows.
func sumOpen(rows []openRow, appids []string) []OpenCount {
	type place struct{ status, appid string }
	known := map[string]bool{"": true}
	for _, appid := range appids {
		known[appid] = true
	}
	at, others, counts := map[place]int{}, map[string]int64{}, []OpenCount(nil)
	for _, r := range rows {
		where := place{r.Status, strings.TrimRight(r.AppID, " ")} // as SQL compares it
		i, seen := at[where]
		if !seen {
			i = len(counts)
			at[where] = i
			counts = append(counts, OpenCount{AppID: where.appid, Status: r.Status, Oldest: r.Oldest})
		}
		counts[i].add(r)
		if !known[where.appid] {
			others[r.Status] += r.Requests
		}
	}
	for i := range counts {
		c := &counts[i]
		c.Capped = c.Requests >= maxOpen || !known[c.AppID] && others[c.Status] >= maxOpen
	}
	return counts
}

func (c *OpenCount) add(r openRow) {
	c.Requests += r.Requests
	c.Late += r.Late
	if r.Oldest.Before(c.Oldest) {
		c.Oldest = r.Oldest
	}
	for i := range c.Priorities { // NULL and '' are one account
		if c.Priorities[i].Priority == r.Priority {
			c.Priorities[i].Requests += r.Requests
			return
		}
	}
	c.Priorities = append(c.Priorities, PriorityCount{r.Priority, r.Requests})
}
