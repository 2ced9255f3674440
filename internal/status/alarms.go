package status

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/sender/queue"
	"github.com/unionbridge/unionbridge/sender/requests"
	"github.com/unionbridge/unionbridge/sync"
)

// lateAfter is how long a request may be due before it is worth an alarm: a minute of a killed
// instance's claims, and then a bulk of a few hundred thousand.
const lateAfter = 15 * time.Minute

type alarmList []Alarm

func (l *alarmList) add(code, appid, format string, args ...any) {
	*l = append(*l, Alarm{Code: code, AppID: optional(appid), Text: fmt.Sprintf(format, args...)})
}

func (r reader) accountAlarms(list *alarmList, a Settings, h sync.History) error {
	r.sweepAlarm(list, a, h.Sweep)
	if h.GoodSweep != nil && !r.alive(h.Sweep) {
		late, err := sync.Overdue(a.Sweep, h.GoodSweep.Started, r.cfg.Now)
		if err != nil {
			return err
		}
		if late {
			list.add("sweep_overdue", a.AppID, "no sweep of %s has ended well since %s, its schedule is %q",
				a.AppID, local(h.GoodSweep.Started), a.Sweep)
		}
	}
	if run := h.Refresh; run != nil && run.State == sync.StateFailed {
		list.add("refresh_failed", a.AppID, "refresh %d of %s failed: %s", run.ID, a.AppID, run.Error)
	}
	if r.holder(queue.LeaseName(a.AppID)) == "" {
		list.add("no_sender", a.AppID, "nobody sends for %s: is a daemon running?", a.AppID)
	}
	return nil
}

func (r reader) queueAlarms(list *alarmList) {
	for _, p := range r.queue.Pauses {
		switch {
		case p.ByOperator():
			list.add("paused", p.AppID, "%s is paused by an operator since %s: %s",
				p.Paused(), local(p.Since), p.ErrMsg)
		case p.Punished():
			list.add("paused", p.AppID, "%s is paused since %s: %s", p.AppID, local(p.Since), p.ErrMsg)
		case alarming(p):
			list.add("paused", p.AppID, "%s of %s is paused since %s: %s %s", p.Scope, p.AppID,
				local(p.Since), p.Reason, p.ErrMsg)
		}
	}
	for _, u := range r.queue.Unsettled {
		list.add("unsettled", u.AppID, "outcomes of %s cannot be stored since %s: %s", u.AppID,
			local(u.Since), u.ErrMsg)
	}
	late := map[string]bool{}
	for _, o := range r.queue.Open {
		if o.Late > 0 && r.cfg.Now.Sub(o.Oldest) > lateAfter {
			late[o.AppID] = true
			list.add("queue_late", o.AppID, "%s requests of %s are due, the oldest since %s",
				atLeast(o.Late, o.Capped), cmp.Or(o.AppID, "the default account"), local(o.Oldest))
		}
	}
	for _, p := range r.ages.Postponed {
		of := cmp.Or(p.AppID, "the default account")
		switch {
		case p.Reason != "" && !r.pausedBy(p.AppID, p.Reason):
			list.add("stuck", p.AppID, "%d requests of %s could have gone, the oldest since %s, "+
				"and are put off again and again: %s", p.Requests, of, local(p.Since), p.Reason)
		case p.Reason == "" && !late[p.AppID]:
			list.add("queue_late", p.AppID, "%d requests of %s could have gone, the oldest since %s",
				p.Requests, of, local(p.Since))
		}
	}
	for _, e := range r.queue.Ends {
		if e.Ended >= minEnded && 2*e.Failed > e.Ended {
			list.add("failing", e.AppID, "%d of the %d requests of %s that ended in the last %d "+
				"minutes have failed", e.Failed, e.Ended, cmp.Or(e.AppID, "the default account"),
				int(requests.EndedWithin/time.Minute))
		}
	}
}

// minEnded is how many requests must have ended for the alarm: a few wrong rows are a producer's
// business.
const minEnded = 20

// pausedBy reports whether the account, or a template of it, is paused for this reason, which is an
// alarm of its own.
func (r reader) pausedBy(appid, reason string) bool {
	return slices.ContainsFunc(r.queue.Pauses, func(p requests.Pause) bool {
		return p.Reason == reason && (p.AppID == appid || appid == "" && r.isDefault(p.AppID))
	})
}

func (r reader) isDefault(appid string) bool {
	return slices.ContainsFunc(r.cfg.Accounts, func(a Settings) bool {
		return a.Default && a.AppID == appid
	})
}

// problemAlarms are of what the instances' checks of the accounts have found.
func (r reader) problemAlarms(list *alarmList) {
	for _, p := range r.problems {
		if !r.configured(p.AppID) || r.pausedBy(p.AppID, p.Reason) {
			continue
		}
		code := "probe_failed"
		if p.Subject != "" {
			code = "template_missing"
		}
		list.add(code, p.AppID, "%s: %s: %s. %s", p.AppID, p.Reason,
			strings.TrimSuffix(p.Text, "."), p.Cure)
	}
}

func atLeast(n int64, capped bool) string {
	if capped {
		return fmt.Sprintf("at least %d", n)
	}
	return strconv.FormatInt(n, 10)
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

func (r reader) sweepAlarm(list *alarmList, a Settings, run *sync.Run) {
	switch {
	case run == nil: // a new account; without a daemon there is no_sender
	case run.State == sync.StateBlocked:
		list.add("sweep_blocked", a.AppID, "sweep %d of %s is blocked: %s", run.ID, a.AppID, run.Error)
	case run.State == sync.StateSuspended:
		list.add("sweep_suspended", a.AppID, "sweep %d of %s is out of quota and resumes at %s: %s",
			run.ID, a.AppID, local(run.ResumeAt), run.Error)
	case run.State == sync.StateFailed:
		list.add("sweep_failed", a.AppID, "sweep %d of %s failed: %s", run.ID, a.AppID, run.Error)
	case run.State == sync.StateRunning && !r.alive(run):
		list.add("sweep_crashed", a.AppID, "sweep %d of %s is called running, but nobody runs it: "+
			"its instance died; the next one resumes it", run.ID, a.AppID)
	}
}

// alive reports whether an instance is at work on run, which may be nil.
func (r reader) alive(run *sync.Run) bool {
	return run != nil && run.State == sync.StateRunning &&
		r.holder(sync.LeaseName(run.Kind, run.AppID)) != ""
}

func local(t time.Time) string { return t.Local().Format(time.DateTime) }
