package queue

import (
	"cmp"
	"context"
	"errors"
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

// settleHooked is change, with what belongs to the results.
func (q *Queue) settleHooked(
	ctx context.Context, s settling, c change, skipLocked bool,
) (u updated, err error) {
	ids := make([]int64, len(s.part))
	for i, r := range s.part {
		ids[i] = r.ID
	}
	slices.Sort(ids)
	if s.hook == nil {
		return q.change(ctx, ids, skipLocked, c)
	}
	if s.plain() {
		// Nearly always all rows take their results. The statement says so: it is cheaper to begin again
		// where they do not than to look each time.
		hopeful := c
		hopeful.all = true
		hopeful.first = s.belongs(func(_ context.Context, _ *sqlx.Tx, ids []int64) ([]Settling, error) {
			return s.those(ids), nil
		})
		u, err = q.change(ctx, ids, skipLocked, hopeful)
		if !errors.Is(err, errNotAll) {
			return u, err
		}
		ids = without(ids, u.tried)
	}
	c.first = s.belongs(s.taken)
	rest, err := q.change(ctx, ids, skipLocked, c)
	return u.and(rest), err
}

// belongs runs the hook for the results whose rows take them.
func (s settling) belongs(
	taken func(ctx context.Context, tx *sqlx.Tx, ids []int64) ([]Settling, error),
) func(ctx context.Context, tx *sqlx.Tx, ids []int64) (finish, error) {
	return func(ctx context.Context, tx *sqlx.Tx, ids []int64) (finish, error) {
		taken, err := taken(ctx, tx, ids)
		return func(ctx context.Context, tx *sqlx.Tx) error {
			if err := s.hook(ctx, tx, taken); err != nil {
				return err
			}
			return Unwait(ctx, tx, ended(taken))
		}, err
	}
}

// plain reports whether the statement alone shows which rows take their results: messages that were
// sent, all of whose attempts are known.
func (s settling) plain() bool {
	return !slices.ContainsFunc(s.part, func(r Result) bool {
		return !r.isSimpleSent() || r.ClaimedAt.IsZero()
	})
}

// those returns the results of some rows.
func (s settling) those(ids []int64) (done []Settling) {
	for _, r := range s.part {
		if _, found := slices.BinarySearch(ids, r.ID); found {
			done = append(done, Settling{r, r.ClaimedAt})
		}
	}
	return done
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
			done = append(done, Settling{r, cmp.Or(r.ClaimedAt, row.At)})
		}
	}
	return done, nil
}
