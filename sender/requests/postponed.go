package requests

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// Postponed counts pending requests of one account and reason that could have gone for a while,
// whatever their due_at says: an attempt, or the pre-flight, moves it ahead.
type Postponed struct {
	AppID    string
	Reason   string
	Requests int64     // at least
	Since    time.Time // of the oldest
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
	// postponedSeconds is longer than any postponement: an hour, give or take a tenth.
	postponedSeconds = "7200"
)

// Age is how long the oldest open request of an account and status could have gone, as far as
// samples show: at least so long.
type Age struct {
	AppID   string
	Status  string // pending or waiting
	Seconds int64
}

// Ages is what wished_at shows, which due_at does not, because postponements move it.
type Ages struct {
	Postponed []Postponed
	Oldest    []Age
}

type ageRow struct {
	AppID    string       `db:"appid"`
	Reason   string       `db:"reason"`
	Requests int64        `db:"requests"`
	Since    sql.NullTime `db:"since"`
	Seconds  int64        `db:"seconds"`
}

// Ages returns the pending requests that could have gone longer than after ago, and the ages of the
// oldest open ones. It looks at the next entries of each lane, so it may miss some: its cost must not
// grow with the queue. A request that WeChat puts off for its recipient alone does not count, nor
// does one that is being sent.
func (s Store) Ages(ctx context.Context, after time.Duration) (ages Ages, err error) {
	// Those that were put off are the next ones due. A wait ends at due_at, days ahead.
	const putOff = ` AND due_at < CURRENT_TIMESTAMP(3) + INTERVAL ` + postponedSeconds + ` SECOND`
	ages.Postponed = []Postponed{}
	for _, status := range []string{"pending", "waiting"} {
		bound := ""
		if status == "pending" {
			bound = putOff
		}
		rows, err := s.ageRows(ctx, status, bound, after)
		if err != nil {
			return Ages{}, err
		}
		for _, r := range rows {
			ages.addAge(Age{r.AppID, status, r.Seconds})
			if status == "pending" && r.Requests > 0 {
				ages.Postponed = addPostponed(ages.Postponed,
					Postponed{r.AppID, r.Reason, r.Requests, r.Since.Time})
			}
		}
	}
	return ages, nil
}

// ageRows reads the next entries of each lane of a status.
func (s Store) ageRows(
	ctx context.Context, status, bound string, after time.Duration,
) (all []ageRow, err error) {
	// wished_at is in no index: an index would cost each claim a write. So the rows are read, but
	// few of them.
	branch := `(
		    SELECT id
		      FROM send_request FORCE INDEX (send_request_due)
		     WHERE status = ? AND appid <=> ? AND priority = ? AND template = ?` + bound + `
		     ORDER BY due_at
		     LIMIT ?)`
	lanes, err := s.openLanes(ctx, queue.Status(status))
	if err != nil {
		return nil, err
	}
	sample := min(max(maxSample/max(len(lanes), 1), minLaneSample), maxLaneSample)
	for part := range slices.Chunk(lanes, lanesAtOnce) {
		seconds := int(after / time.Second)
		args := []any{seconds, seconds}
		for _, l := range part {
			args = append(args, status, l.AppID, l.Priority, l.Template, sample)
		}
		query := `
		SELECT COALESCE(w.appid, '') AS appid, w.reason AS reason,
		       SUM(CASE WHEN w.at < CURRENT_TIMESTAMP(3) - INTERVAL ? SECOND
		                THEN 1 ELSE 0 END) AS requests,
		       MIN(CASE WHEN w.at < CURRENT_TIMESTAMP(3) - INTERVAL ? SECOND
		                THEN w.at ELSE NULL END) AS since,
		       TIMESTAMPDIFF(SECOND, MIN(w.at), CURRENT_TIMESTAMP(3)) AS seconds
		  FROM (SELECT r.appid, COALESCE(r.reason, '') AS reason,
		               COALESCE(r.wished_at, r.due_at) AS at
		          FROM (` + strings.Repeat(branch+" UNION ALL ", len(part)-1) + branch + `) d
		          STRAIGHT_JOIN send_request r FORCE INDEX (PRIMARY) ON r.id = d.id
		         WHERE r.lease IS NULL AND r.cancel = 0
		           AND COALESCE(r.reason, '') <> 'recipient_later') w
		 WHERE w.at <= CURRENT_TIMESTAMP(3)
		 GROUP BY w.appid, w.reason`
		var found []ageRow
		if err := s.DB.SelectContext(ctx, &found, query, args...); err != nil {
			return nil, fmt.Errorf("looking for postponed requests: %w", database.Explain(err))
		}
		all = append(all, found...)
	}
	for i := range all {
		all[i].AppID = strings.TrimRight(all[i].AppID, " ")
	}
	return all, nil
}

// openLanes returns the most urgent lanes of a status. Where there are very many it stops looking.
func (s Store) openLanes(ctx context.Context, status queue.Status) (lanes []queue.Lane, err error) {
	watch := queue.New(s.DB).Watch(nil, status)
	for known := -1; len(lanes) > known && len(lanes) < maxLanes; {
		known = len(lanes)
		if lanes, err = watch.Look(ctx); err != nil {
			return nil, fmt.Errorf("looking for open requests: %w", err)
		}
	}
	slices.SortFunc(lanes, queue.Lane.Compare)
	return lanes[:min(len(lanes), maxLanes)], nil
}

func (a *Ages) addAge(age Age) {
	for i := range a.Oldest {
		if o := &a.Oldest[i]; o.AppID == age.AppID && o.Status == age.Status {
			o.Seconds = max(o.Seconds, age.Seconds)
			return
		}
	}
	a.Oldest = append(a.Oldest, age)
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
