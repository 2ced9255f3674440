package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/jmoiron/sqlx"
	"github.com/spf13/cobra"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/status"
	"github.com/unionbridge/unionbridge/sender/requests"
)

// maxPauseReason is what fits beside account_state's other words, in characters.
const maxPauseReason = 1000

type pauseFlags struct {
	template, reason string
	asJSON           bool
}

func (f *pauseFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.template, "template", "",
		"only this template: its `name` in the configuration, or WeChat's id")
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "print a JSON object")
}

func (c *cli) pauseCommand() *cobra.Command {
	var f pauseFlags
	cmd := &cobra.Command{
		Use:   "pause APPID --reason TEXT",
		Short: "Send nothing of an account, or of a template of it, until resume",
		Long: `Send nothing of an account, or with --template nothing of one template of it, until
"unionbridge resume". Running daemons take it up within seconds: messages that are on their way
are finished, all others stay as they are, and none of their attempts is counted. Requests whose
expires_at passes meanwhile end as expired.

The daemon never ends such a pause. "unionbridge status" and /readyz show it with its reason. A
second time it changes the reason only.`,
		Example: `  unionbridge pause wx0a00000000000001 --reason "wrong price in today's campaign"
  unionbridge pause wx0a00000000000001 --template order_paid --reason "text is being corrected"`,
		Args: cobra.ExactArgs(1),
	}
	f.register(cmd)
	cmd.Flags().StringVar(&f.reason, "reason", "", "why, in a sentence for your colleagues: `text`")
	cmd.RunE = c.work(func(cmd *cobra.Command, args []string) error {
		f.reason = strings.TrimSpace(f.reason)
		switch {
		case f.reason == "":
			return usageError(`--reason is missing or empty: it is what "unionbridge status" shows`)
		case !utf8.ValidString(f.reason):
			return usageError("--reason is not valid UTF-8")
		case utf8.RuneCountInString(f.reason) > maxPauseReason:
			return usageError("--reason has %d characters, at most %d fit",
				utf8.RuneCountInString(f.reason), maxPauseReason)
		}
		return c.changePause(cmd.Context(), args[0], f, pauseAction{
			change: func(q requests.Store, what requests.Pausable) (pauseChange, error) {
				changed, err := q.Pause(cmd.Context(), what, f.reason)
				return pauseChange{what: what, changed: changed}, err
			},
			describe: describePause,
		})
	})
	return cmd
}

func (c *cli) resumeCommand() *cobra.Command {
	var f pauseFlags
	cmd := &cobra.Command{
		Use:   "resume APPID",
		Short: "End the pause of an account, or of a template of it",
		Long: `End the pause of an account, or with --template of one template of it: an operator's, and also
one that an answer of WeChat's began. That one the daemon begins again if its cause is still there,
after one message; no attempt of that message is counted. Running daemons take it up within seconds.

If nothing is paused, nothing is changed, and the exit code is 0.`,
		Example: `  unionbridge resume wx0a00000000000001
  unionbridge resume wx0a00000000000001 --template order_paid`,
		Args: cobra.ExactArgs(1),
	}
	f.register(cmd)
	cmd.RunE = c.work(func(cmd *cobra.Command, args []string) error {
		return c.changePause(cmd.Context(), args[0], f, pauseAction{
			change: func(q requests.Store, what requests.Pausable) (pauseChange, error) {
				ended, err := q.Resume(cmd.Context(), what)
				return pauseChange{what: what, changed: len(ended) > 0, ended: ended}, err
			},
			describe: describeResume,
		})
	})
	return cmd
}

// pauseChange is what pause or resume did.
type pauseChange struct {
	what    requests.Pausable
	changed bool
	ended   []requests.Pause
	now     []requests.Pause // what is paused of the account by now
}

// pauseAction is what pause and resume differ in.
type pauseAction struct {
	change   func(requests.Store, requests.Pausable) (pauseChange, error)
	describe func(pauseChange, cures) []string
}

