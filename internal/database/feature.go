package database

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
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

// featureAge is how old an answer of FeatureLevels may be.
const featureAge = time.Second

// FeatureLevels knows what all live instances of a database can do. What only newer programs
// understand must wait until they all have it.
//
// Whoever holds a lease is live. A standby holds none, and so is not seen before it takes over: an
// operator stops the older programs before producers use what is new.
type FeatureLevels struct {
	db  *sqlx.DB
	now func() time.Time

	mu     sync.Mutex
	read   time.Time // when the two below were; zero: not yet
	lowest int
	holder string
}

// NewFeatureLevels returns the levels of the instances on db, by the clock now.
func NewFeatureLevels(db *sqlx.DB, now func() time.Time) *FeatureLevels {
	return &FeatureLevels{db: db, now: now}
}

// Lowest returns the lowest level of those who hold a lease, and the holder who has it; where
// nobody holds one, FeatureLevel and "". An older program that has taken a lease over has a holder
// of its own, which has announced nothing: it has level 0, whatever its predecessor said. The answer
// may be a second old, so that asking before each claim costs one query a second.
func (f *FeatureLevels) Lowest(ctx context.Context) (level int, holder string, err error) {
	const query = `
		SELECT COALESCE(i.feature_level, 0) AS level, l.holder
		  FROM lease l
		  LEFT JOIN instance i ON i.holder = l.holder
		 WHERE l.expires_at > CURRENT_TIMESTAMP(3) AND l.holder <> ''
		 ORDER BY level, l.holder
		 LIMIT 1`
	f.mu.Lock()
	defer f.mu.Unlock()
	now := f.now()
	if age := now.Sub(f.read); !f.read.IsZero() && age >= 0 && age < featureAge {
		return f.lowest, f.holder, nil
	}
	err = f.db.QueryRowxContext(ctx, query).Scan(&level, &holder)
	if errors.Is(err, sql.ErrNoRows) {
		level, holder, err = FeatureLevel, "", nil
	}
	if err != nil {
		return 0, "", fmt.Errorf("reading the feature levels of all instances: %w", Explain(err))
	}
	f.read, f.lowest, f.holder = now, level, holder
	return level, holder, nil
}
