package wechatsim

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"
)

// serve puts the server behind a real socket and returns the target of a send with a good token.
func serve(t testing.TB, s *Server) (base, send string) {
	t.Helper()
	web := httptest.NewServer(s)
	t.Cleanup(web.Close)
	return web.URL, web.URL + pathSend + "?access_token=" +
		fetchToken(t, s, StandardAppID, StandardSecret)
}

func post(target, body string) (status int, answer string, err error) {
	response, err := http.Post(target, "application/json", strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	read, err := io.ReadAll(response.Body)
	return response.StatusCode, ridPattern.ReplaceAllString(string(read), "rid: RID"), err
}

func TestFaults(t *testing.T) {
	const ok = `{"errcode":0,"errmsg":"ok","msgid":`
	isReset := func(err error) bool {
		return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.EOF)
	}
	isCut := func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }
	for _, test := range []struct {
		name      string
		fault     Fault
		status    int
		answer    string // how it begins
		err       func(error) bool
		delivered int64
	}{
		{"busy, not sent", Fault{Kind: FaultErrcode, Code: -1}, 200, fails(-1, "system error"), nil,
			0},
		{"busy, but sent", Fault{Kind: FaultErrcode, Code: -1, After: true}, 200,
			fails(-1, "system error"), nil, 1},
		{"own text", Fault{Kind: FaultErrcode, Code: 45009, Message: "api freq out of limit"}, 200,
			fails(45009, "api freq out of limit"), nil, 0},
		{"spurious 40037", Fault{Kind: FaultErrcode, Code: 40037}, 200,
			fails(40037, "invalid template_id"), nil, 0},
		{"bad gateway", Fault{Kind: FaultStatus}, 502, "<html>", nil, 0},
		{"unavailable, but sent", Fault{Kind: FaultStatus, Code: 503, After: true}, 503, "<html>",
			nil, 1},
		{"html", Fault{Kind: FaultHTML}, 200, "<html>", nil, 0},
		{"empty", Fault{Kind: FaultEmpty}, 200, "", nil, 0},
		{"truncated", Fault{Kind: FaultTruncate}, 200, ok[:20], nil, 1},
		{"cut", Fault{Kind: FaultCut}, 200, ok[:20], isCut, 1},
		{"reset, not sent", Fault{Kind: FaultReset}, 0, "", isReset, 0},
		{"reset, but sent", Fault{Kind: FaultReset, After: true}, 0, "", isReset, 1},
		{"slow", Fault{Kind: FaultSlow, Delay: time.Millisecond}, 200, ok, nil, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			s, _ := newTest(t, nil)
			_, target := serve(t, s)
			test.fault.Next, test.fault.Path, test.fault.AppID = 1, pathSend, StandardAppID
			s.SetFault(test.fault)
			status, answer, err := post(target, sendBody(s, 1, ""))
			if (err != nil) != (test.err != nil) || err != nil && !test.err(err) {
				t.Fatalf("error %v", err)
			}
			if status != test.status || !strings.HasPrefix(answer, test.answer) ||
				test.answer == "" && answer != "" {
				t.Errorf("status %d, answer %q; want %d, %q…", status, answer, test.status,
					test.answer)
			}
			if got, _ := s.Delivered(StandardAppID); got != test.delivered {
				t.Errorf("%d delivered, want %d", got, test.delivered)
			}
			if _, answer, err := post(target, sendBody(s, 2, "")); err != nil ||
				!strings.HasPrefix(answer, ok) {
				t.Errorf("after the fault: %q, %v", answer, err)
			}
		})
	}
}

func TestFaultsChooseTheirCalls(t *testing.T) {
	s, _ := newTest(t, nil)
	s.SetFault(Fault{Kind: FaultErrcode, Code: -1, Path: pathUserInfo, Next: 2})
	s.SetFault(Fault{Kind: FaultErrcode, Code: 40001, AppID: StandardMiniAppID})
	s.SetFault(Fault{Kind: FaultErrcode, Code: 50002, Path: pathSend, Probability: 0.3})
	if got := sendTo(t, s, 1, "").Code; got != 0 && got != 50002 {
		t.Errorf("send: %d", got)
	}
	info := pathUserInfo + "?access_token=TOKEN&openid=" + s.OpenID(StandardAppID, 1)
	for _, want := range []bool{true, true, false} {
		if got := strings.Contains(ask(t, s, info, ""), `"errcode":-1`); got != want {
			t.Errorf("user/info fails: %v, want %v", got, want)
		}
	}
	body := `{"grant_type":"client_credential","appid":"` + StandardMiniAppID + `","secret":"` +
		StandardMiniSecret + `"}`
	if got := decodeJSON[sendAnswer](t,
		ask(t, s, "/cgi-bin/stable_token", body)).Code; got != 40001 {
		t.Errorf("the mini program's token: %d", got)
	}
	failed := 0
	for person := range 1000 {
		if sendTo(t, s, person, "").Code == 50002 {
			failed++
		}
	}
	if failed < 240 || failed > 360 {
		t.Errorf("%d of 1000 sends failed, want about 300", failed)
	}
	s.ClearFaults()
	for person := range 50 {
		if got := sendTo(t, s, person, "").Code; got != 0 {
			t.Fatalf("send without faults: %d", got)
		}
	}
}

