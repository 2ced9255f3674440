package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/status"
	"github.com/unionbridge/unionbridge/internal/status/figures"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// trouble is a database with something of everything that figures count, for APPID.
func trouble(t *testing.T, db *sqlx.DB) {
	t.Helper()
	for _, query := range []string{
		`INSERT INTO send_request (appid, template, data, priority, reason, due_at, wished_at) VALUES
		 ('APPID', 'x', '{}', 0, NULL, CURRENT_TIMESTAMP(3) - INTERVAL 1 HOUR, NULL),
		 ('APPID', 'x', '{}', 2, 'unknown_template', CURRENT_TIMESTAMP(3) + INTERVAL 2 MINUTE,
		  CURRENT_TIMESTAMP(3) - INTERVAL 20 MINUTE),
		 (NULL, 'x', '{}', 1, NULL, CURRENT_TIMESTAMP(3) + INTERVAL 1 HOUR, NULL),
		 ('wxstray', 'x', '{}', 1, NULL, CURRENT_TIMESTAMP(3) + INTERVAL 1 HOUR, NULL)`,
		`INSERT INTO send_request (appid, template, data, status, reason, due_at, wished_at) VALUES
		 ('APPID', 'x', '{}', 'waiting', 'not_following', CURRENT_TIMESTAMP(3) + INTERVAL 3 DAY,
		  CURRENT_TIMESTAMP(3) - INTERVAL 1 DAY)`,
		`INSERT INTO send_request (appid, template, data, status, reason, finished_at) VALUES ` +
			strings.TrimSuffix(strings.Repeat(
				`('APPID', 'x', '{}', 'failed', 'bad_data', CURRENT_TIMESTAMP(3)), `, 20), ", "),
		`INSERT INTO account_state (appid, scope, reason, paused_until) VALUES
		 ('APPID', 'send', 'no_permission', NULL),
		 ('APPID', 'template:a', 'template_banned', CURRENT_TIMESTAMP(3) + INTERVAL 1 HOUR),
		 ('APPID', 'template:b', 'template_banned', NULL)`,
		`INSERT INTO lease (name, holder, epoch, expires_at) VALUES
		 ('send:APPID', 'me', 1, CURRENT_TIMESTAMP(3) + INTERVAL 1 HOUR),
		 ('sweep:APPID', 'other', 1, CURRENT_TIMESTAMP(3) + INTERVAL 1 HOUR),
		 ('house:retention', 'me', 1, CURRENT_TIMESTAMP(3) + INTERVAL 1 HOUR)`,
		`INSERT INTO account_quota (appid, endpoint, daily_limit, remaining) VALUES
		 ('APPID', '/cgi-bin/user/get', 500, 399), ('wxstray', '/cgi-bin/user/get', 1, 1)`,
		`INSERT INTO account_problem (appid, reason, subject, text, cure) VALUES
		 ('APPID', 'template_missing', 'order', 'not there', 'Add it.'),
		 ('APPID', 'ip_not_allowed', '', '40164', 'Add it.')`,
	} {
		db.MustExecContext(t.Context(), strings.ReplaceAll(query, "APPID", wechatsim.StandardAppID))
	}
}

