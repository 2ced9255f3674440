package grants

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
)

// AcceptedAt returns when the database last learnt that each person accepted a template; same length
// and order, zero: never. A message that WeChat refused for another reason than the grant used nothing
// up, so Available alone does not say whether something has changed since.
func (l *Ledger) AcceptedAt(
	ctx context.Context, appid string, asked []Grant,
) ([]time.Time, error) {
	last := make(map[Grant]time.Time, len(asked))
	for part := range slices.Chunk(asked, maxRows) {
		where, args := anyOf(appid, part)
		var rows []struct {
			OpenID     string    `db:"openid"`
			TemplateID string    `db:"template_id"`
			At         time.Time `db:"at"`
		}
		err := l.cfg.DB.SelectContext(ctx, &rows, `
			SELECT openid, template_id, MAX(arrived_at) AS at
			  FROM grant_event
			 WHERE `+where+` AND kind IN ('`+kindAccept+`', '`+kindOn+`')
			 GROUP BY openid, template_id`, args...)
		if err != nil {
			return nil, fmt.Errorf("reading when people accepted: %w", database.Explain(err))
		}
		for _, r := range rows {
			last[Grant{r.OpenID, r.TemplateID}] = r.At
		}
	}
	moments := make([]time.Time, len(asked))
	for i, g := range asked {
		moments[i] = last[g]
	}
	return moments, nil
}
