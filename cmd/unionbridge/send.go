package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/spf13/cobra"

	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/sender/requests"
)

const (
	// followEvery is how often send reads its row, by primary key, for a person who waits.
	followEvery = 200 * time.Millisecond
	// maxDataFile bounds what is read for --data; the daemon refuses far less.
	maxDataFile = 1 << 20
)

type sendFlags struct {
	unionID, openID, miniOpenID, miniAppID string
	template, data                         string
	set                                    []string
	url, miniPath, account, dedupKey       string
	route, page, lang, miniState           string
	priority                               int
	dueAt                                  string
	expiresIn, wait                        time.Duration
	json                                   bool
}

func (c *cli) sendCommand() *cobra.Command {
	var f sendFlags
	cmd := &cobra.Command{
		Use:   "send",
		Short: "Insert one request, and follow it to its end",
		Long: `Insert one row into send_request, as an app would, and follow it until it is sent or fails.
The daemon sends it: "unionbridge run" must be running somewhere on the same database.

Exit code 0 means that WeChat accepted the message; see "unionbridge help exit-codes".`,
		Example: `  unionbridge send --unionid oABC… --template order_paid --set thing1=Tea --set amount3=39.80元
  unionbridge send --mini-openid oXYZ… --template order_paid --data @message.json --wait 0`,
		Args: cobra.NoArgs,
	}
	cmd.RunE = c.work(func(cmd *cobra.Command, _ []string) error { return c.send(cmd.Context(), f) })
	flags := cmd.Flags()
	flags.StringVar(&f.unionID, "unionid", "", "recipient by `unionid`")
	flags.StringVar(&f.openID, "openid", "", "recipient by `openid` at the account that sends")
	flags.StringVar(&f.miniOpenID, "mini-openid", "", "recipient by `openid` at a mini program")
	flags.StringVar(&f.miniAppID, "mini-appid", "", "`appid` of the mini program of --mini-openid "+
		"or --mini-path; may be left out if there is one")
	flags.StringVar(&f.template, "template", "",
		"`name` of the configuration's templates, or WeChat's template id")
	flags.StringVar(&f.data, "data", "",
		`keywords as a JSON object, {"thing1":"x"}; @FILE reads a file, - standard input`)
	flags.StringArrayVar(&f.set, "set", nil,
		"one keyword, `thing1=text`; repeatable, goes over --data")
	flags.StringVar(&f.url, "url", "", "`address` that a tap opens")
	flags.StringVar(&f.miniPath, "mini-path", "", "mini program's `page` that a tap opens")
	flags.StringVar(&f.route, "route", "",
		"`channels` in their order: official, mini, or both with a comma; default: the alias's")
	flags.StringVar(&f.page, "page", "", "subscribe message: `page` that a tap opens")
	flags.StringVar(&f.lang, "lang", "",
		"subscribe message: `language` of WeChat's words, zh_CN, en_US, zh_HK or zh_TW")
	flags.StringVar(&f.miniState, "mini-state", "",
		"subscribe message: `version` that a tap opens, formal, trial or developer")
	flags.StringVar(&f.account, "account", "",
		"`appid` of the account that sends, a mini program's too; default: the configuration's")
	flags.IntVar(&f.priority, "priority", 1, "0 urgent, 1 normal, 2 bulk")
	flags.StringVar(&f.dueAt, "due-at", "", "not before this `time`, such as 2026-01-02T15:04:05+08:00")
	flags.DurationVar(&f.expiresIn, "expires-in", 0, "not later than this from now, such as 2h")
	flags.StringVar(&f.dedupKey, "dedup-key", "",
		"`key` of your own: a second request with it is not inserted, the first is followed")
	flags.DurationVar(&f.wait, "wait", 30*time.Second,
		"how long to follow the request; 0 prints its id and ends")
	flags.BoolVar(&f.json, "json", false, "print each change as a line of JSON")
	// What is missing is newRequest's to say: cobra would name one thing at a time.
	cmd.MarkFlagsMutuallyExclusive("unionid", "openid", "mini-openid")
	return cmd
}

func (c *cli) send(ctx context.Context, f sendFlags) error {
	request, err := c.newRequest(f)
	if err != nil {
		return exitError{exitUsage, err}
	}
	if err := c.loadConfig(); err != nil {
		return err
	}
	if err := checkAccounts(c.cfg, f); err != nil {
		return err
	}
	return c.withDatabase(ctx, access{check: checkReadableSchema}, func(db *sqlx.DB) error {
		store := requests.Store{DB: db}
		id, existed, err := store.Insert(ctx, request)
		if err != nil {
			return databaseError(err)
		}
		if existed {
			_, _ = fmt.Fprintf(c.stderr,
				"a request with this dedup key was there before: %d; nothing was inserted\n", id)
		}
		if f.wait <= 0 {
			_, err := fmt.Fprintln(c.stdout, id)
			return err
		}
		return c.follow(ctx, store, id, f)
	})
}

