package sender

import (
	"context"
	"database/sql"
	"slices"

	"github.com/unionbridge/unionbridge/sender/queue"
)

// endAbandoned ends the rows in doubt whose attempts the account's last claimer did not settle: it is
// gone, so nobody will. Those that are repeated fall due again.
func (c *claimer) endAbandoned(ctx context.Context) error {
	for last := int64(0); ; {
		rows, err := c.queue.Abandoned(ctx, c.AppID, last, queue.PageSize)
		if err != nil {
			return err
		}
		for _, row := range rows {
			if !c.repeats(row.Template) {
				c.results <- abandoned(row)
			}
		}
		if len(rows) < queue.PageSize {
			return nil
		}
		last = rows[len(rows)-1].ID
	}
}

// doubt prepares claimed rows for their repetition that have an attempt nobody has settled, and
// leaves out those with which that is not possible now: they fall due again.
func (c *claimer) doubt(ctx context.Context, rows []queue.Request) ([]queue.Request, error) {
	var postings []queue.Posting
	again := func(r queue.Request) bool { return r.Attempted && c.repeats(r.Template) }
	for _, r := range rows {
		if again(r) {
			postings = append(postings, queue.Posting{ID: r.ID, Token: r.Token})
		}
	}
	if len(postings) == 0 {
		return rows, nil
	}
	done, err := c.queue.Doubt(ctx, postings)
	if err != nil {
		done = nil
	}
	rows = slices.DeleteFunc(slices.Clone(rows), func(r queue.Request) bool {
		return again(r) && !slices.Contains(done, r.ID)
	})
	for i := range rows {
		if again(rows[i]) {
			rows[i].Attempted, rows[i].InDoubtFor = false, sql.NullInt64{Valid: true}
		}
	}
	return rows, err
}
