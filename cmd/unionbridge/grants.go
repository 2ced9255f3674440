package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/spf13/cobra"

	"github.com/unionbridge/unionbridge"
	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/bridge/grants"
	"github.com/unionbridge/unionbridge/internal/database"
)

func (c *cli) grantsCommand() *cobra.Command {
	var tidb bool
	cmd := group(&cobra.Command{
		Use:   "grants",
		Short: "Print the database's roles as SQL; with check: compare what people allow",
		Long: `Print sql/grants.sql of this version: the roles for producers, readers and the daemon. An
administrator runs it after "unionbridge migrate up", and it can be run again. With --tidb print
what TiDB needs besides.

"unionbridge grants check" looks after other grants: what people allow a mini program to send.`,
		Example: `  unionbridge grants | mysql unionbridge`,
	}, c.checkGrantsCommand())
	cmd.Flags().BoolVar(&tidb, "tidb", false, "print sql/grants-tidb.sql, for TiDB after the other")
	unknown := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return unknown(cmd, args)
		}
		return c.work(func(*cobra.Command, []string) error { return c.printRoles(tidb) })(cmd, args)
	}
	return cmd
}

func (c *cli) printRoles(tidb bool) error {
	name := "sql/grants.sql"
	if tidb {
		name = "sql/grants-tidb.sql"
	}
	text, err := unionbridge.SQL.ReadFile(name)
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	_, err = c.stdout.Write(text)
	return err
}

func (c *cli) checkGrantsCommand() *cobra.Command {
	var appids []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Compare each grant with the ledger that explains it",
		Long: `Compute what people allow from the ledger, grant_event, and compare it with subscription_grant. It
changes nothing, reads both tables whole, and the daemon may run meanwhile.

Exit code 1: at least one grant differs.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringSliceVar(&appids, "account", nil,
		"only this mini program, by its `appid`; repeatable")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print each difference as a line of JSON")
	cmd.RunE = c.work(func(cmd *cobra.Command, _ []string) error {
		return c.checkGrants(cmd.Context(), appids, asJSON)
	})
	return cmd
}

// grantDifference is a line of grants check --json; remaining is null where there is no row.
type grantDifference struct {
	AppID      string `json:"appid"`
	OpenID     string `json:"openid"`
	TemplateID string `json:"template_id"`
	Remaining  *int64 `json:"remaining"`
	Ledger     int    `json:"ledger"`
}

func (c *cli) checkGrants(ctx context.Context, appids []string, asJSON bool) error {
	if err := c.loadConfig(); err != nil {
		return err
	}
	known := miniAppIDs(c.cfg)
	for _, appid := range appids {
		if !slices.Contains(known, appid) {
			return usageError("mini program %q is not in the configuration", appid)
		}
	}
	if len(appids) == 0 {
		appids = known
	}
	return c.withDatabase(ctx, access{check: checkReadableSchema}, func(db *sqlx.DB) error {
		differing := 0
		for _, appid := range appids {
			n, err := grants.Check(ctx, db, appid, func(d grants.Difference) error {
				differing++
				return c.printDifference(d, asJSON)
			})
			if err != nil {
				return databaseError(err)
			}
			_, _ = fmt.Fprintf(c.stderr, "%s: %d grants were checked\n", appid, n)
		}
		if differing > 0 {
			return fmt.Errorf("%d grants are not what their ledger comes to: somebody has written to "+
				"subscription_grant or grant_event. The next event of a person corrects theirs", differing)
		}
		return nil
	})
}

func (c *cli) printDifference(d grants.Difference, asJSON bool) error {
	if asJSON {
		line := grantDifference{AppID: d.AppID, OpenID: d.OpenID, TemplateID: d.TemplateID,
			Ledger: d.Ledger}
		if d.Remaining.Valid {
			line.Remaining = &d.Remaining.Int64
		}
		return printJSON(c.stdout, line, "")
	}
	stored := "no row"
	if d.Remaining.Valid {
		stored = strconv.FormatInt(d.Remaining.Int64, 10)
	}
	return printLine(c.stdout, fmt.Sprintf("%s %s %s: subscription_grant has %s, the ledger %d",
		d.AppID, d.OpenID, d.TemplateID, stored, d.Ledger))
}

// grantLine is one element of grants in lookup --json. available is null where messages use nothing
// up, as with a long-term template.
type grantLine struct {
	TemplateID string     `json:"template_id"`
	Kind       *string    `json:"kind"`
	Remaining  int        `json:"remaining"`
	Available  *int       `json:"available"`
	OffAt      *time.Time `json:"off_at"`
	RefusedAt  *time.Time `json:"refused_at"`
	UpdatedAt  time.Time  `json:"updated_at"`
}

// grantsOf returns what a person allows at each mini program where they are known. A user who may
// not read that gets the rest of the lookup.
func (c *cli) grantsOf(
	ctx context.Context, db *sqlx.DB, people []bridge.Identity,
) (map[bridge.Account][]grantLine, error) {
	ledger := grants.New(grants.Config{DB: db})
	found := make(map[bridge.Account][]grantLine)
	for _, who := range people {
		at := bridge.Account{AppID: who.MiniAppID, OpenID: who.MiniOpenID}
		if _, twice := found[at]; twice || at.OpenID == "" {
			continue
		}
		standings, err := ledger.Lookup(ctx, at.AppID, at.OpenID)
		if database.IsDenied(err) {
			_, _ = fmt.Fprintln(c.stderr, "grants are not shown: run sql/grants.sql again, this user "+
				"may not read subscription_grant")
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		for _, s := range standings {
			line := grantLine{TemplateID: s.TemplateID, Kind: orNull(s.Kind), Remaining: s.Remaining,
				Available: &s.Available, OffAt: orNull(s.OffAt), RefusedAt: orNull(s.RefusedAt),
				UpdatedAt: s.UpdatedAt}
			if s.Available == grants.Unlimited {
				line.Available = nil
			}
			found[at] = append(found[at], line)
		}
	}
	return found, nil
}

// printGrants prints a second table below the identities, if there is anything for it.
func (c *cli) printGrants(people []bridge.Identity, of map[bridge.Account][]grantLine) error {
	rows := [][]string{{"MINI PROGRAM", "OPENID", "TEMPLATE", "KIND", "MESSAGES LEFT", "SWITCHED OFF",
		"REFUSED"}}
	seen := make(map[bridge.Account]bool)
	for _, who := range people {
		at := bridge.Account{AppID: who.MiniAppID, OpenID: who.MiniOpenID}
		if seen[at] {
			continue
		}
		seen[at] = true
		for _, g := range of[at] {
			left := "any number"
			if g.Available != nil {
				left = strconv.Itoa(*g.Available)
			}
			rows = append(rows, []string{at.AppID, at.OpenID, g.TemplateID,
				cmp.Or(orZero(g.Kind), "-"), left, localMoment(g.OffAt), localMoment(g.RefusedAt)})
		}
	}
	if len(rows) == 1 {
		return nil
	}
	_, _ = fmt.Fprintln(c.stdout)
	return printTable(c.stdout, rows)
}
