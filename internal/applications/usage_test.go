package applications

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

func limitedShop(limit Limit) Application {
	a := shop()
	a.Limit = limit
	return a
}

// session is the shop's at an instance.
func (f fixture) session() Session { return Session{Application: f.byName["shop"], From: here()} }

// insert does what a door does: it reserves, inserts the requests and counts them in one
// transaction. It returns how many were accepted.
func (f fixture) insert(ctx context.Context, n int64) (int64, error) {
	for {
		reservation, err := f.Reserve(ctx, f.session(), n)
		if reservation.N == 0 {
			return 0, err
		}
		refused := err
		err = database.InTx(ctx, f.db, func(ctx context.Context, tx *sqlx.Tx) error {
			for range reservation.N {
				_, err := tx.ExecContext(ctx, `
					INSERT INTO send_request (unionid, template, data, application) VALUES ('u', 't', '{}', 'shop')`)
				if err != nil {
					return err
				}
			}
			return f.Spend(ctx, tx, reservation)
		})
		switch {
		case err == nil:
			return reservation.N, refused
		case !errors.Is(err, ErrTakenBack):
			f.Cancel(reservation)
			return 0, err
		}
	}
}

func (f fixture) mustInsert(t *testing.T, n, want int64) {
	t.Helper()
	got, err := f.insert(t.Context(), n)
	if got != want || (got == n) != (err == nil) {
		t.Errorf("%d of %d were accepted (%v), want %d", got, n, err, want)
	}
}

// counts are the sums of application_usage.
type counts struct {
	Allocated int64 `db:"allocated"`
	Used      int64 `db:"used"`
}

// checkUsage looks at what must hold at every moment: no window beyond its limit, no instance
// beyond what it was given, and each request counted once.
func checkUsage(t *testing.T, db *sqlx.DB, limit Limit) {
	t.Helper()
	var windows []struct {
		Period string `db:"period"`
		Begins string `db:"begins_at"`
		counts
		Beyond int64 `db:"beyond"`
	}
	err := db.SelectContext(t.Context(), &windows, `
		SELECT period, CAST(begins_at AS CHAR) AS begins_at, SUM(allocated) AS allocated, SUM(used) AS used,
		       SUM(used > allocated) AS beyond
		  FROM application_usage
		 GROUP BY period, begins_at`)
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]int64{}
	for _, w := range windows {
		most := map[string]int64{"day": limit.Day, "minute": limit.Minute}[w.Period]
		if w.Allocated > most || w.Used > w.Allocated || w.Beyond > 0 {
			t.Errorf("%s of %s: %d used of %d allocated, the limit is %d", w.Period, w.Begins, w.Used, w.Allocated, most)
		}
		used[w.Period] += w.Used
	}
	var rows int64
	if err := db.GetContext(t.Context(), &rows, `SELECT COUNT(*) FROM send_request`); err != nil {
		t.Fatal(err)
	}
	for period, n := range used {
		if n != rows {
			t.Errorf("%d requests are counted by the %s, %d were inserted", n, period, rows)
		}
	}
}

// noonDay returns a day that does not end during a test.
func noonDay(now time.Time) time.Time { return now.UTC().Truncate(100 * 24 * time.Hour) }

func TestNoLimit(t *testing.T) {
	f := newInstance(t, dbtest.New(t), shop())
	f.mustInsert(t, 10_000/100, 100)
	checkUsage(t, f.db, Limit{})
	var rows int
	if err := f.db.Get(&rows, `SELECT COUNT(*) FROM application_usage`); err != nil || rows != 0 {
		t.Errorf("%d rows are counted (%v) where there is no limit", rows, err)
	}
}

// TestLimit: the last requests of a limit are single ones, and a batch gets as many as are left.
func TestLimit(t *testing.T) {
	db := dbtest.New(t)
	limit := Limit{Day: 100, Minute: 1_000_000}
	f := newInstance(t, db, limitedShop(limit))
	f.day = noonDay
	f.mustInsert(t, 1, 1)
	f.mustInsert(t, 70, 70)
	f.mustInsert(t, 20, 20)
	f.mustInsert(t, 20, 9)
	_, err := f.insert(t.Context(), 1)
	wantCode(t, "one more", err, 45009)
	checkUsage(t, db, limit)

	restarted := newInstance(t, db, limitedShop(limit))
	restarted.day = noonDay
	_, err = restarted.insert(t.Context(), 1)
	wantCode(t, "one more after a restart", err, 45009)

	lowered := newInstance(t, db, limitedShop(Limit{Day: 50}))
	lowered.day = noonDay
	_, err = lowered.insert(t.Context(), 1)
	wantCode(t, "one more of a lower limit", err, 45009)
	raised := newInstance(t, db, limitedShop(Limit{Day: 103}))
	raised.day = noonDay
	raised.mustInsert(t, 5, 3)
	used, err := raised.Used(t.Context(), "shop")
	if err != nil || used.Day != 103 {
		t.Errorf("used: %+v, %v", used, err)
	}
	tomorrow := newInstance(t, db, limitedShop(limit))
	tomorrow.day = func(now time.Time) time.Time { return noonDay(now).Add(100 * 24 * time.Hour) }
	tomorrow.mustInsert(t, 100, 100)
}

