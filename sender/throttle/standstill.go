package throttle

import (
	"context"
	"fmt"
	"strings"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// Standstill is which accounts, and templates of them, send nothing until a person has acted.
type Standstill map[[2]string]bool // by appid and template id; "": the account

// LoadStandstill reads that of all accounts. needsPerson reports whether a pause of this reason ends
// only when somebody acts; nil: each does.
func LoadStandstill(
	ctx context.Context, db *sqlx.DB, needsPerson func(reason string) bool,
) (Standstill, error) {
	const query = `SELECT appid, scope, reason FROM account_state`
	var rows []struct {
		AppID  string `db:"appid"`
		Scope  string `db:"scope"`
		Reason string `db:"reason"`
	}
	if err := db.SelectContext(ctx, &rows, query); err != nil {
		return nil, fmt.Errorf("reading which accounts are paused: %w", database.Explain(err))
	}
	still := make(Standstill)
	for _, row := range rows {
		operator, ofOperator := strings.CutPrefix(row.Scope, scopeOperatorTemplate)
		template, ofTemplate := strings.CutPrefix(row.Scope, scopeTemplate)
		switch {
		case row.Scope == scopeOperator,
			row.Scope == scopeSend && (needsPerson == nil || needsPerson(row.Reason)):
			still[[2]string{row.AppID, ""}] = true
		case ofOperator:
			still[[2]string{row.AppID, operator}] = true
		case ofTemplate:
			still[[2]string{row.AppID, template}] = true
		}
	}
	return still, nil
}

// Blocks reports whether a template of an account waits for a person.
func (s Standstill) Blocks(appid, templateID string) bool {
	return s[[2]string{appid, ""}] || s[[2]string{appid, templateID}]
}
