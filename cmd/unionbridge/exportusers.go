package main

import (
	"context"
	"encoding/csv"
	"fmt"

	"github.com/jmoiron/sqlx"
	"github.com/spf13/cobra"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/database"
)

func (c *cli) exportUsersCommand() *cobra.Command {
	var appid string
	cmd := &cobra.Command{
		Use:   "export-users",
		Short: "Print mini-program users as CSV",
		Long: `Print the table mini_user as CSV (RFC 4180) with a header line, in the order of appid and openid,
as import-users reads it. It reads page by page and keeps no transaction open.`,
		Args: cobra.NoArgs,
		RunE: c.work(func(cmd *cobra.Command, _ []string) error {
			return c.exportUsers(cmd.Context(), appid)
		}),
	}
	cmd.Flags().StringVar(&appid, "appid", "", "only the users of this mini program; default: all")
	return cmd
}

func (c *cli) exportUsers(ctx context.Context, appid string) error {
	if appid != "" {
		if err := checkID("--appid", appid); err != nil {
			return err
		}
	}
	needs := access{check: database.CheckSchema}
	return c.withDatabase(ctx, needs, func(_ *config.Config, db *sqlx.DB) error {
		return c.writeUsers(ctx, db, appid)
	})
}

func (c *cli) writeUsers(ctx context.Context, db *sqlx.DB, appid string) error {
	out := csv.NewWriter(c.stdout)
	out.UseCRLF = true // RFC 4180
	var writing error  // distinguishes a broken pipe from a broken database
	write := func(record []string) error {
		writing = out.Write(record)
		return writing
	}
	if err := write(userColumns()); err != nil {
		return fmt.Errorf("writing users: %w", err)
	}
	err := bridge.New(db).ExportMiniUsers(ctx, appid, func(u bridge.MiniUser) error {
		return write([]string{u.AppID, u.OpenID, u.UnionID, jsonTime(u.SeenAt)})
	})
	if writing != nil {
		return fmt.Errorf("writing users: %w", writing)
	}
	if err != nil {
		return databaseError(err)
	}
	out.Flush()
	return out.Error()
}
