package oatemplate

import (
	"errors"
	"fmt"
	"math"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
	"github.com/unionbridge/unionbridge/sender/channel"
)

// policyTable is what an errcode of template/send comes to, transcribed from the platform's table
// of codes and not from the code under test.
var policyTable = []struct {
	class string
	want  channel.Outcome
	codes []int
}{
	{"transient", channel.Outcome{Verdict: channel.Retry, After: 5 * time.Second}, []int{
		20001, 43108, 45061, 45066, 45102, 45169, 45171, 61450, 268487001, 268487002}},
	{"in doubt", channel.Outcome{Verdict: channel.InDoubt}, []int{-1, 40241, 44007, 45065}},
	{"spurious template", channel.Outcome{Verdict: channel.Retry, After: 2 * time.Minute},
		[]int{40037}},
	{"token", channel.Outcome{Verdict: channel.PauseAccount, Pause: channel.PauseToken}, []int{
		40001, 40014, 41001, 42001, 42007, 48012}},
	{"day's quota", channel.Outcome{Verdict: channel.PauseAccount, Pause: channel.PauseDay}, []int{
		43100, 45009, 45028, 45040, 45047, 45104, 48006}},
	{"minute's quota", channel.Outcome{Verdict: channel.PauseAccount, Pause: channel.PauseMinute},
		[]int{45011}},
	{"this person later", channel.Outcome{Verdict: channel.Retry, After: 30 * time.Minute,
		Confirms: channel.ScopeTemplate}, []int{43117}},
	{"this person is rechecked", channel.Outcome{Verdict: channel.Unreachable, Refused: true,
		Confirms: channel.ScopeTemplate}, []int{40003, 43004, 50005, -41000}},
	{"this person", channel.Outcome{Verdict: channel.Rejected, Refused: true,
		Confirms: channel.ScopeTemplate}, []int{
		40226, 43005, 43006, 43019, 43101, 45015, 46004, 48002, 49003, 70000}},
	{"this template", channel.Outcome{Verdict: channel.PauseTemplate}, []int{
		43102, 43116, 45026, 45027, 48011}},
	{"a person must act", channel.Outcome{Verdict: channel.PauseAccount, Pause: channel.PauseConfig},
		[]int{
			40013, 40090, 40125, 40164, 40201, 40222, 40243, 41031, 41032, 41033, 41034, 41035, 43103,
			43104, 43105, 43106, 43107, 45035, 45063, 45087, 45094, 45103, 45109, 46101, 48001, 48003,
			48004, 48008, 48009, 50001, 50002, 50004, 50007, 61003, 61004, 61007, 61016, 61017, 63178,
			63183, 76022, 89501, 89502, 89503, 89504, 89505, 89506, 89507, 200011, 200012, 200013}},
	// The last is one that nobody has seen: it is not repeated for ever.
	{"this request", channel.Outcome{Verdict: channel.Rejected, Confirms: channel.ScopeAccount},
		[]int{
			20002, 40002, 40007, 40008, 40029, 40030, 40031, 40032, 40033, 40034, 40035, 40036, 40038,
			40039, 40048, 40062, 40066, 40068, 40092, 40097, 40102, 40103, 40129, 40132, 40163, 40165,
			40166, 40202, 40203, 40221, 40246, 40247, 40249, 41002, 41003, 41004, 41008, 41009, 41018,
			41021, 41028, 41029, 41030, 42002, 42003, 43001, 43002, 43003, 44002, 44003, 44004, 44005,
			45001, 45002, 45003, 45004, 45005, 45006, 45007, 45008, 45010, 45012, 45013, 45014, 45016,
			45017, 45018, 45019, 45051, 45056, 45057, 45058, 45059, 45067, 45072, 45080, 45081, 45082,
			45157, 45158, 45159, 45168, 46001, 46002, 46003, 46009, 47001, 47002, 47003, 63179, 63182,
			76001, 76002, 76003, 76004, 76021, 87009, 200001, 200002, 200014, 200016, 200017, 200018,
			200019, 200020, 200021, 200022, 200100, 9001001, 999999}},
}

// TestPolicyTable walks every errcode that a send can meet through the simulator.
func TestPolicyTable(t *testing.T) {
	sim := wechatsim.NewStandard(10, 0, 0)
	server := httptest.NewServer(sim)
	t.Cleanup(server.Close)
	ignoreTexts := cmpopts.IgnoreFields(channel.Outcome{}, "Reason", "Message", "Err", "Overloaded")
	for _, c := range policyTable {
		for _, code := range c.codes {
			t.Run(fmt.Sprintf("%s/%d", c.class, code), func(t *testing.T) {
				got := refused(t, server.URL, sim, code)
				want := c.want
				want.Code, want.Cure = code, wechat.Explain(code)
				if diff := cmp.Diff(want, got, ignoreTexts); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				we, ok := errors.AsType[*wechat.Error](got.Err)
				if !ok || string(we.Reason) != got.Reason || we.Message != got.Message ||
					got.Message == "" || got.Overloaded != (got.Reason == "system_error") {
					t.Errorf("%q, %q of %v", got.Reason, got.Message, got.Err)
				}
			})
		}
	}
}

