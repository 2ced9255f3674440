package wechat

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const userRecord = `{"subscribe":1,"openid":"oSYN0000000000000000000001-A","nickname":"","sex":0,"language":"zh_CN","city":"",` +
	`"province":"","country":"","headimgurl":"","subscribe_time":1641364601,"unionid":"oUNI0000000000000000000001-A","remark":"r",` +
	`"groupid":2,"tagid_list":[128,2],"subscribe_scene":"ADD_SCENE_SEARCH","qr_scene":98765,"qr_scene_str":"s"}`

func wantUser() UserInfo {
	return UserInfo{
		OpenID: testOpenID, UnionID: "oUNI0000000000000000000001-A", Subscribed: true,
		SubscribeTime:  1641364601,
		SubscribeScene: "ADD_SCENE_SEARCH", QRScene: 98765, QRSceneStr: "s", Remark: "r",
		GroupID: 2, TagIDs: []int64{128, 2}, Language: "zh_CN",
	}
}

// numbersAsText puts every number of a record into quotes.
func numbersAsText(record string) string {
	return regexp.MustCompile(`([:\[,])(\d+)`).ReplaceAllString(record, `$1"$2"`)
}

// TestReads is every read: the request it makes, byte for byte, and what it makes of an answer.
func TestReads(t *testing.T) {
	type call func(ctx context.Context, c *Client) (any, error)
	tests := map[string]struct {
		call    call
		request string // method, URI without the token, body
		answer  string
		want    any
	}{
		"first page": {
			func(ctx context.Context, c *Client) (any, error) { return c.Followers(ctx, "") },
			"GET /cgi-bin/user/get? ",
			`{"total":1,"count":1,"data":{"openid":["oSYN0000000000000000000001-A"]},"next_openid":"oSYN0000000000000000000001-A"}`,
			FollowerPage{Total: 1, OpenIDs: []string{testOpenID}, NextOpenID: testOpenID},
		},
		"last page": {
			func(ctx context.Context, c *Client) (any, error) { return c.Followers(ctx, "o&x") },
			"GET /cgi-bin/user/get?next_openid=o%26x& ",
			`{"total":770270,"count":0,"next_openid":""}`,
			FollowerPage{Total: 770270},
		},
		"page with noise and without cursor": {
			func(ctx context.Context, c *Client) (any, error) { return c.Followers(ctx, "") },
			"GET /cgi-bin/user/get? ",
			`{"total":2,"count":2,"data":{"openid":["","OPENID1","OPENID2"]}}`,
			FollowerPage{Total: 2, OpenIDs: []string{"OPENID1", "OPENID2"}, NextOpenID: "OPENID2"},
		},
		"user": {
			func(ctx context.Context, c *Client) (any, error) {
				return c.UserInfo(ctx, testOpenID)
			},
			"GET /cgi-bin/user/info?openid=" + testOpenID + "&lang=zh_CN& ",
			userRecord, wantUser(),
		},
		"user with a control character": {
			func(ctx context.Context, c *Client) (any, error) {
				return c.UserInfo(ctx, testOpenID)
			},
			"GET /cgi-bin/user/info?openid=" + testOpenID + "&lang=zh_CN& ",
			"{\n" + strings.Replace(userRecord, `"nickname":""`, "\"nickname\":\"a\x02\\\"b\x1f\"",
				1)[1:], wantUser(),
		},
		"batch": {
			func(ctx context.Context, c *Client) (any, error) {
				return c.BatchUserInfo(ctx, []string{"a", "b"})
			},
			`POST /cgi-bin/user/info/batchget? {"user_list":[{"openid":"a"},{"openid":"b"}]}`,
			`{"user_info_list":[` + userRecord +
				`,{"subscribe":0,"openid":"b","language":"zh_CN","tagid_list":[]}]}`,
			[]UserInfo{wantUser(), {OpenID: "b", Language: "zh_CN", TagIDs: []int64{}}},
		},
		"batch, odd": { // a new key and an escape: encoding/json's part
			func(ctx context.Context, c *Client) (any, error) {
				return c.BatchUserInfo(ctx, []string{"b"})
			},
			`POST /cgi-bin/user/info/batchget? {"user_list":[{"openid":"b"}]}`,
			`{"user_info_list":[{"subscribe":0,"openid":"b","remark":"\u4fe1","new":{"x":[1]}}]}`,
			[]UserInfo{{OpenID: "b", Remark: "信"}},
		},
		"templates": {
			func(ctx context.Context, c *Client) (any, error) { return c.PrivateTemplates(ctx) },
			"GET /cgi-bin/template/get_all_private_template? ",
			`{"template_list":[{"template_id":"i","title":"t","primary_industry":"IT科技","deputy_industry":"d","content":"{{a.DATA}}","example":"e"}]}`,
			[]Template{{ID: "i", Content: "{{a.DATA}}"}},
		},
		"page with numbers as text and one unreadable openid": {
			func(ctx context.Context, c *Client) (any, error) { return c.Followers(ctx, "") },
			"GET /cgi-bin/user/get? ",
			`{"total":"3","count":"3","data":{"openid":["a",{"x":[1]},"c"]},"next_openid":"c"}`,
			FollowerPage{Total: 3, OpenIDs: []string{"a", "c"}, NextOpenID: "c"},
		},
		"user with numbers as text": {
			func(ctx context.Context, c *Client) (any, error) {
				return c.UserInfo(ctx, testOpenID)
			},
			"GET /cgi-bin/user/info?openid=" + testOpenID + "&lang=zh_CN& ",
			numbersAsText(userRecord), wantUser(),
		},
		"user with fields of other types": { // they cost themselves
			func(ctx context.Context, c *Client) (any, error) {
				return c.UserInfo(ctx, testOpenID)
			},
			"GET /cgi-bin/user/info?openid=" + testOpenID + "&lang=zh_CN& ",
			`{"subscribe":1,"openid":"a","unionid":"u","subscribe_time":"","qr_scene":"x",` +
				`"remark":7,"language":[],"groupid":{},"tagid_list":"","qr_scene_str":"s"}`,
			UserInfo{OpenID: "a", UnionID: "u", Subscribed: true, QRSceneStr: "s"},
		},
		"batch with numbers as text": {
			func(ctx context.Context, c *Client) (any, error) {
				return c.BatchUserInfo(ctx, []string{"a"})
			},
			`POST /cgi-bin/user/info/batchget? {"user_list":[{"openid":"a"}]}`,
			`{"user_info_list":[` + numbersAsText(userRecord) + `]}`, []UserInfo{wantUser()},
		},
		"batch with unreadable records": { // absence does not read as "left"
			func(ctx context.Context, c *Client) (any, error) {
				return c.BatchUserInfo(ctx, []string{"a"})
			},
			`POST /cgi-bin/user/info/batchget? {"user_list":[{"openid":"a"}]}`,
			`{"user_info_list":[{"openid":"a"},{"subscribe":0},{"subscribe":"yes","openid":"c"},7,` +
				`{"subscribe":1,"openid":[]},` + userRecord + `]}`,
			[]UserInfo{{OpenID: "a", Unreadable: true}, {Unreadable: true},
				{OpenID: "c", Unreadable: true}, {Unreadable: true}, {Unreadable: true}, wantUser()},
		},
		"quota as text": {
			func(ctx context.Context, c *Client) (any, error) { return c.Quota(ctx, "/p") },
			`POST /cgi-bin/openapi/quota/get? {"cgi_path":"/p"}`,
			`{"errcode":"0","quota":{"remain":"999","used":"1","daily_limit":"1000"}}`,
			Quota{DailyLimit: 1000, Used: 1, Remain: 999},
		},
		"quota": {
			func(ctx context.Context, c *Client) (any, error) {
				return c.Quota(ctx, EndpointSendTemplate)
			},
			`POST /cgi-bin/openapi/quota/get? {"cgi_path":"/cgi-bin/message/template/send"}`,
			`{"errcode":0,"rate_limit":{"refresh_second":60,"call_count":4200000},"errmsg":"ok","quota":{"remain":999,"used":1,"daily_limit":1000}}`,
			Quota{DailyLimit: 1000, Used: 1, Remain: 999},
		},
		"session": {
			func(ctx context.Context, c *Client) (any, error) { return c.Session(ctx, "c&d") },
			"GET /sns/jscode2session?appid=" + testAppID +
				"&grant_type=authorization_code&js_code=c%26d&secret=" + testSecret + " ",
			`{"session_key":"` + testSessionKey + `","openid":"o","unionid":"u"}`,
			Session{OpenID: "o", UnionID: "u", SessionKey: testSessionKey},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			fake := newFake(t, func(w http.ResponseWriter, r *http.Request) {
				sent, _ := io.ReadAll(r.Body)
				uri := strings.Replace(r.RequestURI, "access_token="+testToken(1), "", 1)
				if diff := cmp.Diff(tt.request,
					fmt.Sprintf("%s %s %s", r.Method, uri, sent)); diff != "" {
					t.Errorf("request (-want +got):\n%s", diff)
				}
				if r.Method == http.MethodPost {
					checkBodyHeaders(t, r, len(sent))
				}
				w.Header().Set("Content-Type", "text/plain") // sns does that
				fmt.Fprint(w, tt.answer)
			})
			got, err := tt.call(t.Context(), fake.client(t))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
}

// TestAbsenceIsNotZero: answers that decode without an error and would mislead: to "end of the
// list", "left", "used up".
func TestAbsenceIsNotZero(t *testing.T) {
	bad := map[string][]string{
		EndpointFollowers: {
			`{}`, `null`, `{"total":5,"next_openid":""}`, `{"count":0}`,
			`{"total":5,"count":3,"next_openid":"x"}`,
			`{"total":5,"count":3,"data":{"openid":["a","b"]},"next_openid":"b"}`,
			`{"total":5,"count":1,"data":{"openid":[""]}}`, `[]`,
		},
		EndpointUserInfo: {`{}`, `{"openid":"o"}`, `{"subscribe":1}`,
			`{"subscribe":null,"openid":"o"}`},
		EndpointBatchInfo: {`{}`, `{"user_info_list":null}`, `{"user_info_list":{}}`},
		EndpointTemplates: {`{}`, `null`, `{"template_list":null}`},
		EndpointQuota:     {`{"errcode":0,"errmsg":"ok"}`},
		EndpointSession:   {`{}`, `{"session_key":"x"}`},
		EndpointSubscribeTemplates: {`{}`, `null`, `{"errcode":0,"errmsg":"ok"}`,
			`{"errcode":0,"errmsg":"ok","data":null}`},
	}
	for path, answers := range bad {
		for _, answer := range answers {
			t.Run(path+answer, func(t *testing.T) {
				fake := newFake(t, body(answer))
				err := endpoints()[path](t.Context(), fake.client(t))
				if got := outcomeOf(t, err); got.Reason != ReasonBadAnswer ||
					got.Policy != PolicyRetry || got.Uncertain {
					t.Errorf("%v: %+v", err, got)
				}
			})
		}
	}
}

// TestReadRetries counts the attempts that an endless failure gets, and checks that one that passes
// is survived.
func TestReadRetries(t *testing.T) {
	tests := map[string]struct {
		answer   http.HandlerFunc
		attempts int
		want     outcome
	}{
		"-1": {body(`{"errcode":-1,"errmsg":"system error"}`), 4,
			outcome{"system_error", PolicyRetry, false, -1}},
		"268487002": {body(`{"errcode":268487002}`), 4,
			outcome{"system_busy", PolicyRetry, false, 268487002}},
		"never seen": {body(`{"errcode":98765}`), 4,
			outcome{ReasonUnknownCode, PolicyRetry, false, 98765}},
		"502": {status(502), 4, outcome{ReasonServerError, PolicyRetry, false, 0}},
		"reset": {func(w http.ResponseWriter, r *http.Request) { resetConn(takeConn(w, r)) },
			4, outcome{ReasonConnectionLost, PolicyRetry, false, 0}},
		"garbage": {body("<html>"), 4, outcome{ReasonBadAnswer, PolicyRetry, false, 0}},
		"too large": {body(strings.Repeat("x", 1<<20)), 4,
			outcome{ReasonBadAnswer, PolicyRetry, false, 0}},
		"40003": {body(`{"errcode":40003,"errmsg":"invalid openid hint: [x] rid: ` +
			`6188b812-3aeef59a-72d5fb8c"}`), 1,
			outcome{ReasonInvalidOpenID, PolicyRecipient, false, 40003}},
		"45009": {body(`{"errcode":45009}`), 1,
			outcome{"quota_day", PolicyQuotaDay, false, 45009}},
		"45011": {body(`{"errcode":45011}`), 1,
			outcome{"quota_minute", PolicyQuotaMinute, false, 45011}},
		"48001": {body(`{"errcode":48001}`), 1,
			outcome{"no_permission", PolicyConfig, false, 48001}},
		"412": {status(412), 1, outcome{"http_refused", PolicyRequest, false, 0}},
		"404": {status(404), 1, outcome{"http_refused", PolicyConfig, false, 0}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var healthy atomic.Bool
			fake := newFake(t, func(w http.ResponseWriter, r *http.Request) {
				if healthy.Load() {
					fmt.Fprint(w, userRecord)
					return
				}
				tt.answer(w, r)
			})
			var seen atomic.Int32
			c := fake.client(t, func(cfg *Config) {
				cfg.Observe = func(call Call) {
					if call.Endpoint == EndpointUserInfo && (call.Err != nil) != healthy.Load() {
						seen.Add(1)
					}
				}
			})
			_, err := c.UserInfo(t.Context(), testOpenID)
			if diff := cmp.Diff(tt.want, outcomeOf(t, err)); diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
			if n := fake.count(EndpointUserInfo); n != tt.attempts || int(seen.Load()) != n {
				t.Errorf("%d attempts, %d observed, want %d", n, seen.Load(), tt.attempts)
			}
			healthy.Store(true)
			if _, err := c.UserInfo(t.Context(), testOpenID); err != nil {
				t.Errorf("after the trouble: %v", err)
			}
		})
	}
}

func TestReadSurvivesOneFailure(t *testing.T) {
	var n atomic.Int32
	fake := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		sent, _ := io.ReadAll(r.Body)
		if string(sent) != `{"user_list":[{"openid":"a"}]}` || r.ContentLength != int64(len(sent)) {
			t.Errorf("attempt with body %q", sent)
		}
		if n.Add(1) == 1 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		fmt.Fprintf(w, `{"user_info_list":[%s]}`, userRecord)
	})
	if _, err := fake.client(t).BatchUserInfo(t.Context(), []string{"a"}); err != nil ||
		n.Load() != 2 {
		t.Errorf("%v after %d attempts", err, n.Load())
	}
}

