package database

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jmoiron/sqlx"
)

// probe is a table that the daemon writes, with its columns that have no default, which an INSERT
// must name even when it inserts no row.
type probe struct{ table, columns string }

func probes() []probe {
	return []probe{
		{"follower", "appid, openid"},
		{"follower_recheck", "appid, openid, reason"},
		{"mini_user", "appid, openid"},
		{"sync_run", "kind, appid, state, holder"},
		{"send_request", "template, data"},
		{"send_request_archive", "id, template, data, priority, status, attempts"},
		{"send_wait", "request_id, kind, appid, value"},
		{"send_receipt", "appid, msgid, openid, status"},
		{"send_day", "appid, day"},
		{"subscription_grant", "appid, openid, template_id"},
		{"grant_event", "appid, openid, template_id, event_key, kind, source"},
		{"subscription_report", "appid, openid, template_id, result, report_key"},
		{"send_attempt", "request_id, appid, openid, template_id, lease"},
		{"instance", "holder, feature_level"},
		{"secret_key", "name, value"},
		{"erased_person", "hash"},
		{"application", "name"},
		{"application_usage", "application, period, holder"},
		{"withdrawn_permission", "appid, openid, permission"},
		{"account_state", "appid, scope, reason"},
		{"account_quota", "appid, endpoint"},
		{"account_problem", "appid, reason, text, cure"},
		{"lease", "name, holder"},
	}
}

// statements are one for each kind of access. Their conditions are never true, so nothing is
// written: the server checks rights before it looks for rows.
func (p probe) statements() []string {
	first, _, _ := strings.Cut(p.columns, ",")
	return []string{
		"INSERT INTO " + p.table + " (" + p.columns + ") SELECT " + p.columns + " FROM " + p.table +
			" WHERE 1 = 0",
		"UPDATE " + p.table + " SET " + first + " = " + first + " WHERE 1 = 0",
		"DELETE FROM " + p.table + " WHERE 1 = 0",
	}
}

// CheckGrants tries each kind of statement that the daemon will need on each table, so that a
// missing grant is found at the start and by name, not at three in the morning by the first sweep.
// Asking the server itself does not depend on how it prints SHOW GRANTS or nests its roles. All
// that is missing is reported at once.
func CheckGrants(ctx context.Context, db *sqlx.DB) error {
	var missing []error
	for _, p := range probes() {
		for _, stmt := range p.statements() {
			_, err := db.ExecContext(ctx, stmt)
			if err != nil && !IsDenied(err) {
				return fmt.Errorf("checking grants on %s: %w", p.table, Explain(err))
			}
			missing = append(missing, Explain(err))
		}
	}
	if err := errors.Join(missing...); err != nil { // without those that are nil
		return fmt.Errorf("checking grants: %w", err)
	}
	return nil
}
