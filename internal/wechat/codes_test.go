package wechat

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// listed is the table of error codes of the API reference by class, copied by hand. The classes are
// the reference's, not this package's: "ok" is a send that says it went before.
var listed = map[string][]int{
	"retry": {-1, 20001, 43108, 45061, 45066, 45102, 45169, 45171, 61450, 268487001, 268487002},
	// 41001: listed as request, and among the token errors of template/send
	"token":           {40001, 40014, 42001, 42007, 48012, 41001},
	"quota_day":       {45009, 43100, 45028, 45040, 45047, 45104, 48006},
	"quota_minute":    {45011},
	"recipient_later": {43117},
	"recipient": {40003, 40226, 43004, 43005, 43006, 43019, 43101, 45015, 46004, 48002, 49003,
		50005, 70000},
	"config": {
		40013, 40037, 40090, 40125, 40164, 40201, 40222, 40243, 41031, 41032, 41033, 41034, 41035,
		43102, 43103, 43104, 43105,
		43106, 43107, 45026, 45027, 45035, 45063, 45082, 45087, 45094, 45103, 45109, 46101, 48001,
		48003, 48004, 48008, 48009,
		48011, 50001, 50002, 50004, 50007, 61003, 61004, 61007, 61016, 61017, 63178, 63183, 76022,
		89501, 89502, 89503, 89504, 89505, 89506, 89507, 200011, 200012, 200013,
	},
	"request": {
		20002, 40002, 40007, 40008, 40029, 40030, 40031, 40032, 40033, 40034, 40035, 40036, 40038,
		40039, 40048, 40062, 40066, 40068,
		40092, 40097, 40102, 40103, 40129, 40132, 40163, 40165, 40166, 40202, 40203, 40221, 40246,
		40247, 40249, 41002, 41003, 41004,
		41008, 41009, 41018, 41021, 41028, 41029, 41030, 42002, 42003, 43001, 43002, 43003, 43116,
		44002, 44003, 44004, 44005, 44007,
		45001, 45002, 45003, 45004, 45005, 45006, 45007, 45008, 45010, 45012, 45013, 45014, 45016,
		45017, 45018, 45019, 45051, 45056,
		45057, 45058, 45059, 45065, 45067, 45072, 45080, 45081, 45157, 45158, 45159, 45168, 46001,
		46002, 46003, 46009, 47001, 47002,
		47003, 63179, 63182, 76001, 76002, 76003, 76004, 76021, 87009, 200001, 200002, 200014,
		200016, 200017, 200018, 200019, 200020, 200021, 200022, 200100, 9001001, 40241,
	},
}

func TestEveryListedCode(t *testing.T) {
	snake := regexp.MustCompile(`^[a-z0-9]+(_[a-z0-9]+)*$`)
	n := 0
	for policy, list := range listed {
		for _, code := range list {
			n++
			got := classify(userInfoEndpoint, code)
			if got.policy != Policy(policy) {
				t.Errorf("%d: policy %q, listed as %q", code, got.policy, policy)
			}
			if got.reason == ReasonUnknownCode || !snake.MatchString(string(got.reason)) {
				t.Errorf("%d: reason %q", code, got.reason)
			}
		}
	}
	if extra := len(codes) - n; extra != 1 { // -41000 stands in another section
		t.Errorf("table has %d codes more than the list", extra)
	}
}

