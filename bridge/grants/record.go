package grants

import (
	"cmp"
	"context"
	"database/sql"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// maxRows is how many rows or grants one statement names.
const maxRows = database.MaxRanges

// grantRow is a row of subscription_grant.
type grantRow struct {
	OpenID     string         `db:"openid"`
	TemplateID string         `db:"template_id"`
	Kind       sql.NullString `db:"kind"`
	Remaining  int            `db:"remaining"`
	OffAt      sql.NullTime   `db:"off_at"`
	RefusedAt  sql.NullTime   `db:"refused_at"`
	AcceptedAt sql.NullTime   `db:"accepted_at"`
}

// selectGrants reads grantRows.
const selectGrants = `
		SELECT openid, template_id, kind, remaining, off_at, refused_at, accepted_at
		  FROM subscription_grant
		 WHERE `

func (r grantRow) grant() Grant { return Grant{r.OpenID, r.TemplateID} }

func (r grantRow) total() total {
	return total{Remaining: r.Remaining, OffAt: r.OffAt.Time, RefusedAt: r.RefusedAt.Time}
}

// writer writes into the ledger of an account, in one transaction.
type writer struct {
	*Ledger
	tx    *sqlx.Tx
	appid string
	kinds map[string]string // of templates, by their id, as far as the caller knows them; may be nil
}

// record appends entries and brings the grants that they concern up to date. Entries that the ledger
// has already change nothing. People who have been erased are left out. It may run again.
func (w writer) record(ctx context.Context, entries []entry) error {
	entries, err := w.unerased(ctx, entries)
	if err != nil {
		return err
	}
	slices.SortFunc(entries, func(a, b entry) int {
		return cmp.Or(a.grant().compare(b.grant()), cmp.Compare(a.Key, b.Key))
	})
	var concerned []entry
	fresh := true
	for part := range slices.Chunk(entries, maxRows) {
		n, err := w.insert(ctx, part)
		if err != nil {
			return err
		}
		if n > 0 {
			concerned = append(concerned, part...)
		}
		fresh = fresh && n == int64(len(part))
	}
	// All of grant_event is written before the first grant is locked.
	for part := range slices.Chunk(w.concerns(concerned, fresh), maxRows) {
		if err := w.settle(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// unerased returns the entries of people who have not been erased.
func (w writer) unerased(ctx context.Context, entries []entry) ([]entry, error) {
	openids := make([]string, len(entries))
	for i, e := range entries {
		openids[i] = e.OpenID
	}
	erased, err := w.erased.Find(ctx, w.tx, w.appid, openids)
	if err != nil || len(erased) == 0 {
		return slices.Clone(entries), err
	}
	return slices.DeleteFunc(slices.Clone(entries), func(e entry) bool {
		return erased[e.OpenID]
	}), nil
}

// insert returns how many of the entries the ledger did not have.
func (w writer) insert(ctx context.Context, entries []entry) (int64, error) {
	args := make([]any, 0, len(entries)*10)
	rows := make([]string, len(entries))
	// A message has the database's own time. To bound that, too, would cost a third of the entry.
	const message = `(?, ?, ?, ?, ?, ?, ?, ?, CURRENT_TIMESTAMP(3))`
	const row = `(?, ?, ?, ?, ?, ?, ?, LEAST(?, CURRENT_TIMESTAMP(3) + INTERVAL ? SECOND),
		              COALESCE(?, CURRENT_TIMESTAMP(3)))`
	for i, e := range entries {
		args = append(args, w.appid, e.OpenID, e.TemplateID, e.Key, e.Kind, e.Source, e.RequestID,
			database.Storable(e.HappenedAt))
		if rows[i] = message; e.Kind != kindSent {
			rows[i] = row
			args = append(args, int64(maxAhead/time.Second), database.Null(e.ArrivedAt))
		}
	}
	// A repetition is no error, and the only one there can be: the values fit their columns.
	res, err := w.tx.ExecContext(ctx, `
		INSERT IGNORE INTO grant_event (appid, openid, template_id, event_key, kind, source,
		                                request_id, happened_at, arrived_at)
		VALUES `+strings.Join(rows, `, `), args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// update computes grants from the ledger and writes those that have changed.
func (w writer) update(ctx context.Context, part []concern) error {
	concerned := make([]Grant, len(part))
	for i, c := range part {
		concerned[i] = c.Grant
	}
	rows, err := w.lock(ctx, concerned)
	if err != nil {
		return err
	}
	// Read after the lock: whoever commits an entry now waits for it, and computes again.
	entries, err := entriesOf(ctx, w.tx, w.appid, concerned)
	if err != nil {
		return err
	}
	var changed []grantRow
	for _, old := range rows {
		next := old
		if kind := cmp.Or(w.kinds[old.TemplateID], w.kind(old.TemplateID)); kind != "" {
			next.Kind = sql.NullString{String: kind, Valid: true}
		}
		t := tally(entries[old.grant()], next.Kind.String == kindLongTerm)
		next.Remaining, next.OffAt, next.RefusedAt = t.Remaining, moment(t.OffAt), moment(t.RefusedAt)
		next.AcceptedAt = moment(newest(entries[old.grant()]))
		if next.Kind != old.Kind || next.total() != old.total() || next.AcceptedAt != old.AcceptedAt {
			changed = append(changed, next)
		}
	}
	return w.write(ctx, changed)
}

func (w writer) kind(templateID string) string {
	longTerm, known := w.cfg.LongTerm(w.appid, templateID)
	return kindOf(longTerm, known)
}

func kindOf(longTerm, known bool) string {
	switch {
	case !known:
		return ""
	case longTerm:
		return kindLongTerm
	}
	return kindOneTime
}

func moment(t time.Time) sql.NullTime { return sql.NullTime{Time: t, Valid: !t.IsZero()} }

// lock returns the rows of grants, locked in the order of the primary key. It makes those that are
// not there.
func (w writer) lock(ctx context.Context, wanted []Grant) ([]grantRow, error) {
	rows, err := lockGrants(ctx, w.tx, w.appid, wanted)
	if err != nil || len(rows) == len(wanted) {
		return rows, err
	}
	found := make(map[Grant]bool, len(rows))
	for _, r := range rows {
		found[r.grant()] = true
	}
	var args []any
	for _, g := range wanted {
		if !found[g] {
			args = append(args, w.appid, g.OpenID, g.TemplateID)
		}
	}
	_, err = w.tx.ExecContext(ctx, `
		INSERT IGNORE INTO subscription_grant (appid, openid, template_id)
		VALUES `+list(`(?, ?, ?)`, len(args)/3), args...)
	if err != nil {
		return nil, err
	}
	return lockGrants(ctx, w.tx, w.appid, wanted)
}

func lockGrants(
	ctx context.Context, tx *sqlx.Tx, appid string, wanted []Grant,
) (rows []grantRow, err error) {
	where, args := anyOf(appid, wanted)
	err = tx.SelectContext(ctx, &rows, selectGrants+where+` FOR UPDATE`, args...)
	return rows, err
}

// readGrants returns the rows of grants.
func readGrants(
	ctx context.Context, db sqlx.QueryerContext, appid string, wanted []Grant,
) (rows []grantRow, err error) {
	for part := range slices.Chunk(wanted, maxRows) {
		var some []grantRow
		where, args := anyOf(appid, part)
		if err := sqlx.SelectContext(ctx, db, &some, selectGrants+where, args...); err != nil {
			return nil, err
		}
		rows = append(rows, some...)
	}
	return rows, nil
}

// entriesOf reads the ledger of grants.
func entriesOf(
	ctx context.Context, db sqlx.QueryerContext, appid string, of []Grant,
) (map[Grant][]entry, error) {
	byGrant := make(map[Grant][]entry, len(of))
	for part := range slices.Chunk(of, maxRows) {
		where, args := anyOf(appid, part)
		var entries []entry
		err := sqlx.SelectContext(ctx, db, &entries, `
			SELECT openid, template_id, event_key, kind, source, request_id, happened_at, arrived_at
			  FROM grant_event
			 WHERE `+where, args...)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			byGrant[e.grant()] = append(byGrant[e.grant()], e)
		}
	}
	return byGrant, nil
}

func (w writer) write(ctx context.Context, rows []grantRow) error {
	if len(rows) == 0 {
		return nil
	}
	args := make([]any, 0, len(rows)*8)
	for _, r := range rows {
		args = append(args, w.appid, r.OpenID, r.TemplateID, r.Kind, r.Remaining, r.OffAt, r.RefusedAt,
			r.AcceptedAt)
	}
	_, err := w.tx.ExecContext(ctx, `
		INSERT INTO subscription_grant (appid, openid, template_id, kind, remaining, off_at,
		                                refused_at, accepted_at)
		VALUES `+list(`(?, ?, ?, ?, ?, ?, ?, ?)`, len(rows))+`
		ON DUPLICATE KEY UPDATE
		    kind = VALUES(kind), remaining = VALUES(remaining), off_at = VALUES(off_at),
		    refused_at = VALUES(refused_at), accepted_at = VALUES(accepted_at),
		    updated_at = CURRENT_TIMESTAMP(3)`, args...)
	return err
}

// anyOf is the condition for the rows of grants, by template. Each pair is a whole prefix of the
// primary key, and servers read one range for each. MariaDB does not for (openid, template_id) IN (…),
// and takes three times as long to plan 200 pairs with OR.
func anyOf(appid string, wanted []Grant) (where string, args []any) {
	byTemplate := make(map[string][]any)
	for _, g := range wanted {
		byTemplate[g.TemplateID] = append(byTemplate[g.TemplateID], g.OpenID)
	}
	args = append(args, appid)
	var pairs []string
	for _, template := range slices.Sorted(maps.Keys(byTemplate)) {
		openids := byTemplate[template]
		pairs = append(pairs, `template_id = ? AND openid IN (`+list(`?`, len(openids))+`)`)
		args = append(append(args, template), openids...)
	}
	return `appid = ? AND (` + strings.Join(pairs, ` OR `) + `)`, args
}

// list repeats a row of a VALUES list.
func list(row string, n int) string { return row + strings.Repeat(`, `+row, n-1) }
