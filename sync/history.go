package sync

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/robfig/cron/v3"

	"github.com/unionbridge/unionbridge/internal/database"
)

// History is what the ledger has of one account's latest runs; nil: there was none.
type History struct {
	Sweep     *Run // the newest sweep, whatever its state
	GoodSweep *Run // the newest sweep that ended well; often the same one
	Refresh   *Run // the newest refresh that had somebody to look up
}

// ReadHistory reads the ledger for status reports, in one statement, as metrics ask for it often. It
// needs SELECT on sync_run only, and costs three dives into its index sync_run_latest.
func ReadHistory(ctx context.Context, db *sqlx.DB, appid string) (History, error) {
	branch := "(" + strings.Replace(runColumns, "SELECT id", "SELECT ? AS part, id", 1)
	const newest = `
		 WHERE appid = ? AND kind = ? ORDER BY id DESC LIMIT 1)`
	const newestGood = `
		 WHERE appid = ? AND kind = ? AND state = ? ORDER BY id DESC LIMIT 1)`
	query := branch + newest + " UNION ALL " + branch + newestGood + " UNION ALL " + branch + newest
	var h History
	parts := []**Run{&h.Sweep, &h.GoodSweep, &h.Refresh}
	var rows []struct {
		Part int `db:"part"`
		runRow
	}
	err := db.SelectContext(ctx, &rows, query, 0, appid, kindSweep, 1, appid, kindSweep, StateDone,
		2, appid, kindRefresh)
	if err != nil {
		return History{}, fmt.Errorf("reading the ledger: %w", database.Explain(err))
	}
	for _, row := range rows {
		row.decode()
		*parts[row.Part] = &row.Run
	}
	return h, nil
}

// LeaseName is the name of the lease that an instance holds during a run of this kind and account.
// A run in the state running without a lease belongs to an instance that died.
func LeaseName(kind, appid string) string { return kind + ":" + appid }

// NextTurn returns the next turn of a schedule line after now, in now's time zone unless the line
// names one. For an interval (@every) it returns the zero time: that counts from the daemon's
// start, which nobody else knows.
func NextTurn(line string, now time.Time) (time.Time, error) {
	schedule, err := cron.ParseStandard(line)
	if err != nil {
		return time.Time{}, fmt.Errorf("reading the schedule %q: %w", line, err)
	}
	if _, interval := schedule.(cron.ConstantDelaySchedule); interval {
		return time.Time{}, nil
	}
	return schedule.Next(now), nil
}

// Overdue reports whether two turns of a schedule have passed since the start of the last sweep
// that ended well. One turn may be late: a sweep of a large account takes its time.
func Overdue(line string, good, now time.Time) (bool, error) {
	schedule, err := cron.ParseStandard(line)
	if err != nil {
		return false, fmt.Errorf("reading the schedule %q: %w", line, err)
	}
	return schedule.Next(schedule.Next(good)).Before(now), nil
}