func TestCodesByEndpoint(t *testing.T) {
	type meaning struct {
		Reason Reason
		Policy Policy
	}
	tests := []struct {
		endpoint endpoint
		code     int
		want     meaning
	}{
		{stableTokenEndpoint, 40001, meaning{"wrong_secret", PolicyConfig}},
		{stableTokenEndpoint, 40125, meaning{"wrong_secret", PolicyConfig}},
		{stableTokenEndpoint, 40164, meaning{"ip_not_allowed", PolicyConfig}},
		// never a row's fault
		{stableTokenEndpoint, 41004, meaning{"argument_missing", PolicyConfig}},
		{stableTokenEndpoint, 42001, meaning{"token_expired", PolicyConfig}},
		{stableTokenEndpoint, 43002, meaning{"wrong_method", PolicyConfig}},
		{stableTokenEndpoint, 45009, meaning{"quota_day", PolicyQuotaDay}},
		{stableTokenEndpoint, 45011, meaning{"quota_minute", PolicyQuotaMinute}},
		{stableTokenEndpoint, -1, meaning{"system_error", PolicyRetry}},
		{stableTokenEndpoint, 98765, meaning{ReasonUnknownCode, PolicyConfig}},
		{followersEndpoint, 40003, meaning{ReasonInvalidCursor, PolicyRequest}},
		{followersEndpoint, 268487002, meaning{"system_busy", PolicyRetry}},
		{followersEndpoint, 98765, meaning{ReasonUnknownCode, PolicyRetry}},
		{userInfoEndpoint, 40003, meaning{ReasonInvalidOpenID, PolicyRecipient}},
		{batchInfoEndpoint, 40032, meaning{"invalid_openid_list", PolicyRequest}},
		{quotaEndpoint, 76021, meaning{"unknown_path", PolicyRequest}},
		{sessionEndpoint, 40001, meaning{"wrong_secret", PolicyConfig}},
		{sessionEndpoint, 40029, meaning{"invalid_code", PolicyRequest}},
		{sessionEndpoint, 40163, meaning{"code_used", PolicyRequest}},
		{sessionEndpoint, 40226, meaning{"risky_user", PolicyRecipient}},
		{sessionEndpoint, 42001, meaning{"token_expired", PolicyConfig}},
		{sessionEndpoint, 45011, meaning{"quota_minute", PolicyRecipientLater}},
		{sendTemplateEndpoint, -1, meaning{"system_error", PolicyUncertain}},
		{sendTemplateEndpoint, 40241, meaning{"duplicate_in_60s", PolicyUncertain}},
		{sendTemplateEndpoint, 44007, meaning{"repeated_msg_id", PolicyUncertain}},
		{sendTemplateEndpoint, 45065, meaning{"client_msg_id_exists", PolicyUncertain}},
		{sendTemplateEndpoint, 40037, meaning{ReasonInvalidTemplate, PolicyRetry}},
		{sendTemplateEndpoint, 48011, meaning{"template_disabled", PolicyTemplate}},
		{sendTemplateEndpoint, 43102, meaning{"template_not_subscription", PolicyTemplate}},
		{sendTemplateEndpoint, 45026, meaning{"template_count_exceeded", PolicyTemplate}},
		{sendTemplateEndpoint, 45027, meaning{"template_industry_conflict", PolicyTemplate}},
		{sendTemplateEndpoint, 45082, meaning{"icp_license_missing", PolicyRequest}},
		{sendTemplateEndpoint, 43117, meaning{"recipient_later", PolicyRecipientLater}},
		{sendTemplateEndpoint, 47003, meaning{"invalid_keyword_value", PolicyRequest}},
		{sendTemplateEndpoint, 98765, meaning{ReasonUnknownCode, PolicyRequest}},
		{sendTemplateEndpoint, 43101, meaning{"refused_by_user", PolicyRecipient}},
		{sendTemplateEndpoint, 20001, meaning{"system_error", PolicyRetry}},
		// of the table for subscribe/send
		{sendSubscribeEndpoint, 43101, meaning{"no_grant", PolicyRecipient}},
		{sendSubscribeEndpoint, 47003, meaning{"invalid_keyword_value", PolicyRequest}},
		{sendSubscribeEndpoint, 40037, meaning{"invalid_template", PolicyRetry}},
		{sendSubscribeEndpoint, 41030, meaning{"invalid_page", PolicyRequest}},
		{sendSubscribeEndpoint, 40003, meaning{"invalid_openid", PolicyRecipient}},
		{sendSubscribeEndpoint, 40013, meaning{"invalid_appid", PolicyConfig}},
		{sendSubscribeEndpoint, 40001, meaning{"invalid_token", PolicyToken}},
		{sendSubscribeEndpoint, 40014, meaning{"invalid_token", PolicyToken}},
		{sendSubscribeEndpoint, 42001, meaning{"token_expired", PolicyToken}},
		{sendSubscribeEndpoint, 43107, meaning{"capability_banned", PolicyConfig}},
		{sendSubscribeEndpoint, 43108, meaning{"concurrent_send", PolicyRetry}},
		{sendSubscribeEndpoint, 45168, meaning{"illegal_content", PolicyRequest}},
		{sendSubscribeEndpoint, 45009, meaning{"quota_day", PolicyQuotaDay}},
		{sendSubscribeEndpoint, 45011, meaning{"quota_minute", PolicyQuotaMinute}},
		{sendSubscribeEndpoint, 48001, meaning{"no_permission", PolicyConfig}},
		{sendSubscribeEndpoint, 45109, meaning{"api_retired", PolicyConfig}},
		{sendSubscribeEndpoint, 45103, meaning{"api_retired", PolicyConfig}},
		{sendSubscribeEndpoint, -1, meaning{"system_error", PolicyUncertain}},
		{sendSubscribeEndpoint, 20001, meaning{"system_error", PolicyUncertain}},
		{sendSubscribeEndpoint, 61450, meaning{"system_error", PolicyUncertain}},
		{sendSubscribeEndpoint, 98765, meaning{ReasonUnknownCode, PolicyRequest}},
		{subscribeTemplatesEndpoint, 200011, meaning{"account_banned", PolicyConfig}},
		{subscribeTemplatesEndpoint, 20001, meaning{"system_error", PolicyRetry}},
	}
	for _, tt := range tests {
		got := classify(tt.endpoint, tt.code)
		if diff := cmp.Diff(tt.want, meaning{got.reason, got.policy}); diff != "" {
			t.Errorf("%s %d (-want +got):\n%s", tt.endpoint.path, tt.code, diff)
		}
	}
}

