package status_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/status"
)

const (
	first  = "wxaaaaaaaaaaaaaaaa"
	second = "wxbbbbbbbbbbbbbbbb"
)

func TestReport(t *testing.T) {
	db := dbtest.New(t)
	for _, query := range []string{
		`INSERT INTO sync_run (kind, appid, state, holder, started_at, ended_at)
		 VALUES ('sweep', '` + first + `', 'done', 'x', CURRENT_TIMESTAMP(3) - INTERVAL 9 DAY,
		         CURRENT_TIMESTAMP(3) - INTERVAL 9 DAY)`,
		`INSERT INTO sync_run (kind, appid, state, holder) VALUES
		 ('sweep', '` + first + `', 'running', 'x')`,
		`INSERT INTO account_state (appid, scope, reason) VALUES ('` + first +
			`', 'send', 'no_permission')`,
		`INSERT INTO account_state (appid, scope, reason) VALUES ('` + second +
			`', 'send', 'quota_minute')`,
		`INSERT INTO send_request (template, data, due_at) VALUES
		 ('x', '{}', CURRENT_TIMESTAMP(3) - INTERVAL 1 HOUR)`,
		`INSERT INTO lease (name, holder, epoch, expires_at) VALUES
		 ('send:` + second + `', 'host-1', 3, CURRENT_TIMESTAMP(3) + INTERVAL 1 HOUR)`,
		`INSERT INTO follower (appid, openid, subscribed) VALUES ('` + first + `', 'o1', 1)`,
	} {
		if _, err := db.ExecContext(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	report, err := status.Read(t.Context(), db, status.Config{
		Accounts: []status.Settings{
			{AppID: first, Name: "A", Default: true, Sweep: "17 3 * * *", Refresh: "@every 5m"},
			{AppID: second, Name: "B", Sweep: "17 3 * * *", Refresh: "*/7 * * * *"},
		},
		Coverage: true, Now: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	var codes []string
	for _, a := range report.Alarms {
		codes = append(codes, a.Code)
	}
	want := []string{"sweep_crashed", "sweep_overdue", "no_sender", "paused", "queue_late"}
	if diff := cmp.Diff(want, codes); diff != "" {
		t.Errorf("alarms (-want +got):\n%s", diff)
	}
	a, b := report.Accounts[0], report.Accounts[1]
	if a.SentBy != nil || b.SentBy == nil || *b.SentBy != "host-1" {
		t.Errorf("sent by %v and %v", a.SentBy, b.SentBy)
	}
	if a.Sweep.Last.ID != 2 || a.Sweep.LastGood.ID != 1 || b.Sweep.Last != nil {
		t.Errorf("sweeps %+v and %+v", a.Sweep, b.Sweep)
	}
	if a.Refresh.NextAt != nil || b.Refresh.NextAt == nil {
		t.Errorf("next refreshes %v and %v", a.Refresh.NextAt, b.Refresh.NextAt)
	}
	if a.Coverage == nil || a.Coverage.NotAsked != 1 || b.Coverage != nil {
		t.Errorf("coverage %+v and %+v", a.Coverage, b.Coverage)
	}
}

// TestMiniProgram: a mini program that sends is an account without followers. That nobody sends for it
// is an alarm, its queue and its pauses count as others do.
func TestMiniProgram(t *testing.T) {
	db := dbtest.New(t)
	for _, query := range []string{
		`INSERT INTO account_state (appid, scope, reason) VALUES ('` + first + `', 'send', 'no_permission')`,
		`INSERT INTO send_request (appid, template, data, due_at) VALUES
		 ('` + first + `', 'x', '{}', CURRENT_TIMESTAMP(3) - INTERVAL 1 HOUR)`,
		`INSERT INTO lease (name, holder, epoch, expires_at) VALUES
		 ('send:` + second + `', 'host-1', 3, CURRENT_TIMESTAMP(3) + INTERVAL 1 HOUR)`,
	} {
		db.MustExecContext(t.Context(), query)
	}
	report, err := status.Read(t.Context(), db, status.Config{
		Accounts: []status.Settings{
			{AppID: first, Name: "A", Mini: true, Default: true}, {AppID: second, Name: "B", Mini: true},
		},
		Coverage: true, Now: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	host := "host-1"
	want := []status.Account{
		{AppID: first, Kind: status.KindMini, Name: "A", Default: true},
		{AppID: second, Kind: status.KindMini, Name: "B", SentBy: &host},
	}
	if diff := cmp.Diff(want, report.Accounts); diff != "" {
		t.Errorf("accounts (-want +got):\n%s", diff)
	}
	var codes []string
	for _, a := range report.Alarms {
		codes = append(codes, a.Code+" "+*a.AppID)
	}
	alarms := []string{"no_sender " + first, "paused " + first, "queue_late " + first}
	if diff := cmp.Diff(alarms, codes); diff != "" {
		t.Errorf("alarms (-want +got):\n%s", diff)
	}
}

// TestPostponedIsLate: a request that is put off again and again is stuck, although its due_at is
// always ahead, and whether or not its account has requests that are due; a pause says it already.
func TestPostponedIsLate(t *testing.T) {
	db := dbtest.New(t)
	const query = `INSERT INTO send_request (appid, template, data, reason, due_at, wished_at) VALUES
		 (?, 'x', '{}', ?, CURRENT_TIMESTAMP(3) + INTERVAL 2 MINUTE, CURRENT_TIMESTAMP(3) - INTERVAL ? MINUTE)`
	alarms := func() (codes []string, text string) {
		t.Helper()
		report, err := status.Read(t.Context(), db, status.Config{Now: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range report.Alarms {
			codes, text = append(codes, a.Code), a.Text
		}
		return codes, text
	}
	db.MustExecContext(t.Context(), query, first, "unknown_template", 14)
	if codes, _ := alarms(); len(codes) > 0 {
		t.Errorf("after 14 minutes there is %v", codes)
	}
	db.MustExecContext(t.Context(), query, first, "unknown_template", 16)
	if codes, text := alarms(); len(codes) != 1 || codes[0] != "stuck" ||
		!strings.Contains(text, "unknown_template") {
		t.Errorf("after 16 minutes there is %v: %s", codes, text)
	}
	db.MustExecContext(t.Context(), `UPDATE send_request SET due_at = wished_at`)
	if codes, _ := alarms(); len(codes) != 2 || codes[0] != "queue_late" {
		t.Errorf("of rows that are due there is %v", codes)
	}
	db.MustExecContext(t.Context(), `INSERT INTO account_state (appid, scope, reason)
		VALUES (?, 'send', 'unknown_template')`, first)
	if codes, _ := alarms(); len(codes) != 2 || codes[0] != "paused" {
		t.Errorf("of an account that is paused for the same reason there is %v", codes)
	}
}

func TestTimeAsJSON(t *testing.T) {
	at := time.Date(2026, 1, 2, 11, 4, 5, 678_900_000, time.FixedZone("UTC+8", 8*60*60))
	got, err := json.Marshal(map[string]any{"at": status.Time{Time: at},
		"until": (*status.Time)(nil)})
	if want := `{"at":"2026-01-02T03:04:05.678Z","until":null}`; string(got) != want || err != nil {
		t.Errorf("%s, %v; want %s", got, err, want)
	}
}