// TestSessionIsNotRepeated: a code works once, so an attempt that reached WeChat is the only one;
// one that did not is not.
func TestSessionIsNotRepeated(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"-1": body(`{"errcode":-1}`), "502": status(502),
		"closed": func(w http.ResponseWriter, r *http.Request) { _ = takeConn(w, r).Close() },
	} {
		fake := newFake(t, answer)
		if _, err := fake.client(t).Session(t.Context(), testJSCode); err == nil {
			t.Errorf("%s: no error", name)
		}
		if n := fake.count(EndpointSession); n != 1 {
			t.Errorf("%s: %d attempts, want 1", name, n)
		}
	}

	// On a kept connection, where net/http would repeat a GET.
	fake := newFake(t, nil)
	fake.answer = func(w http.ResponseWriter, r *http.Request) {
		if len(r.TransferEncoding) > 0 || r.ContentLength != 0 {
			t.Errorf("a GET with a body: %d, %v", r.ContentLength, r.TransferEncoding)
		}
		if fake.count(EndpointSession) == 1 {
			fmt.Fprint(w, `{"openid":"o"}`)
			return
		}
		resetConn(takeConn(w, r))
	}
	kept := fake.client(t)
	if _, err := kept.Session(t.Context(), testJSCode); err != nil {
		t.Error(err)
	}
	if _, err := kept.Session(t.Context(), testJSCode); err == nil ||
		fake.count(EndpointSession) != 2 {
		t.Errorf("%v after %d attempts of 2 calls", err, fake.count(EndpointSession))
	}

	dials := 0
	c := newFake(t, nil).client(t, func(cfg *Config) {
		cfg.Transport = roundTripperFunc(func(*http.Request) (*http.Response, error) {
			dials++
			return nil, errors.New("no route")
		})
	})
	if _, err := c.Session(t.Context(), testJSCode); err == nil || dials != 1+maxReadRetries {
		t.Errorf("%v after %d dials", err, dials)
	}
}

