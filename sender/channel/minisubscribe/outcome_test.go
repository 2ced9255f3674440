package minisubscribe

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

// policyTable is what an errcode of subscribe/send comes to, transcribed from the reference of
// subscribe messages and the platform's table of codes, and not from the code under test.
var policyTable = []struct {
	class string
	want  channel.Outcome
	codes []int
}{
	{"nothing is allowed", channel.Outcome{Verdict: channel.Unreachable, Refused: true,
		Confirms: channel.ScopeTemplate}, []int{43101}},
	{"another message to the person", channel.Outcome{Verdict: channel.Retry, After: time.Second},
		[]int{43108}},
	{"in doubt", channel.Outcome{Verdict: channel.InDoubt}, []int{-1, 20001, 61450, 40241, 44007,
		45065}},
	{"transient", channel.Outcome{Verdict: channel.Retry, After: 5 * time.Second}, []int{
		45061, 45066, 45102, 45169, 45171, 268487001, 268487002}},
	{"spurious template", channel.Outcome{Verdict: channel.Retry, After: 2 * time.Minute},
		[]int{40037}},
	{"token", channel.Outcome{Verdict: channel.PauseAccount, Pause: channel.PauseToken}, []int{
		40001, 40014, 41001, 42001, 42007, 48012}},
	{"day's quota", channel.Outcome{Verdict: channel.PauseAccount, Pause: channel.PauseDay}, []int{
		43100, 45009, 45104}},
	{"minute's quota", channel.Outcome{Verdict: channel.PauseAccount, Pause: channel.PauseMinute},
		[]int{45011}},
	{"this person later", channel.Outcome{Verdict: channel.Retry, After: 30 * time.Minute,
		Confirms: channel.ScopeTemplate}, []int{43117}},
	{"this person", channel.Outcome{Verdict: channel.Rejected, Refused: true, Confirms: channel.ScopeTemplate},
		[]int{40003, 40226, 43004, 43019, 46004, 49003, 50005, -41000}},
	{"this template", channel.Outcome{Verdict: channel.PauseTemplate}, []int{43102, 43116, 48011}},
	{"a person must act", channel.Outcome{Verdict: channel.PauseAccount, Pause: channel.PauseConfig},
		[]int{40013, 40125, 40164, 43103, 43107, 45103, 45109, 48001, 48004, 50002, 50007, 89503}},
	// The last is one that nobody has seen: it is not repeated for ever.
	{"this request", channel.Outcome{Verdict: channel.Rejected, Confirms: channel.ScopeAccount},
		[]int{41030, 45168, 47001, 47003, 40039, 44002, 999999}},
}

