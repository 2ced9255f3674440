package wechatsim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// testClock is a clock that only the test moves.
type testClock struct {
	mu  sync.Mutex
	now time.Time
}

func newTestClock() *testClock { return &testClock{now: time.Unix(1789500000, 0)} }

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *testClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// newTest starts a standard server of 25,000 followers and 30 users, a third of whom do not follow.
func newTest(t testing.TB, change func(*Options)) (*Server, *testClock) {
	t.Helper()
	clock := newTestClock()
	options := Standard(25000, 30, 1.0/3)
	options.Now = clock.Now
	if change != nil {
		change(&options)
	}
	s := New(options)
	t.Cleanup(s.Close)
	return s, clock
}

var ridPattern = regexp.MustCompile(`rid: [0-9a-f]{8}-[0-9a-f]{8}-[0-9a-f]{8}`)

// ask makes a call and returns the body, request ids replaced by RID. The token TOKEN in the target
// stands for a fresh one of the official account, MINITOKEN for one of the mini program.
func ask(t testing.TB, s *Server, target, body string) string {
	t.Helper()
	method := http.MethodGet
	if body != "" {
		method = http.MethodPost
	}
	answer := request(t, s, method, target, body)
	if answer.Code != http.StatusOK {
		t.Fatalf("%s: status %d", target, answer.Code)
	}
	return ridPattern.ReplaceAllString(answer.Body.String(), "rid: RID")
}

func request(t testing.TB, s *Server, method, target, body string) *httptest.ResponseRecorder {
	t.Helper()
	if strings.Contains(target, "MINITOKEN") {
		target = strings.ReplaceAll(target, "MINITOKEN",
			fetchToken(t, s, StandardMiniAppID, StandardMiniSecret))
	}
	if strings.Contains(target, "TOKEN") {
		target = strings.ReplaceAll(target, "TOKEN",
			fetchToken(t, s, StandardAppID, StandardSecret))
	}
	recorder := httptest.NewRecorder()
	s.ServeHTTP(recorder, httptest.NewRequest(method, target, strings.NewReader(body)))
	return recorder
}

func fetchToken(t testing.TB, s *Server, appid, secret string) string {
	t.Helper()
	body := fmt.Sprintf(`{"grant_type":"client_credential","appid":%q,"secret":%q}`, appid, secret)
	recorder := httptest.NewRecorder()
	s.ServeHTTP(recorder, httptest.NewRequest(http.MethodPost, "/cgi-bin/stable_token",
		strings.NewReader(body)))
	var answer struct {
		Token   string `json:"access_token"`
		Expires int64  `json:"expires_in"`
	}
	if err := json.Unmarshal(recorder.Body.Bytes(), &answer); err != nil || answer.Token == "" {
		t.Fatalf("stable_token answered %q (%v)", recorder.Body, err)
	}
	return answer.Token
}

const (
	sendTarget  = pathSend + "?access_token=TOKEN"
	batchTarget = pathBatchInfo + "?access_token=TOKEN"
)

// sendBody is a good template/send to a person.
func sendBody(s *Server, person int, clientID string) string {
	return fmt.Sprintf(`{"touser":%q,"template_id":%q,"client_msg_id":%q,"data":{"thing1":{"value":"示例 & 文字"},`+
		`"time2":{"value":"2026-01-02 `+
		`15:04"},"amount3":{"value":"39.80元"},"character_string4":{"value":"A-1024"}}}`,
		s.OpenID(StandardAppID, person), StandardTemplates()[0].ID, clientID)
}

// fails is the body of an error, RID for its request id.
func fails(code int, text string) string {
	return fmt.Sprintf(`{"errcode":%d,"errmsg":"%s rid: RID"}`, code, text)
}

func decodeJSON[T any](t testing.TB, body string) T {
	t.Helper()
	var value T
	if err := json.Unmarshal([]byte(body), &value); err != nil {
		t.Fatalf("answer %q: %v", body, err)
	}
	return value
}

func jsonValid(text []byte) bool { return json.Valid(text) }
