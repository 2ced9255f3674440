package stage

import (
	"context"
	"database/sql"
	"fmt"
	"strings"

	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// InsertMiniUsers fills mini_user as the apps do after wx.login, a thousand rows a statement.
func InsertMiniUsers(ctx context.Context, db *sql.DB, users []wechatsim.Identity) error {
	const most = 1000
	for len(users) > 0 {
		n := min(most, len(users))
		args := make([]any, 0, 3*n)
		for _, u := range users[:n] {
			args = append(args, u.AppID, u.OpenID, u.UnionID)
		}
		query := `INSERT INTO mini_user (appid, openid, unionid) VALUES ` + strings.Repeat(`(?, ?, ?), `, n-1) + `(?, ?, ?)`
		if _, err := db.ExecContext(ctx, query, args...); err != nil {
			return fmt.Errorf("filling mini_user: %w", err)
		}
		users = users[n:]
	}
	return nil
}
