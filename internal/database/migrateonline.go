package database

import (
	"context"
	"fmt"
	"log/slog"
	"strings"

	"github.com/jmoiron/sqlx"
)

const (
	// templateCollation is the version of the migration that builds an index of send_request twice.
	templateCollation = 4
	// largeTable is how many rows take so long that somebody may wonder: a minute for ten million of
	// them on two cores.
	largeTable = 1_000_000
)

// announce says in advance what the migration of templates does to a table of large rows or more.
func announce(ctx context.Context, db *sqlx.DB, log *slog.Logger, large int64) {
	const query = `
		SELECT COALESCE(MAX(t.table_rows), 0)
		  FROM information_schema.tables t
		  JOIN information_schema.columns c
		    ON c.table_schema = t.table_schema AND c.table_name = t.table_name
		 WHERE t.table_schema = DATABASE() AND t.table_name = 'send_request'
		   AND c.column_name = 'template' AND c.collation_name <> 'utf8mb4_bin'`
	var rows int64
	if err := db.GetContext(ctx, &rows, query); err != nil || rows < large {
		return // the migration itself meets the error
	}
	log.InfoContext(ctx, "an index of send_request is built twice; others read and write meanwhile. "+
		"Allow about a minute for each ten million rows, and disk space for one more index",
		"version", templateCollation, "rows", rows)
}

// explainOnline says what to do where a server does not change a table while others use it.
func explainOnline(err error) error {
	const goesOn = ", and run unionbridge migrate up again: it goes on where it stopped"
	switch {
	case err == nil:
		return nil
	case isServerError(err, erLockWaitTimeout):
		return fmt.Errorf("%w; an open transaction uses the table: end it (SHOW PROCESSLIST lists "+
			"who is connected)"+goesOn, err)
	case isServerError(err, erAlterUnsupported, erAlterUnsupportedReason),
		isServerError(err, erTiDBUnsupported) && strings.Contains(err.Error(), "collation"):
		return fmt.Errorf("%w; this server does not do this step while others write. Drop indexes of "+
			"your own that contain the column, or give it the collation utf8mb4_bin with gh-ost or "+
			"pt-online-schema-change (docs/scale.md)"+goesOn, err)
	}
	return err
}
