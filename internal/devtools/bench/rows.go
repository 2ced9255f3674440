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

// crowd is a mass of rows that the server makes by itself, for the mini program's users over and over.
type crowd struct {
	n       int
	columns string // besides template and data
	// values are the columns' values as SQL over mini_user m; left is the number of rows still to come.
	values func(left int) string
}

// mostAtOnce rows are made by one statement: more of them would be a transaction that no server likes.
const mostAtOnce = 200_000

func (b *bench) insertCrowd(ctx context.Context, c crowd) error {
	for left := c.n; left > 0; {
		b.screen.Status("%s rows to go", stage.Count(int64(left)))
		query := `
			INSERT INTO send_request (template, data, ` + c.columns + `)
			SELECT ?, ?, ` + c.values(left) + `
			  FROM mini_user m
			 WHERE m.appid = ?
			 LIMIT ?`
		result, err := b.db.ExecContext(ctx, query, stage.Template, message("C", 0), stage.MiniAppID, min(left, mostAtOnce))
		if err != nil {
			return fmt.Errorf("inserting many requests: %w", err)
		}
		n, err := result.RowsAffected()
		if err != nil || n == 0 {
			return errors.Join(err, errors.New("inserting many requests: the server says it made none"))
		}
		left -= int(n)
	}
	return nil
}

// constant values of a crowd are the same at every moment.
func constant(values string) func(int) string { return func(int) string { return values } }

// The crowds, each of n rows.
func bulkRows(n int) crowd { return crowd{n, "unionid, priority", constant("m.unionid, 2")} }

func dueRows(n int) crowd { return crowd{n, "unionid", constant("m.unionid")} }

// futureRows are due at random moments of one day next week.
func futureRows(n int) crowd {
	return crowd{n, "unionid, due_at", constant("m.unionid, CURRENT_TIMESTAMP(3) + INTERVAL 7 * 86400 + FLOOR(RAND() * 86400) SECOND")}
}

// waitingRows are for people whom the map does not have.
func waitingRows(n int) crowd {
	return crowd{n, "appid, unionid, status, reason, attempts, due_at", constant(
		"'" + stage.AppID + "', CONCAT('x', m.unionid), 'waiting', 'no_follower', 1, CURRENT_TIMESTAMP(3) + INTERVAL 3 DAY")}
}

// finishedRows were sent one after the other, ten a second until now: fewer days ago than the retention keeps.
func finishedRows(n int) crowd {
	return crowd{
		n, "appid, unionid, status, channel, attempts, sent_openid, msgid, due_at, created_at, attempted_at, finished_at",
		func(left int) string {
			moment := fmt.Sprintf(", CURRENT_TIMESTAMP(3) - INTERVAL %d SECOND", left/10)
			return "'" + stage.AppID + "', m.unionid, 'sent', 'template', 1, m.openid, CAST(UUID_SHORT() AS SIGNED)" + strings.Repeat(moment, 4)
		},
	}
}

// clear empties send_request. The next ids are new ones all the same: a client_msg_id is made of them, and the
// simulator, as WeChat, does not deliver one twice within ten minutes.
func (b *bench) clear(ctx context.Context) error {
	if err := b.empty(ctx); err != nil {
		return err
	}
	return b.simulator.Reset(ctx)
}

func (b *bench) empty(ctx context.Context) error {
	last, err := b.lastID(ctx)
	if err != nil {
		return err
	}
	b.highest = max(b.highest, last)
	return b.execAll(ctx, "TRUNCATE TABLE send_request", "DELETE FROM account_state",
		fmt.Sprintf("ALTER TABLE send_request AUTO_INCREMENT = %d", b.highest+1))
}

// lastID is the largest id in send_request; 0: it is empty.
func (b *bench) lastID(ctx context.Context) (id int64, err error) {
	if err := b.db.QueryRowContext(ctx, "SELECT COALESCE(MAX(id), 0) FROM send_request").Scan(&id); err != nil {
		return 0, fmt.Errorf("reading the last request's id: %w", err)
	}
	return id, nil
}

// open are the requests that are waited for.
type open struct {
	after     int64 // rows with a larger id
	delivered int64 // messages since the simulator's last Reset
}

// awaitDone waits until none of the rows is pending. Before the messages are delivered it does not ask the
// database but where nothing is delivered any more: the question walks over all the rows that are done.
func (b *bench) awaitDone(ctx context.Context, daemon *stage.Process, o open) error {
	const patience = 5 * time.Minute
	ctx, cancel := context.WithTimeoutCause(ctx, patience, errors.New("they had not all been delivered after "+patience.String()))
	defer cancel()
	var before, still int64
	return b.poll(ctx, daemon, func() (bool, error) {
		delivered, err := b.delivered(ctx)
		if err != nil {
			return false, err
		}
		still++
		if delivered != before {
			before, still = delivered, 0
		}
		if delivered < o.delivered && still%50 != 49 {
			return false, nil
		}
		return b.done(ctx, o.after)
	})
}

// poll asks every 20 ms until it is so.
func (b *bench) poll(ctx context.Context, daemon *stage.Process, isSo func() (bool, error)) error {
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for {
		ok, err := isSo()
		if ok || err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the requests: %w\n%s", context.Cause(ctx), b.stage.LogTail(stage.DaemonLog))
		case <-daemon.Done():
			return fmt.Errorf("the daemon ended by itself: %s\n%s", daemon.Ended(), b.stage.LogTail(stage.DaemonLog))
		case <-ticker.C:
		}
	}
}

func (b *bench) delivered(ctx context.Context) (int64, error) {
	stats, err := b.simulator.Stats(ctx)
	return stats.Delivered[stage.AppID], err
}

// awaitDelivered waits until the simulator has got so many messages since its last Reset.
func (b *bench) awaitDelivered(ctx context.Context, daemon *stage.Process, n int64) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return b.poll(ctx, daemon, func() (bool, error) {
		delivered, err := b.delivered(ctx)
		return delivered >= n, err
	})
}

func (b *bench) done(ctx context.Context, after int64) (bool, error) {
	// Backwards, since the last ones are done last. By the other index it would read what is due next week.
	const query = `
		SELECT id
		  FROM send_request FORCE INDEX (PRIMARY)
		 WHERE id > ? AND status = 'pending'
		 ORDER BY id DESC
		 LIMIT 1`
	var id int64
	err := b.db.QueryRowContext(ctx, query, after).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking for pending requests: %w", err)
	}
	return false, nil
}
