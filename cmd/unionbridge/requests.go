package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/spf13/cobra"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/sender/requests"
)

func (c *cli) requestsCommand() *cobra.Command {
	return group(&cobra.Command{
		Use:   "requests",
		Short: "List, show, retry, cancel and resolve requests",
		Long: `Look at the rows of send_request, and put right what the daemon cannot. The daemon may run meanwhile.

docs/requests.md has examples, docs/states.md explains every status and reason.`,
	}, c.listRequestsCommand(), c.showRequestCommand(), c.retryRequestsCommand(),
		c.cancelRequestsCommand(), c.resolveRequestCommand())
}

func (c *cli) withRequests(ctx context.Context, fn func(requests.Store) error) error {
	return c.withDatabase(ctx, access{check: checkReadableSchema}, func(db *sqlx.DB) error {
		return fn(requests.Store{
			DB: db, DefaultAppID: c.cfg.DefaultAppID(), Spend: spendGrants(c.cfg, db),
		})
	})
}

// requestsError is databaseError for what a producer's or a reader's user tries here.
func requestsError(err error) error {
	if database.IsDenied(err) {
		err = fmt.Errorf("%w; the role unionbridge_reader may list without --recipient, all else "+
			"here needs unionbridge_daemon", err)
	}
	return databaseError(err)
}

type filterFlags struct {
	requests.Filter
	since, until string
}

func (f *filterFlags) register(cmd *cobra.Command, depth int64) {
	flags := cmd.Flags()
	flags.StringSliceVar(&f.Statuses, "status", nil,
		"only this `status`; repeatable: "+strings.Join(requestStatuses(), ", "))
	flags.StringVar(&f.Reason, "reason", "", "only this `reason`, as in docs/states.md")
	flags.StringVar(&f.AppID, "account", "", "only this account's, by its `appid`")
	flags.StringVar(&f.Application, "application", "",
		"only what this application sent through a door, by its `name`")
	flags.StringVar(&f.Template, "template", "", "only this template's, by the `name` in the row")
	flags.StringVar(&f.since, "since", "",
		"inserted since this `time`: 2h ago, or 2026-01-02T15:04:05+08:00")
	flags.StringVar(&f.until, "until", "", "inserted until this `time`")
	flags.StringVar(&f.Recipient, "recipient", "",
		"to this person: `ID` is a unionid, mini_openid, openid or sent_openid")
	flags.StringVar(&f.DedupKey, "dedup-key", "", "with this `key`; archived requests too")
	flags.Int64Var(&f.MsgID, "msgid", 0, "with this `number` of WeChat's; archived requests too")
	flags.Int64Var(&f.Depth, "depth", depth, "read at most this many `rows` where no index helps; 0: all")
}

func requestStatuses() []string {
	return []string{"pending", "waiting", "sent", "failed", "expired", "cancelled", "unknown"}
}

func (f *filterFlags) filter(now time.Time) (filter requests.Filter, err error) {
	for _, s := range f.Statuses {
		if !slices.Contains(requestStatuses(), s) {
			return filter, fmt.Errorf("--status %q: there are %s", s,
				strings.Join(requestStatuses(), ", "))
		}
	}
	if f.Recipient != "" {
		if err := checkID("--recipient", f.Recipient); err != nil {
			return filter, err
		}
	}
	for flag, text := range map[string]string{"--reason": f.Reason, "--account": f.AppID,
		"--dedup-key": f.DedupKey} {
		// The columns are ASCII: anything else would be an error about collations.
		if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
			return filter, fmt.Errorf("%s %q: only ASCII stands there", flag, text)
		}
	}
	if f.Depth < 0 {
		return filter, fmt.Errorf("--depth is %d: a number of rows, or 0 for all", f.Depth)
	}
	filter = f.Filter
	if filter.Since, err = moment("--since", f.since, now); err != nil {
		return filter, err
	}
	filter.Until, err = moment("--until", f.until, now)
	return filter, err
}

// moment reads a duration that lies back, or a time.
func moment(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, fmt.Errorf("%s %q is neither a duration such as 2h, nor a time with its zone "+
			"such as 2026-01-02T15:04:05+08:00", flag, text)
	}
	return t, nil
}

func (c *cli) listRequestsCommand() *cobra.Command {
	var f filterFlags
	var limit int
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List requests, the newest first",
		Long: `List requests, the newest first, without recipient and message.

What it costs: --dedup-key and --msgid have an index. So has --status, as long as there are at most
100,000 requests of those statuses. Everything else is read from the newest request downwards, about
a million rows a second, for at most --depth rows; --since and --until bound that at no cost.`,
		Example: `  unionbridge requests list --status failed --since 24h
  unionbridge requests list --recipient oABC… --since 168h --json`,
		Args: cobra.NoArgs,
	}
	f.register(cmd, 1_000_000)
	cmd.Flags().IntVar(&limit, "limit", 50, "show at most this `many`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print each request as a line of JSON")
	cmd.RunE = c.work(func(cmd *cobra.Command, _ []string) error {
		filter, err := f.filter(time.Now())
		if err == nil && limit < 1 {
			err = fmt.Errorf("--limit is %d: at least 1", limit)
		}
		if err != nil {
			return exitError{exitUsage, err}
		}
		return c.withRequests(cmd.Context(), func(q requests.Store) error {
			found, err := q.List(cmd.Context(), filter, limit)
			if err != nil {
				return requestsError(err)
			}
			show := c.printRequests
			if asJSON {
				show = c.printRequestsJSON
			}
			err = show(found.Records)
			c.noteListing(found, f.Depth)
			return err
		})
	})
	return cmd
}

