package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/spf13/cobra"

	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/status"
	"github.com/unionbridge/unionbridge/sender/requests"
)

type statusFlags struct{ asJSON, coverage, check bool }

func (c *cli) statusCommand() *cobra.Command {
	var flags statusFlags
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show accounts, last runs, queue, pauses and alarms",
		Long: `Show how things stand, as the database knows it: each account's last sweep and refresh and its
next turn, the queue, paused accounts, which instance does what, and alarms: what a
person should look at. WeChat is not asked, and no daemon need run.

--coverage counts followers and mini-program users too: how many have a unionid, why others
do not, how many can be reached. It reads both tables whole, seconds for each million people.

The exit code is 0 also where there are alarms; with --check it is 1 then.`,
		Args: cobra.NoArgs,
		RunE: c.work(func(cmd *cobra.Command, _ []string) error { return c.status(cmd.Context(), flags) }),
	}
	cmd.Flags().BoolVar(&flags.asJSON, "json", false, "print JSON; docs/status.md has its shape")
	cmd.Flags().BoolVar(&flags.coverage, "coverage", false,
		"count what the map covers; slow with millions of people")
	cmd.Flags().BoolVar(&flags.check, "check", false, "exit with 1 if there is an alarm, for monitoring")
	return cmd
}

// coverageTimeout is for an operator who waits: minutes for a hundred million people.
const coverageTimeout = time.Hour

func (c *cli) status(ctx context.Context, flags statusFlags) error {
	needs := access{check: database.CheckSchema}
	if flags.coverage {
		needs.timeout = coverageTimeout
	}
	return c.withDatabase(ctx, needs, func(db *sqlx.DB) error {
		report, err := status.Read(ctx, db, statusConfig(c.cfg, flags.coverage))
		if err != nil {
			return databaseError(err)
		}
		if flags.asJSON {
			err = printJSON(c.stdout, report, "  ")
		} else {
			err = writeStatus(c.stdout, report)
		}
		if err == nil && flags.check && len(report.Alarms) > 0 {
			err = fmt.Errorf("%d alarms, the first: %s", len(report.Alarms),
				visible(report.Alarms[0].Text))
		}
		return err
	})
}

func statusConfig(cfg *config.Config, coverage bool) status.Config {
	s := status.Config{Coverage: coverage, Now: time.Now()}
	for _, a := range cfg.OfficialAccounts {
		s.Accounts = append(s.Accounts, status.Settings{
			AppID: a.AppID, Name: a.Name, Default: a.Default,
			Sweep: a.Sync.Sweep, Refresh: a.Sync.Refresh,
		})
	}
	for _, m := range sendingMinis(cfg) {
		s.Accounts = append(s.Accounts, status.Settings{
			AppID: m.AppID, Name: m.Name, Default: m.AppID == cfg.DefaultAppID(), Mini: true,
		})
	}
	return s
}

// writeStatus prints a report for people: in local time, alarms at the end, where people look.
func writeStatus(w io.Writer, s status.Report) error {
	var rows [][]string
	line := func(name, words string) { rows = append(rows, []string{name, words}) }
	for _, a := range s.Accounts {
		writeAccount(line, a)
	}
	writeQueue(line, s.Queue)
	for _, q := range s.Quotas {
		line("quota", fmt.Sprintf("%s of %s: %d of %d calls were left at %s", q.Endpoint, q.AppID,
			q.Remaining, q.Limit, localMoment(&q.AskedAt.Time)))
	}
	for _, p := range s.Pauses {
		if p.Reason == requests.ReasonOperator {
			line("paused", fmt.Sprintf("%s by an operator, since %s: %s",
				requests.Paused(p.AppID, p.Scope),
				localMoment(&p.Since.Time), oneLine(p.ErrMsg)))
			continue
		}
		until := "until the cause is fixed"
		if p.Until != nil {
			until = "until " + localMoment(&p.Until.Time)
		}
		line("paused", fmt.Sprintf("%s of %s: %s, since %s, %s", p.Scope, p.AppID, p.Reason,
			localMoment(&p.Since.Time), until))
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
	return printTable(w, rows)
}

func writeAccount(line func(name, words string), a status.Account) {
	name := a.AppID
	if a.Name != a.AppID {
		name += " " + a.Name
	}
	if a.Default {
		name += " (default)"
	}
	if a.Kind == status.KindMini {
		line("mini program", name)
		line("  sending", cmp.Or(orZero(a.SentBy), "nobody"))
		return
	}
	line("account", name)
	line("  last sweep", describeRun(a.Sweep.Last))
	if good := a.Sweep.LastGood; good != nil && good.ID != a.Sweep.Last.ID {
		line("  last good", describeRun(good))
	}
	line("  next sweep", describeTurn(a.Sweep.Job))
	line("  last refresh", describeRun(a.Refresh.Last))
	line("  next refresh", describeTurn(a.Refresh))
	line("  sending", cmp.Or(orZero(a.SentBy), "nobody"))
	if c := a.Coverage; c != nil {
		line("  followers", fmt.Sprintf("%d, and %d former ones", c.Subscribed, c.Followers-c.Subscribed))
		line("  unionids", fmt.Sprintf("%d known, %d not asked yet, %d absent: %s", c.WithUnionID,
			c.NotAsked, c.AskedWithoutUnionID, unionIDWords(c.UnionIDs)))
		line("  mini users", fmt.Sprintf("%d, of whom %d can be reached, and %d have no unionid",
			c.MiniUsers, c.ReachableMiniUsers, c.MiniUsersWithoutUnionID))
	}
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

func writeQueue(line func(name, words string), q status.Queue) {
	if len(q.Open) == 0 {
		line("queue", "empty")
	}
	for _, o := range q.Open {
		words := fmt.Sprintf("%s%d %s of %s", when(o.Capped, "at least "), o.Requests, o.Status,
			cmp.Or(orZero(o.AppID), "the default account"))
		if o.Late > 0 {
			words += fmt.Sprintf(", %d of them due, the oldest since %s", o.Late, localMoment(&o.OldestDueAt.Time))
		}
		line("queue", words)
	}
	for _, s := range q.Stuck {
		line("stuck", fmt.Sprintf("%d of %s: %s, the oldest could have gone at %s", s.Requests,
			cmp.Or(orZero(s.AppID), "the default account"), s.Reason, localMoment(&s.Since.Time)))
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
	words := fmt.Sprintf("run %d: %s, started %s", r.ID, r.State, localMoment(&r.StartedAt.Time))
	if r.EndedAt != nil {
		words += ", ended " + localMoment(&r.EndedAt.Time)
	}
	if r.ResumeAt != nil {
		words += ", resumes " + localMoment(&r.ResumeAt.Time)
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
	return localMoment(&j.NextAt.Time) + " (" + j.Schedule + ")"
}
