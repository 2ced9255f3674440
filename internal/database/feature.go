package database

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
)

// FeatureLevel is what this program can do with rows that other programs write. It grows with each
// feature that an older program would get wrong:
//
//	1  routes, moves between channels, attempts written before the POST, mini programs that send
const FeatureLevel = 1

// AnnouncePause is how often an instance announces itself.
const AnnouncePause = time.Hour

// AnnounceInstance says which level the program of this holder has. Call it before the holder takes
// its first lease, since a holder that has announced nothing counts as level 0, and then once every
// AnnouncePause: every start has a holder of its own, so those that announce nothing are forgotten.
func AnnounceInstance(ctx context.Context, db *sqlx.DB, holder string) error {
	const forget = `
		DELETE FROM instance
		 WHERE announced_at < CURRENT_TIMESTAMP(3) - INTERVAL 2 DAY
		   AND holder NOT IN (SELECT holder FROM lease)`
	const announce = `
		INSERT INTO instance (holder, feature_level) VALUES (?, ?)
		ON DUPLICATE KEY UPDATE 
		    feature_level = VALUES(feature_level), announced_at = CURRENT_TIMESTAMP(3)`
	err := InTx(ctx, db, func(ctx context.Context, tx *sqlx.Tx) error {
		if _, err := tx.ExecContext(ctx, forget); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, announce, holder, FeatureLevel)
		return err
	})
	if err != nil {
		return fmt.Errorf("announcing this instance: %w", Explain(err))
	}
	return nil
}

// LowestFeatureLevel returns the lowest level of those who hold a lease. What only newer programs
// understand must wait until they all have it. An older program that has taken a lease over has a
// holder of its own, which has announced nothing, so what its predecessor said does not count.
func LowestFeatureLevel(ctx context.Context, db *sqlx.DB) (int, error) {
	const query = `
		SELECT COALESCE(MIN(COALESCE(i.feature_level, 0)), ?)
		  FROM lease l
		  LEFT JOIN instance i ON i.holder = l.holder
		 WHERE l.expires_at > CURRENT_TIMESTAMP(3) AND l.holder <> ''`
	var level int
	if err := db.GetContext(ctx, &level, query, FeatureLevel); err != nil {
		return 0, fmt.Errorf("reading the level of all instances: %w", Explain(err))
	}
	return level, nil
}