// TestExplanations: only known codes are explained, and those an operator meets first are.
func TestExplanations(t *testing.T) {
	for code := range explanations {
		if _, known := codes[code]; !known {
			t.Errorf("%d is explained and not in the table", code)
		}
		if text := Explain(code); !utf8.ValidString(text) || len(text) < 20 {
			t.Errorf("%d: %q", code, text)
		}
	}
	for _, code := range []int{-1, 40001, 40013, 40037, 40125, 40164, 43004, 43101, 45009, 45011,
		47003, 48001, 89503} {
		if Explain(code) == "" {
			t.Errorf("%d is not explained", code)
		}
	}
	if got := Explain(98765); got != "" {
		t.Errorf("an unknown code is explained: %q", got)
	}
	for code, text := range subscribeExplanations {
		if _, known := codes[code]; !known || strings.Contains(text, "official account must") {
			t.Errorf("%d is explained for subscribe messages: %q", code, text)
		}
	}
	const subscribe, template = EndpointSendSubscribe, EndpointSendTemplate
	for _, tt := range []struct {
		endpoint string
		code     int
		cure     string
	}{
		{subscribe, 43101, "wx.requestSubscribeMessage"}, {template, 43101, "switched"},
		{subscribe, 47003, "订阅消息"}, {template, 47003, "names the keyword"},
		{subscribe, 40013, "those of the mini program"}, {template, 40013, "开发接口管理"},
		{subscribe, 45009, "midnight"}, {subscribe, 98765, ""},
	} {
		if got := ExplainAt(tt.endpoint, tt.code); !strings.Contains(got, tt.cure) ||
			(got == "") != (tt.cure == "") {
			t.Errorf("%s %d: %q, want %q in it", tt.endpoint, tt.code, got, tt.cure)
		}
	}
}

func TestErrorText(t *testing.T) {
	tests := map[string]Error{
		"POST /cgi-bin/message/template/send: 43004 require subscribe (not_follower), rid " +
			"6188b812-3aeef59a-72d5fb8c": {
			Endpoint: EndpointSendTemplate, method: "POST", Code: 43004,
			Message: "require subscribe", HTTPStatus: 200,
			RID: "6188b812-3aeef59a-72d5fb8c", Reason: ReasonNotFollower,
		},
		"GET /cgi-bin/user/get: HTTP 502 <html> (server_error)": {
			Endpoint: EndpointFollowers, method: "GET", HTTPStatus: 502, Message: "<html>",
			Reason: ReasonServerError,
		},
		"GET /cgi-bin/user/get: (unreachable): connection refused": {
			Endpoint: EndpointFollowers, method: "GET", Reason: ReasonUnreachable,
			Err: &cause{text: "connection refused"},
		},
	}
	for want, e := range tests {
		if got := e.Error(); got != want {
			t.Errorf("%s\nwant %s", got, want)
		}
	}
}

func TestSplitRID(t *testing.T) {
	tests := map[string][2]string{
		"invalid openid rid: 6188b812-3aeef59a-72d5fb8c": {"invalid openid",
			"6188b812-3aeef59a-72d5fb8c"},
		"invalid code, rid: 6aac007d-476fb159-54f0678e": {"invalid code",
			"6aac007d-476fb159-54f0678e"},
		"invalid openid hint: [tgDfu63Vf-rBwbfa] rid: 6188b812-3aeef59a-72d5fb8c": {"invalid openid hint: [tgDfu63Vf-rBwbfa]", "6188b812-3aeef59a-72d5fb8c"},
		"require remove blacklist hint: [BxT9A0412shb2]":                          {"require remove blacklist hint: [BxT9A0412shb2]", ""},
		"ok": {"ok", ""},
	}
	for in, want := range tests {
		message, rid := splitRID(in)
		if diff := cmp.Diff(want, [2]string{message, rid}); diff != "" {
			t.Errorf("%q (-want +got):\n%s", in, diff)
		}
	}
}
