package main

import (
	"strings"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/sender/requests"
)

// TestMiniProgramsCures: whatever shows an errcode of a mini program shows the cure that helps there,
// and that of an official account the other one.
func TestMiniProgramsCures(t *testing.T) {
	const official, mini = "wx00000000000000aa", "wx00000000000000bb"
	cfg := &config.Config{
		OfficialAccounts: []config.OfficialAccount{{AppID: official, Default: true}},
		MiniPrograms:     []config.MiniProgram{{AppID: mini, Sends: true}},
	}
	cures := curesOf(cfg)
	// places are all that show a code, of a row and of a pause.
	places := func(appid string, code int) map[string]string {
		pause := requests.Pause{AppID: appid, Scope: "send", Reason: "no_permission", ErrCode: code}
		row := requests.Record{ID: 7, Status: "failed", AppID: appid, Reason: "refused", ErrCode: code}
		pending := requests.Detail{SentBy: "a", Due: true, Pauses: []requests.Pause{pause},
			Record: requests.Record{ID: 7, Status: "pending", AppID: appid}}
		sent := outcome{ID: 7, AppID: appid, Status: "failed", Reason: &row.Reason, ErrCode: &code}
		open := sent
		open.Status = "pending"
		return map[string]string{
			"requests show":        explainRequest(explainable{requests.Detail{Record: row}, cures}),
			"requests show, pause": explainRequest(explainable{pending, cures}),
			"readyz":               strings.Join(describeDegraded(cfg, nil, []requests.Pause{pause}), "\n"),
			"resume": strings.Join(describeResume(pauseChange{changed: true,
				ended: []requests.Pause{pause}}, cures), "\n"),
			"send":         verdict(sent, cures).Error(),
			"send, waited": stillOpen(open, time.Second, cures).Error(),
		}
	}
	for _, code := range []int{40003, 40013, 40037, 43101, 47003, 48001} {
		there := wechat.ExplainAt(wechat.EndpointSendSubscribe, code)
		for appid, want := range map[string]string{
			official: wechat.Explain(code), mini: there, "": wechat.Explain(code),
		} {
			for place, got := range places(appid, code) {
				if !strings.Contains(got, want) && (appid != "" || place != "readyz") {
					t.Errorf("%s of %d at %q: %q lacks %q", place, code, appid, got, want)
				}
			}
		}
	}
	for reason, want := range map[string]string{
		"no_grant": "failed (no_grant)", "unknown_user": "failed (unknown_user)",
	} {
		d := requests.Detail{Record: requests.Record{Status: "waiting", AppID: mini, Reason: reason}}
		got := explainRequest(explainable{d, cures})
		waits := stillOpen(outcome{Status: "waiting", AppID: mini, Reason: &reason}, 0, cures).Error()
		if !strings.Contains(got, want) || strings.Contains(got+waits, "follow") {
			t.Errorf("a mini program's request that waits with %s: %q, %q", reason, got, waits)
		}
	}
	cfg.OfficialAccounts = nil
	cures = curesOf(cfg)
	if got := places("", 47003)["send"]; !strings.Contains(got, "订阅消息") {
		t.Errorf("a request of the default account, a mini program: %q", got)
	}
}