func TestMinute(t *testing.T) {
	db := dbtest.New(t)
	f := newInstance(t, db, limitedShop(Limit{Minute: 10}))
	// The state, and with it the database's clock, is read now and not during the test.
	st, err := f.current(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	frozen := time.Now()
	f.now = func() time.Time { return frozen }
	fixed := *st
	fixed.read, fixed.moment = frozen, time.Date(2026, 12, 1, 3, 0, 59, 0, time.UTC)
	f.latest.Store(&fixed)
	f.mustInsert(t, 7, 7)
	f.mustInsert(t, 7, 3)
	_, err = f.insert(t.Context(), 1)
	wantCode(t, "the eleventh", err, 45011)
	checkUsage(t, db, Limit{Minute: 10})
	late := request{limits: [2]int64{minute: 10}, n: 1}
	if err := f.begin(t.Context(), &late); err != nil {
		t.Fatal(err)
	}

	next := fixed
	next.moment = fixed.moment.Add(time.Second)
	f.latest.Store(&next)
	f.mustInsert(t, 7, 7)
	// A caller who read the clock before the others did not set them back.
	if _, short := f.usage.take(f.usage.of("shop"), &late); short != minute || late.begins[minute].Minute() != 1 {
		t.Errorf("a late caller takes from %s", late.begins[minute])
	}
	f.mustInsert(t, 7, 3)
	checkUsage(t, db, Limit{Minute: 10})

	// A clock that is set back by more is followed.
	back := fixed
	back.moment = fixed.moment.Add(-time.Hour)
	f.latest.Store(&back)
	f.mustInsert(t, 10, 10)
	checkUsage(t, db, Limit{Minute: 10})

	// Rows of long ago go when a new minute begins.
	later := fixed
	later.moment = fixed.moment.Add(time.Hour)
	f.latest.Store(&later)
	f.mustInsert(t, 1, 1)
	var rows int
	if err := db.Get(&rows, `SELECT COUNT(*) FROM application_usage`); err != nil || rows != 1 {
		t.Errorf("%d rows are left (%v), want that of this minute", rows, err)
	}
}

// TestRollback: what was not inserted is not counted, and may be used again.
func TestRollback(t *testing.T) {
	db := dbtest.New(t)
	f := newInstance(t, db, limitedShop(Limit{Day: 10}))
	f.day = noonDay
	fail := errors.New("no")
	for range 5 {
		reservation, err := f.Reserve(t.Context(), f.session(), 10)
		if err != nil || reservation.N != 10 {
			t.Fatalf("Reserve = %+v, %v", reservation, err)
		}
		err = database.InTx(t.Context(), db, func(ctx context.Context, tx *sqlx.Tx) error {
			if err := f.Spend(ctx, tx, reservation); err != nil {
				return err
			}
			return fail
		})
		if !errors.Is(err, fail) {
			t.Fatal(err)
		}
		f.Cancel(reservation)
	}
	f.mustInsert(t, 11, 10)
	checkUsage(t, db, Limit{Day: 10})
}

// age makes all portions look as if nobody had touched them for a while.
func age(t *testing.T, db *sqlx.DB) {
	t.Helper()
	const query = `UPDATE application_usage SET touched_at = touched_at - INTERVAL ? SECOND`
	if _, err := db.ExecContext(t.Context(), query, idleSeconds+1); err != nil {
		t.Fatal(err)
	}
}

// TestTakenBack: what a dead or idle instance has not used serves the others, down to the last one;
// and if it lives after all, it counts nothing that it no longer has.
func TestTakenBack(t *testing.T) {
	db := dbtest.New(t)
	limit := Limit{Day: 800}
	one, two := newInstance(t, db, limitedShop(limit)), newInstance(t, db, limitedShop(limit))
	one.day, two.day = noonDay, noonDay
	one.mustInsert(t, 1, 1) // it has taken 100
	held, err := one.Reserve(t.Context(), one.session(), 50)
	if err != nil {
		t.Fatal(err)
	}
	two.mustInsert(t, 800, 700) // what one holds back for a while
	checkUsage(t, db, limit)
	age(t, db)
	two.mustInsert(t, 800, 99)
	checkUsage(t, db, limit)

	err = database.InTx(t.Context(), db, func(ctx context.Context, tx *sqlx.Tx) error {
		return one.Spend(ctx, tx, held)
	})
	if !errors.Is(err, ErrTakenBack) {
		t.Errorf("spending what was taken back: %v, want ErrTakenBack", err)
	}
	one.Cancel(held) // void: it gives nothing back
	_, err = one.insert(t.Context(), 1)
	wantCode(t, "one more", err, 45009)
	checkUsage(t, db, limit)

	// An instance that lost count of its own portion finds it again.
	three := newInstance(t, db, limitedShop(Limit{Day: 1600}))
	three.day = noonDay
	three.mustInsert(t, 1, 1)
	three.usage.forget("shop")
	age(t, db)
	three.mustInsert(t, 799, 799)
	checkUsage(t, db, Limit{Day: 1600})
}

// TestManyInstances: four instances and a batch writer each, which take back from each other all
// the time, accept exactly the limit.
func TestManyInstances(t *testing.T) {
	db := dbtest.New(t)
	limit := Limit{Day: 2000, Minute: 1_000_000}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	var accepted atomic.Int64
	var working, aging sync.WaitGroup
	instances := make([]fixture, 4)
	for i := range instances {
		instances[i] = newInstance(t, dbtest.Open(t, dbtest.DSN(t, db)), limitedShop(limit))
		instances[i].day = noonDay
	}
	done := make(chan struct{})
	aging.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
				_, _ = db.ExecContext(ctx, `
					UPDATE application_usage SET touched_at = touched_at - INTERVAL 10 SECOND
					 ORDER BY application, period, begins_at, holder LIMIT 1`)
			}
		}
	})
	failures := make([]error, 8)
	for w := range failures {
		working.Go(func() {
			f := instances[w%len(instances)]
			for i := 0; ; i++ {
				n, err := f.insert(ctx, int64(1+(w*7+i)%30))
				accepted.Add(n)
				if err != nil {
					if code(err) != 45009 {
						failures[w] = err
					}
					return
				}
			}
		})
	}
	working.Wait()
	close(done)
	aging.Wait()
	if err := errors.Join(failures...); err != nil {
		t.Fatal(err)
	}
	age(t, db)
	n, err := instances[0].insert(ctx, 2000)
	if n += accepted.Load(); n != limit.Day {
		t.Errorf("%d were accepted (%v), want %d", n, err, limit.Day)
	}
	checkUsage(t, db, limit)
}

