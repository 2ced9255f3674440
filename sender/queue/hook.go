package queue

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// Settling is a result that is being written, of the attempt that began at a moment.
type Settling struct {
	Result
	AttemptedAt time.Time
}

// Hook is what belongs to results: it runs in the transaction that writes them, after their rows,
// and gets those whose rows take them. The transaction may be repeated.
type Hook func(ctx context.Context, tx *sqlx.Tx, done []Settling) error

// SettleOrder says how results are written.
type SettleOrder struct {
	AppID string // the account whose claims the results are of
	// SkipLocked leaves out the rows that another transaction holds; so does a second try, where the
	// plain statement had to wait for one.
	SkipLocked bool
	Hook       Hook // nil: nothing belongs to them
}

// taken holds the rows of the results, and returns those that will take theirs.
func (s settling) taken(ctx context.Context, tx *sqlx.Tx, ids []int64) ([]Settling, error) {
	const query = `
		SELECT id, status, COALESCE(lease, '') AS lease, COALESCE(attempted_at, created_at) AS at,
		       COALESCE(appid, '') AS appid, uncertain_at IS NOT NULL AS in_doubt
		  FROM send_request FORCE INDEX (PRIMARY)
		 WHERE id IN (?)
		   FOR UPDATE`
	type row struct {
		ID     int64     `db:"id"`
		Status Status    `db:"status"`
		Lease  string    `db:"lease"`
		At     time.Time `db:"at"`

		AppID   string `db:"appid"`
		InDoubt bool   `db:"in_doubt"`
	}
	rows, err := database.SelectIn[row](ctx, tx, query, ids)
	if database.IsLockTimeout(err) {
		return nil, errRowLocked
	}
	if err != nil {
		return nil, fmt.Errorf("locking rows: %w", err)
	}
	byID := make(map[int64]row, len(rows))
	for _, r := range rows {
		byID[r.ID] = r
	}
	done := make([]Settling, 0, len(ids))
	for _, r := range s.part {
		row, found := byID[r.ID]
		if _, ours := slices.BinarySearch(ids, r.ID); !ours || !found {
			continue
		}
		if r.Move != nil && (row.AppID != r.Move.At || row.InDoubt) {
			continue
		}
		if row.Status == Pending && row.Lease == r.Token ||
			r.Status == Sent && slices.Contains([]Status{Pending, Waiting, Unknown}, row.Status) {
			done = append(done, Settling{r, row.At})
		}
	}
	return done, nil
}
