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
	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

const (
	contendSchema = "unionbridge_contend"

	stepsPerNode = 150
	leaseRounds  = 60
)

// contend writes the same rows through all nodes at once, as instances that use different nodes do. Each
// node admits a write at once, and the group refuses the later one at its commit (error 1213); what the
// program does about that is what is tested.
func contend(ctx context.Context, nodes []*node, screen *stage.Screen) (err error) {
	for _, statement := range []string{
		"CREATE DATABASE " + contendSchema + " CHARACTER SET utf8mb4",
		"CREATE TABLE " + contendSchema + ".counter (id INT PRIMARY KEY, n INT NOT NULL)",
		"INSERT INTO " + contendSchema + ".counter VALUES (1, 0)",
	} {
		if _, err := nodes[0].admin.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("preparing the contended rows: %w", err)
		}
	}
	pools, err := openAll(ctx, nodes)
	defer func() { err = errors.Join(err, closeAll(pools)) }()
	if err != nil {
		return err
	}
	if _, err := database.Migrate(ctx, pools[0], slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	return errors.Join(countTogether(ctx, nodes, pools, screen), leaseTogether(ctx, pools, screen))
}

// openAll opens a pool to each node. wsrep_sync_wait makes a read wait for what the others have written.
func openAll(ctx context.Context, nodes []*node) ([]*sqlx.DB, error) {
	var pools []*sqlx.DB
	for _, n := range nodes {
		db, err := database.Open(ctx, database.Config{DSN: n.dsn(n.sql, contendSchema) + "?wsrep_sync_wait=1"})
		if err != nil {
			return pools, err
		}
		pools = append(pools, db)
	}
	return pools, nil
}

func closeAll(pools []*sqlx.DB) error {
	var failures []error
	for _, db := range pools {
		failures = append(failures, db.Close())
	}
	return errors.Join(failures...)
}

// countTogether has each node add to one counter; none of the steps may be lost, or done twice.
func countTogether(ctx context.Context, nodes []*node, pools []*sqlx.DB, screen *stage.Screen) error {
	before, err := conflicts(ctx, nodes)
	if err != nil {
		return err
	}
	failures := make([]error, len(pools))
	var working sync.WaitGroup
	for i, db := range pools {
		working.Go(func() { failures[i] = count(ctx, db) })
	}
	working.Wait()
	if err := errors.Join(failures...); err != nil {
		return fmt.Errorf("adding to one counter through all nodes: %w", err)
	}
	after, err := conflicts(ctx, nodes)
	if err != nil {
		return err
	}
	for i, db := range pools {
		var n int
		if err := db.GetContext(ctx, &n, `SELECT n FROM counter WHERE id = 1`); err != nil {
			return fmt.Errorf("reading the counter: %w", err)
		}
		if want := stepsPerNode * len(pools); n != want {
			return fmt.Errorf("the counter is %d on %s after %d steps", n, nodes[i].name, want)
		}
	}
	if after == before {
		return errors.New("no write met another one, so this proves nothing")
	}
	screen.Good("%d transactions on one row through %d nodes, none lost; %d certification conflicts, all repeated",
		stepsPerNode*len(pools), len(pools), after-before)
	return nil
}

func count(ctx context.Context, db *sqlx.DB) error {
	for range stepsPerNode {
		err := database.InTx(ctx, db, func(ctx context.Context, tx *sqlx.Tx) error {
			_, err := tx.ExecContext(ctx, `UPDATE counter SET n = n + 1 WHERE id = 1`)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// conflicts is how many transactions the nodes have refused at their commit or broken off before it.
func conflicts(ctx context.Context, nodes []*node) (sum int, err error) {
	for _, n := range nodes {
		for _, name := range []string{"wsrep_local_cert_failures", "wsrep_local_bf_aborts"} {
			text, err := n.status(ctx, name)
			if err != nil {
				return 0, err
			}
			value, err := strconv.Atoi(text)
			if err != nil {
				return 0, fmt.Errorf("reading %s of %s: %w", name, n.name, err)
			}
			sum += value
		}
	}
	return sum, nil
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

func (h *holders) giveBack() {
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
func leaseTogether(ctx context.Context, pools []*sqlx.DB, screen *stage.Screen) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	seen := &holders{epochs: map[int64]bool{}}
	failures := make([]error, len(pools))
	wins := make([]int, len(pools))
	var working sync.WaitGroup
	for i, db := range pools {
		working.Go(func() { wins[i], failures[i] = compete(ctx, db, fmt.Sprint("instance-", i+1), seen) })
	}
	working.Wait()
	if err := errors.Join(errors.Join(failures...), errors.Join(seen.wrong...)); err != nil {
		return fmt.Errorf("competing for one lease through all nodes: %w", err)
	}
	screen.Good("one lease, %d changes of hands between %d nodes (won %d), never two holders", seen.rounds(), len(pools), wins)
	return nil
}

// compete takes the lease and gives it back until it has changed hands often enough.
func compete(ctx context.Context, db *sqlx.DB, holder string, seen *holders) (won int, err error) {
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
			seen.giveBack()
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
