package database_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

// patience bounds a wait that fails the test; a passing one ends much earlier.
const patience = 15 * time.Second

func newLeases(t *testing.T, db *sqlx.DB, holder string, ttl time.Duration) *database.Leases {
	t.Helper()
	return database.NewLeases(db, database.LeaseConfig{Holder: holder, TTL: ttl, Logger: quiet})
}

// runLeases runs l until stop is called or the test ends. stop waits for Run's end.
func runLeases(t *testing.T, l *database.Leases) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func acquire(t *testing.T, l *database.Leases, name string) *database.Lease {
	t.Helper()
	lease, err := l.TryAcquire(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if lease == nil {
		t.Fatalf("TryAcquire(%q) = nil, want the lease", name)
	}
	return lease
}

func refused(t *testing.T, l *database.Leases, name string) {
	t.Helper()
	if lease, err := l.TryAcquire(t.Context(), name); lease != nil || err != nil {
		t.Fatalf("TryAcquire(%q) = %v, %v; want nil, nil", name, lease, err)
	}
}

// eventually takes the lease as a successor does, by asking again.
func eventually(t *testing.T, l *database.Leases, name string) *database.Lease {
	t.Helper()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(patience)
	for {
		lease, err := l.TryAcquire(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if lease != nil {
			return lease
		}
		select {
		case <-deadline:
			t.Fatalf("lease %q was not to be had within %s", name, patience)
		case <-ticker.C:
		}
	}
}

func lost(t *testing.T, lease *database.Lease) {
	t.Helper()
	select {
	case <-lease.Done():
	case <-time.After(patience):
		t.Fatalf("lease %s is still held after %s", lease.Name(), patience)
	}
	if lease.Valid() {
		t.Errorf("lease %s is done and valid", lease.Name())
	}
}

func TestLeaseHasOneHolder(t *testing.T) {
	db := dbtest.New(t)
	a, b := newLeases(t, db, "a", 0), newLeases(t, db, "b", 0)
	stopA := runLeases(t, a)
	runLeases(t, b)

	lease := acquire(t, a, "send/wx1")
	refused(t, b, "send/wx1")
	refused(t, a, "send/wx1") // not twice by the same one either
	if lease.Name() != "send/wx1" || lease.Epoch() != 1 || !lease.Valid() {
		t.Errorf("lease = %s, epoch %d, valid %t; want send/wx1, 1, true", lease.Name(),
			lease.Epoch(), lease.Valid())
	}
	other := acquire(t, b, "send/wx2")

	if err := lease.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	lost(t, lease)
	if err := lease.Release(t.Context()); err != nil {
		t.Errorf("second Release = %v", err)
	}
	second := acquire(t, b, "send/wx1")
	if second.Epoch() != 2 {
		t.Errorf("epoch after a change of hands = %d, want 2", second.Epoch())
	}
	if !other.Valid() {
		t.Error("releasing one lease ended another")
	}
	stopA()
	if _, err := a.TryAcquire(t.Context(), "late"); err == nil {
		t.Error("TryAcquire after Run's end succeeded; nobody would renew that lease")
	}
}

func TestLeaseStopReleasesAll(t *testing.T) {
	db := dbtest.New(t)
	a, b := newLeases(t, db, "a", time.Hour), newLeases(t, db, "b", time.Hour)
	stop := runLeases(t, a)
	one, two := acquire(t, a, "one"), acquire(t, a, "two")
	stop()
	lost(t, one)
	lost(t, two)
	// With a TTL of an hour only a release explains that these succeed.
	acquire(t, b, "one")
	acquire(t, b, "two")
}

func TestLeaseIsRenewed(t *testing.T) {
	db := dbtest.New(t)
	const ttl = 600 * time.Millisecond
	a, b := newLeases(t, db, "a", ttl), newLeases(t, db, "b", ttl)
	runLeases(t, a)
	one, two := acquire(t, a, "one"), acquire(t, a, "two")
	// Three TTLs, counted by the server's expiry and not by a sleep.
	var first time.Time
	if err := db.GetContext(t.Context(), &first, `SELECT MIN(expires_at) FROM lease`); err != nil {
		t.Fatal(err)
	}
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for serverTime(t, db).Before(first.Add(2 * ttl)) {
		refused(t, b, "one")
		refused(t, b, "two")
		<-ticker.C
	}
	if !one.Valid() || !two.Valid() {
		t.Error("a lease was lost although the database was there")
	}
}

// Without renewals (a frozen process, a pool that is cut off) the holder gives up before anybody
// else can have the lease.
func TestLeaseEndsBeforeItCanBeTaken(t *testing.T) {
	dsn := dbtest.DSN(t, dbtest.New(t))
	proxy := dbtest.NewProxy(t, dsn)
	cutOff, db := dbtest.Open(t, proxy.DSN()), dbtest.Open(t, dsn)
	const ttl = time.Second
	a, b := newLeases(t, cutOff, "a", ttl), newLeases(t, db, "b", ttl)
	runLeases(t, a)
	lease := acquire(t, a, "job")
	proxy.Cut()

	successor := eventually(t, b, "job")
	if lease.Valid() {
		t.Error("two holders are valid at once")
	}
	lost(t, lease)
	if successor.Epoch() != lease.Epoch()+1 {
		t.Errorf("successor's epoch = %d, want %d", successor.Epoch(), lease.Epoch()+1)
	}

	// Back on the network the first one can have others, and this one again after a release.
	proxy.Restore()
	if err := successor.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	again := eventually(t, a, "job")
	if again.Epoch() != lease.Epoch()+2 {
		t.Errorf("epoch = %d, want %d", again.Epoch(), lease.Epoch()+2)
	}
}

// A row that was taken although the holder believes in it (frozen beyond the TTL, clocks apart)
// ends at the next renewal, and the other leases stay.
func TestLeaseNoticesThatItWasTaken(t *testing.T) {
	db := dbtest.New(t)
	a := newLeases(t, db, "a", 3*time.Second)
	runLeases(t, a)
	taken, kept := acquire(t, a, "taken"), acquire(t, a, "kept")
	if _, err := db.ExecContext(t.Context(),
		`UPDATE lease SET epoch = epoch + 1, holder = 'b' WHERE name = 'taken'`); err != nil {
		t.Fatal(err)
	}
	lost(t, taken)
	if !kept.Valid() {
		t.Error("the other lease was lost with it")
	}
	if err := taken.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	var holder string
	if err := db.GetContext(t.Context(), &holder,
		`SELECT holder FROM lease WHERE name = 'taken'`); err != nil || holder != "b" {
		t.Errorf("holder = %q (%v), want b: a lost lease must not be freed", holder, err)
	}
}

// Valid counts from the moment the statement was sent, not from its answer.
func TestLeaseValidityStartsAtTheRequest(t *testing.T) {
	db := dbtest.New(t)
	base := time.Now()
	var calls int
	now := func() time.Time {
		calls++
		// Each look at the clock finds three seconds more gone, as if the statement took that long.
		return base.Add(time.Duration(calls) * 3 * time.Second)
	}
	l := database.NewLeases(db, database.LeaseConfig{Holder: "slow", TTL: 10 * time.Second,
		Now: now})
	lease, err := l.TryAcquire(t.Context(), "job")
	if err != nil || lease == nil {
		t.Fatalf("TryAcquire = %v, %v", lease, err)
	}
	var looks int
	for lease.Valid() {
		looks++
	}
	// Sent at some tick; 8 s (TTL less a fifth) are two more ticks, one of which newLease spent.
	if looks > 1 {
		t.Errorf("valid for %d looks of 3 s after the answer, want at most 1", looks)
	}
}

func TestLeaseRace(t *testing.T) {
	db := dbtest.New(t)
	const instances, jobs = 8, 20
	won := make([][]string, instances)
	var wg sync.WaitGroup
	for i := range instances {
		l := newLeases(t, db, fmt.Sprint("instance ", i), time.Minute)
		wg.Go(func() {
			for j := range jobs {
				name := fmt.Sprint("job ", j)
				lease, err := l.TryAcquire(t.Context(), name)
				if err != nil {
					t.Error(err)
				}
				if lease != nil {
					won[i] = append(won[i], name)
				}
			}
		})
	}
	wg.Wait()
	all := slices.Concat(won...)
	slices.Sort(all)
	if len(all) != jobs || len(slices.Compact(all)) != jobs {
		t.Errorf("%d instances won %d leases (%v), want each of %d once", instances, len(all), won,
			jobs)
	}
}

// TestLeaseAfterSleep: after the machine was suspended, or its wall clock was set, a lease is good
// for nothing until the database has confirmed it.
func TestLeaseAfterSleep(t *testing.T) {
	for _, c := range []struct {
		name  string
		jump  time.Duration
		taken bool // another instance has it by then
	}{
		{"suspended", 30 * time.Second, false},
		{"taken meanwhile", 30 * time.Second, true},
		{"suspended for a part of its time", 3 * time.Second, false},
		{"clock set back", -time.Hour, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			db := dbtest.New(t)
			var jump atomic.Int64
			leases := database.NewLeases(db, database.LeaseConfig{
				Holder: "a", TTL: 10 * time.Second, Logger: quiet,
				Now: func() time.Time { return dbtest.Asleep(time.Now(), time.Duration(jump.Load())) },
			})
			lease := acquire(t, leases, "job")
			if !lease.Valid() {
				t.Fatal("a new lease is not valid")
			}
			jump.Store(int64(c.jump))
			if lease.Valid() {
				t.Error("valid after the jump, and nothing has confirmed it")
			}
			if c.taken {
				if _, err := db.Exec(`UPDATE lease SET holder = 'b', epoch = epoch + 1`); err != nil {
					t.Fatal(err)
				}
			}
			runLeases(t, leases) // renews after a third of the TTL
			for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
				select {
				case <-lease.Done():
					if !c.taken || lease.Valid() {
						t.Error("lost, or valid after its loss")
					}
					return
				default:
				}
				if lease.Valid() {
					if c.taken {
						t.Error("valid, and another instance has it")
					}
					return
				}
				if time.Now().After(deadline) {
					t.Fatal("neither confirmed nor lost")
				}
			}
		})
	}
}
