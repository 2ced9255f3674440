package database_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

const (
	stepsPerNode = 150
	leaseRounds  = 60
)

// openGalera opens one schema through each node of a Galera cluster. `make test-galera` starts the
// cluster and names its nodes. Each node admits a write at once, and the group refuses the later
// one at its commit (error 1213); what the program does about that is what these tests are about.
func openGalera(t *testing.T) (pools []*sqlx.DB) {
	t.Helper()
	nodes := strings.Fields(os.Getenv("UNIONBRIDGE_TEST_GALERA"))
	if len(nodes) == 0 {
		t.Skip("needs a Galera cluster: make test-galera")
	}
	for _, dsn := range nodes {
		pools = append(pools, dbtest.Open(t, dsn))
	}
	if _, err := database.Migrate(t.Context(), pools[0], slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	return pools
}

// Each node adds to one counter; none of the steps may be lost, or done twice.
func TestGaleraCounter(t *testing.T) {
	pools := openGalera(t)
	pools[0].MustExec(`CREATE TABLE counter (id INT PRIMARY KEY, n INT NOT NULL)`)
	pools[0].MustExec(`INSERT INTO counter VALUES (1, 0)`)
	before := conflicts(t, pools)
	var working sync.WaitGroup
	for _, db := range pools {
		working.Go(func() {
			for range stepsPerNode {
				err := database.InTx(t.Context(), db, func(ctx context.Context, tx *sqlx.Tx) error {
					_, err := tx.ExecContext(ctx, `UPDATE counter SET n = n + 1 WHERE id = 1`)
					return err
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	working.Wait()
	met := conflicts(t, pools) - before
	steps := stepsPerNode * len(pools)
	for i, db := range pools {
		var n int
		if err := db.GetContext(t.Context(), &n, `SELECT n FROM counter WHERE id = 1`); err != nil {
			t.Fatal(err)
		}
		if n != steps {
			t.Errorf("the counter is %d on node %d after %d steps", n, i+1, steps)
		}
	}
	if met == 0 {
		t.Error("no write met another one, so this proves nothing")
	}
	t.Logf("%d transactions on one row through %d nodes; %d certification conflicts", steps, len(pools), met)
}

// conflicts is how many transactions the nodes have refused at their commit or broken off before.
func conflicts(t *testing.T, pools []*sqlx.DB) (sum int) {
	t.Helper()
	for _, db := range pools {
		var n int
		err := db.GetContext(t.Context(), &n, `
			SELECT SUM(VARIABLE_VALUE)
			  FROM information_schema.GLOBAL_STATUS
			 WHERE VARIABLE_NAME IN ('WSREP_LOCAL_CERT_FAILURES', 'WSREP_LOCAL_BF_ABORTS')`)
		if err != nil {
			t.Fatal(err)
		}
		sum += n
	}
	return sum
}

// holders watches that a lease has one holder at a time, and each epoch one holder ever.
type holders struct {
	mu     sync.Mutex
	now    int
	epochs map[int64]bool
	wrong  []error
}

func (h *holders) take(epoch int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.now++; h.now > 1 {
		h.wrong = append(h.wrong, fmt.Errorf("%d hold the lease in epoch %d", h.now, epoch))
	}
	if h.epochs[epoch] {
		h.wrong = append(h.wrong, fmt.Errorf("epoch %d was given out twice", epoch))
	}
	h.epochs[epoch] = true
}

func (h *holders) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now--
}

func (h *holders) rounds() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.epochs)
}

// Instances at all nodes compete for one lease.
func TestGaleraLease(t *testing.T) {
	pools := openGalera(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	seen := &holders{epochs: map[int64]bool{}}
	wins := make([]int, len(pools))
	var working sync.WaitGroup
	for i, db := range pools {
		working.Go(func() {
			var err error
			if wins[i], err = compete(ctx, db, fmt.Sprint("instance-", i+1), seen); err != nil {
				t.Error(err)
			}
		})
	}
	working.Wait()
	if err := errors.Join(seen.wrong...); err != nil {
		t.Error(err)
	}
	t.Logf("one lease, %d changes of hands between %d nodes (won %d)", seen.rounds(), len(pools), wins)
}

// compete takes the lease and releases it until it has changed hands often enough.
func compete(
	ctx context.Context, db *sqlx.DB, holder string, seen *holders,
) (won int, err error) {
	leases := database.NewLeases(db, database.LeaseConfig{Holder: holder})
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for seen.rounds() < leaseRounds {
		lease, err := leases.TryAcquire(ctx, "contended")
		if err != nil {
			return won, err
		}
		if lease != nil {
			won++
			seen.take(lease.Epoch())
			seen.release()
			if err := lease.Release(ctx); err != nil {
				return won, err
			}
		}
		select {
		case <-ctx.Done():
			return won, ctx.Err()
		case <-tick.C:
		}
	}
	return won, nil
}

func TestHolders(t *testing.T) {
	h := &holders{epochs: map[int64]bool{}}
	h.take(1)
	h.release()
	h.take(2)
	if len(h.wrong) > 0 || h.rounds() != 2 {
		t.Errorf("%d rounds, wrong: %v", h.rounds(), h.wrong)
	}
	h.take(2)
	if len(h.wrong) != 2 {
		t.Errorf("two holders in one epoch: %v", h.wrong)
	}
}
