package checkup

import (
	"context"
	"fmt"
	"strings"

	"github.com/unionbridge/unionbridge/internal/status"
)

// reported is the report of how things stand, read once.
func (e *exam) reported(ctx context.Context) (status.Report, error) {
	if e.report == nil {
		report, err := e.Status(ctx, e.db)
		if err != nil {
			return report, err
		}
		e.report = &report
	}
	return *e.report, nil
}

func checkInstances(ctx context.Context, e *exam) (found []finding) {
	report, err := e.reported(ctx)
	if err != nil {
		return []finding{{state: Fail, seen: firstLine(err)}}
	}
	var levels []struct {
		Holder string `db:"holder"`
		Level  int    `db:"level"`
	}
	const query = `
		SELECT DISTINCT l.holder, COALESCE(i.feature_level, 0) AS level
		  FROM lease l LEFT JOIN instance i ON i.holder = l.holder
		 WHERE l.expires_at > CURRENT_TIMESTAMP(3) AND l.holder <> ''
		 ORDER BY level, l.holder`
	if err := e.db.SelectContext(ctx, &levels, query); err != nil {
		return []finding{{state: Fail, seen: err.Error()}}
	}
	if n := len(levels); n > 1 && levels[0].Level != levels[n-1].Level {
		found = append(found, bad(Warn, levels[0].Holder+" is of an older version than "+levels[n-1].Holder,
			"levels", levels[0].Holder))
	}
	known := map[string]bool{}
	for _, a := range report.Accounts {
		known[a.AppID] = true
		if a.SentBy == nil {
			found = append(found, bad(Warn, "nobody sends", "nosender", a.AppID).of(a.AppID))
		}
	}
	for _, l := range report.Leases {
		if appid, sends := strings.CutPrefix(l.Name, "send:"); sends && !known[appid] {
			found = append(found, bad(Warn, fmt.Sprintf("%s sends for %s, which this configuration does not have",
				l.Holder, appid), "others", appid))
		}
	}
	if found == nil {
		return []finding{ok("%d instances, and each account is sent for", len(levels))}
	}
	return found
}

// Numbers below which missing receipts say nothing.
const minSent = 100

func checkRows(ctx context.Context, e *exam) (found []finding) {
	report, err := e.reported(ctx)
	if err != nil {
		return []finding{{state: Fail, seen: firstLine(err)}}
	}
	for _, s := range report.Queue.Stuck {
		appid := ""
		if s.AppID != nil {
			appid = *s.AppID
		}
		found = append(found, bad(Warn, fmt.Sprintf("%d requests are put off again and again: %s",
			s.Requests, s.Reason), "stuck", s.Reason).of(appid))
	}
	unknown := int64(0)
	for _, o := range report.Queue.Recent.ByReason {
		if o.Status == "unknown" {
			unknown += o.Requests
		}
	}
	if unknown > 0 {
		found = append(found, bad(Warn, fmt.Sprintf("of %d of the newest requests nobody knows whether they "+
			"were sent", unknown), "unknown"))
	}
	for _, a := range e.Accounts {
		if f := e.receipts(ctx, a); f != nil {
			found = append(found, f.of(a.AppID))
		}
	}
	if found == nil {
		return []finding{ok("none is stuck or unknown among the newest")}
	}
	return found
}

// receipts says whether an account with a callback has sent a while ago and heard nothing.
func (e *exam) receipts(ctx context.Context, a Account) *finding {
	if a.CallbackToken == "" {
		return nil
	}
	var n struct {
		Sent    int64 `db:"sent"`
		Arrived int64 `db:"arrived"`
	}
	const query = `
		SELECT (SELECT COALESCE(SUM(CASE WHEN appid = ? AND status = 'sent'
		                AND finished_at BETWEEN CURRENT_TIMESTAMP(3) - INTERVAL 1 DAY
		                                    AND CURRENT_TIMESTAMP(3) - INTERVAL 1 HOUR
		                THEN 1 ELSE 0 END), 0)
		          FROM (SELECT appid, status, finished_at FROM send_request
		                 ORDER BY id DESC LIMIT 10000) newest) AS sent,
		       (SELECT COUNT(*) FROM (SELECT appid FROM send_receipt
		         WHERE appid = ? AND arrived_at > CURRENT_TIMESTAMP(3) - INTERVAL 1 DAY
		         LIMIT 1) r) AS arrived`
	if err := e.db.GetContext(ctx, &n, query, a.AppID, a.AppID); err != nil {
		return &finding{state: Fail, seen: err.Error()}
	}
	if n.Sent < minSent || n.Arrived > 0 {
		return nil
	}
	f := bad(Warn, fmt.Sprintf("%d messages were sent in the last day, and no receipt has come", n.Sent),
		"noreceipts", a.AppID)
	return &f
}
