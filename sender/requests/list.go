package requests

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// Filter selects requests; what is empty selects all. Statuses, DedupKey and MsgID have an index.
// So has the time, nearly: ids grow with it. Everything else is looked for row by row, from the
// newest on.
type Filter struct {
	Statuses []string
	Reason   string
	AppID    string
	// Application is whose door they came through.
	Application string
	Template    string
	Recipient   string // unionid, mini_openid, openid or sent_openid
	DedupKey    string
	MsgID       int64
	Since       time.Time // of created_at
	Until       time.Time
	// Depth bounds the rows that are read where no index helps; 0: no bound.
	Depth int64
}

// Listing is the answer to a Filter, the newest first.
type Listing struct {
	Records []Record
	// More: there may be more than the limit.
	More bool
	// Cut: the search ended at the filter's Depth, with the request Last, before it had seen all.
	Cut  bool
	Last int64
}

const (
	// initialPage rows are read by the first statement of a search, and twice as many by each one
	// after it, up to maxPage: what is looked for is often among the newest.
	initialPage = 500
	maxPage     = 10_000
	// maxRare is how many rows the index may have of the wanted statuses if the search is to use
	// it: it is not in the order of ids. Walking down the primary key soon finds what is more
	// frequent.
	maxRare = 100_000
	// idSkew is how much an older id may have the later created_at: an INSERT of many rows takes
	// its time, and on Galera and TiDB each node counts for itself.
	idSkew = time.Hour
)

// List returns up to limit requests.
func (s Store) List(ctx context.Context, f Filter, limit int) (Listing, error) {
	var l Listing
	var err error
	l.Last, err = s.search(ctx, f, func(found []Record) bool {
		l.Records = append(l.Records, found...)
		return len(l.Records) <= limit
	})
	l.Cut = l.Last != 0
	if len(l.Records) > limit {
		l.Records, l.More = l.Records[:limit], true
	}
	return l, err
}

// Count counts the requests that match. cut: the filter's Depth ended the search.
func (s Store) Count(ctx context.Context, f Filter) (n int64, cut bool, err error) {
	last, err := s.search(ctx, f, func(found []Record) bool {
		n += int64(len(found))
		return true
	})
	return n, last != 0, err
}

// search hands the requests that match to found, in pages, until that says no. last is the request
// at which the filter's Depth ended the search; 0: it did not.
func (s Store) search(
	ctx context.Context, f Filter, found func([]Record) bool,
) (last int64, err error) {
	p := picker{db: s.DB, found: found}
	p.where, p.args = s.where(f)
	if f.DedupKey != "" || f.MsgID != 0 {
		_, err := p.read(ctx, live, "")
		if err == nil && p.n == 0 {
			_, err = p.read(ctx, archived, "")
		}
		return 0, err
	}
	low, high, err := s.span(ctx, f)
	if err != nil || high < low {
		return 0, err
	}
	ids, few, err := s.rare(ctx, f.Statuses)
	if err != nil {
		return 0, err
	}
	if !few {
		return p.walk(ctx, low, high, f.Depth)
	}
	ids = slices.DeleteFunc(ids, func(id int64) bool { return id < low || id > high })
	for chunk := range slices.Chunk(ids, 1000) {
		if more, err := p.read(ctx, byID, ` AND r.id IN (?)`, chunk); err != nil || !more {
			return 0, err
		}
	}
	return 0, nil
}

// where is the filter as a condition, without what index serves it.
func (s Store) where(f Filter) (string, []any) {
	conditions, args := []string{`1 = 1`}, []any{}
	add := func(wanted bool, condition string, values ...any) {
		if wanted {
			conditions, args = append(conditions, condition), append(args, values...)
		}
	}
	add(len(f.Statuses) > 0, `r.status IN (?)`, f.Statuses)
	add(f.Reason != "", `r.reason = ?`, f.Reason)
	add(f.AppID != "" && f.AppID != s.DefaultAppID, `r.appid = ?`, f.AppID)
	add(f.AppID != "" && f.AppID == s.DefaultAppID, `(r.appid = ? OR COALESCE(r.appid, '') = '')`,
		f.AppID)
	add(f.Application != "", `r.application = ?`, f.Application)
	add(f.Template != "", `r.template = ?`, f.Template)
	add(f.Recipient != "", `? IN (r.unionid, r.mini_openid, r.openid, r.sent_openid)`, f.Recipient)
	add(f.DedupKey != "", `r.dedup_key = ?`, f.DedupKey)
	add(f.MsgID != 0, `r.msgid = ?`, f.MsgID)
	add(!f.Since.IsZero(), `r.created_at >= ?`, f.Since.UTC())
	add(!f.Until.IsZero(), `r.created_at <= ?`, f.Until.UTC())
	return strings.Join(conditions, " AND "), args
}

