package api

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/intake"
)

// TestCredentials: a secret or a token comes in one header, and from nowhere else.
func TestCredentials(t *testing.T) {
	fk := new(fake)
	f := newAPI(t, fk)
	for name, test := range map[string]struct {
		values []string
		status int
	}{
		"a secret":             {[]string{"Bearer " + secret}, 200},
		"a token":              {[]string{"Bearer " + token}, 200},
		"in small letters":     {[]string{"bearer " + secret}, 200},
		"blanks":               {[]string{"Bearer   " + secret + " "}, 200},
		"none":                 {nil, 401},
		"an empty one":         {[]string{""}, 401},
		"no scheme":            {[]string{secret}, 401},
		"Basic":                {[]string{"Basic " + secret}, 401},
		"another":              {[]string{"Bearer " + strings.Repeat("0", 32)}, 401},
		"cut":                  {[]string{"Bearer " + secret[:31]}, 401},
		"longer":               {[]string{"Bearer " + secret + "0"}, 401},
		"in capitals":          {[]string{"Bearer " + strings.ToUpper(secret)}, 401},
		"two":                  {[]string{"Bearer " + secret, "Bearer " + secret}, 401},
		"two, the first empty": {[]string{"", "Bearer " + secret}, 401},
		"two in one":           {[]string{"Bearer " + secret + ", Bearer " + secret}, 401},
	} {
		req := f.request(t, http.MethodPost, "/v1/identities", strings.NewReader(`{"ids":["x"]}`))
		req.Header["Authorization"] = test.values
		got := f.do(t, req)
		if got.status != test.status || (got.header.Get("WWW-Authenticate") != "") != (test.status == 401) {
			t.Errorf("%s: %d, want %d: %s", name, got.status, test.status, got.body)
		}
	}
	req := f.request(t, http.MethodGet, "/v1/messages/1?access_token="+secret+"&secret="+secret, nil)
	req.Header.Del("Authorization")
	req.Header.Set("X-Forwarded-For", "192.0.2.1")
	if got := f.do(t, req); got.status != 401 {
		t.Errorf("in the query: %d", got.status)
	}
	if !fk.from.IsLoopback() {
		t.Errorf("a caller that is no proxy says who it is: %v", fk.from)
	}
}

// TestPaths: there is one spelling of each path, and nothing is redirected.
func TestPaths(t *testing.T) {
	f := newAPI(t, new(fake))
	f.post(t, "/v1/messages", order)
	for _, path := range []string{"/v1", "/v1/", "//v1/messages/1", "/v1//messages/1", "/v1/./messages/1",
		"/v1/x/../messages/1", "/V1/messages/1", "/v1/Messages/1", "/v1/messages/1/", "/v1/messages/1;x",
		"/v1/messages/1%00", "/v1/messages/%201", "/v1/messages/1%0d%0aX:y", "/v1/messages/1%3fwait=1",
		"/v1/messages/1/../2", "/v1/messages%5c1", "/v2/messages/1", "/x/v1/messages/1", "/v1/messages/１",
		"/v1/messages/1/cancel/", "/v1/openapi.json/", "/v1/openapi", "/v1/messages/0x1"} {
		if got := f.get(t, path); got.status != 404 || strings.Contains(string(got.body), "X:y") {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
	for path, method := range map[string]string{"/v1/messages": "POST", "/v1/messages/1": "GET",
		"/v1/messages/1/cancel": "POST", "/v1/openapi.json": "GET"} {
		req := f.request(t, http.MethodPut, path, nil)
		req.Header.Set("X-HTTP-Method-Override", method)
		if got := f.do(t, req); got.status != 405 || got.header.Get("Allow") != method {
			t.Errorf("PUT %s: %d, Allow %q", path, got.status, got.header.Get("Allow"))
		}
	}
}

// exchange writes bytes to the door, closes its half of the connection, and returns the answers.
func (f *fixture) exchange(t *testing.T, text string) (statuses []int) {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	for r := bufio.NewReader(conn); ; {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return statuses
		}
		statuses = append(statuses, resp.StatusCode)
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return statuses
		}
		_ = resp.Body.Close()
	}
}

