package main

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/doctor"
	"github.com/unionbridge/unionbridge/sender/requests"
)

// TestDescribeDegraded: each thing once, with its cure, and nothing that ends without anybody's doing,
// or is another installation's.
func TestDescribeDegraded(t *testing.T) {
	const first, second = "wx00000000000000aa", "wx00000000000000bb"
	cfg := &config.Config{OfficialAccounts: []config.OfficialAccount{{AppID: first}, {AppID: second}}}
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	problems := []doctor.Problem{
		{AppID: first, Reason: "wrong_secret", Text: "40125 invalid\nappsecret", Cure: "Correct it."},
	}
	pauses := []requests.Pause{
		{AppID: first, Scope: "send", Reason: "wrong_secret", ErrCode: 40125, Since: since},
		{AppID: first, Scope: "operator:id-1", Reason: "operator", ErrMsg: "wrong text.", Since: since},
		{AppID: second, Scope: "operator", Reason: "operator", ErrMsg: "wrong price", Since: since},
		{AppID: second, Scope: "send", Reason: "wrong_secret", ErrCode: 40125, ErrMsg: "x", Since: since},
		{AppID: second, Scope: "template:id-2", Reason: "template_banned", ErrMsg: "banned", Since: since},
		{AppID: second, Scope: "send", Reason: "quota_day", ErrCode: 45009, Since: since},
		{AppID: second, Scope: "send", Reason: "daily_budget", Since: since},
		{AppID: "wx00000000000000cc", Scope: "send", Reason: "no_permission", Since: since},
	}
	want := []string{
		first + ": wrong_secret: 40125 invalid appsecret. Correct it.",
		first + ": operator: template id-1 is paused since 2026-01-02T03:04:05Z: wrong text. " +
			"To end it: unionbridge resume " + first + " --template id-1",
		second + ": operator: paused since 2026-01-02T03:04:05Z: wrong price. " +
			"To end it: unionbridge resume " + second,
		second + ": wrong_secret: paused since 2026-01-02T03:04:05Z: x. The AppSecret is wrong: it was " +
			"reset, or belongs to another account. Put the new one into the configured secret and restart.",
		second + ": template_banned: template id-2 is paused since 2026-01-02T03:04:05Z: banned. " +
			"docs/states.md says what template_banned means and what to do.",
	}
	if diff := cmp.Diff(want, describeDegraded(cfg, problems, pauses)); diff != "" {
		t.Errorf("degraded (-want +got):\n%s", diff)
	}
}
