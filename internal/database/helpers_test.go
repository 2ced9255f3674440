package database_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

func TestDetachedOutlivesItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := database.Detached(ctx, func(ctx context.Context) error {
		if _, bounded := ctx.Deadline(); !bounded {
			t.Error("a detached context has no deadline")
		}
		return ctx.Err()
	})
	if err != nil {
		t.Errorf("a detached context ended with its parent: %v", err)
	}
}

func TestNullOfZeroValues(t *testing.T) {
	for _, v := range []any{database.Null(""), database.Null(0), database.Null(int64(0))} {
		if v != nil {
			t.Errorf("Null of a zero value = %v, want nil", v)
		}
	}
	if got := database.Null("x"); got != "x" {
		t.Errorf(`Null("x") = %v`, got)
	}
}

func TestIsDuplicate(t *testing.T) {
	wrapped := fmt.Errorf("inserting: %w", &mysql.MySQLError{Number: 1062})
	if !database.IsDuplicate(wrapped) || database.IsDuplicate(&mysql.MySQLError{Number: 1205}) {
		t.Error("IsDuplicate does not mean error 1062 only")
	}
}

func TestLeaseContextEndsWithTheLease(t *testing.T) {
	leases := newLeases(t, dbtest.New(t), "a", 0)
	runLeases(t, leases)
	lease := acquire(t, leases, "sweep/wx1")
	ctx, cancel := lease.Context(t.Context())
	defer cancel()
	if ctx.Err() != nil {
		t.Fatal("the context of a held lease has ended")
	}
	if err := lease.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ctx.Done():
	case <-time.After(patience):
		t.Fatal("the lease is over, its context is not")
	}
	//nolint:errorlint // not wrapped
	if cause := context.Cause(ctx); cause == nil || cause == context.Canceled {
		t.Errorf("the cause is %v, want the lease", cause)
	}
}

// TestIn: a list in the middle, and none.
func TestIn(t *testing.T) {
	db := dbtest.New(t)
	for _, name := range []string{"a", "b", "c"} {
		_, err := database.ExecIn(t.Context(), db,
			`INSERT INTO lease (name, holder, expires_at) VALUES (?, 'x', NOW(3))`, name)
		if err != nil {
			t.Fatal(err)
		}
	}
	const change = `UPDATE lease SET holder = ? WHERE name IN (?) AND holder = ?`
	if n, err := database.ExecIn(t.Context(), db, change, "y", []string{"a", "c"}, "x"); n != 2 || err != nil {
		t.Errorf("%d rows, %v", n, err)
	}
	names, err := database.SelectIn[string](t.Context(), db,
		`SELECT name FROM lease WHERE name IN (?) AND holder = ? ORDER BY name`, []string{"a", "b"}, "y")
	if err != nil || len(names) != 1 || names[0] != "a" {
		t.Errorf("%q, %v", names, err)
	}
	if _, err := database.SelectIn[string](t.Context(), db, `SELECT name FROM lease WHERE name IN (?)`,
		[]string{}); err == nil {
		t.Error("an empty list is no error")
	}
}