// TestReadEndsWithItsContext: in the wait between two attempts as well as in one.
func TestReadEndsWithItsContext(t *testing.T) {
	fake := newFake(t, status(502))
	ctx, cancel := context.WithCancel(t.Context())
	c := fake.client(t, func(cfg *Config) {
		cfg.Observe = func(call Call) {
			if call.Endpoint == EndpointUserInfo {
				cancel()
			}
		}
	})
	c.retryMin, c.retryMax = time.Hour, time.Hour
	_, err := c.UserInfo(ctx, testOpenID)
	if fake.count(EndpointUserInfo) != 1 || err == nil {
		t.Errorf("%d attempts, %v", fake.count(EndpointUserInfo), err)
	}

	slow := newFake(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancelSlow := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancelSlow()
	_, err = slow.client(t).UserInfo(ctx, testOpenID)
	if !errors.Is(err, context.DeadlineExceeded) || mustError(t, err).Reason != ReasonTimeout {
		t.Errorf("error %v", err)
	}
	if n := slow.count(EndpointUserInfo); n != 1 {
		t.Errorf("%d attempts", n)
	}
}

func TestBatchSize(t *testing.T) {
	c := New(Config{})
	for _, n := range []int{0, MaxBatch + 1} {
		if _, err := c.BatchUserInfo(t.Context(), make([]string, n)); err == nil {
			t.Errorf("%d openids accepted", n)
		}
	}
}

// TestConnectionsAreKept: a hundred calls in a row, errors with bodies among them, use one
// connection.
func TestConnectionsAreKept(t *testing.T) {
	var n atomic.Int32
	peers := map[string]bool{}
	fake := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		peers[r.RemoteAddr] = true
		switch n.Add(1) % 3 {
		case 0:
			fmt.Fprint(w, `{"errcode":40003,"errmsg":"invalid openid"}`)
		case 1:
			w.WriteHeader(http.StatusBadGateway)
			fmt.Fprint(w, strings.Repeat("x", 5000))
		default:
			fmt.Fprint(w, userRecord)
		}
	})
	c := fake.client(t)
	for range 100 {
		_, _ = c.UserInfo(t.Context(), testOpenID)
	}
	if len(peers) != 1 {
		t.Errorf("%d connections", len(peers))
	}
}
