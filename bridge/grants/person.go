package grants

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// Standing is what a person allows of one template.
type Standing struct {
	TemplateID string
	Kind       string    // one_time, long_term; "": not known
	Remaining  int       // of a long-term template 1 or 0
	Available  int       // less what is under way or in doubt; Unlimited where messages use nothing up
	OffAt      time.Time // last switched off; zero: never
	RefusedAt  time.Time // WeChat last refused a message with 43101; zero: never
	UpdatedAt  time.Time
}

// Lookup returns what a person allows a mini program, in the order of the templates.
func (l *Ledger) Lookup(ctx context.Context, appid, openid string) ([]Standing, error) {
	var rows []struct {
		grantRow
		UpdatedAt time.Time `db:"updated_at"`
	}
	err := l.cfg.DB.SelectContext(ctx, &rows, `
		SELECT openid, template_id, kind, remaining, off_at, refused_at, updated_at
		  FROM subscription_grant
		 WHERE appid = ? AND openid = ?
		 ORDER BY template_id`, appid, openid)
	grants := make([]Grant, len(rows))
	for i, r := range rows {
		grants[i] = r.grant()
	}
	var counts map[Grant]int
	if err == nil {
		counts, err = available(ctx, l.cfg.DB, appid, grants)
	}
	if err != nil {
		return nil, fmt.Errorf("reading what %s allows: %w", openid, database.Explain(err))
	}
	found := make([]Standing, len(rows))
	for i, r := range rows {
		found[i] = Standing{TemplateID: r.TemplateID, Kind: r.Kind.String, Remaining: r.Remaining,
			Available: counts[r.grant()], OffAt: r.OffAt.Time, RefusedAt: r.RefusedAt.Time,
			UpdatedAt: r.UpdatedAt}
	}
	return found, nil
}

// Forget erases what the ledger knows of a person, in tx. The caller has remembered the erasure, so
// that what is on its way does not bring them back. Attempts stay: they go with what is known of their
// requests, which would be sent again without them.
func Forget(ctx context.Context, tx *sqlx.Tx, appid, openid string) error {
	for _, table := range []string{
		"subscription_report", "grant_event", "subscription_grant", "withdrawn_permission",
	} {
		query := `DELETE FROM ` + table + ` WHERE appid = ? AND openid = ?`
		if _, err := tx.ExecContext(ctx, query, appid, openid); err != nil {
			return fmt.Errorf("erasing a person's %s: %w", table, database.Explain(err))
		}
	}
	return nil
}

// Difference is a grant that is not what its ledger comes to.
type Difference struct {
	AppID, OpenID, TemplateID string
	Remaining                 sql.NullInt64 // in subscription_grant; NULL: there is no row
	Ledger                    int
}

// checkPage is how many grants Check reads at once.
const checkPage = 500

// Check compares each grant of an account with its ledger. It calls each for what differs, and
// returns how many grants it has looked at. It changes nothing; the daemon may run meanwhile.
func Check(
	ctx context.Context, db *sqlx.DB, appid string, each func(Difference) error,
) (checked int, err error) {
	for after := (Grant{}); ; {
		page, last, err := checkFrom(ctx, db, appid, after)
		if err != nil {
			return checked, fmt.Errorf("checking grants: %w", database.Explain(err))
		}
		for _, d := range page.differences {
			if err := each(d); err != nil {
				return checked, err
			}
		}
		checked += page.grants
		if page.grants < checkPage {
			return checked, nil
		}
		after = last
	}
}

type checked struct {
	grants      int
	differences []Difference
}

// checkFrom looks at the grants after one, in a snapshot: a message that is settled meanwhile must
// not look like a difference.
func checkFrom(
	ctx context.Context, db *sqlx.DB, appid string, after Grant,
) (page checked, last Grant, err error) {
	tx, err := db.BeginTxx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	if err != nil {
		return page, last, err
	}
	defer func() { _ = tx.Rollback() }() // it has only read
	// Two branches each, so that a page is one range of the primary key.
	const from = `
		(SELECT %[1]s openid, template_id FROM %[2]s
		  WHERE appid = ? AND openid = ? AND template_id > ? ORDER BY template_id LIMIT ?)
		UNION
		(SELECT %[1]s openid, template_id FROM %[2]s
		  WHERE appid = ? AND openid > ? ORDER BY openid, template_id LIMIT ?)`
	args := []any{appid, after.OpenID, after.TemplateID, checkPage, appid, after.OpenID, checkPage}
	query := fmt.Sprintf(from, "", "subscription_grant") + ` UNION ` +
		fmt.Sprintf(from, "DISTINCT", "grant_event") + ` ORDER BY openid, template_id LIMIT ?`
	var found []grantRow
	args = append(append(args, args...), checkPage)
	if err := tx.SelectContext(ctx, &found, query, args...); err != nil || len(found) == 0 {
		return page, last, err
	}
	grants := make([]Grant, len(found))
	for i, r := range found {
		grants[i] = r.grant()
	}
	page.grants, last = len(grants), grants[len(grants)-1]
	page.differences, err = differences(ctx, tx, appid, grants)
	return page, last, err
}

func differences(
	ctx context.Context, tx *sqlx.Tx, appid string, grants []Grant,
) (found []Difference, err error) {
	entries, err := entriesOf(ctx, tx, appid, grants)
	if err != nil {
		return nil, err
	}
	rows, err := readGrants(ctx, tx, appid, grants)
	byGrant := make(map[Grant]grantRow, len(rows))
	for _, r := range rows {
		byGrant[r.grant()] = r
	}
	for _, g := range grants {
		row, ok := byGrant[g]
		want := tally(entries[g], row.Kind.String == kindLongTerm)
		if ok && row.total() == want {
			continue
		}
		found = append(found, Difference{AppID: appid, OpenID: g.OpenID, TemplateID: g.TemplateID,
			Remaining: sql.NullInt64{Int64: int64(row.Remaining), Valid: ok}, Ledger: want.Remaining})
	}
	return found, err
}
