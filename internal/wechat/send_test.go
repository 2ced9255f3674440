package wechat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func message() TemplateMessage {
	return TemplateMessage{
		ToUser:      testOpenID,
		TemplateID:  "iPk5sOIt5X_flOVKn5GrTFpncEYTojx6ddbt8WYoV5s",
		URL:         "https://example.com/order?id=1&from=<wx>",
		MiniProgram: &MiniProgramLink{AppID: "wxfedcba9876543210", PagePath: "pages/order?id=1"},
		Data:        json.RawMessage(`{"thing1":{"value":"订单 & <b>"}}`),
		ClientMsgID: "ub-1",
	}
}

func TestSendTemplateRequest(t *testing.T) {
	const want = `{"touser":"oSYN0000000000000000000001-A","template_id":"iPk5sOIt5X_flOVKn5GrTFpncEYTojx6ddbt8WYoV5s",` +
		`"url":"https://example.com/order?id=1&from=<wx>","miniprogram":{"appid":"wxfedcba9876543210","pagepath":"pages/order?id=1"},` +
		`"client_msg_id":"ub-1","data":{"thing1":{"value":"订单 & <b>"}}}`
	fake := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		got, _ := io.ReadAll(r.Body)
		if diff := cmp.Diff(want, string(got)); diff != "" {
			t.Errorf("body (-want +got):\n%s", diff)
		}
		checkBodyHeaders(t, r, len(got))
		fmt.Fprint(w, `{"errcode":0,"errmsg":"ok","msgid":2841345375939657729}`)
	})
	msgid, err := fake.client(t).SendTemplate(t.Context(), message())
	if err != nil || msgid != 2841345375939657729 {
		t.Errorf("msgid %d, %v", msgid, err)
	}
}

func checkBodyHeaders(t *testing.T, r *http.Request, length int) {
	t.Helper()
	if r.ContentLength != int64(length) || len(r.TransferEncoding) > 0 {
		t.Errorf("%s: Content-Length %d, Transfer-Encoding %v", r.URL.Path, r.ContentLength,
			r.TransferEncoding)
	}
	if got := r.Header.Get("Content-Type"); got != "application/json;charset=utf-8" {
		t.Errorf("%s: Content-Type %q", r.URL.Path, got)
	}
}