// TestSpendSeveral: one transaction counts requests of several callers and applications.
func TestSpendSeveral(t *testing.T) {
	db := dbtest.New(t)
	till := limitedShop(Limit{Day: 10})
	till.Name = "till"
	f := newInstance(t, db, limitedShop(Limit{Day: 100, Minute: 1000}), till)
	f.day = noonDay
	var all []Reservation
	for i, name := range []string{"till", "shop", "till", "shop", "till"} {
		reservation, err := f.Reserve(t.Context(), Session{Application: f.byName[name]}, int64(i+1))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, reservation)
	}
	err := database.InTx(t.Context(), db, func(ctx context.Context, tx *sqlx.Tx) error {
		return f.Spend(ctx, tx, all...)
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]int64{"till": 9, "shop": 6} {
		var used counts
		err := db.Get(&used, `
			SELECT SUM(used) AS used, SUM(allocated) AS allocated FROM application_usage
			 WHERE application = ? AND period = 'day'`, name)
		if err != nil || used.Used != want {
			t.Errorf("%s: %+v, %v, want %d", name, used, err, want)
		}
	}
	if got := fmt.Sprint(usedRows(nil)); got != "[]" {
		t.Errorf("nothing to count: %s", got)
	}
}

// TestFirstComers: instances that all begin a period at the same moment do not each take the whole.
func TestFirstComers(t *testing.T) {
	db := dbtest.New(t)
	limit := Limit{Day: 8}
	instances := make([]fixture, 6)
	for i := range instances {
		instances[i] = newInstance(t, db, limitedShop(limit))
	}
	for round := range 20 {
		start := make(chan struct{})
		var working sync.WaitGroup
		var accepted atomic.Int64
		for i := range instances {
			f := instances[i]
			f.day = func(time.Time) time.Time {
				return time.Date(2026, 1, 1, 0, round, 0, 0, time.UTC)
			}
			working.Go(func() {
				<-start
				n, err := f.insert(t.Context(), 5)
				accepted.Add(n)
				if code(err) == -1 {
					t.Error(err)
				}
			})
		}
		close(start)
		working.Wait()
		if accepted.Load() != limit.Day {
			t.Errorf("round %d: %d were accepted, want %d", round, accepted.Load(), limit.Day)
		}
	}
	checkUsage(t, db, limit)
}
