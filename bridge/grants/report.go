package grants

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/bridge"
	"github.com/unionbridge/unionbridge/internal/database"
)

const (
	// reportPause is how often subscription_report is looked at: it is empty then, as reports are
	// deleted once they are in the ledger.
	reportPause = time.Second
	// reportRetry is the pause after an error.
	reportRetry = 5 * time.Second
)

// reportRow is a row of subscription_report.
type reportRow struct {
	ID         int64        `db:"id"`
	AppID      string       `db:"appid"`
	OpenID     string       `db:"openid"`
	TemplateID string       `db:"template_id"`
	Result     string       `db:"result"`
	Key        string       `db:"report_key"`
	AcceptedAt sql.NullTime `db:"accepted_at"`
	CreatedAt  time.Time    `db:"created_at"`
}

// Run takes the apps' reports in until ctx ends. Several instances may do so at once. Without an
// account that counts anything it returns at once.
func (l *Ledger) Run(ctx context.Context) {
	var appids []string
	for appid := range l.cfg.Sources {
		if l.Counts(appid) {
			appids = append(appids, appid)
		}
	}
	if len(appids) == 0 {
		return
	}
	slices.Sort(appids)
	failing := false
	for {
		n, err := l.takeReports(ctx, appids)
		pause := reportPause
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if !failing {
				l.cfg.Logger.ErrorContext(ctx, "reports of subscriptions cannot be counted", "err", err)
			}
			pause = reportRetry
		case n == maxRows:
			pause = 0 // there may be more
		}
		failing = err != nil
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// takeReports moves up to maxRows reports into the ledger, and returns how many it found.
func (l *Ledger) takeReports(ctx context.Context, appids []string) (int, error) {
	// While there is none, this reads at most one entry of the index for each account.
	found, err := database.SelectIn[reportRow](ctx, l.cfg.DB, `
		SELECT id, appid
		  FROM subscription_report FORCE INDEX (subscription_report_next)
		 WHERE appid IN (?)
		 ORDER BY appid, id
		 LIMIT ?`, appids, maxRows)
	if err != nil {
		return 0, fmt.Errorf("looking for reports: %w", database.Explain(err))
	}
	byApp := make(map[string][]int64)
	for _, r := range found {
		appid := bridge.ID(r.AppID)
		byApp[appid] = append(byApp[appid], r.ID)
	}
	for appid, ids := range byApp {
		if err := l.takeReportsOf(ctx, appid, ids); err != nil {
			return 0, fmt.Errorf("counting %d reports: %w", len(ids), err)
		}
	}
	return len(found), nil
}

func (l *Ledger) takeReportsOf(ctx context.Context, appid string, ids []int64) error {
	var entries []entry
	err := database.InTx(ctx, l.cfg.DB, func(ctx context.Context, tx *sqlx.Tx) error {
		entries = nil
		// Locked, so that of several instances one works and the others find nothing.
		rows, err := database.SelectIn[reportRow](ctx, tx, `
			SELECT id, appid, openid, template_id, result, report_key, accepted_at, created_at
			  FROM subscription_report
			 WHERE id IN (?)
			   FOR UPDATE`, ids)
		if err != nil || len(rows) == 0 {
			return err
		}
		if l.takes(appid, Reports) {
			for _, r := range rows {
				if e, ok := r.entry(); ok {
					entries = append(entries, e)
				}
			}
		}
		if len(entries) > 0 {
			if err := (writer{Ledger: l, tx: tx, appid: appid}).record(ctx, entries); err != nil {
				return err
			}
		}
		_, err = database.ExecIn(ctx, tx, `DELETE FROM subscription_report WHERE id IN (?)`, ids)
		return err
	})
	if err != nil {
		return err
	}
	l.tell(ctx, appid, accepted(entries))
	return nil
}

// entry makes an entry of a report of an acceptance, whichever of WeChat's words for it the app
// passes on. A report without a time, or from the future, is as old as its row: rather too young.
func (r reportRow) entry() (entry, bool) {
	e := entry{OpenID: bridge.ID(r.OpenID), TemplateID: bridge.ID(r.TemplateID), Kind: kindAccept,
		Source: sourceReport, Key: "report:" + bridge.ID(r.Key), HappenedAt: r.CreatedAt,
		ArrivedAt: r.CreatedAt}
	// An INSERT IGNORE makes the zero date of an invalid one.
	if at := r.AcceptedAt.Time; r.AcceptedAt.Valid && !at.IsZero() && at.Before(r.CreatedAt) {
		e.HappenedAt = at
	}
	return e, e.OpenID != "" && e.TemplateID != "" && strings.HasPrefix(r.Result, "accept")
}
