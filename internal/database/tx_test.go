package database_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

func newAccounts(t *testing.T) *sqlx.DB {
	t.Helper()
	db := dbtest.Open(t, dbtest.Empty(t))
	for _, stmt := range []string{
		`CREATE TABLE account (id INT PRIMARY KEY, amount INT NOT NULL) ENGINE = InnoDB`,
		`INSERT INTO account VALUES (1, 0), (2, 0)`,
	} {
		if _, err := db.ExecContext(t.Context(), stmt); err != nil {
			t.Fatal(err)
		}
	}
	return db
}

func sum(t *testing.T, db *sqlx.DB) (n int) {
	t.Helper()
	if err := db.GetContext(t.Context(), &n, `SELECT SUM(amount) FROM account`); err != nil {
		t.Fatal(err)
	}
	return n
}

func add(ctx context.Context, tx *sqlx.Tx, id int) error {
	_, err := tx.ExecContext(ctx, `UPDATE account SET amount = amount + 1 WHERE id = ?`, id)
	return err
}

// Two transactions that lock in opposite order, made to meet: the server kills one, InTx repeats
// it.
func TestInTxRepeatsAfterDeadlock(t *testing.T) {
	db := newAccounts(t)
	var barrier sync.WaitGroup
	barrier.Add(2)
	tries := make([]int, 2)
	var wg sync.WaitGroup
	for i, order := range [][2]int{{1, 2}, {2, 1}} {
		wg.Go(func() {
			err := database.InTx(t.Context(), db, func(ctx context.Context, tx *sqlx.Tx) error {
				tries[i]++
				if err := add(ctx, tx, order[0]); err != nil {
					return err
				}
				if tries[i] == 1 { // both hold their first row before either asks for the second
					barrier.Done()
					barrier.Wait()
				}
				return add(ctx, tx, order[1])
			})
			if err != nil {
				t.Errorf("transaction %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if tries[0]+tries[1] != 3 {
		t.Errorf("tries = %v, want one transaction repeated once", tries)
	}
	if got := sum(t, db); got != 4 {
		t.Errorf("sum = %d, want 4: each transaction's two updates exactly once", got)
	}
}

func TestInTxRollsBack(t *testing.T) {
	db := newAccounts(t)
	boom := errors.New("boom")
	tries := 0
	err := database.InTx(t.Context(), db, func(ctx context.Context, tx *sqlx.Tx) error {
		tries++
		return errors.Join(add(ctx, tx, 1), boom)
	})
	if !errors.Is(err, boom) || tries != 1 {
		t.Errorf("InTx = %v after %d tries, want boom after 1", err, tries)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = database.InTx(t.Context(), db, func(ctx context.Context, tx *sqlx.Tx) error {
			if err := add(ctx, tx, 1); err != nil {
				t.Error(err)
			}
			panic("boom")
		})
	}()
	if got := sum(t, db); got != 0 {
		t.Errorf("sum = %d, want 0", got)
	}
	if open := db.Stats().InUse; open != 0 {
		t.Errorf("%d connections are still in use", open)
	}
}

func TestInTxEndsWithItsContext(t *testing.T) {
	db := newAccounts(t)
	ctx, cancel := context.WithCancel(t.Context())
	err := database.InTx(ctx, db, func(ctx context.Context, tx *sqlx.Tx) error {
		err := add(ctx, tx, 1)
		cancel()
		return err
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("InTx = %v, want context.Canceled", err)
	}
	if database.IsUnavailable(err) {
		t.Error("the caller's own end counts as an unavailable database")
	}
	if got := sum(t, db); got != 0 {
		t.Errorf("sum = %d, want 0", got)
	}
}

func TestRetryIsBounded(t *testing.T) {
	for name, test := range map[string]struct {
		err   error
		tries int
	}{
		"deadlock": {&mysql.MySQLError{Number: 1213, Message: "Deadlock found"}, 8},
		"lock wait": {&mysql.MySQLError{Number: 1205,
			Message: "Lock wait timeout exceeded"}, 8},
		"TiDB write conflict": {&mysql.MySQLError{Number: 9007, Message: "Write conflict"}, 8},
		"TiDB's own limit of conflicts": {&mysql.MySQLError{Number: 1105,
			Message: "pessimistic lock retry limit reached"}, 8},
		"another error of TiDB without a number": {&mysql.MySQLError{Number: 1105,
			Message: "line 1 column 5"}, 1},
		"Galera at commit": {&mysql.MySQLError{Number: 1180,
			Message: `Got error 149 "Lock deadlock; Retry transaction" during COMMIT`}, 8},
		"serialization failure": {&mysql.MySQLError{Number: 65000,
			SQLState: [5]byte{'4', '0', '0', '0', '1'}}, 8},
		"disk full at commit": {&mysql.MySQLError{Number: 1180,
			Message: "Got error 28 during COMMIT"}, 1},
		"duplicate key":          {&mysql.MySQLError{Number: 1062, Message: "Duplicate entry"}, 1},
		"lost connection":        {mysql.ErrInvalidConn, 1},
		"something of our own":   {errors.New("boom"), 1},
		"the end of the context": {context.Canceled, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				tries := 0
				err := database.Retry(t.Context(), func(context.Context) error {
					tries++
					return test.err
				})
				if !errors.Is(err, test.err) || tries != test.tries {
					t.Errorf("Retry = %v after %d tries, want %v after %d", err, tries, test.err,
						test.tries)
				}
			})
		})
	}
}

func TestRetryStopsWaitingWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		conflict := &mysql.MySQLError{Number: 1213, Message: "Deadlock found"}
		err := database.Retry(ctx, func(context.Context) error {
			cancel()
			return conflict
		})
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "Deadlock") {
			t.Errorf("Retry = %v, want the context's end and what it was waiting for", err)
		}
	})
}
