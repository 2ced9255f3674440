package main

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

// idleTime is two rounds of the housekeeping, the rarest of the regular statements: in a shorter time it
// would be a matter of luck how many are seen.
const idleTime = 40 * time.Second

// measureIdle counts the statements that the idle daemon costs the server.
func (b *bench) measureIdle(ctx context.Context) error {
	b.screen.Step("idle daemon for %s", idleTime)
	conn, err := b.database.Admin().Conn(ctx)
	if err != nil {
		return fmt.Errorf("connecting to the server: %w", err)
	}
	defer func() { _ = conn.Close() }()
	before, err := questions(ctx, conn)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := sleep(ctx, idleTime); err != nil {
		return err
	}
	after, err := questions(ctx, conn)
	if err != nil {
		return err
	}
	own := int64(1) // the second reading counts itself
	rate := float64(after-before-own) / time.Since(begin).Seconds()
	b.add(figure{"idle_queries", rate, "queries/s", atMost(5), "queries of the idle daemon"})
	return nil
}

// singles is the number of rows inserted into the idle system.
const singles = 200

// measureLatency inserts single rows at random moments and takes the time from just before the INSERT to
// the moment when the simulator has read the request; both clocks are this machine's.
func (b *bench) measureLatency(ctx context.Context, daemon *stage.Process) error {
	b.screen.Step("latency: %d single rows at random moments", singles)
	insert, err := b.db.PrepareContext(ctx, `INSERT INTO send_request (mini_openid, template, data) VALUES (?, ?, ?)`)
	if err != nil {
		return fmt.Errorf("preparing the INSERT: %w", err)
	}
	defer func() { _ = insert.Close() }()
	if err := b.simulator.Reset(ctx); err != nil {
		return err
	}
	begun := make(map[string]time.Time, singles)
	for i := range singles {
		pause := 20*time.Millisecond + rand.N(180*time.Millisecond)
		if err := sleep(ctx, pause); err != nil {
			return err
		}
		begun[order("L", i)] = time.Now()
		if _, err := insert.ExecContext(ctx, b.users[i%len(b.users)].OpenID, stage.Template, message("L", i)); err != nil {
			return fmt.Errorf("inserting a request: %w", err)
		}
	}
	if err := b.awaitDone(ctx, daemon, singles); err != nil {
		return err
	}
	messages, err := b.simulator.Messages(ctx)
	if err != nil {
		return err
	}
	latencies := make([]time.Duration, 0, singles)
	for _, m := range messages {
		if begin, ok := begun[orderOf(m)]; ok {
			latencies = append(latencies, m.Time.Sub(begin))
		}
	}
	if len(latencies) != singles {
		return fmt.Errorf("%d of %d single messages were delivered", len(latencies), singles)
	}
	slices.SortFunc(latencies, cmp.Compare)
	millis := func(q float64) float64 { return float64(stage.Quantile(latencies, q).Microseconds()) / 1000 }
	b.add(figure{"latency_p50", millis(0.5), "ms", target{}, "INSERT to delivery in an idle system, median"})
	b.add(figure{"latency_p99", millis(0.99), "ms", atMost(300), "INSERT to delivery in an idle system, p99"})
	return nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
