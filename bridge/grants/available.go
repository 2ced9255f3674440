package grants

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// Available returns how many messages each person still allows of a template, less those that are
// under way or in doubt; same length and order. An attempt older than a switch-off or a refusal
// holds nothing of what was accepted since.
func (l *Ledger) Available(ctx context.Context, appid string, asked []Grant) ([]int, error) {
	counted, err := available(ctx, l.cfg.DB, appid, asked)
	if err != nil {
		return nil, fmt.Errorf("reading what people allow: %w", database.Explain(err))
	}
	counts := make([]int, len(asked))
	for i, g := range asked {
		counts[i] = counted[g]
	}
	return counts, nil
}

// available reads each grant with its attempts in one statement: a message that is settled between two
// would count in neither.
func available(
	ctx context.Context, db sqlx.QueryerContext, appid string, asked []Grant,
) (map[Grant]int, error) {
	const columns = `openid, template_id, kind, remaining, off_at, refused_at`
	counts, held := make(map[Grant]int, len(asked)), make(map[Grant]int)
	for part := range slices.Chunk(asked, maxRows) {
		var rows []struct {
			grantRow
			BegunAt sql.NullTime `db:"begun_at"` // of an open attempt
		}
		where, args := anyOf(appid, part)
		err := sqlx.SelectContext(ctx, db, &rows, `
			SELECT g.openid, g.template_id, g.kind, g.remaining, g.off_at, g.refused_at, a.begun_at
			  FROM (SELECT appid, `+columns+` FROM subscription_grant WHERE `+where+`) g
			  LEFT JOIN send_attempt a FORCE INDEX (send_attempt_grant)
			    ON a.appid = g.appid AND a.openid = g.openid AND a.template_id = g.template_id`, args...)
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			g := r.grant()
			if r.BegunAt.Valid && r.holds(r.BegunAt.Time) {
				held[g]++
			}
			counts[g] = r.available(held[g])
		}
	}
	return counts, nil
}

// holds reports whether an open attempt that began at a moment holds something of the grant: it is
// younger than a switch-off and a refusal.
func (r grantRow) holds(begun time.Time) bool {
	return (!r.RefusedAt.Valid || begun.After(r.RefusedAt.Time)) &&
		(!r.OffAt.Valid || begun.After(r.OffAt.Time.Add(doubt)))
}

func (r grantRow) available(held int) int {
	if r.Kind.String == kindLongTerm && r.Remaining > 0 {
		return Unlimited
	}
	return max(0, r.Remaining-held)
}

// Attempt is a message that is about to be posted.
type Attempt struct {
	Grant
	RequestID int64
	Lease     string // the token of the request's claim
}

// Reserve writes attempts down, in a transaction that has to be committed before the first of them
// is posted, and reports of each whether it may be. It may not where the person allows no more,
// counting those that stand before it in the list. An account of which nothing is counted may post
// all. The caller holds the requests' rows, and ends what it has written: Settle uses it up.
func (l *Ledger) Reserve(
	ctx context.Context, tx *sqlx.Tx, appid string, attempts []Attempt,
) ([]bool, error) {
	may, err := l.allowed(ctx, tx, appid, attempts)
	if err != nil {
		return nil, fmt.Errorf("reserving what people allow: %w", database.Explain(err))
	}
	var args []any
	for i, a := range attempts {
		if may[i] {
			args = append(args, a.RequestID, appid, a.OpenID, a.TemplateID, a.Lease)
		}
	}
	if len(args) == 0 {
		return may, nil
	}
	_, err = tx.ExecContext(ctx, `
		INSERT INTO send_attempt (request_id, appid, openid, template_id, lease)
		VALUES `+list(`(?, ?, ?, ?, ?)`, len(args)/5), args...)
	if err != nil {
		return nil, fmt.Errorf("writing attempts down: %w", database.Explain(err))
	}
	return may, nil
}

func (l *Ledger) allowed(
	ctx context.Context, tx *sqlx.Tx, appid string, attempts []Attempt,
) ([]bool, error) {
	may := make([]bool, len(attempts))
	if !l.Counts(appid) {
		for i := range may {
			may[i] = true
		}
		return may, nil
	}
	wanted := make([]Grant, len(attempts))
	for i, a := range attempts {
		wanted[i] = a.Grant
	}
	slices.SortFunc(wanted, Grant.compare)
	wanted = slices.Compact(wanted)
	for part := range slices.Chunk(wanted, maxRows) {
		where, args := anyOf(appid, part)
		const lock = `SELECT openid FROM subscription_grant WHERE `
		if _, err := tx.ExecContext(ctx, lock+where+` FOR UPDATE`, args...); err != nil {
			return nil, err
		}
	}
	// Read after all locks, as other attempts may have been written while this one waited for them.
	counts, err := available(ctx, tx, appid, wanted)
	if err != nil {
		return nil, err
	}
	for i, a := range attempts {
		may[i] = counts[a.Grant] > 0
		counts[a.Grant]--
	}
	return may, nil
}
