package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

// How many times the usual backlog stands beside what is sent: five million rows, ten million rows.
const (
	futureTimes   = 25
	finishedTimes = 50
)

// weightRounds of half the usual backlog each are sent; the median counts.
const weightRounds = 3

// weight is what the sender does and costs beside the rows that are in the table.
type weight struct {
	idleness
	rate float64 // messages a second
	cost float64 // microseconds of processor time a message; it is steadier than the rate where others use the machine too
}

func (b *bench) weigh(ctx context.Context) (w weight, err error) {
	if w.idleness, err = b.idle(ctx); err != nil {
		return w, err
	}
	b.screen.Step("%d times %s requests", weightRounds, stage.Count(int64(b.requests/2)))
	var rates, costs []float64
	for range weightRounds {
		d, err := b.drain(ctx, unlimited(), b.requests/2)
		if err != nil {
			return w, err
		}
		rates, costs = append(rates, d.rate), append(costs, float64(d.cost)/float64(time.Microsecond))
	}
	w.rate, w.cost = median(rates), median(costs)
	return w, nil
}

// without weighs the empty table, once in a run.
func (b *bench) without(ctx context.Context) (weight, error) {
	if b.light != nil {
		return *b.light, nil
	}
	b.screen.Step("for comparison: a table with nothing else in it")
	w, err := b.weigh(ctx)
	if err != nil {
		return w, err
	}
	b.light = &w
	b.add(figure{"light_send", w.rate, "sends/s", target{}, fmt.Sprintf("%s pending requests and nothing else", stage.Count(int64(b.requests/2)))})
	b.addKnown(figure{"light_cpu", w.cost, "us/message", target{}, "processor time of the database server and the daemon in it"})
	b.addKnown(figure{"light_idle_cpu", w.cpu, "%", target{}, "of a processor, in the database server while the daemon is idle"})
	return w, b.clear(ctx)
}

func (b *bench) measureFuture(ctx context.Context) error {
	return b.measureBeside(ctx, "future", "due next week", futureRows(futureTimes*b.requests))
}

func (b *bench) measureFinished(ctx context.Context) error {
	return b.measureBeside(ctx, "finished", "finished", finishedRows(finishedTimes*b.requests))
}

// measureBeside compares the sender beside a crowd with the sender alone.
func (b *bench) measureBeside(ctx context.Context, name, what string, c crowd) error {
	light, err := b.without(ctx)
	if err != nil {
		return err
	}
	crowd := stage.Count(int64(c.n)) + " rows that are " + what
	b.screen.Step("inserting %s", crowd)
	if err := b.insertCrowd(ctx, c); err != nil {
		return err
	}
	if err := b.writeOut(ctx); err != nil {
		return err
	}
	w, err := b.weigh(ctx)
	if err != nil {
		return err
	}
	b.add(figure{name + "_send", w.rate, "sends/s", target{}, "the same beside " + crowd})
	b.add(figure{name + "_ratio", w.rate / light.rate, "x", atLeast(0.9), "against the table without them"})
	b.addKnown(figure{name + "_cpu", w.cost, "us/message", target{}, "processor time of the database server and the daemon in it"})
	b.add(figure{name + "_idle_queries", w.queries, "queries/s", atMost(5), "queries of the idle daemon beside them"})
	b.addKnown(figure{name + "_idle_cpu", w.cpu, "%", target{}, "of a processor, in the database server while the daemon is idle"})
	return nil
}

// writeOut has the server write the table's changed pages to the disk. It would do so while the figures are taken
// otherwise: many rows came at once that come in days elsewhere.
func (b *bench) writeOut(ctx context.Context) (err error) {
	conn, err := b.db.Conn(ctx)
	if err != nil {
		return fmt.Errorf("connecting to the server: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	for _, query := range []string{"FLUSH TABLES send_request FOR EXPORT", "UNLOCK TABLES"} {
		if _, err := conn.ExecContext(ctx, query); err != nil {
			return fmt.Errorf("%s: %w", query, err)
		}
	}
	return nil
}
