package grants

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// foldAge is how old an entry must be before it may be deleted. Until then a repeated push or report
// is found by its key, and counts once.
const foldAge = 180 * 24 * time.Hour

// foldPage is how many grants are folded at once.
const foldPage = maxRows

// reportAge is how old a report is that nobody takes: of an account that no instance has, or whose
// reports are not counted.
const reportAge = 7 * 24 * time.Hour

// Pace runs one piece of work at a time, and waits between them.
type Pace = func(ctx context.Context, piece func() error) error

// Purge deletes old entries of the ledger that no number depends on any more, and reports that
// nobody takes. A grant whose entries would come to another number without them keeps them.
func (l *Ledger) Purge(ctx context.Context, pace Pace) error {
	if err := l.purgeReports(ctx, pace); err != nil {
		return fmt.Errorf("deleting reports that nobody takes: %w", err)
	}
	appids, err := l.appIDs(ctx)
	for _, appid := range appids {
		for after := (Grant{}); err == nil; {
			var page []Grant
			err = pace(ctx, func() (err error) {
				page, err = l.foldFrom(ctx, appid, after)
				return err
			})
			if len(page) < foldPage {
				break
			}
			after = page[len(page)-1]
		}
		if err != nil {
			return fmt.Errorf("folding the ledger of %s: %w", appid, err)
		}
	}
	return err
}

// appIDs returns whom the ledger has entries of.
func (l *Ledger) appIDs(ctx context.Context) (appids []string, err error) {
	// A loose scan of the primary key: one dive an account.
	const query = `SELECT appid FROM grant_event GROUP BY appid ORDER BY appid`
	if err := l.cfg.DB.SelectContext(ctx, &appids, query); err != nil {
		return nil, fmt.Errorf("reading whose ledger there is: %w", database.Explain(err))
	}
	return appids, nil
}

// foldFrom folds the next grants after one that have old entries, and returns them.
func (l *Ledger) foldFrom(ctx context.Context, appid string, after Grant) ([]Grant, error) {
	// Two branches, so that each is one range of the primary key.
	const old = ` GROUP BY openid, template_id
		HAVING MIN(happened_at) < CURRENT_TIMESTAMP(3) - INTERVAL ? SECOND
		 ORDER BY openid, template_id LIMIT ?)`
	const query = `
		(SELECT openid, template_id FROM grant_event
		  WHERE appid = ? AND openid = ? AND template_id > ?` + old + `
		UNION ALL
		(SELECT openid, template_id FROM grant_event
		  WHERE appid = ? AND openid > ?` + old + `
		ORDER BY openid, template_id LIMIT ?`
	age := int64(foldAge / time.Second)
	var rows []grantRow
	err := l.cfg.DB.SelectContext(ctx, &rows, query, appid, after.OpenID, after.TemplateID, age,
		foldPage, appid, after.OpenID, age, foldPage, foldPage)
	if err != nil || len(rows) == 0 {
		return nil, err
	}
	page := make([]Grant, len(rows))
	for i, r := range rows {
		page[i] = r.grant()
	}
	return page, database.InTx(ctx, l.cfg.DB, func(ctx context.Context, tx *sqlx.Tx) error {
		return fold(ctx, tx, appid, page)
	})
}

// fold deletes what can be deleted of some grants' entries. Of a template whose type is not known
// yet everything stays: whether messages use acceptances up is not known either.
func fold(ctx context.Context, tx *sqlx.Tx, appid string, page []Grant) error {
	var now time.Time
	if err := tx.GetContext(ctx, &now, `SELECT CURRENT_TIMESTAMP(3)`); err != nil {
		return err
	}
	entries, err := entriesOf(ctx, tx, appid, page)
	if err != nil {
		return err
	}
	rows, err := readGrants(ctx, tx, appid, page)
	if err != nil {
		return err
	}
	for _, row := range rows {
		if !row.Kind.Valid {
			continue
		}
		gone := superfluous(entries[row.grant()], row.Kind.String == kindLongTerm, now.Add(-foldAge))
		for part := range slices.Chunk(gone, maxRows) {
			const query = `
				DELETE FROM grant_event
				 WHERE appid = ? AND openid = ? AND template_id = ? AND event_key IN (?)`
			_, err := database.ExecIn(ctx, tx, query, appid, row.OpenID, row.TemplateID, part)
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// superfluous returns the keys of a grant's entries before a moment without which it comes to the
// same, whatever is added that happened after it: acceptances with the messages that used them, and
// what a later zero has made void. Entries that are too near to that moment keep all others, until
// it has moved on.
func superfluous(entries []entry, longTerm bool, before time.Time) (gone []string) {
	// Beyond twice the pairing nothing old has to do with anything new.
	cut := before.Add(-2 * pairing)
	var old, rest []entry
	for _, e := range entries {
		switch {
		case e.HappenedAt.Before(cut) && e.ArrivedAt.Before(before):
			old = append(old, e)
		case e.HappenedAt.Before(before):
			return nil
		default:
			rest = append(rest, e)
		}
	}
	t := tally(entries, longTerm)
	stays := t.leaves(old, longTerm)
	for _, e := range old {
		switch {
		case stays[e.Key],
			e.Kind == kindOff && e.HappenedAt.Equal(t.OffAt),
			e.Kind == kindRefused && e.HappenedAt.Equal(t.RefusedAt):
			rest = append(rest, e)
		default:
			gone = append(gone, e.Key)
		}
	}
	if tally(rest, longTerm) != t {
		return nil
	}
	return gone
}

// leaves returns the keys of the newest acceptances that stand for all of the entries: as many as
// are left of them. An event stays with the report of the same acceptance: alone it could be taken
// for the other half of another one.
func (t total) leaves(entries []entry, longTerm bool) map[string]bool {
	left, accepts := t.oneTime(entries), paired(entries)
	if longTerm {
		left, accepts = t.longTerm(entries), entries
	}
	accepts = slices.DeleteFunc(slices.Clone(accepts), func(e entry) bool {
		return e.Kind != kindAccept && (e.Kind != kindOn || !longTerm) || !t.counts(e)
	})
	slices.SortFunc(accepts, func(a, b entry) int {
		return cmp.Or(b.HappenedAt.Compare(a.HappenedAt), cmp.Compare(a.Key, b.Key))
	})
	stays := make(map[string]bool, left)
	for _, e := range accepts[:min(left, len(accepts))] {
		stays[e.Key] = true
		if e.twin != "" {
			stays[e.twin] = true
		}
	}
	return stays
}

// purgeReports deletes old reports that nobody takes, from the oldest. It looks no further than the
// first page that has a younger one.
func (l *Ledger) purgeReports(ctx context.Context, pace Pace) error {
	const oldest = `
		SELECT id
		  FROM (SELECT id, created_at FROM subscription_report ORDER BY id LIMIT ?) page
		 WHERE created_at < CURRENT_TIMESTAMP(3) - INTERVAL ? SECOND`
	const query = `DELETE FROM subscription_report WHERE id IN (?)`
	for more := true; more; {
		err := pace(ctx, func() error {
			var ids []int64
			err := l.cfg.DB.SelectContext(ctx, &ids, oldest, maxRows, int64(reportAge/time.Second))
			if more = len(ids) == maxRows; err != nil || len(ids) == 0 {
				return err
			}
			return database.Retry(ctx, func(ctx context.Context) error {
				_, err := database.ExecIn(ctx, l.cfg.DB, query, ids)
				return err
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}