// refused is the outcome of one message of a new client that is answered with an errcode.
func refused(t *testing.T, url string, sim *wechatsim.Server, code int) channel.Outcome {
	t.Helper()
	c, _ := newChannel(false, nil)
	c.cfg.API = wechat.New(wechat.Config{
		AppID: appid, Secret: wechatsim.StandardSecret, BaseURL: url})
	sim.ClearFaults()
	sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultErrcode, Code: code,
		Path: wechat.EndpointSendTemplate, Next: 1})
	return c.Deliver(t.Context(), &draft{}, channel.Address{OpenID: sim.OpenID(appid, 1)})
}

// TestOutcome: what no errcode of template/send says.
func TestOutcome(t *testing.T) {
	const send, token = wechat.EndpointSendTemplate, wechat.EndpointStableToken
	network := channel.Outcome{Verdict: channel.PauseAccount, Pause: channel.PauseNetwork}
	for _, c := range []struct {
		name     string
		err      error
		unlisted bool
		want     channel.Outcome
	}{
		{"sent", nil, false, channel.Outcome{Verdict: channel.Sent, MsgID: 7,
			Confirms: channel.ScopeTemplate}},
		{"not the client's", errors.New("boom"), false, channel.Outcome{Verdict: channel.InDoubt,
			Reason: "internal", Message: "boom"}},
		{"unreachable", &wechat.Error{Endpoint: send, Reason: "unreachable",
			Policy: wechat.PolicyRetry}, false, network},
		{"no token, busy", &wechat.Error{Endpoint: token, Reason: "system_error",
			Policy: wechat.PolicyRetry, Code: -1}, false, network},
		{"no token, quota", &wechat.Error{Endpoint: token, Reason: "quota_minute",
			Policy: wechat.PolicyQuotaMinute, Code: 45011}, false,
			channel.Outcome{Verdict: channel.PauseAccount, Pause: channel.PauseMinute}},
		{"no token, a limit of the person", &wechat.Error{Endpoint: token, Reason: "recipient_later",
			Policy: wechat.PolicyRecipientLater, Code: 43117}, false,
			channel.Outcome{Verdict: channel.Retry, After: 30 * time.Minute}},
		{"no token, nobody knows why", &wechat.Error{Policy: wechat.PolicyRetry, Code: 1}, false,
			channel.Outcome{Verdict: channel.Retry, After: 5 * time.Second}},
		{"timeout", &wechat.Error{Endpoint: send, Reason: "timeout", Uncertain: true,
			Policy: wechat.PolicyUncertain}, false, channel.Outcome{Verdict: channel.InDoubt}},
		{"uncertain, whatever the policy", &wechat.Error{Endpoint: send, Reason: "not_follower",
			Uncertain: true, Policy: wechat.PolicyRecipient, Code: 43004}, false,
			channel.Outcome{Verdict: channel.InDoubt}},
		{"an openid that the map does not have", &wechat.Error{Endpoint: send, Code: 40003,
			Reason: "invalid_openid", Policy: wechat.PolicyRecipient}, true,
			channel.Outcome{Verdict: channel.Rejected, Refused: true, Confirms: channel.ScopeTemplate}},
		{"not a follower, by an openid that the map does not have", &wechat.Error{Endpoint: send,
			Code: 43004, Reason: "not_follower", Policy: wechat.PolicyRecipient}, true,
			channel.Outcome{Verdict: channel.Unreachable, Refused: true, Confirms: channel.ScopeTemplate}},
		{"HTTP 412", &wechat.Error{Endpoint: send, Reason: "http_refused", HTTPStatus: 412,
			Policy: wechat.PolicyRequest}, false, channel.Outcome{Verdict: channel.Rejected}},
	} {
		got := outcome(c.want.MsgID, c.err, c.unlisted)
		if we, ok := errors.AsType[*wechat.Error](c.err); ok {
			c.want.Code, c.want.Reason, c.want.Message = we.Code, string(we.Reason), we.Message
			c.want.Overloaded = we.Reason == "system_error"
		}
		texts := cmpopts.IgnoreFields(channel.Outcome{}, "Cure", "Err")
		if diff := cmp.Diff(c.want, got, texts); diff != "" {
			t.Errorf("%s, -want +got:\n%s", c.name, diff)
		}
	}
}

// TestCodeOfColumn: an odd answer must not make the row unwritable.
func TestCodeOfColumn(t *testing.T) {
	for code, want := range map[int]int{1 << 40: math.MaxInt32, -1 << 40: math.MinInt32, 43004: 43004} {
		if got := outcome(0, &wechat.Error{Code: code}, false); got.Code != want {
			t.Errorf("%d: %d, want %d", code, got.Code, want)
		}
	}
}
