package wechatsim

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const classicTarget = "/cgi-bin/token?grant_type=client_credential&appid=" + StandardAppID +
	"&secret=" + StandardSecret

func stable(t testing.TB, s *Server, force bool) (token string, expires int64) {
	t.Helper()
	body := fmt.Sprintf(`{"grant_type":"client_credential","appid":%q,"secret":%q,"force_refresh":%v}`, StandardAppID, StandardSecret, force)
	answer := decodeJSON[tokenAnswer](t, ask(t, s, "/cgi-bin/stable_token", body))
	return answer.AccessToken, answer.ExpiresIn
}

func classic(t testing.TB, s *Server) string {
	t.Helper()
	return decodeJSON[tokenAnswer](t, ask(t, s, classicTarget, "")).AccessToken
}

// codeOf is the errcode that a token is answered with.
func codeOf(t testing.TB, s *Server, token string) int {
	t.Helper()
	return decodeJSON[sendAnswer](t, ask(t, s,
		pathUserGet+"?access_token="+token+"&next_openid="+s.OpenID(StandardAppID, 24999), "")).Code
}

func TestStableToken(t *testing.T) {
	s, clock := newTest(t, nil)
	first, expires := stable(t, s, false)
	if expires != 7200 || len(first) < 136 || len(first) > 180 ||
		!strings.HasPrefix(first, "103_") {
		t.Errorf("token of %d characters for %d s", len(first), expires)
	}
	clock.advance(time.Hour)
	if again, expires := stable(t, s, false); again != first || expires != 3600 {
		t.Errorf("after an hour: same token %v, %d s", again == first, expires)
	}
	clock.advance(55 * time.Minute)
	second, expires := stable(t, s, false)
	if second == first || expires != 7200 {
		t.Errorf("in the last five minutes: same token %v, %d s", second == first, expires)
	}
	if a, b := codeOf(t, s, first), codeOf(t, s, second); a != 0 || b != 0 {
		t.Errorf("in the overlap: %d and %d", a, b)
	}
	clock.advance(5 * time.Minute)
	if a, b := codeOf(t, s, first), codeOf(t, s, second); a != 42001 || b != 0 {
		t.Errorf("after the overlap: %d and %d, want 42001 and 0", a, b)
	}
}

func TestForcedRefresh(t *testing.T) {
	s, clock := newTest(t, nil)
	first, _ := stable(t, s, false)
	second, _ := stable(t, s, true)
	if second == first || codeOf(t, s, first) != 40001 {
		t.Error("a forced refresh left the token alive")
	}
	clock.advance(29 * time.Second)
	if again, _ := stable(t, s, true); again != second {
		t.Error("a second forced refresh within 30 s gave another token")
	}
	for range forcedPerDay - 1 {
		clock.advance(30 * time.Second)
		stable(t, s, true)
	}
	clock.advance(30 * time.Second)
	body := fmt.Sprintf(`{"grant_type":"client_credential","appid":%q,"secret":%q,"force_refresh":true}`, StandardAppID, StandardSecret)
	if got := ask(t, s, "/cgi-bin/stable_token", body); got != fails(45009,
		"reach max api daily quota limit") {
		t.Errorf("the 21st forced refresh: %s", got)
	}
	clock.advance(24 * time.Hour)
	before, _ := stable(t, s, false)
	s.SetQuirks(StandardAppID, Quirks{ForcedOverlap: true})
	stable(t, s, true)
	if codeOf(t, s, before) != 0 {
		t.Error("ForcedOverlap did not keep the preceding token")
	}
	clock.advance(5 * time.Minute)
	if codeOf(t, s, before) != 40001 {
		t.Error("ForcedOverlap kept the preceding token for longer than 5 minutes")
	}
}

func TestClassicAndStableAreIsolated(t *testing.T) {
	s, clock := newTest(t, nil)
	stableOne, _ := stable(t, s, false)
	first := classic(t, s)
	second := classic(t, s)
	if a, b, c := codeOf(t, s, first), codeOf(t, s, second), codeOf(t, s, stableOne); a != 0 ||
		b != 0 || c != 0 {
		t.Errorf("in the overlap: %d, %d, stable %d", a, b, c)
	}
	clock.advance(5 * time.Minute)
	if a, b, c := codeOf(t, s, first), codeOf(t, s, second), codeOf(t, s, stableOne); a != 40001 ||
		b != 0 || c != 0 {
		t.Errorf("after the overlap: %d, %d, stable %d; want 40001, 0, 0", a, b, c)
	}
	s.InvalidateTokens(StandardAppID)
	if a, b := codeOf(t, s, second), codeOf(t, s, stableOne); a != 40001 || b != 40001 {
		t.Errorf("after InvalidateTokens: %d and %d", a, b)
	}
	if renewed, _ := stable(t, s, false); codeOf(t, s, renewed) != 0 {
		t.Error("the next token is dead too")
	}
}