// head is the beginning of a request, up to its own headers.
func head(line string) string {
	return line + " HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + secret + "\r\n"
}

// TestRawRequests: whoever closes its half of the connection gets the true answer; a body that is not
// whole is no message; and what another server could read as two requests is refused or is one.
func TestRawRequests(t *testing.T) {
	length := fmt.Sprintf("Content-Length: %d\r\n", len(order))
	chunks := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(order), order)
	second := head("POST /v1/messages") + length + "\r\n" + order
	for name, test := range map[string]struct {
		text     string
		statuses string
		messages int
	}{
		"half-closed":  {head("POST /v1/messages") + length + "\r\n" + order, "[201]", 1},
		"two in a row": {second + second, "[201 201]", 2},
		"in chunks":    {head("POST /v1/messages") + "Transfer-Encoding: chunked\r\n\r\n" + chunks, "[201]", 1},
		// As RFC 9112 has it, the chunks count.
		"a length and chunks": {head("POST /v1/messages") + "Content-Length: 5\r\n" +
			"Transfer-Encoding: chunked\r\n\r\n" + chunks, "[201]", 1},
		"a cut body":    {head("POST /v1/messages") + length + "\r\n" + order[:20], "[400]", 0},
		"cut in chunks": {head("POST /v1/messages") + "Transfer-Encoding: chunked\r\n\r\n" + chunks[:30], "[400]", 0},
		"two lengths": {head("POST /v1/messages") + length + "Content-Length: 0\r\n\r\n" + order + second,
			"[400]", 0},
		"a length that is none": {head("POST /v1/messages") + "Content-Length: +5\r\n\r\n" + order, "[400]", 0},
		"an unknown encoding": {head("POST /v1/messages") + "Transfer-Encoding: xchunked\r\n" + length + "\r\n" +
			order, "[501]", 0},
		"two encodings": {head("POST /v1/messages") + "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n" +
			chunks, "[501]", 0},
		"a blank before the colon": {head("POST /v1/messages") + "Content-Length : 5\r\n\r\n" + order, "[400]", 0},
		"no host":                  {"GET /v1/messages/1 HTTP/1.1\r\n\r\n", "[400]", 0},
		"a continued header":       {"GET /v1/messages/1 HTTP/1.1\r\n Host: x\r\n\r\n", "[400]", 0},
		"a whole address": {head("POST http://evil.example/v1/messages") + length + "\r\n" + order, "[201]",
			1}, // as a proxy would be asked: it is ours nevertheless, and nothing is fetched
	} {
		t.Run(name, func(t *testing.T) {
			fk := new(fake)
			f := newAPI(t, fk)
			got := fmt.Sprint(f.exchange(t, test.text))
			if got != test.statuses || len(fk.messages) != test.messages {
				t.Errorf("%s and %d messages, want %s and %d", got, len(fk.messages), test.statuses, test.messages)
			}
		})
	}
}

// patient takes messages until its context ends.
type patient struct{ *fake }

func (p patient) Accept(
	ctx context.Context, _ applications.Session, messages []intake.Message,
) []intake.Result {
	<-ctx.Done()
	results := make([]intake.Result, len(messages))
	for i := range results {
		results[i].Err = errors.Join(intake.ErrUnknown, context.Cause(ctx))
	}
	return results
}

// TestAnswerInTime: whatever the database does, callers learn within 2.5 s that nobody knows.
func TestAnswerInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fk, log := new(fake), new(printed)
		cfg := newConfig(fk, log, prometheus.NewRegistry())
		cfg.Messages = patient{fk}
		a := New(cfg)
		var all sync.WaitGroup
		for _, body := range []string{order, `{"messages":[` + order + `]}`} {
			for range 50 {
				all.Go(func() {
					began, w := time.Now(), serve(a, http.MethodPost, "/v1/messages", body)
					took := time.Since(began)
					if w.Code != 503 || !strings.Contains(w.Body.String(), typeUnknown) || took > answerTimeout {
						t.Errorf("%d after %v: %s", w.Code, took, w.Body)
					}
				})
			}
		}
		all.Wait()
		if n := strings.Count(log.String(), "cannot answer"); n != 1 {
			t.Errorf("%d warnings, want 1", n)
		}
	})
}

