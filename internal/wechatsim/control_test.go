package wechatsim

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func control(t testing.TB, s *Server, call, body string) (status int, answer string) {
	t.Helper()
	method, target, _ := strings.Cut(call, " ")
	recorder := request(t, s, method, target, body)
	return recorder.Code, strings.TrimSpace(recorder.Body.String())
}

// Every switch does over HTTP what the method does; the proof is a call of the platform's own.
func TestControl(t *testing.T) {
	s, _ := newTest(t, nil)
	openid := s.OpenID(StandardAppID, 1)
	code := func(want int) func() string {
		return func() string {
			if got := sendTo(t, s, 1, "").Code; got != want {
				return fmt.Sprintf("send answers %d, want %d", got, want)
			}
			return ""
		}
	}
	for _, test := range []struct {
		call, body, want string
		then             func() string
	}{
		{"POST /_sim/unfollow?person=1", "", `{"changed":true}`, code(43004)},
		{"POST /_sim/unfollow?person=1", "", `{"changed":false}`, code(43004)},
		{"POST /_sim/follow?at=0&openid=" + openid, "", `{"changed":true}`, code(0)},
		{"POST /_sim/person?person=1", `{"Refuses":true}`, `{}`, code(43101)},
		{"POST /_sim/person?person=1", `{}`, `{}`, code(0)},
		{"POST /_sim/fault", `{"kind":"errcode","code":-1,"path":"/cgi-bin/message/template/send"}`,
			`{}`, code(-1)},
		{"DELETE /_sim/fault", "", `{}`, code(0)},
		{"POST /_sim/quirks", `{"RefuseShare":1}`, `{}`, code(43101)},
		{"POST /_sim/quirks", `{"RefuseShare":0}`, `{}`, code(0)},
		{"POST /_sim/limit?n=1&path=" + pathSend, "", `{}`, code(45009)},
		{"POST /_sim/limit?path=" + pathSend, "", `{}`, code(0)},
		{"POST /_sim/join?n=2", "", `{"persons":[1073741824,1073741825]}`, nil},
		{"POST /_sim/leave?n=0", "", `{"persons":[]}`, nil},
		{"POST /_sim/latency?d=1ms", "", `{}`, nil},
		{"POST /_sim/tokens/invalidate", "", `{}`, code(0)},
		{"GET /_sim/truth?person=1", "", mustJSON(t, s.apps[StandardAppID].identity(1)), nil},
		{"GET /_sim/truth?openid=" + openid, "", mustJSON(t, s.apps[StandardAppID].identity(1)),
			nil},
		{"GET /_sim/truth?unionid=" + s.UnionID(1), "",
			mustJSON(t, s.apps[StandardAppID].identity(1)), nil},
		{"GET /_sim/mini-users?offset=2&limit=1", "",
			fmt.Sprintf("appid,openid,unionid\n%s,%s,%s", StandardMiniAppID,
				s.MiniUsers(StandardMiniAppID, 2, 1)[0].OpenID,
				s.MiniUsers(StandardMiniAppID, 2, 1)[0].UnionID), nil},
		{"GET /_sim/mini-users?offset=2&limit=1&format=ndjson", "",
			mustJSON(t, s.MiniUsers(StandardMiniAppID, 2, 1)[0]), nil},
		{"GET /_sim/accounts", "", fmt.Sprintf(`[{"appid":%q,"kind":"official","original_id":%q,"bound":true,"followers":25002},{"appid":%q,"kind":"mini","original_id":%q,"bound":true,"users":30}]`,
			StandardAppID, s.apps[StandardAppID].original, StandardMiniAppID,
			s.apps[StandardMiniAppID].original), nil},
	} {
		status, got := control(t, s, test.call, test.body)
		if diff := cmp.Diff(test.want, got); diff != "" || status != http.StatusOK {
			t.Errorf("%s: status %d %s", test.call, status, diff)
		}
		if test.then == nil {
			continue
		}
		if complaint := test.then(); complaint != "" {
			t.Errorf("after %s %s: %s", test.call, test.body, complaint)
		}
	}
	before := s.UnionID(1)
	if status, _ := control(t, s, "POST /_sim/rebind?appid="+StandardAppID,
		""); status != http.StatusOK || s.UnionID(1) == before {
		t.Errorf("rebind: status %d", status)
	}
}

