package database_test

import (
	"context"
	"errors"
	"testing"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

func seedThings(t *testing.T) (owner, db *sqlx.DB) {
	t.Helper()
	owner = seed(t, `
		CREATE TABLE thing (id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY, n INT NOT NULL UNIQUE)`, `
		INSERT INTO thing (id, n) VALUES (1, 1), (2, 2)`)
	db, err := database.OpenAsTiDB(dbtest.DSN(t, owner))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return owner, db
}

func wantThings(t *testing.T, db *sqlx.DB, want int) {
	t.Helper()
	var n int
	if err := db.GetContext(t.Context(), &n, `SELECT COUNT(*) FROM thing`); err != nil || n != want {
		t.Errorf("%d things, %v; want %d", n, err, want)
	}
}

// TestSingleStatementsOnTiDB: what runs there in a transaction behaves as a single statement.
func TestSingleStatementsOnTiDB(t *testing.T) {
	owner, db := seedThings(t)
	res, err := db.ExecContext(t.Context(), "\n\tINSERT\n INTO thing (n) VALUES (?), (?)", 3, 4)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := res.RowsAffected(); n != 2 || err != nil {
		t.Errorf("%d rows were inserted, %v", n, err)
	}
	if id, err := res.LastInsertId(); id == 0 || err != nil {
		t.Errorf("the id is %d, %v", id, err)
	}
	wantThings(t, owner, 4)
	if _, err := db.ExecContext(t.Context(), `INSERT INTO thing (n) VALUES (5), (1)`); !database.IsDuplicate(err) {
		t.Errorf("a second 1 = %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := db.ExecContext(ctx, `DELETE FROM thing`); !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled DELETE = %v", err)
	}
	wantThings(t, owner, 4)
	boom := errors.New("boom")
	err = database.InTx(t.Context(), db, func(ctx context.Context, tx *sqlx.Tx) error {
		if _, err := tx.ExecContext(ctx, `DELETE FROM thing`); err != nil {
			return err
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Error(err)
	}
	wantThings(t, owner, 4)
	if _, err := db.ExecContext(t.Context(), `DELETE FROM thing WHERE n > ?`, 1); err != nil {
		t.Error(err)
	}
	wantThings(t, owner, 1)
}

// TestSingleStatementsWait: a statement gives up a row that another transaction holds, and is not
// carried out later.
func TestSingleStatementsWait(t *testing.T) {
	owner, asTiDB := seedThings(t)
	holder, err := owner.BeginTxx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = holder.Rollback() }()
	if _, err := holder.Exec(`UPDATE thing SET n = 7 WHERE n = 1`); err != nil {
		t.Fatal(err)
	}
	for name, db := range map[string]*sqlx.DB{"of this server": owner, "as on TiDB": asTiDB} {
		for _, stmt := range []string{`UPDATE thing SET n = n + 10 WHERE id > 0 ORDER BY id`, `DELETE FROM thing WHERE id = 1`} {
			if _, err := db.ExecContext(t.Context(), stmt); !database.IsLockTimeout(err) {
				t.Errorf("%s: %s = %v, want it to give up", name, stmt, err)
			}
		}
	}
	if err := holder.Commit(); err != nil {
		t.Fatal(err)
	}
	if _, err := asTiDB.ExecContext(t.Context(), `DELETE FROM thing WHERE n IN (2, 7)`); err != nil {
		t.Error(err)
	}
	wantThings(t, owner, 0)
}
