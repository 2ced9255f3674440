package requests

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

func TestOverview(t *testing.T) {
	db := dbtest.New(t)
	for _, stmt := range []string{
		`INSERT INTO send_request (appid, template, data, status, reason, due_at) VALUES
		    ('wxa', 't', '{}', 'pending', NULL,            CURRENT_TIMESTAMP(3) - INTERVAL 1 HOUR),
		    ('wxa', 't', '{}', 'pending', 'timeout',       CURRENT_TIMESTAMP(3) + INTERVAL 1 HOUR),
		    (NULL,  't', '{}', 'pending', NULL,            CURRENT_TIMESTAMP(3) - INTERVAL 2 HOUR),
		    ('',    't', '{}', 'pending', NULL,            CURRENT_TIMESTAMP(3) + INTERVAL 1 HOUR),
		    ('wxa', 't', '{}', 'waiting', 'not_following', CURRENT_TIMESTAMP(3) - INTERVAL 1 HOUR),
		    ('wxb', 't', '{}', 'sent',    NULL,            CURRENT_TIMESTAMP(3)),
		    ('wxb', 't', '{}', 'sent',    NULL,            CURRENT_TIMESTAMP(3)),
		    ('wxb', 't', '{}', 'failed',  'bad_data',      CURRENT_TIMESTAMP(3))`,
		`UPDATE send_request SET priority = 0 WHERE reason = 'timeout'`,
		`UPDATE send_request SET finished_at = CURRENT_TIMESTAMP(3) WHERE status IN ('sent', 'failed')`,
		`INSERT INTO account_state (appid, scope, reason, errcode, errmsg, paused_until) VALUES
		    ('wxa', 'send', 'no_permission', 48001, 'api unauthorized', NULL),
		    ('wxb', 'send', 'quota_day', NULL, NULL, CURRENT_TIMESTAMP(3) - INTERVAL 1 SECOND)`,
	} {
		if _, err := db.ExecContext(t.Context(), stmt); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Store{DB: db}.Overview(t.Context(), []string{"wxa"})
	if err != nil {
		t.Fatal(err)
	}
	want := Overview{
		Open: []OpenCount{
			{AppID: "", Status: "pending", Requests: 2, Late: 1, Priorities: []PriorityCount{{1, 2}}},
			{AppID: "wxa", Status: "pending", Requests: 2, Late: 1, Priorities: []PriorityCount{{0, 1}, {1, 1}}},
			{AppID: "wxa", Status: "waiting", Requests: 1, Priorities: []PriorityCount{{1, 1}}},
		},
		Recent: []OutcomeCount{
			{"pending", "", 3}, {"sent", "", 2}, {"failed", "bad_data", 1}, {"pending", "timeout", 1},
			{"waiting", "not_following", 1},
		},
		Sampled: 8,
		Ends:    []RecentEnds{{AppID: "wxb", Ended: 3, Failed: 1}},
		Pauses: []Pause{
			{AppID: "wxa", Scope: "send", Reason: "no_permission", ErrCode: 48001, ErrMsg: "api unauthorized"},
			{AppID: "wxb", Scope: "send", Reason: "quota_day", Over: true},
		},
		Unsettled: []Pause{},
	}
	ignore := cmp.Options{cmpopts.IgnoreFields(OpenCount{}, "Oldest"), cmpopts.IgnoreFields(Pause{}, "Since", "Until")}
	if diff := cmp.Diff(want, got, ignore); diff != "" {
		t.Errorf("overview (-want +got):\n%s", diff)
	}
	if age := got.Open[0].Oldest.Sub(got.Open[1].Oldest).Hours(); age != -1 {
		t.Errorf("the oldest two are %v hours apart, want -1", age)
	}
	if !got.Pauses[0].Until.IsZero() || got.Pauses[1].Until.IsZero() {
		t.Errorf("the pauses last until %v and %v", got.Pauses[0].Until, got.Pauses[1].Until)
	}
}
