package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

// writeCounter counts the rows that the server itself says were written to the tables of the map.
type writeCounter struct {
	admin  *sql.DB
	source string
	query  string
	schema string
	before int64
	after  func(context.Context) error
}

const (
	// MySQL: on by default.
	performanceQuery = `
		SELECT COALESCE(SUM(COUNT_WRITE), 0) FROM performance_schema.table_io_waits_summary_by_table
		 WHERE OBJECT_SCHEMA = ? AND OBJECT_NAME IN ('follower', 'follower_recheck', 'mini_user')`
	// MariaDB, once userstat is on.
	userstatQuery = `
		SELECT COALESCE(SUM(ROWS_CHANGED), 0) FROM information_schema.TABLE_STATISTICS
		 WHERE TABLE_SCHEMA = ? AND TABLE_NAME IN ('follower', 'follower_recheck', 'mini_user')`
)

// countWrites starts counting with whatever the server has: MariaDB's userstat, else MySQL's
// performance schema.
func (b *bench) countWrites(ctx context.Context) (*writeCounter, error) {
	c := &writeCounter{admin: b.database.Admin(), schema: b.database.Schema()}
	var userstat sql.NullBool
	err := c.admin.QueryRowContext(ctx, "SELECT @@GLOBAL.userstat").Scan(&userstat)
	if err == nil {
		c.source, c.query = "information_schema.TABLE_STATISTICS", userstatQuery
		if !userstat.Bool {
			if _, err := c.admin.ExecContext(ctx, "SET GLOBAL userstat = 1"); err != nil {
				return nil, fmt.Errorf("turning the server's table statistics on: %w", err)
			}
			c.after = func(ctx context.Context) error {
				_, err := c.admin.ExecContext(ctx, "SET GLOBAL userstat = 0")
				return err
			}
		}
	} else {
		c.source, c.query = "performance_schema", performanceQuery
	}
	c.before, err = c.read(ctx)
	return c, err
}

func (c *writeCounter) read(ctx context.Context) (n int64, err error) {
	if err := c.admin.QueryRowContext(ctx, c.query, c.schema).Scan(&n); err != nil {
		return 0, fmt.Errorf("reading the server's write counters: %w", err)
	}
	return n, nil
}

// stop returns the rows written since countWrites. A counter that cannot count would always say 0, so it
// is tried out first.
func (c *writeCounter) stop(ctx context.Context) (int64, error) {
	now, err := c.read(ctx)
	if err != nil {
		return 0, err
	}
	if err := c.tryOut(ctx, now); err != nil {
		return 0, err
	}
	if c.after != nil {
		if err := c.after(ctx); err != nil {
			return 0, fmt.Errorf("turning the server's table statistics off: %w", err)
		}
	}
	return now - c.before, nil
}

func (c *writeCounter) tryOut(ctx context.Context, now int64) error {
	table := c.schema + ".follower_recheck"
	for _, query := range []string{
		"INSERT INTO " + table + " (appid, openid, reason) VALUES ('" + stage.AppID + "', 'o-bench', 'bench')",
		"DELETE FROM " + table + " WHERE openid = 'o-bench'",
	} {
		if _, err := c.admin.ExecContext(ctx, query); err != nil {
			return fmt.Errorf("trying the server's write counters out: %w", err)
		}
	}
	after, err := c.read(ctx)
	if err == nil && after < now+2 {
		err = errors.New("the server's write counters do not count: " + c.source)
	}
	return err
}

// questions is the number of statements that clients have sent to the server.
func questions(ctx context.Context, conn *sql.Conn) (n int64, err error) {
	var name string
	if err := conn.QueryRowContext(ctx, "SHOW GLOBAL STATUS LIKE 'Questions'").Scan(&name, &n); err != nil {
		return 0, fmt.Errorf("reading the server's counter of statements: %w", err)
	}
	return n, nil
}
