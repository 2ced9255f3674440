package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// expectFor is how long an account is expected that no instance has sent for.
const expectFor = 7 * 24 * time.Hour

// ExpectAccounts says that an instance will send for the accounts, so that those of an earlier
// version or configuration do not fail their rows as those of an unknown account before it has
// started. An instance that has sent for an account says so by its lease, for ten minutes after it.
//
// It makes leases that nobody holds. Versions before feature level 1 take no such lease before it
// has expired, so the accounts must be ones that those do not know: mini programs.
func ExpectAccounts(ctx context.Context, db *sqlx.DB, appids []string) error {
	const query = `
		INSERT IGNORE INTO lease (name, holder, epoch, expires_at)
		VALUES (?, '', 0, CURRENT_TIMESTAMP(3) + INTERVAL ? SECOND)`
	for _, appid := range appids {
		_, err := db.ExecContext(ctx, query, LeaseName(appid), int(expectFor/time.Second))
		if err != nil {
			return fmt.Errorf("expecting account %s: %w", appid, database.Explain(err))
		}
	}
	return nil
}
