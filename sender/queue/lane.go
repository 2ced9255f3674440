package queue

import (
	"cmp"
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
	Template string         `db:"template"` // without trailing spaces, which SQL does not compare
	Due      bool           `db:"due"`      // its first row is due
}

// key is a lane whatever its rows.
func (l Lane) key() Lane {
	l.Due = false
	return l
}

// Account is the lane's official account; "": the default one. A producer may have written an empty
// text, or blanks behind an appid, which SQL does not tell apart.
func (l Lane) Account() string { return strings.TrimRight(l.AppID.String, " ") }

// Compare orders lanes: the most urgent first.
func (l Lane) Compare(m Lane) int {
	return cmp.Or(
		strings.Compare(string(l.Status), string(m.Status)), l.Priority-m.Priority,
		strings.Compare(l.AppID.String, m.AppID.String), strings.Compare(l.Template, m.Template))
}

// Share is what one claim may take of a lane.
type Share struct {
	Lane
	Quantum int // rows
}

// Lanes are some that differ in their templates alone.
type Lanes struct {
	Status    Status
	AppID     sql.NullString
	Priority  int
	Templates []string
}

// Group puts lanes together that differ in their templates alone, at most PageSize of them.
func Group(lanes []Lane) (groups []Lanes) {
	type place struct {
		Status
		appid    sql.NullString
		priority int
	}
	open := map[place]int{}
	for _, l := range lanes {
		at := place{l.Status, l.AppID, l.Priority}
		i, ok := open[at]
		if !ok || len(groups[i].Templates) == PageSize {
			groups, i = append(groups, Lanes{l.Status, l.AppID, l.Priority, nil}), len(groups)
			open[at] = i
		}
		groups[i].Templates = append(groups[i].Templates, l.Template)
	}
	return groups
}

// maxDives is the most branches of one query. TiDB takes a second to plan 500 of them.
const maxDives = 300

// dives is a query for entries of send_request_due, each branch of which goes to one place of the
// index and reads a few entries from there. GROUP BY says the same, and reads all entries of a
// status where the statistics are older than the rows, and on servers that cannot skip in an index
// (TiDB). OR says the same too, and MariaDB 10.11 then reads all entries of an account, or of the
// whole status, at some lanes.
type dives []dive

type dive struct {
	where, order string
	limit        int
	args         []any
}

// depth is how much two neighbours in the index have in common.
type depth int

const (
	sameStatus depth = iota
	sameAccount
	samePriority
)

// head is the first entry of a lane.
func head(l Lane) dive {
	const where = ` AND appid <=> ? AND priority = ? AND template = ?`
	return dive{where, "due_at", 1, []any{l.Status, l.AppID, l.Priority, l.Template}}
}

// first are the first entries of a status.
func first(s Status, limit int) dive {
	return dive{"", "appid, priority, template, due_at", limit, []any{s}}
}

// behind are the first entries behind a lane that have so much in common with it.
func behind(l Lane, d depth, limit int) dive {
	// ORDER BY names no column that the branch fixes: NULL is no constant to MariaDB there, and it
	// would sort. Rows without appid come first.
	switch {
	case d == samePriority:
		return dive{` AND appid <=> ? AND priority = ? AND template > ?`, "template, due_at", limit,
			[]any{l.Status, l.AppID, l.Priority, l.Template}}
	case d == sameAccount:
		return dive{` AND appid <=> ? AND priority > ?`, "priority, template, due_at", limit,
			[]any{l.Status, l.AppID, l.Priority}}
	case l.AppID.Valid:
		return dive{` AND appid > ?`, "appid, priority, template, due_at", limit,
			[]any{l.Status, l.AppID}}
	}
	return dive{` AND appid IS NOT NULL`, "appid, priority, template, due_at", limit, []any{l.Status}}
}

// lanes returns, for each of the dives, the lanes of the entries that it finds, in the order of the
// index.
func (d dives) lanes(ctx context.Context, q *Queue) ([][]Lane, error) {
	const branch = `(
		    SELECT ? AS dive, status, appid, priority, template, due_at <= CURRENT_TIMESTAMP(3) AS due
		      FROM send_request FORCE INDEX (send_request_due)
		     WHERE status = ?`
	type entry struct {
		Dive int `db:"dive"`
		Lane
	}
	lanes := make([][]Lane, len(d))
	for begin := 0; begin < len(d); begin += maxDives {
		var branches []string
		var args []any
		for i, b := range d[begin:min(begin+maxDives, len(d))] {
			branches = append(branches, branch+b.where+` ORDER BY `+b.order+` LIMIT ?)`)
			args = append(append(append(args, begin+i), b.args...), b.limit)
		}
		query := strings.Join(branches, " UNION ALL ")
		entries, err := find[entry](ctx, q, lookup{"looking for open requests", query}, args...)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			lanes[e.Dive] = appendEntry(lanes[e.Dive], e.Lane)
		}
	}
	return lanes, nil
}

// appendEntry adds the lane of an entry unless it is that of the entry before, which came first.
func appendEntry(lanes []Lane, l Lane) []Lane {
	l.AppID.String, l.Template = l.Account(), strings.TrimRight(l.Template, " ")
	if n := len(lanes); n > 0 && lanes[n-1].key() == l.key() {
		return lanes
	}
	return append(lanes, l)
}

// NextLane returns the lane of a status behind the lane at, in the order of the index; of nil, the
// first. It returns nil after the last.
func (q *Queue) NextLane(ctx context.Context, of Status, at *Lane) (*Lane, error) {
	d := dives{first(of, 1)}
	if at != nil {
		d = dives{behind(*at, samePriority, 1), behind(*at, sameAccount, 1), behind(*at, sameStatus, 1)}
	}
	found, err := d.lanes(ctx, q)
	if err != nil {
		return nil, err
	}
	for _, lanes := range found {
		if len(lanes) > 0 {
			return &lanes[0], nil
		}
	}
	return nil, nil
}
