package requests

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
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
	Statuses  []string
	Reason    string
	AppID     string
	Template  string
	Recipient string // unionid, mini_openid, openid or sent_openid
	DedupKey  string
	MsgID     int64
	Since     time.Time // of created_at
	Until     time.Time
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
	err := s.search(ctx, f, &l, func(found []Record) bool {
		l.Records = append(l.Records, found...)
		return len(l.Records) <= limit
	})
	if len(l.Records) > limit {
		l.Records, l.More = l.Records[:limit], true
	}
	return l, err
}

// Count counts the requests that match. cut: the filter's Depth ended the search.
func (s Store) Count(ctx context.Context, f Filter) (n int64, cut bool, err error) {
	var l Listing
	err = s.search(ctx, f, &l, func(found []Record) bool {
		n += int64(len(found))
		return true
	})
	return n, l.Cut, err
}

// search hands the requests that match to found, in pages, until that says no.
func (s Store) search(ctx context.Context, f Filter, l *Listing, found func([]Record) bool) error {
	where, args := s.where(f)
	pick := picker{store: s, where: where, args: args, found: found}
	if f.DedupKey != "" || f.MsgID != 0 {
		_, err := pick.read(ctx, "send_request r", "")
		if err == nil && pick.n == 0 {
			_, err = pick.archived(ctx)
		}
		return err
	}
	low, high, err := s.span(ctx, f)
	if err != nil || high < low {
		return err
	}
	if ids, ok, err := s.rare(ctx, f.Statuses); err != nil || ok {
		for chunk := range slices.Chunk(ids, 1000) {
			chunk = slices.DeleteFunc(chunk, func(id int64) bool { return id < low || id > high })
			if len(chunk) == 0 {
				continue
			}
			if more, err := pick.read(ctx, primary, ` AND r.id IN (?)`, chunk); err != nil || !more {
				return err
			}
		}
		return err
	}
	return s.walk(ctx, walk{pick: &pick, low: low, high: high, depth: f.Depth, listing: l})
}

// primary keeps the optimizer from sorting a secondary index where the rows are read in the order
// of their ids.
const primary = "send_request r FORCE INDEX (PRIMARY)"

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
	add(f.AppID != "" && f.AppID == s.DefaultAppID, `(r.appid = ? OR r.appid IS NULL)`, f.AppID)
	add(f.Template != "", `r.template = ?`, f.Template)
	add(f.Recipient != "", `? IN (r.unionid, r.mini_openid, r.openid, r.sent_openid)`, f.Recipient)
	add(f.DedupKey != "", `r.dedup_key = ?`, f.DedupKey)
	add(f.MsgID != 0, `r.msgid = ?`, f.MsgID)
	add(!f.Since.IsZero(), `r.created_at >= ?`, f.Since.UTC())
	add(!f.Until.IsZero(), `r.created_at <= ?`, f.Until.UTC())
	return strings.Join(conditions, " AND "), args
}

// picker reads the rows that match from one part of the table after the other.
type picker struct {
	store Store
	where string
	args  []any
	found func([]Record) bool
	n     int
}

// read passes on the matching rows of one part, and reports whether more are wanted.
func (p *picker) read(ctx context.Context, table, part string, partArgs ...any) (bool, error) {
	query := `SELECT` + recordColumns + `, r.cancel <> 0 AS cancel FROM ` + table
	return p.fetch(ctx, query+` WHERE `+p.where+part, partArgs)
}

func (p *picker) archived(ctx context.Context) (bool, error) {
	query := `SELECT` + recordColumns + `, 1 AS archived FROM send_request_archive r WHERE ` + p.where
	return p.fetch(ctx, query, nil)
}

func (p *picker) fetch(ctx context.Context, query string, partArgs []any) (bool, error) {
	query, args, err := sqlx.In(query+` ORDER BY r.id DESC`, slices.Concat(p.args, partArgs)...)
	if err != nil {
		return false, err
	}
	var rows []Record
	if err := p.store.DB.SelectContext(ctx, &rows, query, args...); err != nil {
		return false, fmt.Errorf("searching requests: %w", database.Explain(err))
	}
	p.n += len(rows)
	return len(rows) == 0 || p.found(rows), nil
}

