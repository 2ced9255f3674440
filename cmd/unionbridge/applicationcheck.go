package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/jmoiron/sqlx"
	"github.com/spf13/cobra"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/database"
)

func (c *cli) applicationListCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the applications and what they may do",
		Long:  `List the applications of the configuration. The database is not needed.`,
		Args:  cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print each application as a line of JSON")
	cmd.RunE = c.work(func(*cobra.Command, []string) error { return c.listApplications(asJSON) })
	return cmd
}

// applicationLine is a line of application list --json.
type applicationLine struct {
	Name      string              `json:"name"`
	Secrets   int                 `json:"secrets"`
	Accounts  map[string][]string `json:"accounts"`
	Templates []string            `json:"templates"`
	Priority  int                 `json:"priority"`
	Minute    *int64              `json:"limit_minute"`
	Day       *int64              `json:"limit_day"`
	Networks  []string            `json:"networks"`
	Window    float64             `json:"duplicate_window_seconds"`
	Disabled  bool                `json:"disabled"`
}

func (c *cli) listApplications(asJSON bool) error {
	if err := c.loadConfig(); err != nil {
		return err
	}
	rows := [][]string{{"NAME", "SECRETS", "ACCOUNTS", "TEMPLATES", "PRIORITY", "A MINUTE", "A DAY",
		"NETWORKS", "STATE"}}
	for _, a := range c.cfg.Applications {
		if asJSON {
			line := applicationLine{a.Name, len(a.SecretHashes), a.Accounts, a.Templates, a.Priority,
				orNull(a.Limit.Minute), orNull(a.Limit.Day), a.Networks,
				a.DuplicateWindow.Std().Seconds(), a.Disabled}
			if err := printJSON(c.stdout, line, ""); err != nil {
				return err
			}
			continue
		}
		state := "enabled"
		if a.Disabled {
			state = "disabled"
		}
		rows = append(rows, []string{a.Name, fmt.Sprint(len(a.SecretHashes)),
			strings.Join(slices.Sorted(maps.Keys(a.Accounts)), " "), orAll(strings.Join(a.Templates, " ")),
			fmt.Sprint(a.Priority), orAny(a.Limit.Minute), orAny(a.Limit.Day),
			orAll(strings.Join(a.Networks, " ")), state})
	}
	if asJSON {
		return nil
	}
	return printTable(c.stdout, rows)
}

func orAll(text string) string {
	if text == "" {
		return "all"
	}
	return text
}

func orAny(n int64) string {
	if n == 0 {
		return "any number"
	}
	return fmt.Sprint(n)
}

// checkOptions are the flags of application check.
type checkOptions struct {
	secretFile, appid, from string
}

func (c *cli) applicationCheckCommand() *cobra.Command {
	var o checkOptions
	cmd := &cobra.Command{
		Use:   "check NAME",
		Short: "Say what an application may do, what it has used, and whether a secret is its own",
		Long: `Say what an application may do and how much of its limits it has used, and what keeps it from
working. With --secret-file it tries a secret as the door would: whose it is, whether it is valid for
the account, and from that address. Nothing is sent, and no token is made.

Exit code 1: something keeps it from working, or the secret is refused.`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&o.secretFile, "secret-file", "",
		"try the secret in this `file`; - reads standard input")
	cmd.Flags().StringVar(&o.appid, "appid", "", "with --secret-file: for this account's `appid`")
	cmd.Flags().StringVar(&o.from, "from", "", "with --secret-file: as if it came from this `address`")
	cmd.RunE = c.work(func(cmd *cobra.Command, args []string) error {
		return c.checkApplication(cmd.Context(), args[0], o)
	})
	return cmd
}

func (c *cli) checkApplication(ctx context.Context, name string, o checkOptions) error {
	if (o.appid != "" || o.from != "") && o.secretFile == "" {
		return usageError("--appid and --from belong to --secret-file")
	}
	from := netip.Addr{}
	if o.from != "" {
		var err error
		if from, err = netip.ParseAddr(o.from); err != nil {
			return usageError("--from %q is not an address, such as 10.0.0.5", o.from)
		}
	}
	a, err := c.application(name)
	if err != nil {
		return err
	}
	var secret string
	if o.secretFile != "" {
		if secret, err = c.readSecret(o.secretFile); err != nil {
			return err
		}
	}
	return c.withDatabase(ctx, access{check: database.CheckSchema, log: io.Discard}, func(db *sqlx.DB) error {
		registry, err := newApplications(c.cfg, registryParts{db: db, holder: holderName()})
		if err != nil {
			return err
		}
		used, err := registry.Used(ctx, name)
		if err != nil {
			return databaseError(err)
		}
		if err := c.printApplication(a, used); err != nil {
			return err
		}
		problems := applicationProblems(c.cfg, a)
		if o.secretFile != "" {
			problems = append(problems, c.trySecret(registry, a, o.appid,
				applications.Credentials{AppID: o.appid, Secret: secret, From: from})...)
		}
		return errors.Join(problems...)
	})
}