func TestTokenErrors(t *testing.T) {
	const hint = ", could get access_token by getStableAccessToken, more details at " +
		"https://mmbizurl.cn/s/JtxxFh33r"
	body := func(grant, appid, secret string) string {
		return fmt.Sprintf(`{"grant_type":%q,"appid":%q,"secret":%q}`, grant, appid, secret)
	}
	s, _ := newTest(t, func(o *Options) {
		o.Accounts = append(o.Accounts, Account{AppID: "wx0a00000000000009", Secret: "s",
			Whitelist: []string{"203.0.113.1"}})
		o.Accounts[0].DailyLimits = map[string]int64{pathToken: 1}
	})
	classic(t, s)
	for _, test := range []struct{ name, target, body, want string }{
		{"unknown token", pathUserGet + "?access_token=103_made_up", "",
			fails(40001, "invalid credential, access_token is invalid or not latest"+hint)},
		{"no token", pathUserGet, "", fails(41001, "access_token missing")},
		{"token before the body", pathSend + "?access_token=x", "",
			fails(43002, "require POST method")},
		{"unknown appid comes before the grant type", "/cgi-bin/token?appid=wx1", "",
			fails(40013, "invalid appid")},
		{"no appid", "/cgi-bin/token", "", fails(41002, "appid missing")},
		{"no secret", "/cgi-bin/token?appid=" + StandardAppID, "",
			fails(41004, "appsecret missing")},
		{"wrong secret", "/cgi-bin/stable_token", body("client_credential", StandardAppID, "x"),
			fails(40125, "invalid appsecret")},
		{"wrong grant type", "/cgi-bin/stable_token", body("x", StandardAppID, StandardSecret),
			fails(40002, "invalid grant_type")},
		{"address before the secret", "/cgi-bin/stable_token",
			body("client_credential", "wx0a00000000000009", "x"),
			fails(40164, "invalid ip 192.0.2.1 ipv6 ::ffff:192.0.2.1, not in whitelist")},
		{"GET", "/cgi-bin/stable_token", "", fails(43002, "require POST method")},
		{"POST", pathUserGet + "?access_token=TOKEN", "{}", fails(43001, "require GET method")},
		{"form", "/cgi-bin/stable_token", "appid=x", fails(47001, "data format error")},
		{"classic quota", classicTarget, "", fails(45009, "reach max api daily quota limit"+hint)},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, ask(t, s, test.target, test.body)); diff != "" {
				t.Error(diff)
			}
		})
	}
	s.SetWhitelist("wx0a00000000000009", []string{"192.0.2.1"})
	fetchToken(t, s, "wx0a00000000000009", "s")
}

func TestQuota(t *testing.T) {
	s, clock := newTest(t, func(o *Options) {
		o.Accounts[0].DailyLimits = map[string]int64{pathUserGet: 3}
		o.Accounts[0].MinuteLimits = map[string]int64{pathSend: 2}
	})
	for _, want := range []int{0, 0, 0, 45009} {
		if got := decodeJSON[sendAnswer](t,
			ask(t, s, pathUserGet+"?access_token=TOKEN", "")); got.Code != want {
			t.Fatalf("user/get: %d, want %d", got.Code, want)
		}
	}
	quota := func(path, token string) string {
		return ask(t, s, "/cgi-bin/openapi/quota/get?access_token="+token,
			fmt.Sprintf(`{"cgi_path":%q}`, path))
	}
	for _, test := range []struct{ path, token, want string }{
		{pathUserGet, "TOKEN", `{"errcode":0,"errmsg":"ok","quota":{"daily_limit":3,"used":3,"remain":0}}`},
		{pathSend, "TOKEN", `{"errcode":0,"errmsg":"ok","quota":{"daily_limit":100000,"used":0,"remain":100000},"rate_limit":{"call_count":2,"refresh_second":60}}`},
		{"cgi-bin/user/get", "TOKEN", fails(76021, "cgi_path not found, please check")},
		{pathSend, "MINITOKEN", fails(76022, "could not use this cgi_path,no permission")},
		{"/sns/jscode2session", "TOKEN", fails(76022, "could not use this cgi_path,no permission")},
	} {
		if diff := cmp.Diff(test.want, quota(test.path, test.token)); diff != "" {
			t.Error(test.path, diff)
		}
	}
	for _, want := range []int{0, 0, 45011} {
		if got := sendTo(t, s, 1, ""); got.Code != want {
			t.Errorf("send: %+v, want %d", got, want)
		}
	}
	clock.advance(time.Minute)
	if got := sendTo(t, s, 1, ""); got.Code != 0 {
		t.Errorf("a minute later: %+v", got)
	}
	for i := range clearsPerMonth + 1 {
		want := `{"errcode":0,"errmsg":"ok"}`
		if i == clearsPerMonth {
			want = fails(48006, "forbid to clear quota because of reaching the limit")
		}
		if got := ask(t, s, "/cgi-bin/clear_quota?access_token=TOKEN",
			`{"appid":"`+StandardAppID+`"}`); got != want {
			t.Errorf("clear_quota %d: %s", i+1, got)
		}
	}
	if got := codeOf(t, s, fetchToken(t, s, StandardAppID, StandardSecret)); got != 0 {
		t.Errorf("user/get after clear_quota: %d", got)
	}
	ask(t, s, pathUserGet+"?access_token=TOKEN", "")
	ask(t, s, pathUserGet+"?access_token=TOKEN", "")
	clock.advance(24 * time.Hour)
	if got := codeOf(t, s, fetchToken(t, s, StandardAppID, StandardSecret)); got != 0 {
		t.Errorf("user/get on the next day: %d", got)
	}
}
