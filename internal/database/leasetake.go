package database

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// leaseRow is a row of the table lease as a candidate sees it.
type leaseRow struct {
	Holder    string    `db:"holder"`
	Epoch     int64     `db:"epoch"`
	ExpiresAt time.Time `db:"expires_at"`
	Expired   bool      `db:"expired"`
	Ahead     bool      `db:"ahead"` // it expires later than any holder writes

	absent bool // there is no such row
	ours   bool // a statement of ours wrote it, and its answer was lost
}

// free reports whether the row may be taken. A released row is free whatever its expiry says: the
// database's clock may have gone back since.
func (r leaseRow) free() bool { return r.Expired || r.absent || r.Holder == "" || r.ours }

// answerTimeout bounds the wait for the answers to a try. A try whose answer is lost may be
// repeated, and a successor that waited for the connection's own timeout would be too late.
func (l *Leases) answerTimeout() time.Duration { return max(l.ttl/5, time.Second) }

// look reads the row. If it expires more than two TTLs ahead, the database's clock has gone back. A
// living holder writes it again within a third of the TTL, a dead one would keep it for hours.
func (l *Leases) look(ctx context.Context, name string) (leaseRow, error) {
	row, err := l.read(ctx, name)
	if err != nil || row.free() || !row.Ahead {
		return row, err
	}
	select {
	case <-time.After(l.ttl):
	case <-ctx.Done():
		return row, ctx.Err()
	}
	again, err := l.read(ctx, name)
	if err != nil || again.Epoch != row.Epoch || !again.ExpiresAt.Equal(row.ExpiresAt) {
		return again, err
	}
	again.Expired = true
	l.log.WarnContext(ctx, "a lease expires too far ahead and nobody renews it: the database's "+
		"clock has gone back, the lease is taken", "lease", name, "holder", again.Holder,
		"expires_at", again.ExpiresAt)
	return again, nil
}

func (l *Leases) read(ctx context.Context, name string) (row leaseRow, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.answerTimeout())
	defer cancel()
	err = Retry(ctx, func(ctx context.Context) error {
		return l.db.GetContext(ctx, &row, `
			SELECT holder, epoch, expires_at,
			       expires_at <= CURRENT_TIMESTAMP(3) AS expired,
			       expires_at > CURRENT_TIMESTAMP(3) + INTERVAL ? MICROSECOND AS ahead
			  FROM lease
			 WHERE name = ?`, 2*l.ttl.Microseconds(), name)
	})
	if errors.Is(err, sql.ErrNoRows) {
		return leaseRow{absent: true}, nil
	}
	epoch, doubted := l.doubted(name)
	row.ours = doubted && row.Holder == l.holder && row.Epoch == epoch
	return row, err
}

// take takes the row that was seen for the next epoch, and reports whether nobody else was faster.
// The condition makes it a compare-and-set: of several that saw the lease free, one finds the row
// as it was. Renewals keep the epoch, so the expiry is compared as well.
func (l *Leases) take(ctx context.Context, name string, seen leaseRow) (bool, error) {
	const insert = `
		INSERT IGNORE INTO lease (name, holder, epoch, expires_at)
		VALUES (?, ?, ?, CURRENT_TIMESTAMP(3) + INTERVAL ? MICROSECOND)`
	const update = `
		UPDATE lease
		   SET holder = ?, epoch = ?, expires_at = CURRENT_TIMESTAMP(3) + INTERVAL ? MICROSECOND
		 WHERE name = ? AND epoch = ? AND holder = ? AND expires_at = ?`
	ctx, cancel := context.WithTimeout(ctx, l.answerTimeout())
	defer cancel()
	next, ttl := seen.Epoch+1, l.ttl.Microseconds()
	query, args := insert, []any{name, l.holder, next, ttl}
	if !seen.absent {
		query = update
		args = []any{l.holder, next, ttl, name, seen.Epoch, seen.Holder, seen.ExpiresAt}
	}
	res, err := l.db.ExecContext(ctx, query, args...)
	if err != nil {
		l.doubt(name, next)
		return false, err
	}
	l.doubt(name, 0)
	n, err := res.RowsAffected()
	return n > 0, err
}

// doubt remembers that the row may have this epoch from us although nobody here holds the lease: a
// statement was sent and its answer was lost. Without this we would take our own row for another
// holder's, and wait until it expires. 0: there is no doubt.
func (l *Leases) doubt(name string, epoch int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if epoch == 0 {
		delete(l.doubts, name)
	} else {
		l.doubts[name] = epoch
	}
}

func (l *Leases) doubted(name string) (epoch int64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	epoch, ok = l.doubts[name]
	return epoch, ok
}