// newRequest checks what can be checked without the configuration.
func (c *cli) newRequest(f sendFlags) (requests.Request, error) {
	r := requests.Request{
		AppID: orNull(f.account), UnionID: orNull(f.unionID), MiniAppID: orNull(f.miniAppID),
		MiniOpenID: orNull(f.miniOpenID), OpenID: orNull(f.openID), Template: f.template,
		URL: orNull(f.url), MiniPath: orNull(f.miniPath), Priority: f.priority,
		DedupKey: orNull(f.dedupKey), Route: orNull(f.route),
		Options: requests.Options{
			Page: orNull(f.page), Lang: orNull(f.lang), MiniState: orNull(f.miniState),
		},
	}
	if err := checkComplete(f); err != nil {
		return r, err
	}
	if err := checkRecipient(f); err != nil {
		return r, err
	}
	if f.priority < 0 || f.priority > 2 {
		return r, fmt.Errorf("--priority is %d: 0 urgent, 1 normal or 2 bulk", f.priority)
	}
	if len(f.dedupKey) > 128 || strings.ContainsFunc(f.dedupKey,
		func(r rune) bool { return r < ' ' || r > '~' }) {
		return r, fmt.Errorf("--dedup-key %q is not a key: at most 128 characters of ASCII", f.dedupKey)
	}
	if f.expiresIn < 0 {
		return r, fmt.Errorf("--expires-in is %s, which has passed", f.expiresIn)
	}
	if f.expiresIn > 0 {
		r.ExpiresIn = new(f.expiresIn.Microseconds())
	}
	if f.dueAt != "" {
		due, err := time.Parse(time.RFC3339, f.dueAt)
		if err != nil {
			return r, fmt.Errorf("--due-at %q is not a time with its zone, such as "+
				"2026-01-02T15:04:05+08:00", f.dueAt)
		}
		if !isTimestamp(due) {
			return r, fmt.Errorf("--due-at %q is not between 1970 and 2038-01-19, which the database "+
				"stores", f.dueAt)
		}
		r.DueAt = &due
	}
	var err error
	r.Data, err = c.keywords(f.data, f.set)
	return r, err
}

// checkComplete names everything at once that a request cannot do without. An empty value is a
// missing one: it comes from a script's empty variable.
func checkComplete(f sendFlags) error {
	var missing []string
	if f.unionID == "" && f.openID == "" && f.miniOpenID == "" {
		missing = append(missing, "a recipient (--unionid, --openid or --mini-openid)")
	}
	if f.template == "" {
		missing = append(missing, "a template (--template)")
	}
	if f.data == "" && len(f.set) == 0 {
		missing = append(missing, "data (--data or --set)")
	}
	if len(missing) > 0 {
		return fmt.Errorf("missing or empty: %s", strings.Join(missing, ", "))
	}
	return nil
}

func checkRecipient(f sendFlags) error {
	switch {
	case f.unionID != "":
		return checkID("--unionid", f.unionID)
	case f.openID != "":
		return checkID("--openid", f.openID)
	}
	return checkID("--mini-openid", f.miniOpenID)
}

// keywords makes one JSON object of --data and --set. The daemon checks it.
func (c *cli) keywords(data string, set []string) (string, error) {
	fields := map[string]any{}
	if data != "" {
		raw, err := c.readData(data)
		if err != nil {
			return "", err
		}
		decoder := json.NewDecoder(bytes.NewReader(raw))
		decoder.UseNumber() // 39.80 is to stay 39.80
		if err := decoder.Decode(&fields); err != nil || fields == nil || decoder.More() {
			return "", errors.New(`--data is not a JSON object such as {"thing1":"text"}`)
		}
	}
	for _, assignment := range set {
		name, value, ok := strings.Cut(assignment, "=")
		if !ok || name == "" {
			return "", fmt.Errorf("--set %q is not of the form thing1=text", assignment)
		}
		fields[name] = value
	}
	var object strings.Builder
	err := printJSON(&object, fields, "") // people read the column too
	return strings.TrimSpace(object.String()), err
}

func (c *cli) readData(data string) ([]byte, error) {
	in, name := c.stdin, "standard input"
	if data != "-" {
		path, ok := strings.CutPrefix(data, "@")
		if !ok {
			return []byte(data), nil
		}
		file, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("--data: %w", err)
		}
		defer func() { _ = file.Close() }() // only read
		in, name = file, path
	}
	raw, err := io.ReadAll(io.LimitReader(in, maxDataFile+1))
	if err == nil && len(raw) > maxDataFile {
		err = fmt.Errorf("longer than %d bytes", maxDataFile)
	}
	if err != nil {
		return nil, fmt.Errorf("--data: reading %s: %w", name, err)
	}
	return raw, nil
}

func checkAccounts(cfg *config.Config, f sendFlags) error {
	if f.account != "" {
		if err := checkSends(cfg, f.account); err != nil {
			return err
		}
	}
	if f.miniAppID != "" && !slices.Contains(miniAppIDs(cfg), f.miniAppID) {
		return usageError("mini program %q is not in the configuration", f.miniAppID)
	}
	return nil
}

func (c *cli) follow(ctx context.Context, store requests.Store, id int64, f sendFlags) error {
	deadline := time.NewTimer(f.wait)
	defer deadline.Stop()
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	var last outcome
	for {
		row, err := store.Outcome(ctx, id)
		if err != nil {
			return databaseError(err)
		}
		now := outcome(row)
		if now.news(last) {
			if err := c.printOutcome(now, f.json); err != nil {
				return err
			}
		}
		last = now
		if now.final() {
			return verdict(now, curesOf(c.cfg))
		}
		select {
		case <-tick.C:
		case <-deadline.C:
			return exitError{exitNotYet, stillOpen(now, f.wait, curesOf(c.cfg))}
		case <-ctx.Done():
			return exitError{exitInterrupted, fmt.Errorf("%w: request %d is still %s and may go "+
				"out later", errInterrupted, id, now.Status)}
		}
	}
}
