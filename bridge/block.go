package bridge

import (
	"context"
	"fmt"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
)

// Block notes that a person refused a message of the official account appid at a moment, by WeChat's clock: Resolve
// calls him Blocked for the time d from then. An event from before his last follow changes nothing, so that one
// which is repeated late does not block somebody who has come back. Somebody whom the map does not have is not
// noted.
func (m *Map) Block(ctx context.Context, appid, openid string, at time.Time, d time.Duration) error {
	const query = `
		UPDATE follower
		   SET blocked_until = ?
		 WHERE appid = ? AND openid = ? AND (subscribe_time IS NULL OR subscribe_time <= ?)
		   AND (blocked_until IS NULL OR blocked_until < ?)`
	until := at.Add(d).UTC()
	err := database.Retry(ctx, func(ctx context.Context) error {
		_, err := m.db.ExecContext(ctx, query, until, appid, openid, at.UTC(), until)
		return err
	})
	if err != nil {
		return fmt.Errorf("noting that a follower blocks messages: %w", database.Explain(err))
	}
	return nil
}
