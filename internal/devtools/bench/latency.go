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

const (
	// idleTime is two rounds of the housekeeping, the rarest of the regular statements: in a shorter time it
	// would be a matter of luck how many are seen.
	idleTime = 40 * time.Second
	// idleBefore lets what belongs to the daemon's start go by.
	idleBefore = 3 * time.Second
)

// idleness is what an idle daemon costs the database server.
type idleness struct {
	queries float64 // statements a second
	cpu     float64 // of one processor, in percent
}

// idle starts a daemon that has nothing to do, and counts.
func (b *bench) idle(ctx context.Context) (i idleness, err error) {
	b.screen.Step("idle daemon for %s", idleTime)
	conn, err := b.database.Admin().Conn(ctx)
	if err != nil {
		return i, fmt.Errorf("connecting to the server: %w", err)
	}
	defer func() { _ = conn.Close() }()
	err = b.withDaemon(ctx, unlimited(), func(*stage.Process) error {
		if err := sleep(ctx, idleBefore); err != nil {
			return err
		}
		cpu := b.watchCPU(ctx) // asks the server too
		before, err := questions(ctx, conn)
		if err != nil {
			return err
		}
		begin := time.Now()
		if err := sleep(ctx, idleTime); err != nil {
			return err
		}
		used := cpu.used("database")
		after, err := questions(ctx, conn)
		if err != nil {
			return err
		}
		took := time.Since(begin).Seconds()
		own := int64(1) // the second reading counts itself
		i = idleness{float64(after-before-own) / took, 100 * used.Seconds() / took}
		b.screen.Say("%s queries/s, %s %% of a processor in the database server", number(i.queries), number(i.cpu))
		return nil
	})
	return i, err
}

func (b *bench) measureIdle(ctx context.Context) error {
	i, err := b.idle(ctx)
	if err != nil {
		return err
	}
	b.add(figure{"idle_queries", i.queries, "queries/s", atMost(5), "queries of the idle daemon"})
	return nil
}

// singles is the number of rows inserted into the idle system.
const singles = 200

// measureLatency inserts single rows at random moments into an idle system.
func (b *bench) measureLatency(ctx context.Context) error {
	b.screen.Step("latency: %d single rows at random moments", singles)
	return b.withDaemon(ctx, unlimited(), func(daemon *stage.Process) error {
		latencies, err := b.latencies(ctx, daemon, singleRows{"L", singles, 1})
		if err != nil {
			return err
		}
		b.add(figure{"latency_p50", millis(latencies, 0.5), "ms", atMost(120), "INSERT to delivery in an idle system, median"})
		b.add(figure{"latency_p99", millis(latencies, 0.99), "ms", atMost(250), "INSERT to delivery in an idle system, p99"})
		return nil
	})
}

// millis is a quantile of sorted durations in milliseconds.
func millis(sorted []time.Duration, q float64) float64 {
	return float64(stage.Quantile(sorted, q).Microseconds()) / 1000
}

// singleRows are inserted one by one.
type singleRows struct {
	kind     string // of their order numbers
	n        int
	priority int
}

// latencies inserts single rows at random moments and returns, sorted, the times from just before the INSERT to
// the moment when the simulator has read the request; both clocks are this machine's.
func (b *bench) latencies(ctx context.Context, daemon *stage.Process, r singleRows) ([]time.Duration, error) {
	insert, err := b.db.PrepareContext(ctx, `INSERT INTO send_request (mini_openid, template, data, priority) VALUES (?, ?, ?, ?)`)
	if err != nil {
		return nil, fmt.Errorf("preparing the INSERT: %w", err)
	}
	defer func() { _ = insert.Close() }()
	last, err := b.lastID(ctx)
	if err != nil {
		return nil, err
	}
	begun := make(map[string]time.Time, r.n)
	for i := range r.n {
		pause := 20*time.Millisecond + rand.N(180*time.Millisecond)
		if err := sleep(ctx, pause); err != nil {
			return nil, err
		}
		begun[order(r.kind, i)] = time.Now()
		if _, err := insert.ExecContext(ctx, b.users[i%len(b.users)].OpenID, stage.Template, message(r.kind, i), r.priority); err != nil {
			return nil, fmt.Errorf("inserting a request: %w", err)
		}
	}
	if err := b.awaitDone(ctx, daemon, open{after: last}); err != nil {
		return nil, err
	}
	messages, err := b.simulator.Messages(ctx)
	if err != nil {
		return nil, err
	}
	latencies := make([]time.Duration, 0, r.n)
	for _, m := range messages {
		if begin, ok := begun[orderOf(m)]; ok {
			latencies = append(latencies, m.Time.Sub(begin))
		}
	}
	if len(latencies) != r.n {
		return nil, fmt.Errorf("%d of %d single messages were delivered", len(latencies), r.n)
	}
	slices.SortFunc(latencies, cmp.Compare)
	return latencies, nil
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
