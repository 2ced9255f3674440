package database_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/devtools/link"
)

// openThief returns what keeps the answer to the next statement with the text, and a pool whose
// statements pass it.
func openThief(t *testing.T, dsn, text string, hangs bool) (*link.Thief, *sqlx.DB) {
	t.Helper()
	thief, through, err := link.OpenThief(dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = thief.Close() })
	thief.Steal(hangs, text)
	return thief, dbtest.Open(t, through)
}

// TestLeaseAnswerIsLost: a try was carried out and its answer lost. The next one finds its own row.
func TestLeaseAnswerIsLost(t *testing.T) {
	for name, c := range map[string]struct {
		statement string
		before    string // makes the row
		epoch     int64
	}{
		"of the UPDATE": {"UPDATE lease", `INSERT INTO lease (name, holder, epoch, expires_at)
			VALUES ('job', 'dead', 7, CURRENT_TIMESTAMP(3) - INTERVAL 1 SECOND)`, 9},
		"of the INSERT": {"INSERT IGNORE INTO lease", `DO 0`, 2},
	} {
		for _, hangs := range []bool{false, true} {
			t.Run(fmt.Sprint(name, ", hangs ", hangs), func(t *testing.T) {
				t.Parallel()
				db := dbtest.New(t)
				if _, err := db.ExecContext(t.Context(), c.before); err != nil {
					t.Fatal(err)
				}
				_, through := openThief(t, dbtest.DSN(t, db), c.statement, hangs)
				l := newLeases(t, through, "a", 0)
				begin := time.Now()
				if lease, err := l.TryAcquire(t.Context(), "job"); err == nil {
					t.Fatalf("TryAcquire = %v without an answer", lease)
				}
				if took := time.Since(begin); took > 4*time.Second {
					t.Errorf("waited %s for an answer", took)
				}
				refused(t, newLeases(t, db, "b", 0), "job")
				if lease := acquire(t, l, "job"); lease.Epoch() != c.epoch {
					t.Errorf("epoch %d, want %d: one for each change", lease.Epoch(), c.epoch)
				}
			})
		}
	}
}

// TestReleaseIsLost: a release did not reach the server. Its own process need not wait for the row
// to expire.
func TestReleaseIsLost(t *testing.T) {
	t.Parallel()
	dsn := dbtest.DSN(t, dbtest.New(t))
	proxy := dbtest.NewProxy(t, dsn)
	l := newLeases(t, dbtest.Open(t, proxy.DSN()), "a", time.Hour)
	lease := acquire(t, l, "job")
	proxy.Cut()
	if err := lease.Release(t.Context()); err == nil {
		t.Fatal("a release without a server succeeded")
	}
	proxy.Restore()
	if again := eventually(t, l, "job"); again.Epoch() != lease.Epoch()+1 {
		t.Errorf("epoch %d, want %d", again.Epoch(), lease.Epoch()+1)
	}
}

// TestTakeoverAfterLostAnswers: 50 holders are killed right after a renewal, and each successor
// loses the answer to the UPDATE by which it takes over.
func TestTakeoverAfterLostAnswers(t *testing.T) {
	t.Parallel()
	const kills, promised = 50, 15 * time.Second
	db := dbtest.New(t)
	dsn := dbtest.DSN(t, db)
	dead := newLeases(t, db, "dead", 0) // nobody renews these
	took := make([]time.Duration, kills)
	var successors sync.WaitGroup
	for i := range kills {
		thief, through := openThief(t, dsn, "UPDATE lease", i%2 == 0)
		successor := newLeases(t, through, fmt.Sprint("successor ", i), 0)
		successors.Go(func() {
			name := fmt.Sprint("send:wx", i)
			if lease, err := dead.TryAcquire(t.Context(), name); lease == nil || err != nil {
				t.Errorf("%s: %v, %v", name, lease, err)
				return
			}
			killed := time.Now()
			takeOver(t, through, successor, name)
			took[i] = time.Since(killed)
			if !thief.Stole() {
				t.Errorf("%s: no answer was lost", name)
			}
		})
	}
	successors.Wait()
	var worst time.Duration
	for i, d := range took {
		worst = max(worst, d)
		if d > promised {
			t.Errorf("kill %d: taken over after %s", i, d)
		}
	}
	t.Logf("%d kills, worst takeover %s", kills, worst)
}

// takeOver does what the sender does until it has the lease.
func takeOver(t *testing.T, db *sqlx.DB, l *database.Leases, name string) {
	const poll, retry, give = time.Second, 500 * time.Millisecond, time.Minute
	for end := time.Now().Add(give); time.Now().Before(end); {
		lease, err := l.TryAcquire(t.Context(), name)
		if lease != nil {
			return
		}
		if err != nil {
			time.Sleep(retry)
			continue
		}
		for taken := true; taken; {
			time.Sleep(poll)
			held, err := database.HeldLeases(t.Context(), db)
			taken = err != nil
			for _, h := range held {
				taken = taken || h.Name == name
			}
		}
	}
	t.Errorf("%s was not taken over within %s", name, give)
}

// TestReleasedLeaseIsFree: the database's clock went back after the release.
func TestReleasedLeaseIsFree(t *testing.T) {
	t.Parallel()
	db := dbtest.New(t)
	for _, ahead := range []string{"5 SECOND", "1 DAY"} {
		if _, err := db.ExecContext(t.Context(), `REPLACE INTO lease (name, holder, epoch, expires_at)
			VALUES ('job', '', 3, CURRENT_TIMESTAMP(3) + INTERVAL `+ahead+`)`); err != nil {
			t.Fatal(err)
		}
		if held, err := database.HeldLeases(t.Context(), db); err != nil || len(held) > 0 {
			t.Errorf("held %+v, %v; want none", held, err)
		}
		if lease := acquire(t, newLeases(t, db, "a", 0), "job"); lease.Epoch() != 4 {
			t.Errorf("epoch %d, want 4", lease.Epoch())
		}
	}
}

// TestLeaseTooFarAhead: the database's clock went back, so the row of a dead holder would be valid
// for hours, and that of a living one until its next renewal.
func TestLeaseTooFarAhead(t *testing.T) {
	t.Parallel()
	const ttl = 1500 * time.Millisecond
	db := dbtest.New(t)
	clockBack := func() {
		if _, err := db.ExecContext(t.Context(),
			`UPDATE lease SET expires_at = expires_at + INTERVAL 1 HOUR`); err != nil {
			t.Fatal(err)
		}
	}
	living, dead := newLeases(t, db, "living", ttl), newLeases(t, db, "dead", ttl)
	runLeases(t, living)
	kept := acquire(t, living, "kept")
	acquire(t, dead, "left")
	clockBack()
	b := newLeases(t, db, "b", ttl)
	refused(t, b, "kept")
	if !kept.Valid() {
		t.Error("the living holder lost its lease")
	}
	acquire(t, b, "left")
}