func TestControlRefuses(t *testing.T) {
	s, _ := newTest(t, nil)
	for _, test := range []struct {
		call, body string
		status     int
	}{
		{"GET /_sim/messages?appid=wx1", "", 404},
		{"GET /_sim/messages?limit=x", "", 400},
		{"GET /_sim/truth?openid=x", "", 404},
		{"GET /_sim/truth?person=-1", "", 400},
		{"GET /_sim/mini-users?appid=" + StandardAppID, "", 400},
		{"POST /_sim/follow?person=1&appid=" + StandardMiniAppID, "", 400},
		{"POST /_sim/quirks", `{"Misspelt":true}`, 400},
		{"POST /_sim/fault", `{"kind":"nonsense"}`, 400},
		{"POST /_sim/latency?d=x", "", 400},
		{"POST /_sim/limit?path=/x", "", 400},
		{"POST /_sim/grant?person=1&template=x", "", 400},
		{"POST /_sim/grant?person=1&appid=" + StandardAppID + "&template=" +
			StandardTemplates()[0].ID, "", 400},
		{"POST /_sim/subscribe?person=1", "", 400},
		{"POST /_sim/callback", `{"Format":"yaml"}`, 400},
		{"POST /_sim/rebind?appid=wx1", "", 404},
		{"GET /_sim/nothing", "", 404},
		{"GET /_sim/fault", "", 405},
	} {
		if status, body := control(t, s, test.call, test.body); status != test.status {
			t.Errorf("%s: status %d %s, want %d", test.call, status, body, test.status)
		}
	}
}

func TestReadBack(t *testing.T) {
	s, _ := newTest(t, nil)
	for person := range 10 {
		sendTo(t, s, person, "id")
	}
	sendTo(t, s, 9, "id")
	_, body := control(t, s, "GET /_sim/messages?offset=8", "")
	var got []Message
	for decoder := json.NewDecoder(strings.NewReader(body)); decoder.More(); {
		var m Message
		if err := decoder.Decode(&m); err != nil {
			t.Fatal(err)
		}
		got = append(got, m)
	}
	if diff := cmp.Diff(s.Messages(StandardAppID)[8:], got); diff != "" {
		t.Error(diff)
	}
	_, body = control(t, s, "GET /_sim/stats", "")
	stats := decodeJSON[Stats](t, body)
	if stats.Calls[pathSend] != 11 || stats.Delivered[StandardAppID] != 10 ||
		stats.Repeats[StandardAppID] != 1 || stats.Followers[StandardAppID] != 25000 {
		t.Errorf("%+v", stats)
	}
	control(t, s, "POST /_sim/reset", "")
	if stats := s.Stats(); len(stats.Calls) != 0 || stats.Delivered[StandardAppID] != 0 ||
		len(s.Messages(StandardAppID)) != 0 {
		t.Errorf("after reset: %+v", stats)
	}
}

// Everything at once; worth running with -race.
func TestConcurrency(t *testing.T) {
	s, _ := newTest(t, nil)
	url, _ := receiver(t, 0)
	s.SetCallback(StandardAppID, &Callback{URL: url, Lost: 0.95})
	token := fetchToken(t, s, StandardAppID, StandardSecret)
	var all sync.WaitGroup
	work := func(do func(i int)) {
		all.Go(func() {
			for i := range 200 {
				do(i)
			}
		})
	}
	for worker := range 4 {
		work(func(i int) {
			ask(t, s, pathSend+"?access_token="+token, sendBody(s, 1000*worker+i, fmt.Sprint(i)))
		})
		work(func(i int) {
			ask(t, s, pathBatchInfo+"?access_token="+token,
				batchBody(s.OpenID(StandardAppID, i), s.OpenID(StandardAppID, i+1)))
		})
	}
	work(func(i int) { s.Follow(StandardAppID, 70000+i) })
	work(func(i int) { s.Unfollow(StandardAppID, 20000+i) })
	work(func(int) { fetchToken(t, s, StandardAppID, StandardSecret) })
	work(func(int) { s.Stats(); s.Messages(StandardAppID) })
	work(func(i int) {
		s.SetQuirks(StandardAppID, Quirks{TotalJitter: i})
		s.SetFault(Fault{Kind: FaultSlow, Delay: time.Microsecond, Next: 1})
	})
	all.Go(func() {
		for range 5 {
			ask(t, s, pathUserGet+"?access_token="+token, "")
		}
	})
	all.Wait()
	if delivered, _ := s.Delivered(StandardAppID); delivered != 800 ||
		s.FollowerCount(StandardAppID) != 25000 {
		t.Errorf("%d delivered, %d followers", delivered, s.FollowerCount(StandardAppID))
	}
	ids := make(map[int64]bool)
	for _, m := range s.Messages(StandardAppID) {
		ids[m.MsgID] = true
	}
	if len(ids) != 800 {
		t.Errorf("%d msgids for 800 messages", len(ids))
	}
}

func mustJSON(t testing.TB, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