// rare returns the ids of the rows with one of the statuses, the newest first, if they are few.
func (s Store) rare(ctx context.Context, statuses []string) ([]int64, bool, error) {
	if len(statuses) == 0 {
		return nil, false, nil
	}
	// Of the index alone: 60 ms for the most that it reads.
	query, args, err := sqlx.In(`
		SELECT id
		  FROM send_request FORCE INDEX (send_request_due)
		 WHERE status IN (?)
		 LIMIT ?`, statuses, maxRare+1)
	if err != nil {
		return nil, false, err
	}
	var ids []int64
	if err := s.DB.SelectContext(ctx, &ids, query, args...); err != nil {
		return nil, false, fmt.Errorf("searching requests by status: %w", database.Explain(err))
	}
	slices.SortFunc(ids, func(a, b int64) int { return cmp.Compare(b, a) })
	return ids, len(ids) <= maxRare, nil
}

// span returns the ids between which the filter's time lies; the lower is above the upper if there
// are none.
func (s Store) span(ctx context.Context, f Filter) (low, high int64, err error) {
	const query = `SELECT MIN(id) AS low, MAX(id) AS high FROM send_request`
	var ends struct {
		Low  sql.NullInt64 `db:"low"`
		High sql.NullInt64 `db:"high"`
	}
	if err := s.DB.GetContext(ctx, &ends, query); err != nil {
		return 0, 0, fmt.Errorf("searching requests: %w", database.Explain(err))
	}
	if !ends.High.Valid {
		return 1, 0, nil
	}
	low, high = ends.Low.Int64, ends.High.Int64
	if !f.Until.IsZero() {
		if high, err = s.newestAt(ctx, f.Until.Add(idSkew), low-1, high); err != nil {
			return 0, 0, err
		}
	}
	if !f.Since.IsZero() {
		var before int64
		before, err = s.newestAt(ctx, f.Since.Add(-idSkew), low-1, high)
		low = before + 1
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
		var row struct {
			ID        int64     `db:"id"`
			CreatedAt time.Time `db:"created_at"`
		}
		middle := none + (high-none+1)/2
		err := s.DB.GetContext(ctx, &row, probe, none, middle)
		switch {
		case errors.Is(err, sql.ErrNoRows):
			none = middle
		case err != nil:
			return 0, fmt.Errorf("searching requests by time: %w", database.Explain(err))
		case row.CreatedAt.After(moment):
			high = row.ID - 1
		default:
			none = middle
		}
	}
	return none, nil
}

// walk is a search down the primary key.
type walk struct {
	pick      *picker
	low, high int64
	depth     int64
	listing   *Listing
}

func (s Store) walk(ctx context.Context, w walk) error {
	// The page's end is read first: ids have gaps, and a page is to cost the same everywhere.
	const bounds = `
		SELECT COALESCE(MIN(id), 0) AS low, COUNT(*) AS size
		  FROM (SELECT id
		          FROM send_request FORCE INDEX (PRIMARY)
		         WHERE id BETWEEN ? AND ?
		         ORDER BY id DESC
		         LIMIT ?) page`
	limit := int64(initialPage)
	for read := int64(0); w.low <= w.high; limit = min(2*limit, maxPage) {
		var page struct {
			Low  int64 `db:"low"`
			Size int64 `db:"size"`
		}
		size := limit
		if w.depth > 0 {
			size = min(size, w.depth-read)
		}
		if err := s.DB.GetContext(ctx, &page, bounds, w.low, w.high, size); err != nil {
			return fmt.Errorf("searching requests: %w", database.Explain(err))
		}
		if page.Size == 0 {
			return nil
		}
		more, err := w.pick.read(ctx, primary, ` AND r.id BETWEEN ? AND ?`, page.Low, w.high)
		if err != nil || !more {
			return err
		}
		read += page.Size
		w.high = page.Low - 1
		if w.depth > 0 && read >= w.depth && w.low <= w.high {
			w.listing.Cut, w.listing.Last = true, page.Low
			return nil
		}
	}
	return nil
}
