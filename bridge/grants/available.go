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
	counted, err := l.available(ctx, appid, asked)
	if err != nil {
		return nil, fmt.Errorf("reading what people allow: %w", database.Explain(err))
	}
	counts := make([]int, len(asked))
	for i, g := range asked {
		counts[i] = counted[g]
	}
	return counts, nil
}

// available reads grants and attempts of one moment: a message that is settled between two reads would
// count as neither.
func (l *Ledger) available(
	ctx context.Context, appid string, asked []Grant,
) (map[Grant]int, error) {
	tx, err := l.cfg.DB.BeginTxx(ctx, &sql.TxOptions{Isolation: sql.LevelRepeatableRead})
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback() }() // it has only read
	rows, err := readGrants(ctx, tx, appid, asked)
	if err != nil {
		return nil, err
	}
	return left(ctx, tx, appid, rows)
}

// left returns what is left of grants without what open attempts hold.
func left(
	ctx context.Context, db sqlx.QueryerContext, appid string, rows []grantRow,
) (map[Grant]int, error) {
	counts := make(map[Grant]int, len(rows))
	for part := range slices.Chunk(rows, maxRows) {
		held, err := heldBy(ctx, db, appid, part)
		if err != nil {
			return nil, err
		}
		for _, r := range part {
			counts[r.grant()] = r.available(held[r.grant()])
		}
	}
	return counts, nil
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
	var rows []grantRow
	for part := range slices.Chunk(wanted, maxRows) {
		locked, err := lockGrants(ctx, tx, appid, part)
		if err != nil {
			return nil, err
		}
		rows = append(rows, locked...)
	}
	// Counted after all locks, as other attempts may have been written while this one waited for them.
	counts, err := left(ctx, tx, appid, rows)
	if err != nil {
		return nil, err
	}
	for i, a := range attempts {
		may[i] = counts[a.Grant] > 0
		counts[a.Grant]--
	}
	return may, nil
}

// heldBy counts the open attempts of grants that hold something of them: those that are younger than a
// switch-off and a refusal. Most people have none, so this costs half of a subquery for each of them.
func heldBy(
	ctx context.Context, db sqlx.QueryerContext, appid string, rows []grantRow,
) (map[Grant]int, error) {
	wanted, byGrant := make([]Grant, 0, len(rows)), make(map[Grant]grantRow, len(rows))
	for _, r := range rows {
		if r.Remaining > 0 {
			wanted, byGrant[r.grant()] = append(wanted, r.grant()), r
		}
	}
	if len(wanted) == 0 {
		return nil, nil
	}
	where, args := anyOf(appid, wanted)
	var attempts []struct {
		Grant
		BegunAt time.Time `db:"begun_at"`
	}
	err := sqlx.SelectContext(ctx, db, &attempts, `
		SELECT openid, template_id, begun_at
		  FROM send_attempt FORCE INDEX (send_attempt_grant)
		 WHERE `+where, args...)
	held := make(map[Grant]int)
	for _, a := range attempts {
		r := byGrant[a.Grant]
		if (!r.RefusedAt.Valid || a.BegunAt.After(r.RefusedAt.Time)) &&
			(!r.OffAt.Valid || a.BegunAt.After(r.OffAt.Time.Add(doubt))) {
			held[a.Grant]++
		}
	}
	return held, err
}