// changePause resolves what is meant, changes it, and prints what became of it.
func (c *cli) changePause(
	ctx context.Context, appid string, f pauseFlags, action pauseAction,
) error {
	return c.withDatabase(ctx, access{check: database.CheckSchema}, func(db *sqlx.DB) error {
		q := requests.Store{DB: db}
		what, err := c.pausable(ctx, q, appid, f.template)
		if err != nil {
			return err
		}
		done, err := action.change(q, what)
		if err != nil {
			return databaseError(err)
		}
		all, err := q.Pauses(ctx)
		if err != nil {
			return databaseError(err)
		}
		for _, p := range all {
			if p.AppID == what.AppID {
				done.now = append(done.now, p)
			}
		}
		if f.asJSON {
			return c.printPauseJSON(done)
		}
		for _, line := range action.describe(done, curesOf(c.cfg)) {
			err = errors.Join(err, printLine(c.stdout, line))
		}
		return err
	})
}

// pausable checks an account by the configuration, and by the database: another instance may have
// accounts that this machine's configuration lacks. SQL finds an account by "wx… " too: a pause
// under that name would stop the account, and nobody find it by the account's own.
func (c *cli) pausable(
	ctx context.Context, q requests.Store, appid, template string,
) (what requests.Pausable, err error) {
	appid = strings.TrimSpace(appid)
	if unknown := checkSends(c.cfg, appid); unknown != nil {
		sends, err := q.Sends(ctx, appid)
		if err != nil {
			return what, databaseError(err)
		}
		if !sends {
			return what, exitError{exitUsage,
				fmt.Errorf("%w; and no instance on this database has ever sent for it", unknown)}
		}
	}
	what.AppID = appid
	if template == "" {
		return what, nil
	}
	id, rejection := templateIDs(c.cfg).ID(template, appid)
	if rejection != nil {
		return what, usageError("--template: %s", rejection.Message)
	}
	what.TemplateID = id
	return what, nil
}

type pauseAnswer struct {
	AppID      string         `json:"appid"`
	TemplateID *string        `json:"template_id"`
	Changed    bool           `json:"changed"`
	Ended      []status.Pause `json:"ended"`
	Pauses     []status.Pause `json:"pauses"`
}

func (c *cli) printPauseJSON(done pauseChange) error {
	return printJSON(c.stdout, pauseAnswer{
		AppID: done.what.AppID, TemplateID: orNull(done.what.TemplateID), Changed: done.changed,
		Ended: status.NewPauses(done.ended), Pauses: status.NewPauses(done.now),
	}, "  ")
}

func describePause(done pauseChange, _ cures) []string {
	words := done.what.String()
	for _, p := range done.now {
		if p.ByOperator() && p.Paused() == done.what {
			since := ", since " + localMoment(&p.Since) + ": " + p.ErrMsg
			if !done.changed {
				return []string{words + " was paused already" + since}
			}
			return []string{words + " is paused" + since}
		}
	}
	return []string{words + " is not paused any more: somebody has resumed it at this moment"}
}

func describeResume(done pauseChange, cures cures) (lines []string) {
	words := done.what.String()
	if !done.changed {
		lines = append(lines, words+" was not paused: nothing was changed")
	}
	for _, p := range done.ended {
		if p.ByOperator() {
			lines = append(lines, fmt.Sprintf("%s: the operator's pause since %s is ended: %s", words,
				localMoment(&p.Since), p.ErrMsg))
			continue
		}
		if p.Punished() {
			lines = append(lines, fmt.Sprintf("%s: the pause since %s is ended: %s", words,
				localMoment(&p.Since), p.ErrMsg))
			continue
		}
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s: the pause since %s is ended: %s. "+
			"One message finds out whether the cause is gone; if not, the daemon pauses again. %s",
			words, localMoment(&p.Since), p.Reason,
			cures.of(p.AppID, p.Reason, p.ErrCode))))
	}
	for _, p := range done.now {
		id := p.Paused().TemplateID
		flag := when(id != "", " --template "+id)
		lines = append(lines, fmt.Sprintf("still paused: %s, since %s: %s; unionbridge resume %s%s",
			p.Paused(), localMoment(&p.Since),
			cmp.Or(when(p.ByOperator() || p.Punished(), p.ErrMsg), p.Reason), p.AppID, flag))
	}
	return lines
}
