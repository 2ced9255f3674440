package applications

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// tokenKey is secret_key.name of the key of the tokens.
const tokenKey = "application_token"

// maxStateAge is how long an instance goes by what it has read: a revocation holds everywhere
// within this time, and a busy door costs the database two reads by primary key a second.
const maxStateAge = time.Second

// state is what the database says of all applications.
type state struct {
	key    []byte
	epochs map[string]int64 // by name; none: 0
	moment time.Time        // by the database's clock
	read   time.Time        // by ours
}

// at is a moment of ours by the database's clock, which all instances share.
func (s *state) at(now time.Time) time.Time { return s.moment.Add(now.Sub(s.read)) }

// fresh looks at both clocks: the monotonic one does not run while a machine is suspended.
func (s *state) fresh(now time.Time) bool {
	return s != nil && now.Sub(s.read) < maxStateAge && now.Round(0).Sub(s.read.Round(0)) < maxStateAge
}

// current returns the state, and reads it if it is older than maxStateAge. One caller reads, the
// others wait for it.
func (r *Registry) current(ctx context.Context) (*state, error) {
	if st := r.latest.Load(); st.fresh(r.now()) {
		return st, nil
	}
	select {
	case r.reading <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("waiting for the state of applications: %w", context.Cause(ctx))
	}
	defer func() { <-r.reading }()
	if st := r.latest.Load(); st.fresh(r.now()) {
		return st, nil
	}
	st, err := readState(ctx, r.db)
	if err != nil {
		return nil, fmt.Errorf("reading the state of applications: %w", database.Explain(err))
	}
	st.read = r.now()
	r.latest.Store(st)
	return st, nil
}

func readState(ctx context.Context, db *sqlx.DB) (*state, error) {
	st := &state{epochs: make(map[string]int64)}
	var err error
	if st.key, err = database.SecretKey(ctx, db, tokenKey); err != nil {
		return nil, err
	}
	// The clock comes also where there is no application. (A UNION with literals mixes collations,
	// which TiDB refuses.)
	const query = `
		SELECT CURRENT_TIMESTAMP(3) AS moment, a.name, a.epoch
		  FROM (SELECT 1 AS one) clock
		  LEFT JOIN application a ON 1 = 1`
	var rows []struct {
		Moment time.Time `db:"moment"`
		Name   *string   `db:"name"`
		Epoch  *int64    `db:"epoch"`
	}
	if err := db.SelectContext(ctx, &rows, query); err != nil {
		return nil, err
	}
	for _, row := range rows {
		st.moment = row.Moment
		if row.Name != nil && row.Epoch != nil {
			st.epochs[*row.Name] = *row.Epoch
		}
	}
	return st, nil
}

// Revoke ends all tokens of an application, on every instance within a second. It may get new ones
// with its secrets: remove a secret that others know.
func Revoke(ctx context.Context, db *sqlx.DB, application string) error {
	const query = `
		INSERT INTO application (name, epoch, revoked_at) VALUES (?, 1, CURRENT_TIMESTAMP(3))
		ON DUPLICATE KEY UPDATE epoch = epoch + 1, revoked_at = CURRENT_TIMESTAMP(3)`
	err := database.Retry(ctx, func(ctx context.Context) error {
		_, err := db.ExecContext(ctx, query, application)
		return err
	})
	if err != nil {
		return fmt.Errorf("revoking the tokens of %s: %w", application, err)
	}
	return nil
}
