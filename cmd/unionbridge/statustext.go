package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/unionbridge/unionbridge/internal/status"
)

// writeStatus prints a report for people: in local time, alarms at the end, where people look.
func writeStatus(w io.Writer, s status.Report) error {
	var out bytes.Buffer
	table := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	// a buffer takes all
	line := func(cells ...string) { _, _ = fmt.Fprintln(table, strings.Join(cells, "\t")) }
	for _, a := range s.Accounts {
		writeAccount(line, a)
	}
	writeQueue(line, s.Queue)
	for _, p := range s.Pauses {
		until := "until the cause is fixed"
		if p.Until != nil {
			until = "until " + localTime(*p.Until)
		}
		line("paused", fmt.Sprintf("%s of %s: %s, since %s, %s", p.Scope, p.AppID, p.Reason,
			localTime(p.Since), until))
	}
	for _, l := range s.Leases {
		line("lease", l.Name+" is held by "+l.Holder)
	}
	for _, a := range s.Alarms {
		line("ALARM", a.Code+": "+oneLine(a.Text))
	}
	if len(s.Alarms) == 0 {
		line("alarms", "none")
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := w.Write(out.Bytes())
	return err
}

func writeAccount(line func(...string), a status.Account) {
	name := a.AppID
	if a.Name != a.AppID {
		name += " " + a.Name
	}
	if a.Default {
		name += " (default)"
	}
	line("account", name)
	line("  last sweep", describeRun(a.Sweep.Last))
	if good := a.Sweep.LastGood; good != nil && good.ID != a.Sweep.Last.ID {
		line("  last good", describeRun(good))
	}
	line("  next sweep", describeTurn(a.Sweep.Job))
	line("  last refresh", describeRun(a.Refresh.Last))
	line("  next refresh", describeTurn(a.Refresh))
	if a.SentBy != nil {
		line("  sending", *a.SentBy)
	} else {
		line("  sending", "nobody")
	}
	if a.Coverage != nil {
		writeCoverage(line, *a.Coverage)
	}
}

func writeCoverage(line func(...string), c status.Coverage) {
	line("  followers", fmt.Sprintf("%d, and %d former ones", c.Subscribed, c.Followers-c.Subscribed))
	line("  unionids", fmt.Sprintf("%d known, %d not asked yet, %d absent: %s", c.WithUnionID, c.NotAsked,
		c.AskedWithoutUnionID, unionIDWords(c.UnionIDs)))
	line("  mini users", fmt.Sprintf("%d, of whom %d can be reached, and %d have no unionid", c.MiniUsers,
		c.ReachableMiniUsers, c.MiniUsersWithoutUnionID))
}

// unionIDWords are for people what bridge.UnionIDs is for programs.
func unionIDWords(code string) string {
	switch code {
	case "not_bound":
		return "the account is not bound to an Open Platform account (微信开放平台)"
	case "not_asked":
		return "the next sweep or refresh asks"
	case "absent":
		return "WeChat answers without one; they are checked again, less and less often"
	}
	return "complete"
}

func writeQueue(line func(...string), q status.Queue) {
	if len(q.Open) == 0 {
		line("queue", "empty")
	}
	for _, o := range q.Open {
		appid := "the default account"
		if o.AppID != nil {
			appid = *o.AppID
		}
		words := fmt.Sprintf("%d %s of %s", o.Requests, o.Status, appid)
		if o.Late > 0 {
			words += fmt.Sprintf(", %d of them due, the oldest since %s", o.Late, localTime(o.OldestDueAt))
		}
		line("queue", words)
	}
	for _, o := range q.Recent.ByReason {
		words := fmt.Sprintf("%d %s", o.Requests, o.Status)
		if o.Reason != nil {
			words += " (" + *o.Reason + ")"
		}
		line(fmt.Sprintf("latest %d", q.Recent.Requests), words)
	}
}

func describeRun(r *status.Run) string {
	if r == nil {
		return "none yet"
	}
	words := fmt.Sprintf("run %d: %s, started %s", r.ID, r.State, localTime(r.StartedAt))
	if r.EndedAt != nil {
		words += ", ended " + localTime(*r.EndedAt)
	}
	if r.ResumeAt != nil {
		words += ", goes on " + localTime(*r.ResumeAt)
	}
	words += fmt.Sprintf("; %d listed, %d added, %d changed, %d gone", r.Listed, r.Added, r.Changed, r.Gone)
	if r.State == "blocked" {
		words += fmt.Sprintf(", %d missing", r.Missing)
	}
	var calls []string
	for _, endpoint := range slices.Sorted(maps.Keys(r.Calls)) {
		calls = append(calls, fmt.Sprintf("%s %d", endpoint, r.Calls[endpoint]))
	}
	if len(calls) > 0 {
		words += "; calls: " + strings.Join(calls, ", ")
	}
	if r.Error != nil {
		words += "; " + oneLine(*r.Error)
	}
	return words
}

func describeTurn(j status.Job) string {
	if j.NextAt == nil {
		return j.Schedule
	}
	return localTime(*j.NextAt) + " (" + j.Schedule + ")"
}

func localTime(t status.Time) string { return t.Local().Format(time.DateTime) }

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
