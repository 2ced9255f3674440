package requests

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
)

// Postponed counts pending requests of one account and reason that could have gone for a while,
// whatever their due_at says: an attempt, or the pre-flight, moves it ahead.
type Postponed struct {
	AppID    string    `db:"appid"`
	Reason   string    `db:"reason"`
	Requests int64     `db:"requests"` // at least
	Since    time.Time `db:"since"`    // of the oldest
}

const (
	// maxLanes bounds how many places of the index, of one priority and template each, are looked
	// at: producers may invent templates.
	maxLanes = 1000
	// lanesAtOnce is how many of them one query looks at.
	lanesAtOnce = 100
	// minLaneSample and maxLaneSample bound how many entries of one of them are looked at. Those
	// that were put off are the next ones due, and stand in front of what is due tomorrow.
	minLaneSample, maxLaneSample = 10, 1000
	// postponedFor is longer than any postponement: an hour, give or take a tenth.
	postponedFor = 2 * time.Hour
)

// Postponed returns the requests that could have gone longer than after ago. It looks at the next
// entries of each lane, so it may miss some: its cost must not grow with the queue. A request that
// WeChat puts off for its recipient alone is none, nor is one that is being sent.
func (s Store) Postponed(ctx context.Context, after time.Duration) ([]Postponed, error) {
	type lane struct {
		AppID    sql.NullString `db:"appid"`
		Priority int            `db:"priority"`
		Template string         `db:"template"`
	}
	const pending = `
		SELECT appid, priority, template
		  FROM send_request FORCE INDEX (send_request_due)
		 WHERE status = 'pending'
		 GROUP BY appid, priority, template
		 LIMIT ?`
	// wished_at is in no index: an index would cost each claim a write. So the rows are read, but
	// few of them.
	const branch = `(
		    SELECT id
		      FROM send_request FORCE INDEX (send_request_due)
		     WHERE status = 'pending' AND appid <=> ? AND priority = ? AND template = ?
		       AND due_at < CURRENT_TIMESTAMP(3) + INTERVAL ? SECOND
		     ORDER BY due_at
		     LIMIT ?)`
	var lanes []lane
	if err := s.DB.SelectContext(ctx, &lanes, pending, maxLanes); err != nil {
		return nil, fmt.Errorf("looking for open requests: %w", database.Explain(err))
	}
	sample := min(max(maxSample/max(len(lanes), 1), minLaneSample), maxLaneSample)
	all := []Postponed{}
	for part := range slices.Chunk(lanes, lanesAtOnce) {
		var args []any
		for _, l := range part {
			args = append(args, l.AppID, l.Priority, l.Template,
				int(postponedFor/time.Second), sample)
		}
		query := `
		SELECT COALESCE(r.appid, '') AS appid, COALESCE(r.reason, '') AS reason,
		       COUNT(*) AS requests, MIN(COALESCE(r.wished_at, r.due_at)) AS since
		  FROM (` + strings.Repeat(branch+" UNION ALL ", len(part)-1) + branch + `) d
		  STRAIGHT_JOIN send_request r FORCE INDEX (PRIMARY) ON r.id = d.id
		 WHERE COALESCE(r.wished_at, r.due_at) < CURRENT_TIMESTAMP(3) - INTERVAL ? SECOND
		   AND r.lease IS NULL AND r.cancel = 0 AND COALESCE(r.reason, '') <> 'recipient_later'
		 GROUP BY r.appid, r.reason`
		var found []Postponed
		err := s.DB.SelectContext(ctx, &found, query, append(args, int(after/time.Second))...)
		if err != nil {
			return nil, fmt.Errorf("looking for postponed requests: %w", database.Explain(err))
		}
		for _, p := range found {
			all = addPostponed(all, p)
		}
	}
	return all, nil
}

// addPostponed adds to what is counted of the same account and reason.
func addPostponed(all []Postponed, p Postponed) []Postponed {
	at := slices.IndexFunc(all, func(q Postponed) bool {
		return q.AppID == p.AppID && q.Reason == p.Reason
	})
	if at < 0 {
		return append(all, p)
	}
	all[at].Requests += p.Requests
	if p.Since.Before(all[at].Since) {
		all[at].Since = p.Since
	}
	return all
}