func (c *cli) application(name string) (config.Application, error) {
	if err := c.loadConfig(); err != nil {
		return config.Application{}, err
	}
	var known []string
	for _, a := range c.cfg.Applications {
		if a.Name == name {
			return a, nil
		}
		known = append(known, a.Name)
	}
	if len(known) == 0 {
		return config.Application{}, usageError("there is no application in the configuration; add it "+
			"under applications: %s", configExample)
	}
	return config.Application{}, usageError("application %q is not in the configuration, which has %s",
		name, strings.Join(known, ", "))
}

const configExample = `"unionbridge config example" shows how`

// maxSecretFile is far above a secret's 32 digits.
const maxSecretFile = 4096

// readSecret reads a secret from a file and not from the command line, which everybody on the
// machine can read.
func (c *cli) readSecret(name string) (string, error) {
	in := c.stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return "", fmt.Errorf("--secret-file: %w", err)
		}
		defer func() { _ = f.Close() }() // only read
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxSecretFile))
	if err != nil {
		return "", fmt.Errorf("--secret-file: %w", err)
	}
	secret := strings.TrimSpace(string(data))
	if secret == "" {
		return "", usageError("--secret-file: there is no secret in it")
	}
	return secret, nil
}

func (c *cli) printApplication(a config.Application, used applications.Limit) error {
	lines := []string{describeApplication(a)}
	line := func(format string, args ...any) {
		lines = append(lines, "  "+fmt.Sprintf(format, args...))
	}
	line("templates: %s", orAll(strings.Join(a.Templates, ", ")))
	line("priority: %d", a.Priority)
	line("networks: %s", orAll(strings.Join(a.Networks, ", ")))
	if a.Limit.Minute > 0 {
		line("accepted this minute: %d of %d", used.Minute, a.Limit.Minute)
	}
	if a.Limit.Day > 0 {
		line("accepted today: %d of %d", used.Day, a.Limit.Day)
	}
	switch len(a.SecretHashes) {
	case 1:
		line("secrets: one")
	case 2:
		line("secrets: two, for the time of a change; delete the last line of the file when no program " +
			"uses the older one any more")
	}
	for _, text := range lines {
		if err := printLine(c.stdout, text); err != nil {
			return err
		}
	}
	return nil
}

// applicationProblems are what keeps an application from working.
func applicationProblems(cfg *config.Config, a config.Application) []error {
	var problems []error
	problem := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("application %s: "+format, append([]any{a.Name}, args...)...))
	}
	if a.Disabled {
		problem("it is disabled; remove disabled: true to let it in")
	}
	if cfg.HTTP.APIListen == "" {
		problem("nothing listens for it; set http.api_listen")
	}
	for _, m := range cfg.MiniPrograms {
		if slices.Contains(a.Accounts[m.AppID], config.CallSubscribeSend) && !m.Sends {
			problem("it may call subscribe_send at %s, which does not send; give that mini program a "+
				"secret and a template, or send", m.AppID)
		}
	}
	for _, alias := range a.Templates {
		t, known := cfg.Templates[alias]
		if !known {
			continue // an id
		}
		has := func(appid string) bool {
			return t.Official.IDs[appid] != "" || t.Mini != nil && t.Mini.IDs[appid] != ""
		}
		if !slices.ContainsFunc(slices.Collect(maps.Keys(a.Accounts)), has) {
			problem("no account of it has the template %s; add its id under templates, or an account", alias)
		}
	}
	return problems
}

// trySecret says whose a secret is, as the door would find out. The door's own words do not say
// more than a stranger may know.
func (c *cli) trySecret(
	registry *applications.Registry, a config.Application, appid string, shown applications.Credentials,
) []error {
	appids := []string{appid}
	if appid == "" {
		appids = slices.Sorted(maps.Keys(a.Accounts))
	}
	if !shown.From.IsValid() && len(a.Networks) > 0 {
		if network, err := netip.ParsePrefix(a.Networks[0]); err == nil {
			shown.From = network.Addr()
		}
	}
	var refused []error
	for _, appid := range appids {
		shown.AppID = appid
		s, err := registry.Authenticate(shown)
		switch {
		case err != nil:
			refused = append(refused, fmt.Errorf("the secret is refused at %s: %w", appid, err))
		case s.Application.Name != a.Name:
			return []error{fmt.Errorf("the secret is of application %s", s.Application.Name)}
		default:
			if err := printLine(c.stdout, "  the secret is valid at "+s.AppID); err != nil {
				return []error{err}
			}
		}
	}
	return refused
}

func (c *cli) applicationRevokeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke NAME",
		Short: "End all tokens of an application, on every instance",
		Long: `End all tokens of an application, on every instance within a second. Programs that know a valid
secret get new ones; to end a secret remove its hash, and restart the daemons.`,
		Args: cobra.ExactArgs(1),
		RunE: c.work(func(cmd *cobra.Command, args []string) error {
			if _, err := c.application(args[0]); err != nil {
				return err
			}
			needs := access{check: database.CheckSchema}
			return c.withDatabase(cmd.Context(), needs, func(db *sqlx.DB) error {
				if err := applications.Revoke(cmd.Context(), db, args[0]); err != nil {
					return databaseError(err)
				}
				return printLine(c.stdout, "All tokens of "+args[0]+" have ended.")
			})
		}),
	}
}
