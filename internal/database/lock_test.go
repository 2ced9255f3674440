package database_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// TestLockIn: rows that another transaction holds are left out and not waited for; the others are
// locked, on servers that skip locked rows and on those that do not.
func TestLockIn(t *testing.T) {
	db := seed(t, `
		CREATE TABLE thing (id BIGINT NOT NULL PRIMARY KEY, n INT NOT NULL)`, `
		INSERT INTO thing VALUES (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0), (7, 0)`)
	const query = `SELECT id FROM thing WHERE id IN (?) FOR UPDATE`
	ids := []int64{1, 2, 3, 4, 5, 6, 7, 8}
	for name, lock := range map[string]func(context.Context, *sqlx.Tx) ([]int64, error){
		"of this server": func(ctx context.Context, tx *sqlx.Tx) ([]int64, error) {
			return database.LockIn[int64](ctx, tx, database.Lock{Query: query}, ids)
		},
		"without skipping": func(ctx context.Context, tx *sqlx.Tx) ([]int64, error) {
			return database.LockHalves(ctx, tx, query, ids)
		},
	} {
		t.Run(name, func(t *testing.T) {
			holder, err := db.BeginTxx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = holder.Rollback() }()
			if _, err := holder.Exec(`UPDATE thing SET n = n + 1 WHERE id IN (2, 7)`); err != nil {
				t.Fatal(err)
			}
			tx, err := db.BeginTxx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = tx.Rollback() }()
			begin := time.Now()
			got, err := lock(t.Context(), tx)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]int64{1, 3, 4, 5, 6}, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if took := time.Since(begin); took > 1500*time.Millisecond {
				t.Errorf("it took %s: it waited", took)
			}
			if _, err := db.Exec(`UPDATE thing SET n = n + 1 WHERE id = 4`); !database.IsLockTimeout(err) {
				t.Errorf("a row that was returned is not locked: %v", err)
			}
		})
	}
}