// rare returns the ids of the rows with one of the statuses, the newest first, if they are few.
func (s Store) rare(ctx context.Context, statuses []string) ([]int64, bool, error) {
	if len(statuses) == 0 {
		return nil, false, nil
	}
	// Of the index alone: 60 ms for the most that it reads.
	const query = `
		SELECT id
		  FROM send_request FORCE INDEX (send_request_due)
		 WHERE status IN (?)
		 LIMIT ?`
	ids, err := database.SelectIn[int64](ctx, s.DB, query, statuses, maxRare+1)
	if err != nil {
		return nil, false, fmt.Errorf("searching requests by status: %w", database.Explain(err))
	}
	slices.SortFunc(ids, func(a, b int64) int { return cmp.Compare(b, a) })
	return ids, len(ids) <= maxRare, nil
}

// span returns the ids between which the filter's time lies; the lower is above the upper if there
// are none.
func (s Store) span(ctx context.Context, f Filter) (low, high int64, err error) {
	const query = `SELECT COALESCE(MIN(id), 1), COALESCE(MAX(id), 0) FROM send_request`
	if err := s.DB.QueryRowxContext(ctx, query).Scan(&low, &high); err != nil {
		return 0, 0, fmt.Errorf("searching requests: %w", database.Explain(err))
	}
	if !f.Until.IsZero() {
		high, err = s.newestAt(ctx, f.Until.Add(idSkew), low-1, high)
	}
	if err == nil && !f.Since.IsZero() {
		low, err = s.newestAt(ctx, f.Since.Add(-idSkew), low-1, high)
		low++
	}
	return low, high, err
}

// newestAt returns the last id that had been given out at a moment, between none and high, by
// bisection: there is no index on created_at, which would cost every producer a write.
func (s Store) newestAt(ctx context.Context, moment time.Time, none, high int64) (int64, error) {
	const probe = `
		SELECT id, created_at
		  FROM send_request FORCE INDEX (PRIMARY)
		 WHERE id > ? AND id <= ?
		 ORDER BY id DESC
		 LIMIT 1`
	for none < high {
		var id int64
		var createdAt time.Time
		middle := none + (high-none+1)/2
		err := s.DB.QueryRowxContext(ctx, probe, none, middle).Scan(&id, &createdAt)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			none = middle
		case err != nil:
			return 0, fmt.Errorf("searching requests by time: %w", database.Explain(err))
		case createdAt.After(moment):
			high = id - 1
		default:
			none = middle
		}
	}
	return none, nil
}

// picker reads the rows that match from one part of a table after the other.
type picker struct {
	db    *sqlx.DB
	where string
	args  []any
	found func([]Record) bool
	n     int
}

// Where a picker reads. byID keeps the optimizer from sorting a secondary index where the rows are
// read in the order of their ids.
const (
	live     = `, r.cancel <> 0 AS cancel FROM send_request r`
	byID     = live + ` FORCE INDEX (PRIMARY)`
	archived = `, 1 AS archived FROM send_request_archive r`
)

// read passes on the matching rows of one part, and reports whether more are wanted.
func (p *picker) read(ctx context.Context, from, part string, partArgs ...any) (bool, error) {
	query := `SELECT` + recordColumns + from + ` WHERE ` + p.where + part + ` ORDER BY r.id DESC`
	rows, err := database.SelectIn[Record](ctx, p.db, query, slices.Concat(p.args, partArgs)...)
	if err != nil {
		return false, fmt.Errorf("searching requests: %w", database.Explain(err))
	}
	p.n += len(rows)
	return len(rows) == 0 || p.found(rows), nil
}

// walk searches down the primary key.
func (p *picker) walk(ctx context.Context, low, high, depth int64) (last int64, err error) {
	// The page's end is read first: ids have gaps, and a page is to cost the same everywhere.
	const bounds = `
		SELECT COALESCE(MIN(id), 0), COUNT(*)
		  FROM (SELECT id
		          FROM send_request FORCE INDEX (PRIMARY)
		         WHERE id BETWEEN ? AND ?
		         ORDER BY id DESC
		         LIMIT ?) page`
	left := cmp.Or(depth, math.MaxInt64)
	for limit := int64(initialPage); low <= high; limit = min(2*limit, maxPage) {
		var first, size int64
		row := p.db.QueryRowxContext(ctx, bounds, low, high, min(limit, left))
		if err := row.Scan(&first, &size); err != nil {
			return 0, fmt.Errorf("searching requests: %w", database.Explain(err))
		}
		if size == 0 {
			return 0, nil
		}
		more, err := p.read(ctx, byID, ` AND r.id BETWEEN ? AND ?`, first, high)
		if err != nil || !more {
			return 0, err
		}
		left -= size
		high = first - 1
		if left == 0 && low <= high {
			return first, nil
		}
	}
	return 0, nil
}
