package grants

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// Use is what an attempt to send a message did to a grant. One that WeChat refused for another
// reason than the person's will uses nothing, and has no Use.
type Use struct {
	Grant
	RequestID int64
	At        time.Time // send_request.attempted_at; with RequestID it names the attempt
	// Refused: WeChat says that nothing is left, whatever was counted. Else the message was taken.
	Refused bool
	// LongTerm: the template's acceptances are not used up. Known is false where that is not known.
	LongTerm, Known bool
}

// Settle writes uses into the ledger, in the transaction that settles their messages. The same
// attempt counts once, however often it is settled, and whenever its outcome becomes known.
func (l *Ledger) Settle(ctx context.Context, tx *sqlx.Tx, appid string, uses []Use) error {
	if !l.Counts(appid) || len(uses) == 0 {
		return nil
	}
	begun, err := begunAt(ctx, tx, uses)
	if err != nil {
		return fmt.Errorf("reading when attempts began: %w", database.Explain(err))
	}
	w := writer{Ledger: l, tx: tx, appid: appid, kinds: make(map[string]string)}
	entries := make([]entry, 0, len(uses))
	for _, u := range uses {
		if kind := kindOf(u.LongTerm, u.Known); kind != "" {
			w.kinds[u.TemplateID] = kind
		}
		e := entry{OpenID: u.OpenID, TemplateID: u.TemplateID, Kind: kindSent, Source: sourceMessage,
			RequestID: sql.NullInt64{Int64: u.RequestID, Valid: true}, HappenedAt: u.At}
		if u.Refused {
			e.Kind = kindRefused
			if at := begun[u.RequestID]; at.After(u.At) {
				e.HappenedAt = at
			}
		}
		e.Key = fmt.Sprintf("%s:%d:%d", e.Kind, u.RequestID, u.At.UnixMilli())
		entries = append(entries, e)
	}
	if err := w.record(ctx, entries); err != nil {
		return fmt.Errorf("counting %d messages: %w", len(uses), database.Explain(err))
	}
	return nil
}

// begunAt returns when the refused attempts were posted, which may be long after their claim: an
// acceptance between the two would count as newer than the refusal.
func begunAt(ctx context.Context, tx *sqlx.Tx, uses []Use) (map[int64]time.Time, error) {
	var ids []int64
	for _, u := range uses {
		if u.Refused {
			ids = append(ids, u.RequestID)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	type row struct {
		ID int64     `db:"request_id"`
		At time.Time `db:"begun_at"`
	}
	rows, err := database.SelectIn[row](ctx, tx,
		`SELECT request_id, begun_at FROM send_attempt WHERE request_id IN (?)`, ids)
	begun := make(map[int64]time.Time, len(rows))
	for _, r := range rows {
		begun[r.ID] = r.At
	}
	return begun, err
}
