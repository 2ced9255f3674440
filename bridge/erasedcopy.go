package bridge

import (
	"context"
	"database/sql"
	"encoding/hex"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

const (
	// maxCopied hashes are kept in memory, which takes some 10 MB. With more of them, which is with
	// more than a thousand people a day, the table is asked.
	maxCopied = 100_000
	// copyOverlap is how long a transaction may take that remembers an erasure: its moment may be
	// earlier than one that was committed before.
	copyOverlap = 2 * time.Minute
)

// copied is a copy of erased_person, for the thousands of ids of a sweep: looking them up in the
// table took as long as storing the followers.
type copied struct {
	mu      sync.Mutex
	moments map[digest]time.Time
	latest  time.Time // of those, when the copy was made; zero: not yet
	oldest  time.Time // what counts, by the database's clock
	tooMany bool      // there were, so there is no copy until the next start
}

// refresh reports whether anybody is remembered, and brings the copy up to date if that is wanted.
func (c *copied) refresh(
	ctx context.Context, db sqlx.QueryerContext, wanted bool,
) (some bool, err error) {
	// One dive into the index.
	const query = `
		SELECT CURRENT_TIMESTAMP(3) - INTERVAL ? DAY AS oldest, MAX(erased_at) AS latest
		  FROM erased_person`
	var row struct {
		Oldest time.Time    `db:"oldest"`
		Latest sql.NullTime `db:"latest"`
	}
	if err = sqlx.GetContext(ctx, db, &row, query, erasureDays); err == nil && wanted {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.oldest = row.Oldest
		if row.Latest.Valid && !c.tooMany && !row.Latest.Time.Equal(c.latest) {
			err = c.read(ctx, db, row.Latest.Time)
		}
	}
	if err != nil {
		return false, fmt.Errorf("looking for erasures: %w", database.Explain(err))
	}
	return row.Latest.Valid, nil
}

// read adds what is new to the copy.
func (c *copied) read(ctx context.Context, db sqlx.QueryerContext, latest time.Time) error {
	const query = `
		SELECT hash, erased_at FROM erased_person WHERE erased_at > ? ORDER BY erased_at LIMIT ?`
	from := c.oldest
	if recent := c.latest.Add(-copyOverlap); recent.After(from) {
		from = recent
	}
	var rows []erasedRow
	if err := sqlx.SelectContext(ctx, db, &rows, query, from, maxCopied+1); err != nil {
		return err
	}
	if c.moments == nil {
		c.moments = make(map[digest]time.Time, len(rows))
	}
	for _, row := range rows {
		var d digest
		if _, err := hex.Decode(d[:], []byte(row.Hash)); err == nil { // the table has no others
			c.moments[d] = row.At
		}
	}
	maps.DeleteFunc(c.moments, func(_ digest, at time.Time) bool { return at.Before(c.oldest) })
	if c.latest = latest; len(rows) > maxCopied || len(c.moments) > maxCopied {
		c.moments, c.tooMany = nil, true
	}
	return nil
}

// find returns when those of the accounts were erased whom the copy has; not complete: ask the table.
func (c *copied) find(
	hashes *hasher, accounts []Account,
) (erased map[Account]time.Time, complete bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	erased = make(map[Account]time.Time)
	if c.tooMany {
		return nil, false
	}
	for _, a := range accounts {
		if at, ok := c.moments[hashes.sum(a)]; ok && at.After(c.oldest) {
			erased[a] = at
		}
	}
	return erased, true
}