func TestSmallestMessage(t *testing.T) {
	m := TemplateMessage{ToUser: "o\x00\"", TemplateID: "t"}
	const want = `{"touser":"o\"","template_id":"t","data":{}}`
	if got := string(m.json()); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// outcome is what the sender decides by.
type outcome struct {
	Reason    Reason
	Policy    Policy
	Uncertain bool
	Code      int
}

func outcomeOf(t *testing.T, err error) outcome {
	t.Helper()
	e := mustError(t, err)
	return outcome{e.Reason, e.Policy, e.Uncertain, e.Code}
}

func body(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) }
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func TestSendOutcomes(t *testing.T) {
	tests := map[string]struct {
		answer http.HandlerFunc
		want   outcome
	}{
		"closed after processing": {func(w http.ResponseWriter,
			r *http.Request) {
			_ = takeConn(w, r).Close()
		}, outcome{ReasonConnectionLost, PolicyUncertain, true, 0}},
		"reset after processing": {func(w http.ResponseWriter,
			r *http.Request) {
			resetConn(takeConn(w, r))
		}, outcome{ReasonConnectionLost, PolicyUncertain, true, 0}},
		"timeout": {func(_ http.ResponseWriter, r *http.Request) {
			_,
				_ = io.ReadAll(r.Body)
			<-r.Context().Done()
		}, outcome{ReasonTimeout, PolicyUncertain, true, 0}},
		"500": {status(500),
			outcome{ReasonServerError, PolicyUncertain, true, 0}},
		"502 html": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			fmt.Fprint(w, "<html>")
		}, outcome{ReasonServerError, PolicyUncertain, true, 0}},
		"empty": {body(""), outcome{ReasonBadAnswer, PolicyUncertain, true, 0}},
		"204":   {status(204), outcome{ReasonBadAnswer, PolicyUncertain, true, 0}},
		"html": {body("<html><title>busy</title></html>"),
			outcome{ReasonBadAnswer, PolicyUncertain, true, 0}},
		"cut": {body(`{"errcode":0,"errm`), outcome{ReasonBadAnswer, PolicyUncertain, true, 0}},
		"cut below its length": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "50")
			fmt.Fprint(w, `{"errcode":0`)
		}, outcome{ReasonBadAnswer, PolicyUncertain, true, 0}},
		"no errcode": {body(`{}`), outcome{ReasonBadAnswer, PolicyUncertain, true, 0}},
		"null":       {body(`null`), outcome{ReasonBadAnswer, PolicyUncertain, true, 0}},
		"too large": {body(strings.Repeat(" ", smallAnswer+1)),
			outcome{ReasonBadAnswer, PolicyUncertain, true, 0}},
		"412": {status(412), outcome{"http_refused", PolicyRequest, false, 0}},
		"404": {status(404), outcome{"http_refused", PolicyConfig, false, 0}},
		"429": {status(429), outcome{"http_busy", PolicyRetry, false, 0}},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/other",
				http.StatusFound)
		}, outcome{"redirected", PolicyConfig, false, 0}},
		"-1": {body(`{"errcode":-1,"errmsg":"system error"}`),
			outcome{"system_error", PolicyUncertain, true, -1}},
		"40241": {body(`{"errcode":40241,"errmsg":"The message is duplicate in 60 seconds"}`),
			outcome{"duplicate_in_60s", PolicyUncertain, true, 40241}},
		"errcode in a 500": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprint(w, `{"errcode":43004}`)
		}, outcome{ReasonNotFollower, PolicyRecipient, false, 43004}},
		"ok in a 500": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusInternalServerError)
			fmt.Fprint(w, `{"errcode":0}`)
		}, outcome{ReasonServerError, PolicyUncertain, true, 0}},
		"errcode as string": {body(`{"errcode":"43101","errmsg":"user refuse to accept the msg"}`),
			outcome{ReasonRefused, PolicyRecipient, false, 43101}},
		"expired token": {body(`{"errcode":42001,"errmsg":"access_token expired"}`),
			outcome{"token_expired", PolicyToken, false, 42001}},
		"spurious template": {body(`{"errcode":40037}`),
			outcome{ReasonInvalidTemplate, PolicyRetry, false, 40037}},
		"never seen": {body(`{"errcode":98765}`),
			outcome{ReasonUnknownCode, PolicyRequest, false, 98765}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fake := newFake(t, tt.answer)
			c := fake.client(t, func(cfg *Config) { cfg.SendTimeout = 100 * time.Millisecond })
			_, err := c.SendTemplate(t.Context(), message())
			if diff := cmp.Diff(tt.want, outcomeOf(t, err)); diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
			if n := fake.count(EndpointSendTemplate); n != 1 {
				t.Errorf("%d requests, want exactly 1", n)
			}
		})
	}
}

