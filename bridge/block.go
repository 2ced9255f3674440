package bridge

import (
	"context"
	"fmt"
	"time"
)

// Block is a refusal: the person does not accept an official account's messages.
type Block struct {
	AppID, OpenID string
	At            time.Time // by WeChat's clock
}

// RecordBlock stores a block: Resolve calls the person Blocked for the time d from then on. A
// refusal older than their last follow changes nothing, so that a late repetition does not block
// somebody who has come back. Somebody who is not in the map is not recorded.
func (m *Map) RecordBlock(ctx context.Context, b Block, d time.Duration) error {
	const query = `
		UPDATE follower
		   SET blocked_until = ?
		 WHERE appid = ? AND openid = ? AND (subscribe_time IS NULL OR subscribe_time <= ?)
		   AND (blocked_until IS NULL OR blocked_until < ?)`
	until := b.At.Add(d).UTC()
	if err := m.write(ctx, query, until, b.AppID, b.OpenID, b.At.UTC(), until); err != nil {
		return fmt.Errorf("storing a follower's block: %w", err)
	}
	return nil
}
