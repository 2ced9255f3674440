package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/database"
)

type forgetFlags struct {
	account string
	yes     bool
}

func (c *cli) forgetCommand() *cobra.Command {
	var f forgetFlags
	cmd := &cobra.Command{
		Use:   "forget ID",
		Short: "Erase a person: from the map, the grants, the requests and the archive",
		Long: `Erase a person for good, as when they close their WeChat account: all accounts that the map knows of
them, what they allow, receipts, and their requests, finished and archived ones too. Open ones end
as cancelled with reason "erased". docs/operations.md says what goes when, and what does not: your
own systems and your backups.

ID is a unionid, or an openid. One that the map does not know is erased from the requests: it is
taken for a unionid, or with --account for an openid at that account. The map and the grants are
done when the command ends; the requests follow within minutes, by a daemon.

Without --yes it shows what it would erase, and changes nothing.`,
		Example: `  unionbridge forget oY8X…TBpW
  unionbridge forget oOYq…spfM --account wx0a00000000000001 --yes`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&f.account, "account", "", "ID is an openid at this account: its `appid`")
	cmd.Flags().BoolVar(&f.yes, "yes", false, "do it, and not only show it")
	cmd.RunE = c.work(func(cmd *cobra.Command, args []string) error {
		return c.forget(cmd.Context(), args[0], f)
	})
	return cmd
}

func (c *cli) forget(ctx context.Context, id string, f forgetFlags) error {
	if err := checkID("ID", id); err != nil {
		return err
	}
	if f.account != "" {
		if err := checkID("--account", f.account); err != nil {
			return err
		}
	}
	return c.withDatabase(ctx, access{check: database.CheckSchema}, func(db *sqlx.DB) error {
		found, err := bridge.New(db).Lookup(ctx, id)
		if err != nil {
			return databaseError(err)
		}
		who, unionid, err := person(id, f.account, found)
		if err != nil {
			return err
		}
		if err := c.printPerson(ctx, db, found); err != nil || !f.yes {
			return err
		}
		p := newParts(c.cfg, commandLogger(c.cfg.Log, c.stderr), prometheus.NewRegistry(), db)
		accounts, err := p.eraser.Person(ctx, who, unionid)
		if err != nil {
			return databaseError(err)
		}
		return printLine(c.stdout, fmt.Sprintf("erased from the map, the grants and the receipts: %d accounts; "+
			"a daemon takes the person out of the requests within minutes", len(accounts)))
	})
}

// person says what ID is: an openid at the one account that has it, or a unionid.
func person(id, account string, found []bridge.Identity) (who bridge.Account, unionid string, err error) {
	if account != "" {
		return bridge.Account{AppID: account, OpenID: id}, "", nil
	}
	var at []bridge.Account
	for _, i := range found {
		if i.UnionID == id {
			return who, id, nil
		}
		for _, a := range []bridge.Account{{AppID: i.OAAppID, OpenID: i.OAOpenID},
			{AppID: i.MiniAppID, OpenID: i.MiniOpenID}} {
			if a.OpenID == id && !slices.Contains(at, a) {
				at = append(at, a)
			}
		}
	}
	switch len(at) {
	case 0:
		return who, id, nil
	case 1:
		return at[0], "", nil
	}
	return who, "", usageError("%d accounts have this openid: say which by --account", len(at))
}

// printPerson shows what the map has of somebody.
func (c *cli) printPerson(ctx context.Context, db *sqlx.DB, found []bridge.Identity) error {
	allowed, err := c.grantsOf(ctx, db, found)
	if err != nil {
		return databaseError(err)
	}
	grants := 0
	for _, lines := range allowed {
		grants += len(lines)
	}
	if len(found) == 0 {
		return printLine(c.stdout, "the map has nobody with this id; their requests are looked for")
	}
	return errors.Join(c.printIdentities(found, nil), printLine(c.stdout, fmt.Sprintf(
		"%d pairs of accounts, %d grants, and all requests to any of these ids", len(found), grants)))
}