func TestChunkedBodyIsRefused(t *testing.T) {
	s, _ := newTest(t, nil)
	_, target := serve(t, s)
	response, err := http.Post(target, "application/json",
		io.MultiReader(strings.NewReader(sendBody(s, 1, ""))))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, _ := io.ReadAll(response.Body)
	if response.StatusCode != http.StatusPreconditionFailed || len(body) != 0 {
		t.Errorf("status %d, body %q", response.StatusCode, body)
	}
	if got := s.Stats().Errors[pathSend]["http_412"]; got != 1 {
		t.Errorf("counted %d", got)
	}
}

func TestTransport(t *testing.T) {
	s, clock := newTest(t, nil)
	base, target := serve(t, s)
	response, err := http.Post(target, "application/json", strings.NewReader(sendBody(s, 1, "")))
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	if got := response.Header.Get("Content-Type"); got != "application/json; encoding=utf-8" ||
		response.ContentLength <= 0 {
		t.Errorf("Content-Type %q, length %d", got, response.ContentLength)
	}
	sns, err := http.Get(base + "/sns/jscode2session")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sns.Body.Close() }()
	body, _ := io.ReadAll(sns.Body)
	if got := sns.Header.Get("Content-Type"); got != "text/plain" ||
		!strings.Contains(string(body), "appid missing, rid: ") {
		t.Errorf("sns: Content-Type %q, %s", got, body)
	}
	if got := request(t, s, http.MethodPost, sendTarget, "").Body.String(); !strings.Contains(got,
		"44002") {
		t.Errorf("empty body: %s", got)
	}
	zipped := httptest.NewRequest(http.MethodPost, strings.TrimPrefix(target, base),
		bytes.NewReader([]byte("x")))
	zipped.Header.Set("Content-Encoding", "gzip")
	recorder := httptest.NewRecorder()
	s.ServeHTTP(recorder, zipped)
	if got := recorder.Body.String(); !strings.Contains(got, "40221") {
		t.Errorf("compressed body: %s", got)
	}
	rid := ridPattern.FindString(request(t, s, http.MethodGet, pathUserGet, "").Body.String())
	if want := fmt.Sprintf("rid: %08x-", clock.Now().Unix()); !strings.HasPrefix(rid, want) {
		t.Errorf("%q does not begin with the unix time, %q", rid, want)
	}
}

func TestLatency(t *testing.T) {
	s, _ := newTest(t, nil)
	s.SetLatency(30 * time.Millisecond)
	start := time.Now()
	ask(t, s, pathUserGet, "")
	if took := time.Since(start); took < 30*time.Millisecond {
		t.Errorf("answered after %s", took)
	}
}

func TestRidGet(t *testing.T) {
	s, clock := newTest(t, nil)
	failed := request(t, s, http.MethodPost, sendTarget, sendBody(s, 30000, "")).Body.String()
	rid := strings.TrimPrefix(ridPattern.FindString(failed), "rid: ")
	type answer struct {
		Code    int        `json:"errcode"`
		Request ridRequest `json:"request"`
	}
	get := func(token, rid string) answer {
		return decodeJSON[answer](t, ask(t, s, "/cgi-bin/openapi/rid/get?access_token="+token,
			`{"rid":"`+rid+`"}`))
	}
	got := get("TOKEN", rid)
	if got.Code != 0 || got.Request.InvokeTime != clock.Now().Unix() ||
		got.Request.RequestBody != sendBody(s, 30000, "") {
		t.Errorf("%+v", got)
	}
	for _, test := range []struct {
		token, rid string
		code       int
	}{{"MINITOKEN", rid, 76003}, {"TOKEN", "x", 76002},
		{"TOKEN", "00000000-00000000-00000000", 76001}} {
		if got := get(test.token, test.rid); got.Code != test.code {
			t.Errorf("%+v: %d", test, got.Code)
		}
	}
}