// TestOneTruth: status, its JSON, its alarms and the metrics show the same figures, each of them.
func TestOneTruth(t *testing.T) {
	dsn := dbtest.Empty(t)
	db := dbtest.Open(t, dsn)
	if _, err := database.Migrate(t.Context(), db, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	trouble(t, db)
	path := newWorld(t, dsn).writeConfig(t, t.TempDir())
	cfg, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	printed := do(t.Context(), "", "-c", path, "status", "--json")
	text := do(t.Context(), "", "-c", path, "status").stdout
	var report status.Report
	if err := json.Unmarshal([]byte(printed.stdout), &report); err != nil {
		t.Fatalf("%v: %+v", err, printed)
	}
	p := newParts(cfg, slog.New(slog.DiscardHandler), prometheus.NewRegistry(), db)
	reg := prometheus.NewRegistry()
	reg.MustRegister(figures.NewCollector(p.figures(), "me"))
	got := gathered(t, reg)
	if diff := cmp.Diff(fromJSON(report), got, nearly()); diff != "" {
		t.Errorf("figures (-status --json +metrics):\n%s", diff)
	}

	// Each kind of figure and alarm occurs, or the comparison above says little of it.
	for _, want := range []string{"unionbridge_status_up ", "unionbridge_queue_requests ",
		"unionbridge_queue_capped ", "unionbridge_queue_oldest_seconds ", "unionbridge_queue_stuck ",
		"unionbridge_lease_held ", "unionbridge_pause_until_timestamp_seconds ",
		"unionbridge_quota_remaining ", "unionbridge_quota_asked_timestamp_seconds ",
		"unionbridge_alarm failing", "unionbridge_alarm stuck", "unionbridge_alarm paused",
		"unionbridge_alarm queue_late", "unionbridge_alarm template_missing",
		"unionbridge_alarm probe_failed"} {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(got)), func(name string) bool {
			return strings.HasPrefix(name, want)
		}) {
			t.Errorf("there is no %s: %v", want, got)
		}
	}
	codes := func(text, pattern string) (codes []string) {
		for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			codes = append(codes, m[1])
		}
		return codes
	}
	if diff := cmp.Diff(codes(printed.stdout, `"code": "(\w+)"`), codes(text, `(?m)^ALARM +(\w+):`)); diff != "" {
		t.Errorf("alarms (-status --json +status):\n%s", diff)
	}
	for _, line := range []string{`queue +2 pending of ` + wechatsim.StandardAppID + `, 1 of them due`,
		`stuck +1 of ` + wechatsim.StandardAppID + `: unknown_template, the oldest could have gone at `,
		`quota +/cgi-bin/user/get of ` + wechatsim.StandardAppID + `: 399 of 500 calls were left at `} {
		if !regexp.MustCompile(`(?m)^` + line).MatchString(text) {
			t.Errorf("no line %s in\n%s", line, text)
		}
	}
}

// nearly lets the ages differ by the time between two readings.
func nearly() cmp.Option {
	return cmp.Comparer(func(a, b float64) bool { return a == b || math.Abs(a-b) <= 5 && a > 60 })
}

// gathered has the metrics by name and labels, of which the first two or three are enough.
func gathered(t *testing.T, reg prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			name := family.GetName()
			for _, l := range []string{"code", "job", "appid", "status", "priority", "scope", "reason", "endpoint"} {
				if value, ok := labels[l]; ok {
					name += " " + value
				}
			}
			all[strings.TrimRight(name, " ")+" "] = m.GetGauge().GetValue()
		}
	}
	return all
}

// fromJSON is what the metrics must be by status --json.
func fromJSON(r status.Report) map[string]float64 {
	all := map[string]float64{"unionbridge_status_up ": 1}
	set := func(value float64, words ...string) {
		all[strings.TrimRight("unionbridge_"+strings.Join(words, " "), " ")+" "] = value
	}
	label := func(appid *string) string {
		switch {
		case appid == nil:
			return ""
		case *appid == wechatsim.StandardAppID:
			return *appid
		}
		return "other"
	}
	unix := func(t status.Time) float64 { return float64(t.UnixMilli()) / 1000 }
	for _, o := range r.Queue.Open {
		for _, p := range o.ByPriority {
			set(float64(p.Requests), "queue_requests", label(o.AppID), o.Status, fmt.Sprint(p.Priority))
		}
		if o.OldestSeconds != nil {
			set(float64(*o.OldestSeconds), "queue_oldest_seconds", label(o.AppID), o.Status)
		}
		set(0, "queue_capped", label(o.AppID), o.Status)
	}
	for _, s := range r.Queue.Stuck {
		set(float64(s.Requests), "queue_stuck", label(s.AppID), s.Reason)
	}
	for _, a := range r.Alarms {
		set(1, "alarm", a.Code, label(a.AppID))
	}
	set(0, "lease_held", "refresh", wechatsim.StandardAppID)
	for _, l := range r.Leases {
		job, appid, _ := strings.Cut(l.Name, ":")
		if job == "house" {
			job, appid = appid, ""
		}
		value := 0.0
		if l.Holder == "me" {
			value = 1
		}
		set(value, "lease_held", job, appid)
	}
	for _, p := range r.Pauses {
		until := math.Inf(1)
		if p.Until != nil {
			until = unix(*p.Until)
		}
		set(until, "pause_until_timestamp_seconds", p.AppID, p.Scope, p.Reason)
	}
	for _, q := range r.Quotas {
		set(float64(q.Remaining), "quota_remaining", q.AppID, q.Endpoint)
		set(unix(q.AskedAt), "quota_asked_timestamp_seconds", q.AppID, q.Endpoint)
	}
	return all
}
