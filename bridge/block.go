package bridge

import (
	"context"
	"fmt"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
)

// Block says that a person refused a message of an official account.
type Block struct {
	AppID, OpenID string
	At            time.Time // by WeChat's clock
}

// RecordBlock stores a block: Resolve calls the person Blocked for the time d from then. An event from before his last follow changes nothing, so that one
// which is repeated late does not block somebody who has come back. Somebody whom the map does not have is not
// noted.
func (m *Map) RecordBlock(ctx context.Context, r Block, d time.Duration) error {
	const query = `
		UPDATE follower
		   SET blocked_until = ?
		 WHERE appid = ? AND openid = ? AND (subscribe_time IS NULL OR subscribe_time <= ?)
		   AND (blocked_until IS NULL OR blocked_until < ?)`
	until := r.At.Add(d).UTC()
	err := database.Retry(ctx, func(ctx context.Context) error {
		_, err := m.db.ExecContext(ctx, query, until, r.AppID, r.OpenID, r.At.UTC(), until)
		return err
	})
	if err != nil {
		return fmt.Errorf("noting that a follower blocks messages: %w", database.Explain(err))
	}
	return nil
}
