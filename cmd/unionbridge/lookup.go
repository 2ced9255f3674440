package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/jmoiron/sqlx"
	"github.com/spf13/cobra"

	"github.com/unionbridge/unionbridge/bridge"
)

func (c *cli) lookupCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "lookup ID",
		Short: "Show who a unionid or openid is, at each account",
		Long: `Show everything the map knows of the person behind ID: a unionid, or an openid at any official
account or mini program. One line for each pair of their accounts; "-" is not known.

Exit code 1: nobody has this id.`,
		Args: cobra.ExactArgs(1),
		RunE: c.work(func(cmd *cobra.Command, args []string) error {
			return c.lookup(cmd.Context(), args[0], asJSON)
		}),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false,
		"print a JSON array with the columns of the view v_identity, and grants")
	return cmd
}

// identity is one element of --json, named as in v_identity; null where nothing is known.
type identity struct {
	UnionID    *string `json:"unionid"`
	OAAppID    *string `json:"oa_appid"`
	OAOpenID   *string `json:"oa_openid"`
	Subscribed *bool   `json:"subscribed"`
	MiniAppID  *string `json:"mini_appid"`
	MiniOpenID *string `json:"mini_openid"`

	// Grants is what they allow this mini program; left out where that is nothing.
	Grants []grantLine `json:"grants,omitempty"`
}

// checkID refuses what cannot be an id of WeChat's. In the database it would not be "not found",
// but an error about collations: the columns are ASCII.
func checkID(name, id string) error {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
	if id == "" || len(id) > 64 || strings.Trim(id, allowed) != "" {
		return usageError("%s %q is not an id of WeChat's: 1 to 64 letters, digits, _ and -", name, id)
	}
	return nil
}

func (c *cli) lookup(ctx context.Context, id string, asJSON bool) error {
	if err := checkID("ID", id); err != nil {
		return err
	}
	return c.withDatabase(ctx, access{check: checkReadableSchema}, func(db *sqlx.DB) error {
		found, err := bridge.New(db).Lookup(ctx, id)
		if err != nil {
			return databaseError(err)
		}
		allowed, err := c.grantsOf(ctx, db, found)
		if err != nil {
			return databaseError(err)
		}
		show := c.printIdentities
		if asJSON {
			show = c.printIdentitiesJSON
		}
		if err := show(found, allowed); err != nil {
			return err
		}
		if len(found) == 0 {
			return fmt.Errorf("nobody with the id %s is in the map: is it complete, and upper and "+
				`lower case right? A follower appears with the next sweep ("unionbridge sync"), `+
				"a mini-program user with a row in mini_user", id)
		}
		return nil
	})
}

func (c *cli) printIdentities(
	list []bridge.Identity, allowed map[bridge.Account][]grantLine,
) error {
	if len(list) == 0 {
		return nil
	}
	rows := [][]string{
		{"UNIONID", "OFFICIAL ACCOUNT", "OPENID", "FOLLOWS", "MINI PROGRAM", "OPENID"},
	}
	for _, i := range list {
		follows := ""
		if i.OAOpenID != "" {
			follows = map[bool]string{true: "yes", false: "no"}[i.Subscribed]
		}
		row := []string{i.UnionID, i.OAAppID, i.OAOpenID, follows, i.MiniAppID, i.MiniOpenID}
		for n, cell := range row {
			row[n] = cmp.Or(cell, "-")
		}
		rows = append(rows, row)
	}
	if err := printTable(c.stdout, rows); err != nil {
		return err
	}
	return c.printGrants(list, allowed)
}

func (c *cli) printIdentitiesJSON(
	list []bridge.Identity, allowed map[bridge.Account][]grantLine,
) error {
	out := make([]identity, len(list))
	for i, who := range list {
		out[i] = identity{
			UnionID: orNull(who.UnionID), OAAppID: orNull(who.OAAppID), OAOpenID: orNull(who.OAOpenID),
			MiniAppID: orNull(who.MiniAppID), MiniOpenID: orNull(who.MiniOpenID),
			Grants: allowed[bridge.Account{AppID: who.MiniAppID, OpenID: who.MiniOpenID}],
		}
		if who.OAOpenID != "" {
			out[i].Subscribed = &who.Subscribed
		}
	}
	return printJSON(c.stdout, out, "  ")
}