// serve answers a request without a connection.
func serve(a *API, method, path, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(context.Background(), method, path, strings.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+secret)
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	return w
}

// TestNothingIsPrinted goes every way, well and badly, and looks for secrets, and for what a message
// says, in the log and the metrics; and in the answers, where only a login shows its session_key.
func TestNothingIsPrinted(t *testing.T) {
	fk := new(fake)
	f := newAPI(t, fk)
	hidden := map[string]string{
		"the secret": secret, "the token": token + "_abcdef", "a wrong secret": strings.Repeat("f", 32),
		"a code": loginCode, "a session_key": sessionKey, "a message": "茶叶一斤", "a person": "oSomebody77",
		"a query": "wait_for_me",
	}
	var answers bytes.Buffer
	failures := []error{nil, intake.ErrUnavailable, intake.ErrUnknown,
		fmt.Errorf("%w: the disk is full", intake.ErrUnavailable),
		&intake.Rejection{Code: 47003, Field: "data", Message: "no"},
		&applications.Refusal{Reason: applications.ReasonForbidden, Code: 48001, Message: "no"}}
	credentials := []string{hidden["the secret"], token, hidden["the token"], hidden["a wrong secret"], ""}
	message := strings.NewReplacer("oPerson", "oSomebody77", "茶", hidden["a message"]).Replace(order)
	for _, err := range failures {
		panics := err == nil
		for range 2 {
			fk.accept = func(m intake.Message) intake.Result {
				if panics && err == nil && fk.bearer != nil {
					panic(m.OpenID + string(m.Data))
				}
				return intake.Result{Err: err}
			}
			fk.people = func([]string, []string) ([]Person, error) { return nil, err }
			fk.login = func(string, string) (Login, error) { return Login{SessionKey: sessionKey}, err }
			fk.report = err
			for _, credential := range credentials {
				for path, body := range map[string]string{
					"/v1/messages": message, "/v1/identities": `{"ids":["oSomebody77"]}`,
					"/v1/login": `{"appid":"` + mini + `","code":"` + loginCode + `"}`,
					"/v1/grants": `{"appid":"` + mini + `","reports":[{"openid":"oSomebody77","template":"t",` +
						`"result":"accept","key":"1"}]}`,
					"/v1/messages/1":   message,
					"/v1/wait_for_me/": message,
				} {
					for _, text := range []string{body, body[:len(body)-2], body + body, strings.ReplaceAll(body, `":"`, `":5,"`)} {
						req := f.request(t, http.MethodPost, path+"?access_token="+secret+"&x=wait_for_me", strings.NewReader(text))
						req.Header.Set("Authorization", "Bearer "+credential)
						got := f.do(t, req)
						if path != "/v1/login" || got.status != 200 {
							answers.Write(got.body)
						}
					}
				}
			}
			fk.bearer = func(credential string) (applications.Session, error) {
				return applications.Session{Application: shop}, nil
			}
		}
		fk.bearer = nil
	}
	if !strings.Contains(f.log.String(), "panicked") {
		t.Error("nothing panicked")
	}
	var metrics bytes.Buffer
	families, err := f.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if _, err := expfmt.MetricFamilyToText(&metrics, family); err != nil {
			t.Fatal(err)
		}
	}
	for where, text := range map[string]string{"the log": f.log.String(), "an answer": answers.String(),
		"the metrics": metrics.String()} {
		if text == "" {
			t.Errorf("nothing in %s", where)
		}
		for what, value := range hidden {
			if strings.Contains(text, value) {
				t.Errorf("%s shows %s", where, what)
			}
		}
	}
}
