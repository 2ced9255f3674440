package main

import (
	"fmt"
	"time"

	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/sender/queue"
	"github.com/unionbridge/unionbridge/sender/requests"
	"github.com/unionbridge/unionbridge/sync"
)

// The alarms' codes. Monitoring relies on them: docs/status.md says what to do about each.
const (
	alarmBlocked   = "sweep_blocked"
	alarmSuspended = "sweep_suspended"
	alarmFailed    = "sweep_failed"
	alarmCrashed   = "sweep_crashed"
	alarmOverdue   = "sweep_overdue"
	alarmRefresh   = "refresh_failed"
	alarmPaused    = "paused"
	alarmNoSender  = "no_sender"
	alarmQueueLate = "queue_late"
)

// lateAfter is how long a request may be due before it is worth an alarm: a minute of a killed instance's
// claims, and then a bulk of a few hundred thousand.
const lateAfter = 15 * time.Minute

// alarms are what a person should look at, account by account.
func (r statusReader) alarms() ([]alarm, error) {
	list := []alarm{}
	add := func(code, appid, format string, args ...any) {
		list = append(list, alarm{Code: code, AppID: orNull(appid), Text: fmt.Sprintf(format, args...)})
	}
	for i, a := range r.cfg.OfficialAccounts {
		r.sweepAlarms(a, r.history[i], add)
		if err := r.overdueAlarm(a, r.history[i], add); err != nil {
			return nil, err
		}
		if run := r.history[i].Refresh; run != nil && run.State == sync.StateFailed {
			add(alarmRefresh, a.AppID, "refresh %d of %s failed: %s", run.ID, a.AppID, run.Error)
		}
		if r.holder(queue.LeaseName(a.AppID)) == "" {
			add(alarmNoSender, a.AppID, "nobody sends for %s: is a daemon running?", a.AppID)
		}
	}
	for _, p := range r.queue.Pauses {
		if alarming(p) {
			add(alarmPaused, p.AppID, "%s of %s is paused since %s: %s %s", p.Scope, p.AppID,
				p.Since.Local().Format(time.DateTime), p.Reason, p.ErrMsg)
		}
	}
	for _, o := range r.queue.Open {
		if o.Late > 0 && r.now.Sub(o.Oldest) > lateAfter {
			add(alarmQueueLate, o.AppID, "%d requests of %s are due, the oldest since %s", o.Late, orDefault(o.AppID),
				o.Oldest.Local().Format(time.DateTime))
		}
	}
	return list, nil
}

// alarming leaves out what ends by itself within a minute, and a day's quota that has been reset.
func alarming(p requests.Pause) bool {
	switch p.Reason {
	case "quota_minute":
		return false
	case "quota_day", "daily_budget":
		return !p.Over
	}
	return true
}

func (r statusReader) sweepAlarms(a config.OfficialAccount, h sync.History, add func(code, appid, format string, args ...any)) {
	run := h.Sweep
	if run == nil {
		return // a new account; without a daemon there is no_sender
	}
	switch run.State {
	case sync.StateBlocked:
		add(alarmBlocked, a.AppID, "sweep %d of %s is blocked: %s", run.ID, a.AppID, run.Error)
	case sync.StateSuspended:
		add(alarmSuspended, a.AppID, "sweep %d of %s is out of quota and goes on at %s: %s", run.ID, a.AppID,
			run.ResumeAt.Local().Format(time.DateTime), run.Error)
	case sync.StateFailed:
		add(alarmFailed, a.AppID, "sweep %d of %s failed: %s", run.ID, a.AppID, run.Error)
	case sync.StateRunning:
		if !r.alive(*run) {
			add(alarmCrashed, a.AppID, "sweep %d of %s is called running, but nobody runs it: its instance died; the next one goes on with it",
				run.ID, a.AppID)
		}
	}
}

func (r statusReader) alive(run sync.Run) bool {
	return run.State == sync.StateRunning && r.holder(sync.LeaseName(run.Kind, run.AppID)) != ""
}

func (r statusReader) overdueAlarm(a config.OfficialAccount, h sync.History, add func(code, appid, format string, args ...any)) error {
	if h.GoodSweep == nil || (h.Sweep != nil && r.alive(*h.Sweep)) {
		return nil
	}
	late, err := sync.Overdue(a.Sync.Sweep, h.GoodSweep.Started, r.now)
	if late {
		add(alarmOverdue, a.AppID, "no sweep of %s has ended well since %s, its schedule is %q", a.AppID,
			h.GoodSweep.Started.Local().Format(time.DateTime), a.Sync.Sweep)
	}
	return err
}

func orDefault(appid string) string {
	if appid == "" {
		return "the default account"
	}
	return appid
}