// TestPolicyTable walks the errcodes of a send through the simulator.
func TestPolicyTable(t *testing.T) {
	sim := wechatsim.NewStandard(10, 10, 0)
	server := httptest.NewServer(sim)
	t.Cleanup(server.Close)
	ignoreTexts := cmpopts.IgnoreFields(channel.Outcome{}, "Reason", "Message", "Err", "Overloaded")
	for _, c := range policyTable {
		for _, code := range c.codes {
			t.Run(fmt.Sprintf("%s/%d", c.class, code), func(t *testing.T) {
				got := refused(t, server.URL, sim, code)
				want := c.want
				want.Code, want.Cure = code, wechat.ExplainAt(wechat.EndpointSendSubscribe, code)
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
	c := newChannel(&ledger{}, nil)
	c.cfg.API = wechat.New(wechat.Config{
		AppID: miniID, Secret: wechatsim.StandardMiniSecret, BaseURL: url})
	sim.ClearFaults()
	sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultErrcode, Code: code,
		Path: wechat.EndpointSendSubscribe, Next: 1})
	return c.Deliver(t.Context(), &draft{}, channel.Address{OpenID: sim.OpenID(miniID, 1)})
}

// TestSeeds: the three questions that developers ask most have a cure in the outcome.
func TestSeeds(t *testing.T) {
	sim := wechatsim.NewStandard(10, 10, 0)
	server := httptest.NewServer(sim)
	t.Cleanup(server.Close)
	c := newChannel(&ledger{}, nil)
	c.cfg.API = wechat.New(wechat.Config{AppID: miniID, Secret: wechatsim.StandardMiniSecret,
		BaseURL: server.URL})
	person := sim.MiniUser(miniID, 1)
	to := channel.Address{OpenID: sim.OpenID(miniID, person)}
	deliver := func(data string) channel.Outcome {
		return c.Deliver(t.Context(), &draft{message: wechat.SubscribeMessage{TemplateID: singleID,
			Data: []byte(data)}}, to)
	}
	expect := func(o channel.Outcome, code int, message, cure string) {
		t.Helper()
		if o.Code != code || o.Message != message || o.Cure == "" || o.Cure != cure {
			t.Errorf("%+v, want %d, %s", o, code, message)
		}
	}
	explain := func(code int) string { return wechat.ExplainAt(wechat.EndpointSendSubscribe, code) }
	expect(deliver(`{"thing1":{"value":"x"}}`), 43101, "user refuse to accept the msg",
		explain(43101))
	sim.Grant(miniID, person, singleID, 1)
	expect(deliver(`{"thing1":{"value":""}}`), 47003,
		"argument invalid! data.thing1.value is empty", explain(47003))
	c.cfg.API = wechat.New(wechat.Config{AppID: "wx00000000000000ff", Secret: "x",
		BaseURL: server.URL})
	expect(deliver(`{"thing1":{"value":"x"}}`), 40013, "invalid appid", explain(40013))
}

// TestOutcome: what no errcode of subscribe/send says.
func TestOutcome(t *testing.T) {
	const send, token = wechat.EndpointSendSubscribe, wechat.EndpointStableToken
	network := channel.Outcome{Verdict: channel.PauseAccount, Pause: channel.PauseNetwork}
	noGrant := &wechat.Error{Endpoint: send, Code: 43101, Reason: "no_grant",
		Policy: wechat.PolicyRecipient}
	for _, c := range []struct {
		name    string
		err     error
		counted bool
		want    channel.Outcome
	}{
		{"sent", nil, true, channel.Outcome{Verdict: channel.Sent, MsgID: 7,
			Confirms: channel.ScopeTemplate}},
		{"sent without a msgid", nil, true, channel.Outcome{Verdict: channel.Sent,
			Confirms: channel.ScopeTemplate}},
		{"43101", noGrant, true, channel.Outcome{Verdict: channel.Unreachable, Refused: true,
			Confirms: channel.ScopeTemplate}},
		{"43101, and nobody counts", noGrant, false, channel.Outcome{Verdict: channel.Rejected, Refused: true,
			Confirms: channel.ScopeTemplate}},
		{"not the client's", errors.New("boom"), true, channel.Outcome{Verdict: channel.InDoubt,
			Reason: "internal", Message: "boom"}},
		{"unreachable", &wechat.Error{Endpoint: send, Reason: "unreachable",
			Policy: wechat.PolicyRetry}, true, network},
		{"no token, busy", &wechat.Error{Endpoint: token, Reason: "system_error",
			Policy: wechat.PolicyRetry, Code: -1}, true, network},
		{"no token, quota", &wechat.Error{Endpoint: token, Reason: "quota_minute",
			Policy: wechat.PolicyQuotaMinute, Code: 45011}, true,
			channel.Outcome{Verdict: channel.PauseAccount, Pause: channel.PauseMinute}},
		{"timeout", &wechat.Error{Endpoint: send, Reason: "timeout", Uncertain: true,
			Policy: wechat.PolicyUncertain}, true, channel.Outcome{Verdict: channel.InDoubt}},
		{"uncertain, whatever the policy", &wechat.Error{Endpoint: send, Reason: "no_grant",
			Uncertain: true, Policy: wechat.PolicyRecipient, Code: 43101}, true,
			channel.Outcome{Verdict: channel.InDoubt}},
		{"HTTP 412", &wechat.Error{Endpoint: send, Reason: "http_refused", HTTPStatus: 412,
			Policy: wechat.PolicyRequest}, true, channel.Outcome{Verdict: channel.Rejected}},
	} {
		got := outcome(c.want.MsgID, c.err, c.counted)
		if we, ok := errors.AsType[*wechat.Error](c.err); ok {
			c.want.Code, c.want.Reason, c.want.Message = we.Code, string(we.Reason), we.Message
			c.want.Overloaded = we.Reason == "system_error"
		}
		texts := cmpopts.IgnoreFields(channel.Outcome{}, "Cure", "Err")
		if diff := cmp.Diff(c.want, got, texts); diff != "" {
			t.Errorf("%s, -want +got:\n%s", c.name, diff)
		}
	}
	for code, want := range map[int]int{1 << 40: math.MaxInt32, -1 << 40: math.MinInt32,
		43101: 43101} {
		if got := outcome(0, &wechat.Error{Code: code}, true); got.Code != want {
			t.Errorf("%d: %d, want %d", code, got.Code, want)
		}
	}
}
