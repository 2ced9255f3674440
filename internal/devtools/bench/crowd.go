package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

// campaignTimes is how many times the usual backlog the large one is: a million rows.
const campaignTimes = 5

func (b *bench) campaign() int { return campaignTimes * b.requests }

const (
	producers     = 4
	producersTime = 30 * time.Second
)

// measureProducers inserts as fast as it can while the daemon sends.
func (b *bench) measureProducers(ctx context.Context) error {
	b.screen.Step("%d producers insert one row after the other for %s, and the daemon sends", producers, producersTime)
	return b.withDaemon(ctx, unlimited(), func(daemon *stage.Process) error {
		cpu := b.watchCPU(ctx).and("daemon", daemon.Pid())
		begin := time.Now()
		inserted, err := b.produce(ctx)
		if err != nil {
			return err
		}
		took := time.Since(begin).Seconds()
		delivered, err := b.delivered(ctx)
		if err != nil {
			return err
		}
		b.screen.Say("%s rows, %s messages; processor seconds: %s", stage.Count(inserted), stage.Count(delivered), cpu)
		b.add(figure{"producers", float64(inserted) / took, "rows/s", atLeast(2500),
			fmt.Sprintf("%d producers, single-row INSERTs, while the daemon sends", producers)})
		b.add(figure{"send_with_producers", float64(delivered) / took, "sends/s", atLeast(2500), "the daemon in the same time"})
		begin = time.Now()
		if err := b.awaitDone(ctx, daemon, open{delivered: inserted}); err != nil {
			return err
		}
		b.add(figure{"send_after_producers", time.Since(begin).Seconds(), "s", target{}, "until the rest of it was sent"})
		if delivered, err = b.delivered(ctx); err != nil {
			return err
		}
		b.add(figure{"send_with_producers_missing", float64(inserted - delivered), "messages", exactly(0), "rows inserted in it but not delivered"})
		return nil
	})
}

// produce returns the number of rows that were inserted.
func (b *bench) produce(ctx context.Context) (int64, error) {
	var inserted atomic.Int64
	end := time.Now().Add(producersTime)
	group, ctx := errgroup.WithContext(ctx)
	for producer := range producers {
		group.Go(func() error {
			conn, err := b.db.Conn(ctx)
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			insert, err := conn.PrepareContext(ctx, `INSERT INTO send_request (mini_openid, template, data) VALUES (?, ?, ?)`)
			if err != nil {
				return err
			}
			defer func() { _ = insert.Close() }()
			for i := producer; time.Now().Before(end); i += producers {
				if _, err := insert.ExecContext(ctx, b.users[i%len(b.users)].OpenID, stage.Template, message("P", i)); err != nil {
					return fmt.Errorf("inserting a request: %w", err)
				}
				inserted.Add(1)
			}
			return nil
		})
	}
	err := group.Wait()
	return inserted.Load(), err
}

// memoryTime takes in a round of the housekeeping, which looks through the waiting rows.
const memoryTime = 30 * time.Second

// measureMemory has a daemon work on a large backlog for a while: rows that are due, that wait for their
// recipient, that are due next week.
func (b *bench) measureMemory(ctx context.Context) error {
	n := b.campaign()
	due, others := n-2*(n/5), n/5
	b.screen.Step("memory: %s rows due, %s waiting, %s of next week; sending for %s",
		stage.Count(int64(due)), stage.Count(int64(others)), stage.Count(int64(others)), memoryTime)
	for _, c := range []crowd{dueRows(due), waitingRows(others), futureRows(others)} {
		if err := b.insertCrowd(ctx, c); err != nil {
			return err
		}
	}
	return b.withDaemon(ctx, unlimited(), func(daemon *stage.Process) error {
		if err := sleep(ctx, memoryTime); err != nil {
			return err
		}
		delivered, err := b.delivered(ctx)
		if err != nil {
			return err
		}
		if delivered == 0 {
			return fmt.Errorf("the daemon sent nothing\n%s", b.stage.LogTail(stage.DaemonLog))
		}
		b.screen.Say("%s messages in the meantime", stage.Count(delivered))
		b.addMemory("pending_memory", daemon.PeakMemory(), atMost(64),
			fmt.Sprintf("peak memory of the daemon with %s open rows, while it sends", stage.Count(int64(n))))
		return nil
	})
}
