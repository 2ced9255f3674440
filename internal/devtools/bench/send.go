package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

// measureDaemon measures what the running daemon does: the backlog, then nothing, then single rows.
func (b *bench) measureDaemon(ctx context.Context) error {
	var naive float64
	var err error
	if b.wants("send") {
		if naive, err = b.naiveSend(ctx); err != nil {
			return err
		}
		b.screen.Step("inserting %s requests", stage.Count(int64(b.requests)))
		if err := b.insertRequests(ctx, "send_request", b.requests); err != nil {
			return err
		}
	}
	if err := b.simulator.Reset(ctx); err != nil {
		return err
	}
	b.screen.Step("daemon: starting unionbridge run")
	begin := time.Now()
	daemon, err := b.stage.StartDaemon(ctx, b.listen)
	if err != nil {
		return err
	}
	if b.wants("send") {
		if err := b.measureBacklog(ctx, daemon, begin, naive); err != nil {
			return err
		}
	}
	if b.wants("idle") {
		if err := b.measureIdle(ctx); err != nil {
			return err
		}
	}
	if b.wants("latency") {
		return b.measureLatency(ctx, daemon)
	}
	return nil
}

// message is the i-th request's text; its number is what the read-back is matched by.
func message(kind string, i int) string {
	return fmt.Sprintf(`{"thing1":"热拿铁 & 可颂","time2":"2026-01-02 15:04","amount3":"28.00元","character_string4":"%s"}`, order(kind, i))
}

func order(kind string, i int) string { return fmt.Sprintf("%s-%07d", kind, i) }

// insertRequests puts one row for each of the first n mini-program users into a table of send_request's
// shape; every other one is named by unionid.
func (b *bench) insertRequests(ctx context.Context, table string, n int) error {
	const most = 1000
	const row = `(?, ?, ?, ?)`
	for from := 0; from < n; from += most {
		to := min(from+most, n)
		args := make([]any, 0, 4*most)
		for i := from; i < to; i++ {
			unionid, openid := any(nil), any(b.users[i].OpenID)
			if i%2 == 1 {
				unionid, openid = b.users[i].UnionID, nil
			}
			args = append(args, unionid, openid, stage.Template, message("B", i))
		}
		query := "INSERT INTO " + table + " (unionid, mini_openid, template, data) VALUES " +
			strings.Repeat(row+", ", to-from-1) + row
		if _, err := b.db.ExecContext(ctx, query, args...); err != nil {
			return fmt.Errorf("inserting requests: %w", err)
		}
	}
	return nil
}

// measureBacklog waits until no row is open; the daemon's start counts.
func (b *bench) measureBacklog(ctx context.Context, daemon *stage.Process, begin time.Time, naive float64) error {
	if err := b.awaitDone(ctx, daemon, b.requests); err != nil {
		return err
	}
	took := time.Since(begin)
	rate := float64(b.requests) / took.Seconds()
	b.screen.Say("%s messages in %.1f s, peak memory of the daemon %.1f MiB",
		stage.Count(int64(b.requests)), took.Seconds(), float64(daemon.PeakMemory())/(1<<20))
	verdict, err := b.readBack(ctx)
	if err != nil {
		return err
	}
	b.add(figure{"send", rate, "sends/s", atLeast(6000), fmt.Sprintf("%s pending requests to the end", stage.Count(int64(b.requests)))})
	b.add(figure{"send_wrong", float64(verdict.wrong), "messages", exactly(0), "to another person or with another text, or a row that says so"})
	b.add(figure{"send_duplicates", float64(verdict.duplicates), "messages", exactly(0), "delivered twice"})
	b.add(figure{"send_missing", float64(verdict.missing), "messages", exactly(0), "not delivered"})
	if peak := daemon.PeakMemory(); peak > 0 {
		b.add(figure{"send_memory", float64(peak) / (1 << 20), "MiB", target{}, "peak memory of the daemon in it"})
	}
	b.add(figure{"send_naive", naive, "sends/s", target{}, "the same by one SELECT, one POST, one UPDATE each"})
	b.add(figure{"send_ratio", rate / naive, "x", target{}, "daemon against that"})
	return nil
}

// awaitDone waits until no row is pending. Before n messages are delivered it asks the database once a
// second only: a query that looks for pending rows walks over the index entries of those that are done.
func (b *bench) awaitDone(ctx context.Context, daemon *stage.Process, n int) error {
	const patience = 5 * time.Minute
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("they had not all been delivered after "+patience.String()))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for round := 1; ; round++ {
		done, err := b.done(ctx, int64(n), round%50 == 0)
		if done || err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the requests: %w\n%s", context.Cause(ctx), b.stage.LogTail(stage.DaemonLog))
		case <-daemon.Done():
			return fmt.Errorf("the daemon ended by itself: %s\n%s", daemon.Ended(), b.stage.LogTail(stage.DaemonLog))
		case <-tick.C:
		}
	}
}

func (b *bench) done(ctx context.Context, n int64, look bool) (bool, error) {
	stats, err := b.simulator.Stats(ctx)
	if err != nil || stats.Delivered[stage.AppID] < n && !look {
		return false, err
	}
	var id int64
	err = b.db.QueryRowContext(ctx, `SELECT id FROM send_request WHERE status = 'pending' LIMIT 1`).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking for pending requests: %w", err)
	}
	return false, nil
}
