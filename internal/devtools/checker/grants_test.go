package checker

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// TestCompareGrants spoils right grants in every way that the comparison has to see.
func TestCompareGrants(t *testing.T) {
	run := harness.ForTest(t, harness.NewScreen(io.Discard, time.Now))
	db := run.Wrap(dbtest.New(t))
	truth := []wechatsim.GrantState{
		{OpenID: "oA", TemplateID: "t", Left: 2}, {OpenID: "oB", TemplateID: "t"},
		{OpenID: "oC", TemplateID: "t"}, // never counted, and nothing is left
	}
	const grant = "INSERT INTO subscription_grant (appid, openid, template_id, remaining) VALUES "
	for _, test := range []struct{ name, spoil, want string }{
		{"right", "DO 1", ""},
		{"a message in doubt that arrived", "UPDATE subscription_grant SET remaining = remaining + 1", ""},
		{"over-counted", "UPDATE subscription_grant SET remaining = 4",
			"oA: 4 messages of t are counted, WeChat allows 2"},
		{"under-counted", "UPDATE subscription_grant SET remaining = 1 WHERE openid = 'oA'",
			"oA: 1 messages of t are counted, WeChat allows 2"},
		{"not counted", "DELETE FROM subscription_grant",
			"oA: 0 messages of t are counted, WeChat allows 2"},
		{"counted for nobody", grant + "('wx1', 'oN', 't', 1)",
			"oN: 1 messages of t are counted, WeChat allows 0"},
		{"held by a row that is sent", "UPDATE send_request SET status = 'sent' WHERE id = 1",
			"row 1 is sent, and its attempt still holds"},
		{"held by a row that is gone", "DELETE FROM send_request WHERE id = 2",
			"row 2 is gone, and its attempt still holds"},
	} {
		db.MustExec("DELETE FROM subscription_grant")
		db.MustExec("DELETE FROM send_attempt")
		db.MustExec("DELETE FROM send_request")
		db.MustExec(grant + "('wx1', 'oA', 't', 2), ('wx1', 'oB', 't', 0), ('wx2', 'oA', 't', 7)")
		for i, openid := range []string{"oA", "oB"} {
			db.MustExec(`INSERT INTO send_request (id, openid, template, data, status)
				VALUES (?, ?, 't', '{}', 'unknown')`, i+1, openid)
			db.MustExec(`INSERT INTO send_attempt (request_id, appid, openid, template_id, lease)
				VALUES (?, 'wx1', ?, 't', 'l')`, i+1, openid)
		}
		db.MustExec(test.spoil)
		wrong := CompareGrants(db, "wx1", truth)
		if test.want == "" && len(wrong) > 0 || test.want != "" &&
			!slices.ContainsFunc(wrong, func(s string) bool { return strings.HasPrefix(s, test.want) }) {
			t.Errorf("%s: %q, want %q", test.name, wrong, test.want)
		}
	}
}
