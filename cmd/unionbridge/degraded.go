package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/doctor"
	"github.com/unionbridge/unionbridge/sender/requests"
)

// degraded says which accounts do not work, and what to do: by this instance's own checks, and by
// the pauses in the database, which any instance may have begun.
func (d *daemon) degraded(ctx context.Context) []string {
	watch := d.watch.Load()
	if watch == nil {
		return nil
	}
	problems := watch.Problems()
	// Whether the database answers has just been checked.
	pauses, _ := requests.Store{DB: d.db}.Pauses(ctx)
	return describeDegraded(d.cfg, problems, pauses)
}

func describeDegraded(
	cfg *config.Config, problems []doctor.Problem, pauses []requests.Pause,
) (lines []string) {
	for _, p := range problems {
		lines = append(lines, oneLine(p.String()))
	}
	for _, p := range pauses {
		known := slices.ContainsFunc(problems, func(q doctor.Problem) bool {
			return q.AppID == p.AppID && q.Reason == p.Reason
		})
		ours := slices.ContainsFunc(cfg.OfficialAccounts, func(a config.OfficialAccount) bool {
			return a.AppID == p.AppID
		}) || slices.ContainsFunc(cfg.MiniPrograms, func(m config.MiniProgram) bool {
			return m.AppID == p.AppID
		})
		if ours && !known && !passing(p) {
			lines = append(lines, oneLine(pauseLine(p, curesOf(cfg))))
		}
	}
	return lines
}

// passing reports whether a pause ends without anybody's doing: a quota comes back.
func passing(p requests.Pause) bool { return passingReason(p.Reason) }

func passingReason(reason string) bool {
	return strings.HasPrefix(reason, "quota_") || reason == "daily_budget"
}

func pauseLine(p requests.Pause, cures cures) string {
	what, flag := "paused", ""
	if id := p.Paused().TemplateID; id != "" {
		what, flag = "template "+id+" is paused", " --template "+id
	}
	// That may be another instance, whose secret or address is not this one's.
	cure := "The instance that sends for the account found that; unionbridge status names it. " +
		cmp.Or(cures.of(p.AppID, p.Reason, p.ErrCode),
			"docs/states.md says what "+p.Reason+" means and what to do.")
	if p.Punished() {
		return fmt.Sprintf("%s: paused since %s: %s", p.AppID, p.Since.UTC().Format(time.RFC3339), p.ErrMsg)
	}
	if p.ByOperator() {
		cure = "To end it: unionbridge resume " + p.AppID + flag
	}
	return fmt.Sprintf("%s: %s: %s since %s: %s. %s", p.AppID, p.Reason, what,
		p.Since.UTC().Format(time.RFC3339), strings.TrimSuffix(p.ErrMsg, "."), cure)
}
