package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
)

const (
	contendSchema = "unionbridge_contend"

	stepsPerNode = 150
	leaseRounds  = 60
)

// contend writes the same rows through all nodes at once, as instances that use different nodes do.
// Each node admits a write at once, and the group refuses the later one at its commit (error 1213);
// what the program does about that is what is tested.
func contend(t *harness.T, nodes []*node) {
	admin := nodes[0].admin
	admin.Do("CREATE DATABASE " + contendSchema + " CHARACTER SET utf8mb4")
	admin.Do("CREATE TABLE " + contendSchema + ".counter (id INT PRIMARY KEY, n INT NOT NULL)")
	admin.Do("INSERT INTO " + contendSchema + ".counter VALUES (1, 0)")
	var pools []harness.DB
	for _, n := range nodes {
		// wsrep_sync_wait makes a read wait for what the others have written.
		dsn := n.dsn(n.sql, contendSchema) + "?wsrep_sync_wait=1"
		db, err := database.Open(t.Context(), database.Config{DSN: dsn})
		t.Check(err)
		pools = append(pools, t.Wrap(db))
	}
	_, err := database.Migrate(t.Context(), pools[0].DB, slog.New(slog.DiscardHandler))
	t.Check(err)
	t.Check(errors.Join(
		harness.Try(t.Context(), t.Screen, func(t *harness.T) { countTogether(t, nodes, pools) }),
		harness.Try(t.Context(), t.Screen, func(t *harness.T) { leaseTogether(t, pools) })))
}

// countTogether has each node add to one counter; none of the steps may be lost, or done twice.
func countTogether(t *harness.T, nodes []*node, pools []harness.DB) {
	before := conflicts(t, nodes)
	working := t.Group(len(pools))
	for _, db := range pools {
		working.Go(func(ctx context.Context) {
			for range stepsPerNode {
				err := database.InTx(ctx, db.DB, func(ctx context.Context, tx *sqlx.Tx) error {
					_, err := tx.ExecContext(ctx, `UPDATE counter SET n = n + 1 WHERE id = 1`)
					return err
				})
				t.Checkf(err, "adding to one counter through all nodes")
			}
		})
	}
	working.Wait()
	met := conflicts(t, nodes) - before
	steps := stepsPerNode * len(pools)
	for i, db := range pools {
		if n := db.Count(`SELECT n FROM counter WHERE id = 1`); n != int64(steps) {
			t.Fatalf("the counter is %d on %s after %d steps", n, nodes[i].name, steps)
		}
	}
	if met == 0 {
		t.Fatalf("no write met another one, so this proves nothing")
	}
	t.Good("%d transactions on one row through %d nodes, none lost; "+
		"%d certification conflicts, all repeated", steps, len(pools), met)
}

// conflicts is how many transactions the nodes have refused at their commit or broken off before.
func conflicts(t *harness.T, nodes []*node) (sum int) {
	for _, n := range nodes {
		for _, name := range []string{"wsrep_local_cert_failures", "wsrep_local_bf_aborts"} {
			value, err := strconv.Atoi(n.status(name))
			t.Checkf(err, "reading %s of %s", name, n.name)
			sum += value
		}
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

// leaseTogether has instances at all nodes compete for one lease.
func leaseTogether(t *harness.T, pools []harness.DB) {
	seen := &holders{epochs: map[int64]bool{}}
	wins := make([]int, len(pools))
	working := t.Group(len(pools))
	for i, db := range pools {
		working.Go(func(ctx context.Context) {
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			var err error
			wins[i], err = compete(ctx, db.DB, fmt.Sprint("instance-", i+1), seen)
			t.Checkf(err, "competing for one lease through all nodes")
		})
	}
	working.Wait()
	t.Checkf(errors.Join(seen.wrong...), "competing for one lease through all nodes")
	t.Good("one lease, %d changes of hands between %d nodes (won %d), never two holders",
		seen.rounds(), len(pools), wins)
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
