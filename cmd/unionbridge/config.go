package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/go-sql-driver/mysql"
	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/unionbridge/unionbridge"
	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/doctor"
)

func (c *cli) configCommand() *cobra.Command {
	var online bool
	check := &cobra.Command{
		Use:   "check",
		Short: "Say whether the configuration is right, and what it means",
		Long: `Read the configuration as the daemon does: unknown keys, wrong values and secrets that cannot be
read are errors, each with its place and cure. Prints a summary without secrets. No connection
is opened, unless --online asks for it: then the database, and with each account that sends WeChat,
must answer. An account costs a token, a quota call and one for its list of templates. In token
mode classic the new token ends the one that a running daemon has, which then fetches another.`,
		Args: cobra.NoArgs,
		RunE: c.work(func(cmd *cobra.Command, _ []string) error {
			return c.configCheck(cmd.Context(), online)
		}),
	}
	check.Flags().BoolVar(&online, "online", false,
		"ask the database, and WeChat about each account: secret, IP whitelist, quota, templates")
	example := &cobra.Command{
		Use:   "example",
		Short: "Print the complete, commented example configuration",
		Args:  cobra.NoArgs,
		RunE: c.work(func(*cobra.Command, []string) error {
			_, err := c.stdout.Write(unionbridge.ExampleConfig)
			return err
		}),
	}
	return group(&cobra.Command{Use: "config",
		Short: "Check the configuration, or print an example"}, check, example)
}

func (c *cli) configCheck(ctx context.Context, online bool) error {
	if err := c.loadConfig(); err != nil {
		return err
	}
	if err := c.printConfig(c.cfg); err != nil || !online {
		return err
	}
	needs := access{check: database.CheckSchema, log: io.Discard}
	all := []error{c.withDatabase(ctx, needs, func(*sqlx.DB) error {
		_, err := fmt.Fprintln(c.stdout, "  the database answers and has the right schema")
		return err
	})}
	p := newParts(c.cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry(), nil)
	for _, a := range p.checkedAccounts() {
		all = append(all, c.printChecked(a, doctor.Check(ctx, a)))
	}
	return errors.Join(all...)
}

// printChecked prints what works of an account, and returns what does not.
func (c *cli) printChecked(a doctor.Account, r doctor.Result) error {
	if r.Err != nil {
		return exitError{exitWeChat, fmt.Errorf("%s: WeChat did not say whether it works: %w. Try "+
			"again; if it stays, check wechat.base_url, and that this machine and its proxy reach it",
			a.AppID, r.Err)}
	}
	var all []error
	for _, problem := range r.Problems {
		code := exitWeChat
		if problem.Reason == doctor.ReasonTemplateMissing || problem.Reason == doctor.ReasonKeyMissing {
			code = exitConfig
		}
		all = append(all, exitError{code, errors.New(problem.String())})
	}
	if !r.TokenTaken {
		return errors.Join(all...)
	}
	kind, messages := "official account ", "template"
	if a.Mini {
		kind, messages = "mini program ", "subscribe"
	}
	words := kind + a.AppID + ": WeChat takes its token"
	if r.Quota != nil {
		words += fmt.Sprintf("; %d of %d %s messages are left today", r.Quota.Remain,
			r.Quota.DailyLimit, messages)
	}
	if r.Templates >= 0 {
		words += fmt.Sprintf("; %d of %d templates are in its list", r.Templates, len(a.Templates))
	} else if r.ListErr != nil {
		words += "; its templates could not be read: " + r.ListErr.Error()
	}
	return errors.Join(append(all, printLine(c.stdout, "  "+words))...)
}

func (c *cli) printConfig(cfg *config.Config) error {
	for _, warning := range cfg.Warnings {
		if err := printLine(c.stderr, "warning: "+warning); err != nil {
			return err
		}
	}
	_, err := fmt.Fprint(c.stdout, c.configPath, " is right.\n", describe(cfg))
	return err
}

func describe(cfg *config.Config) string {
	var b strings.Builder
	line := func(format string, args ...any) {
		b.WriteString("  " + visible(fmt.Sprintf(format, args...)) + "\n")
	}
	line("database: %s, at most %d connections", describeDSN(cfg.Database.DSN.Reveal()),
		cfg.Database.MaxConnections)
	line("WeChat: %s", cfg.WeChat.BaseURL)
	line("health and metrics: http://%s", cfg.HTTP.Listen)
	for _, a := range cfg.OfficialAccounts {
		mark := ""
		if a.Default {
			mark = ", the default"
		}
		line("official account %s (%s)%s: sweep %q, refresh %q, %g messages a second",
			a.AppID, a.Name, mark, a.Sync.Sweep, a.Sync.Refresh, a.Send.Rate)
	}
	for _, m := range cfg.MiniPrograms {
		words := ""
		if m.Sends {
			words = fmt.Sprintf(": %g messages a second", m.Send.Rate)
			if m.AppID == cfg.DefaultAppID() {
				words = ", the default" + words
			}
		}
		line("mini program %s (%s)%s", m.AppID, m.Name, words)
	}
	if aliases := slices.Sorted(maps.Keys(cfg.Templates)); len(aliases) > 0 {
		line("templates: %s", strings.Join(aliases, ", "))
	}
	if cfg.HTTP.APIListen != "" {
		line("doors for applications: %s", cfg.HTTP.APIListen)
	}
	for _, a := range cfg.Applications {
		line("application %s", describeApplication(a))
	}
	return b.String()
}

// describeDSN names user, server and schema: what is not secret of a DSN.
func describeDSN(dsn string) string {
	parsed, err := mysql.ParseDSN(dsn)
	if err != nil {
		return "?" // validated before
	}
	return fmt.Sprintf("%s@%s(%s)/%s", parsed.User, parsed.Net, parsed.Addr, parsed.DBName)
}