// TestNothingWrittenIsCertain: what failed before the request left cannot have been accepted.
func TestNothingWrittenIsCertain(t *testing.T) {
	fake := newFake(t, body(`{"errcode":0,"errmsg":"ok","msgid":1}`))
	refused := fake.client(t)
	dns := fake.client(t, func(cfg *Config) {
		cfg.Transport = &http.Transport{DialContext: func(context.Context, string,
			string) (net.Conn, error) {
			return nil, &net.DNSError{Err: "no such host", Name: "api.weixin.qq.com",
				IsNotFound: true}
		}}
	})
	tlsFailure := fake.client(t, func(cfg *Config) {
		cfg.BaseURL = strings.Replace(fake.URL, "http:", "https:", 1)
	})
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []*Client{refused, dns, tlsFailure} {
		if _, err := fake.client(t).SendTemplate(t.Context(), message()); err != nil {
			t.Fatal(err)
		}
		c.tokens.current = &token{value: testToken(1), expires: time.Now().Add(time.Hour),
			renewAt: time.Now().Add(time.Hour)}
	}
	_, err := fake.client(t).SendTemplate(cancelled, message())
	check := func(name string, err error, want outcome) {
		t.Helper()
		if diff := cmp.Diff(want, outcomeOf(t, err)); diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
	}
	check("cancelled", err, outcome{ReasonCancelled, PolicyRetry, false, 0})
	_, err = dns.SendTemplate(t.Context(), message())
	check("dns", err, outcome{ReasonUnreachable, PolicyRetry, false, 0})
	_, err = tlsFailure.SendTemplate(t.Context(), message())
	check("tls", err, outcome{ReasonUnreachable, PolicyRetry, false, 0})
	fake.Close()
	_, err = refused.SendTemplate(t.Context(), message())
	check("refused", err, outcome{ReasonUnreachable, PolicyRetry, false, 0})
	if text := err.Error(); strings.Contains(text, "http://") ||
		strings.Contains(text, "access_token") || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("%s: holds the URL, or not the cause", text)
	}
}

// TestProcessedSendIsNotReplayed: net/http replays requests on a kept connection that the server
// closed. A POST that a server read and then died over must arrive once and only once, and count as
// uncertain.
func TestProcessedSendIsNotReplayed(t *testing.T) {
	for name, die := range map[string]func(net.Conn){"fin": func(c net.Conn) { _ = c.Close() },
		"reset": resetConn} {
		t.Run(name, func(t *testing.T) {
			var arrived atomic.Int32
			fake := newFake(t, func(w http.ResponseWriter, r *http.Request) {
				if arrived.Add(1)%2 == 0 { // the second one of each connection
					die(takeConn(w, r))
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
				fmt.Fprint(w, `{"errcode":0,"errmsg":"ok","msgid":1}`)
			})
			c := fake.client(t)
			const pairs = 50
			for i := range pairs {
				if _, err := c.SendTemplate(t.Context(), message()); err != nil {
					t.Fatalf("pair %d: %v", i, err)
				}
				_, err := c.SendTemplate(t.Context(), message())
				if e := mustError(t, err); !e.Uncertain || e.Reason != ReasonConnectionLost {
					t.Fatalf("pair %d: %+v", i, e)
				}
			}
			if n := arrived.Load(); n != 2*pairs {
				t.Errorf("%d requests arrived, %d were made", n, 2*pairs)
			}
		})
	}
}

// TestTokenTroubleOfASend: a send without a token was never made.
func TestTokenTroubleOfASend(t *testing.T) {
	fake := newFake(t, body(`{"errcode":0,"msgid":1}`))
	fake.onToken(body(`{"errcode":40164,"errmsg":"invalid ip 203.0.113.7 ipv6 ` +
		`::ffff:203.0.113.7, not in whitelist rid: 691d5b03-245c4618-0056bcfe"}`))
	_, err := fake.client(t).SendTemplate(t.Context(), message())
	const text = "POST /cgi-bin/stable_token: 40164 invalid ip 203.0.113.7 ipv6 " +
		"::ffff:203.0.113.7, not in whitelist (ip_not_allowed), " +
		"rid 691d5b03-245c4618-0056bcfe"
	if diff := cmp.Diff(outcome{"ip_not_allowed", PolicyConfig, false, 40164},
		outcomeOf(t, err)); diff != "" || err.Error() != text {
		t.Errorf("%v\n%s", err, diff)
	}
	if fake.count(EndpointSendTemplate) != 0 {
		t.Error("sent without a token")
	}
}

func BenchmarkSendTemplate(b *testing.B) {
	fake := newFake(b, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, `{"errcode":0,"errmsg":"ok","msgid":2841345375939657729}`)
	})
	c := fake.client(b)
	m := message()
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := c.SendTemplate(b.Context(), m); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkMessageJSON(b *testing.B) {
	m := message()
	b.ReportAllocs()
	for b.Loop() {
		_ = m.json()
	}
}
