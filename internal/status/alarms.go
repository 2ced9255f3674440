package status

import (
	"cmp"
	"fmt"
	"time"

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

// lateAfter is how long a request may be due before it is worth an alarm: a minute of a killed
// instance's claims, and then a bulk of a few hundred thousand.
const lateAfter = 15 * time.Minute

type alarmList []Alarm

func (l *alarmList) add(code, appid, format string, args ...any) {
	*l = append(*l, Alarm{Code: code, AppID: optional(appid), Text: fmt.Sprintf(format, args...)})
}

// alarms goes account by account.
func (r reader) alarms() ([]Alarm, error) {
	list := alarmList{}
	for i, a := range r.cfg.Accounts {
		history := r.history[i]
		r.sweepAlarms(&list, a, history.Sweep)
		if err := r.overdueAlarm(&list, a, history); err != nil {
			return nil, err
		}
		if run := history.Refresh; run != nil && run.State == sync.StateFailed {
			list.add(alarmRefresh, a.AppID, "refresh %d of %s failed: %s", run.ID, a.AppID, run.Error)
		}
		if r.holder(queue.LeaseName(a.AppID)) == "" {
			list.add(alarmNoSender, a.AppID, "nobody sends for %s: is a daemon running?", a.AppID)
		}
	}
	for _, p := range r.queue.Pauses {
		if alarming(p) {
			list.add(alarmPaused, p.AppID, "%s of %s is paused since %s: %s %s", p.Scope, p.AppID,
				local(p.Since), p.Reason, p.ErrMsg)
		}
	}
	for _, o := range r.queue.Open {
		if o.Late > 0 && r.cfg.Now.Sub(o.Oldest) > lateAfter {
			list.add(alarmQueueLate, o.AppID, "%d requests of %s are due, the oldest since %s", o.Late,
				cmp.Or(o.AppID, "the default account"), local(o.Oldest))
		}
	}
	return list, nil
}

// alarming leaves out what ends within a minute, and a day's quota that has been reset.
func alarming(p requests.Pause) bool {
	switch p.Reason {
	case "quota_minute":
		return false
	case "quota_day", "daily_budget":
		return !p.Over
	}
	return true
}

func (r reader) sweepAlarms(list *alarmList, a Settings, run *sync.Run) {
	if run == nil {
		return // a new account; without a daemon there is no_sender
	}
	switch run.State {
	case sync.StateBlocked:
		list.add(alarmBlocked, a.AppID, "sweep %d of %s is blocked: %s", run.ID, a.AppID, run.Error)
	case sync.StateSuspended:
		list.add(alarmSuspended, a.AppID, "sweep %d of %s is out of quota and goes on at %s: %s",
			run.ID, a.AppID, local(run.ResumeAt), run.Error)
	case sync.StateFailed:
		list.add(alarmFailed, a.AppID, "sweep %d of %s failed: %s", run.ID, a.AppID, run.Error)
	case sync.StateRunning:
		if !r.alive(*run) {
			list.add(alarmCrashed, a.AppID, "sweep %d of %s is called running, but nobody runs it: "+
				"its instance died; the next one goes on with it", run.ID, a.AppID)
		}
	}
}

func (r reader) alive(run sync.Run) bool {
	return run.State == sync.StateRunning && r.holder(sync.LeaseName(run.Kind, run.AppID)) != ""
}

func (r reader) overdueAlarm(list *alarmList, a Settings, h sync.History) error {
	if h.GoodSweep == nil || (h.Sweep != nil && r.alive(*h.Sweep)) {
		return nil
	}
	late, err := sync.Overdue(a.Sweep, h.GoodSweep.Started, r.cfg.Now)
	if late {
		list.add(alarmOverdue, a.AppID, "no sweep of %s has ended well since %s, its schedule is %q",
			a.AppID, local(h.GoodSweep.Started), a.Sweep)
	}
	return err
}

func local(t time.Time) string { return t.Local().Format(time.DateTime) }
