package database

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
)

// HeldLease is a lease that an instance holds, as pages and commands show it.
type HeldLease struct {
	Name      string    `db:"name"`
	Holder    string    `db:"holder"`
	Epoch     int64     `db:"epoch"`
	ExpiresAt time.Time `db:"expires_at"` // by the database's clock, unless it is renewed
}

// HeldLeases returns the leases that have not run out, in the order of their names. The table is
// small: a few rows for each account.
func HeldLeases(ctx context.Context, db *sqlx.DB) ([]HeldLease, error) {
	const query = `
		SELECT name, holder, epoch, expires_at
		  FROM lease
		 WHERE expires_at > CURRENT_TIMESTAMP(3)
		 ORDER BY name`
	held := []HeldLease{}
	if err := db.SelectContext(ctx, &held, query); err != nil {
		return nil, fmt.Errorf("reading who holds which lease: %w", Explain(err))
	}
	return held, nil
}
