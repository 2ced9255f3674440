package checker

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// grant is a person and a template.
type grant struct {
	OpenID     string `db:"openid"`
	TemplateID string `db:"template_id"`
}

// CompareGrants holds what the database says that people allow against what WeChat knows, once all
// pushes have come and every row has its end. It returns the differences.
//
// A message in doubt may have arrived: WeChat has used up an acceptance for it that is still counted,
// and held by its attempt.
func CompareGrants(db harness.DB, appid string, truth []wechatsim.GrantState) (wrong []string) {
	counted := readGrants(db, `
		SELECT openid, template_id, remaining AS n FROM subscription_grant WHERE appid = ?`, appid)
	doubt := readGrants(db, `
		SELECT a.openid, a.template_id, COUNT(*) AS n
		  FROM send_attempt a
		  JOIN send_request r ON r.id = a.request_id
		 WHERE a.appid = ? AND r.status = 'unknown'
		 GROUP BY a.openid, a.template_id`, appid)
	really := make(map[grant]int, len(truth))
	all := maps.Clone(counted)
	for _, g := range truth {
		really[grant{g.OpenID, g.TemplateID}] = g.Left
		all[grant{g.OpenID, g.TemplateID}] = 0
	}
	for g := range all {
		if over := counted[g] - really[g]; over < 0 || over > doubt[g] {
			wrong = append(wrong, fmt.Sprintf("%s: %d messages of %s are counted, WeChat allows %d%s",
				g.OpenID, counted[g], g.TemplateID, really[g], ledgerOf(db, appid, g)))
		}
	}
	slices.Sort(wrong)
	return append(wrong, heldByNobody(db, appid)...)
}

// ledgerOf shows the entries behind a grant.
func ledgerOf(db harness.DB, appid string, g grant) string {
	var rows []struct {
		Kind     string    `db:"kind"`
		Source   string    `db:"source"`
		Key      string    `db:"event_key"`
		Happened time.Time `db:"happened_at"`
		Arrived  time.Time `db:"arrived_at"`
	}
	db.FetchAll(&rows, `
		SELECT kind, source, event_key, happened_at, arrived_at
		  FROM grant_event
		 WHERE appid = ? AND openid = ? AND template_id = ?
		 ORDER BY happened_at`, appid, g.OpenID, g.TemplateID)
	const clock = "15:04:05.000"
	var b strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&b, "\n    %s %s of %s, arrived at %s: %s", r.Happened.Format(clock), r.Kind, r.Source,
			r.Arrived.Format(clock), r.Key)
	}
	return b.String()
}

// heldByNobody names the attempts whose row has ended otherwise than in doubt, or is gone.
func heldByNobody(db harness.DB, appid string) (wrong []string) {
	var rows []struct {
		ID     int64  `db:"request_id"`
		Status string `db:"status"`
	}
	db.FetchAll(&rows, `
		SELECT a.request_id, COALESCE(r.status, 'gone') AS status
		  FROM send_attempt a
		  LEFT JOIN send_request r ON r.id = a.request_id
		 WHERE a.appid = ? AND (r.status IS NULL OR r.status NOT IN ('unknown', 'pending'))`, appid)
	for _, r := range rows {
		wrong = append(wrong, fmt.Sprintf("row %d is %s, and its attempt still holds an acceptance",
			r.ID, r.Status))
	}
	return wrong
}

func readGrants(db harness.DB, query string, args ...any) map[grant]int {
	var rows []struct {
		grant
		N int `db:"n"`
	}
	db.FetchAll(&rows, query, args...)
	counts := make(map[grant]int, len(rows))
	for _, r := range rows {
		counts[r.grant] = r.N
	}
	return counts
}
