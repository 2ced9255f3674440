package intake

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// accepted is a row of door_duplicate.
type accepted struct {
	Content string `db:"content"`
	ID      int64  `db:"request_id"` // 0: of a message that is not committed yet, which is this one
	Age     int64  `db:"age"`        // in microseconds, by the database's clock
}

// windowed are the fresh entries with a duplicate_window, in the order of their locks.
func (t *attempt) windowed() []*entry {
	var list []*entry
	for _, e := range t.fresh {
		if e.content != "" {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b *entry) int { return strings.Compare(a.content, b.content) })
	return list
}

// holdContent finds equal messages that were accepted within their window. It holds their rows until
// the COMMIT, so that of two instances the second sees what the first has inserted.
func (t *attempt) holdContent(ctx context.Context, tx *sqlx.Tx) error {
	list := t.windowed()
	if len(list) == 0 {
		return nil
	}
	args := make([]any, len(list))
	for i, e := range list {
		args[i] = e.content
	}
	hold := `INSERT INTO door_duplicate (content) VALUES (?)` + strings.Repeat(`, (?)`, len(list)-1) +
		` ON DUPLICATE KEY UPDATE content = VALUES(content)`
	if _, err := tx.ExecContext(ctx, hold, args...); err != nil {
		return fmt.Errorf("holding what may be repeated: %w", err)
	}
	return t.findContent(ctx, tx)
}

// findContent finds equal messages that were accepted within their window.
func (t *attempt) findContent(ctx context.Context, db sqlx.QueryerContext) error {
	byContent := make(map[string]*entry)
	for _, e := range t.windowed() {
		byContent[e.content] = e
	}
	if len(byContent) == 0 {
		return nil
	}
	rows, err := database.SelectIn[accepted](ctx, db, `
		SELECT content, request_id,
		       TIMESTAMPDIFF(MICROSECOND, accepted_at, CURRENT_TIMESTAMP(3)) AS age
		  FROM door_duplicate
		 WHERE content IN (?)`, keysOf(byContent))
	if err != nil {
		return fmt.Errorf("looking for equal messages: %w", err)
	}
	for _, r := range rows {
		e := byContent[r.Content]
		if age := time.Duration(r.Age) * time.Microsecond; e != nil && r.ID != 0 && age < e.window {
			e.result = Result{ID: r.ID, Repeated: true}
		}
	}
	t.drop()
	return nil
}

// keepContent keeps what was inserted, for its window.
func (t *attempt) keepContent(ctx context.Context, tx *sqlx.Tx) error {
	list := t.windowed()
	if len(list) == 0 {
		return nil
	}
	args := make([]any, 0, 2*len(list))
	for _, e := range list {
		args = append(args, e.content, e.result.ID)
	}
	keep := `INSERT INTO door_duplicate (content, request_id) VALUES (?, ?)` +
		strings.Repeat(`, (?, ?)`, len(list)-1) + `
		ON DUPLICATE KEY UPDATE request_id = VALUES(request_id), accepted_at = CURRENT_TIMESTAMP(3)`
	if _, err := tx.ExecContext(ctx, keep, args...); err != nil {
		return fmt.Errorf("keeping what may be repeated: %w", err)
	}
	return nil
}

// maxWindow is the longest duplicate_window that the configuration allows.
const maxWindow = time.Hour

// purgeRows are deleted by one statement.
const purgeRows = 1000

// Purge deletes what no window needs any more, a piece at a time by pace.
func Purge(ctx context.Context, db *sqlx.DB, pace func(context.Context, func() error) error) error {
	const query = `
		DELETE FROM door_duplicate
		 WHERE accepted_at < CURRENT_TIMESTAMP(3) - INTERVAL ? SECOND
		 ORDER BY accepted_at
		 LIMIT ?`
	for more := true; more; {
		err := pace(ctx, func() error {
			return database.Retry(ctx, func(ctx context.Context) error {
				res, err := db.ExecContext(ctx, query, int64((2 * maxWindow).Seconds()), purgeRows)
				if err != nil {
					return err
				}
				n, err := res.RowsAffected()
				more = n == purgeRows
				return err
			})
		})
		if err != nil {
			return fmt.Errorf("deleting old rows of door_duplicate: %w", err)
		}
	}
	return nil
}
