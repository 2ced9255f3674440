package sync

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/robfig/cron/v3"
)

// History is what the ledger has of one account's latest runs; nil: there was none.
type History struct {
	Sweep     *Run // the newest sweep, whatever its state
	GoodSweep *Run // the newest sweep that ended well; often the same one
	Refresh   *Run // the newest refresh that had somebody to look up
}

// ReadHistory reads the ledger for status reports. It needs SELECT on sync_run only, and costs
// three dives into its index sync_run_latest.
func ReadHistory(ctx context.Context, db *sqlx.DB, appid string) (History, error) {
	l := ledger{db: db}
	var h History
	for _, part := range []struct {
		into **Run
		read func(ctx context.Context, kind, appid string) (*runRow, error)
		kind string
	}{
		{&h.Sweep, l.last, kindSweep},
		{&h.GoodSweep, l.lastDone, kindSweep},
		{&h.Refresh, l.last, kindRefresh},
	} {
		row, err := part.read(ctx, part.kind, appid)
		if err != nil {
			return History{}, err
		}
		if row != nil {
			*part.into = &row.Run
		}
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
