package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/unionbridge/unionbridge/internal/doctor/checkup"
)

type doctorFlags struct {
	accounts                []string
	asJSON, offline, strict bool
	language, callbackURL   string
}

func (c *cli) doctorCommand() *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check the whole installation, and say what to do about what is wrong",
		Long: `Check the configuration, the systemd unit, ports, clocks, the database, and each account at WeChat,
one line each: ok, warn, FAIL, or skip for what could not be checked. A failed one says what was
seen, what to do, and where docs/runbooks.md goes on. It continues after a failure.

Nothing is written, and no message is sent. Each account costs at most four calls of WeChat: a
token, its quota of messages, its templates, the first page of its followers. In token mode classic
the new token ends the one that a running daemon has, which then fetches another.

The exit code is that of the first failure: 3 configuration, 4 database, 5 WeChat. Warnings alone
are 0, with --strict 1. Run it as root, or as the daemon's user: what others may not read is skipped.`,
		Example: `  sudo unionbridge doctor
  unionbridge doctor --json --offline`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringSliceVar(&f.accounts, "account", nil,
		"only this account at WeChat, by its `appid`; repeatable")
	cmd.Flags().BoolVar(&f.offline, "offline", false, "ask neither the database nor WeChat")
	cmd.Flags().BoolVar(&f.strict, "strict", false, "exit with 1 if there is a warning")
	cmd.Flags().BoolVar(&f.asJSON, "json", false, "print JSON: no secret, and no id of a person")
	cmd.Flags().StringVar(&f.language, "lang", "",
		"`language` of the cures, en or zh; its default follows $LC_ALL and $LANG")
	cmd.Flags().StringVar(&f.callbackURL, "callback-url", "",
		"check the callback at this `address` in front of /wechat/APPID, as WeChat reaches it")
	cmd.RunE = c.work(func(cmd *cobra.Command, _ []string) error {
		if !slices.Contains([]string{"", "en", "zh"}, f.language) {
			return usageError("--lang is en or zh")
		}
		return c.doctor(cmd.Context(), f)
	})
	return cmd
}

// doctorReport is the JSON of doctor.
type doctorReport struct {
	At      time.Time        `json:"at"`
	Version string           `json:"version"`
	Failed  int              `json:"failed"`
	Warned  int              `json:"warned"`
	Checks  []checkup.Result `json:"checks"`
}

func (c *cli) doctor(ctx context.Context, f doctorFlags) error {
	in, err := c.checkupInput(f)
	if err != nil {
		return err
	}
	results := checkup.Run(ctx, in)
	if ctx.Err() != nil {
		return errInterrupted
	}
	report := doctorReport{At: time.Now().UTC().Truncate(time.Second), Version: in.Version, Checks: results}
	var first *checkup.Result
	for i, r := range results {
		switch r.State {
		case checkup.Warn:
			report.Warned++
		case checkup.Fail:
			if report.Failed++; first == nil {
				first = &results[i]
			}
		}
	}
	if f.asJSON {
		err = printJSON(c.stdout, report, "  ")
	} else {
		err = c.printCheckup(results, chinese(f.language))
	}
	switch {
	case err != nil:
		return err
	case first != nil:
		return exitError{first.Exit, fmt.Errorf("%d checks failed, the first: %s", report.Failed, first.Check)}
	case f.strict && report.Warned > 0:
		return exitError{exitFailed, fmt.Errorf("%d warnings", report.Warned)}
	}
	return nil
}

// printCheckup prints a line for each result, and below one that is not right what to do.
func (c *cli) printCheckup(results []checkup.Result, zh bool) error {
	titles := map[string]string{}
	for _, check := range checkup.Checks() {
		titles[check.ID] = check.Title.EN
		if zh {
			titles[check.ID] = check.Title.ZH
		}
	}
	var err error
	line := func(words string) { err = errors.Join(err, printLine(c.stdout, words)) }
	for _, r := range results {
		state := string(r.State)
		if r.State == checkup.Fail {
			state = "FAIL"
		}
		name := strings.TrimSpace(titles[r.Check] + " " + r.AppID)
		line(fmt.Sprintf("%-4s  %s: %s", state, name, oneLine(r.Seen)))
		if r.Cure == "" {
			continue
		}
		cure := r.Cure
		if zh {
			cure = r.CureZH
		}
		line("      → " + oneLine(cure))
		line("        " + r.Runbook)
	}
	return err
}

// chinese reports whether the cures are printed in Chinese.
func chinese(language string) bool {
	for _, value := range []string{language, os.Getenv("LC_ALL"), os.Getenv("LC_MESSAGES"), os.Getenv("LANG")} {
		if value != "" {
			return strings.HasPrefix(value, "zh")
		}
	}
	return false
}
