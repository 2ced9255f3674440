package grants

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/database"
)

// Report is what wx.requestSubscribeMessage answered about one template, as an app reports it.
type Report struct {
	Grant
	Result string
	Key    string    // the app's: a report with the same is a repetition
	At     time.Time // zero: now
}

// Submit stores reports of a mini program in subscription_report, from where Run takes them. Repeated
// ones change nothing. All are stored, or none.
func (l *Ledger) Submit(ctx context.Context, appid string, reports []Report) error {
	if len(reports) == 0 {
		return nil
	}
	args := make([]any, 0, 6*len(reports))
	for _, r := range reports {
		var at any
		if !r.At.IsZero() {
			at = r.At.UTC()
		}
		args = append(args, appid, r.OpenID, r.TemplateID, r.Result, r.Key, at)
	}
	query := `
		INSERT INTO subscription_report (appid, openid, template_id, result, report_key, accepted_at)
		VALUES (?, ?, ?, ?, ?, ?)` + strings.Repeat(`, (?, ?, ?, ?, ?, ?)`, len(reports)-1) + `
		ON DUPLICATE KEY UPDATE report_key = VALUES(report_key)`
	err := database.Retry(ctx, func(ctx context.Context) error {
		_, err := l.cfg.DB.ExecContext(ctx, query, args...)
		return err
	})
	if err != nil {
		return fmt.Errorf("storing reports of subscriptions: %w", err)
	}
	return nil
}
