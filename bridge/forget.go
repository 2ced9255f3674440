package bridge

import (
	"context"
	"fmt"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
)

// ForgetUnionIDs removes the unionids of followers for whom an answer after a rebinding had none,
// which Store alone would keep. Whoever changed since the time asked stays.
func (m *Map) ForgetUnionIDs(
	ctx context.Context, appid string, openids []string, asked time.Time,
) error {
	const query = `
		UPDATE follower
		   SET unionid = NULL, changed_at = CURRENT_TIMESTAMP(3)
		 WHERE appid = ? AND openid IN (?) AND (info_at IS NULL OR info_at <= ?)`
	return m.forget(ctx, query, appid, openids, asked)
}

// ForgetOldUnionIDs removes, after a rebinding, the unionids of those who have left and of those
// about whom WeChat has not answered since the time rebound. Of them, followers are asked again.
func (m *Map) ForgetOldUnionIDs(ctx context.Context, appid string, rebound time.Time) error {
	const old = `(subscribed = 0 OR info_at IS NULL OR info_at < ?)`
	const find = `
		SELECT openid, subscribed
		  FROM follower
		 WHERE appid = ? AND openid > ? AND unionid IS NOT NULL AND ` + old + `
		 ORDER BY openid
		 LIMIT ?`
	const query = `
		UPDATE follower
		   SET unionid = NULL, changed_at = CURRENT_TIMESTAMP(3)
		 WHERE appid = ? AND openid IN (?) AND ` + old
	for after := ""; ; {
		var rows []struct {
			OpenID     string `db:"openid"`
			Subscribed bool   `db:"subscribed"`
		}
		err := m.db.SelectContext(ctx, &rows, find, appid, after, rebound, maxUpsert)
		if err != nil {
			return fmt.Errorf("reading old unionids: %w", database.Explain(err))
		}
		if len(rows) == 0 {
			return nil
		}
		var openids, followers []string
		for _, r := range rows {
			openids = append(openids, r.OpenID)
			if r.Subscribed {
				followers = append(followers, r.OpenID)
			}
		}
		if err := m.RequestRecheck(ctx, appid, followers, RecheckNoUnionID); err != nil {
			return err
		}
		if err := m.forget(ctx, query, appid, openids, rebound); err != nil {
			return err
		}
		after = openids[len(openids)-1]
	}
}

func (m *Map) forget(ctx context.Context, query string, args ...any) error {
	query, args, err := sqlx.In(query, args...)
	if err == nil {
		err = m.write(ctx, query, args...)
	}
	if err != nil {
		return fmt.Errorf("removing old unionids: %w", err)
	}
	return nil
}
