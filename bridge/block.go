package bridge

import (
	"context"
	"fmt"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
)

// Block notes that a person refuses the messages of the official account appid, for the given time from now:
// Resolve calls him Blocked until then. Somebody whom the map does not have is not noted.
func (m *Map) Block(ctx context.Context, appid, openid string, d time.Duration) error {
	const query = `
		UPDATE follower
		   SET blocked_until = CURRENT_TIMESTAMP(3) + INTERVAL ? SECOND
		 WHERE appid = ? AND openid = ?`
	err := database.Retry(ctx, func(ctx context.Context) error {
		_, err := m.db.ExecContext(ctx, query, int64(d/time.Second), appid, openid)
		return err
	})
	if err != nil {
		return fmt.Errorf("noting that a follower blocks messages: %w", database.Explain(err))
	}
	return nil
}