func (c *cli) noteListing(l requests.Listing, depth int64) {
	switch {
	case l.More:
		_, _ = fmt.Fprintf(c.stderr, "there are more: --limit shows more than the newest %d\n",
			len(l.Records))
	case l.Cut:
		_, _ = fmt.Fprintf(c.stderr, "the search ended after %d rows, at request %d; older ones "+
			"were not looked at: raise --depth, or name --since and --until\n", depth, l.Last)
	case len(l.Records) == 0:
		_, _ = fmt.Fprintln(c.stderr, "no request matches")
	}
}

func (c *cli) printRequests(list []requests.Record) error {
	if len(list) == 0 {
		return nil
	}
	rows := [][]string{
		{"ID", "INSERTED", "STATUS", "REASON", "ACCOUNT", "TEMPLATE", "ATTEMPTS", "NEXT OR END"},
	}
	for _, r := range list {
		rows = append(rows, []string{strconv.FormatInt(r.ID, 10), localMoment(&r.CreatedAt),
			statusWords(r), reasonWords(r), cmp.Or(r.AppID, "(default)"),
			r.Template, strconv.Itoa(r.Attempts), nextOrEnd(r)})
	}
	return printTable(c.stdout, rows)
}

// reasonWords are both reasons of a request that was moved: first that of the first account.
func reasonWords(r requests.Record) string {
	if r.FallbackFrom == "" {
		return cmp.Or(r.Reason, "-")
	}
	return r.FallbackReason + " > " + cmp.Or(r.Reason, "-")
}

func statusWords(r requests.Record) string {
	switch {
	case r.Archived:
		return r.Status + ", archived"
	case r.Cancel && !r.Final():
		return r.Status + ", withdrawn"
	}
	return r.Status
}

func nextOrEnd(r requests.Record) string {
	if r.Final() {
		return "ended " + localMoment(r.FinishedAt)
	}
	if r.Status == "waiting" {
		return "waits until " + localMoment(&r.DueAt)
	}
	return "due " + localMoment(&r.DueAt)
}

type requestLine struct {
	ID          int64   `json:"id"`
	AppID       *string `json:"appid"`
	Template    string  `json:"template"`
	Priority    int     `json:"priority"`
	Status      string  `json:"status"`
	Reason      *string `json:"reason"`
	ErrCode     *int    `json:"errcode"`
	ErrMsg      *string `json:"errmsg"`
	Warning     *string `json:"warning"`
	Attempts    int     `json:"attempts"`
	Cancel      bool    `json:"cancel"`
	DedupKey    *string `json:"dedup_key"`
	CreatedAt   string  `json:"created_at"`
	DueAt       string  `json:"due_at"`
	ExpiresAt   *string `json:"expires_at"`
	AttemptedAt *string `json:"attempted_at"`
	FinishedAt  *string `json:"finished_at"`
	Channel     *string `json:"channel"`
	SentOpenID  *string `json:"sent_openid"`

	Route           *string `json:"route"`
	FallbackFrom    *string `json:"fallback_from"`
	FallbackReason  *string `json:"fallback_reason"`
	FallbackErrCode *int    `json:"fallback_errcode"`

	Application *string `json:"application"`

	// MsgID is above 2^53 at times: a string, or JavaScript and jq would round it.
	MsgID    *int64 `json:"msgid,string"`
	Archived bool   `json:"archived"`
}

func newRequestLine(r requests.Record) requestLine {
	return requestLine{
		ID: r.ID, AppID: orNull(r.AppID), Template: r.Template, Priority: r.Priority,
		Status: r.Status, Reason: orNull(r.Reason), ErrCode: orNull(r.ErrCode),
		ErrMsg: orNull(r.ErrMsg), Warning: orNull(r.Warning), Attempts: r.Attempts,
		Cancel: r.Cancel, DedupKey: orNull(r.DedupKey), CreatedAt: jsonTime(r.CreatedAt),
		DueAt: jsonTime(r.DueAt), ExpiresAt: jsonMoment(r.ExpiresAt),
		AttemptedAt: jsonMoment(r.AttemptedAt), FinishedAt: jsonMoment(r.FinishedAt),
		Channel: orNull(r.Channel), SentOpenID: orNull(r.SentOpenID), MsgID: orNull(r.MsgID),
		Archived: r.Archived,
		Route:    orNull(r.Route), FallbackFrom: orNull(r.FallbackFrom),
		FallbackReason: orNull(r.FallbackReason), FallbackErrCode: orNull(r.FallbackErrCode),
		Application: orNull(r.Application),
	}
}

func (c *cli) printRequestsJSON(list []requests.Record) error {
	for _, r := range list {
		if err := printJSON(c.stdout, newRequestLine(r), ""); err != nil {
			return err
		}
	}
	return nil
}
