package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// native is a message of /v1 that asks for the right order of the pages.
func native(recipient, key, more string) string {
	return `{"recipient":{` + recipient + `},"template":"progress","data":{"thing1":"好了"},"key":"` + key + `"` + more + `}`
}

// TestNativeDoorIsPrivate: what an application may not see is to it as if it did not exist.
func TestNativeDoorIsPrivate(t *testing.T) {
	t.Parallel()
	w := newDoorWorld(t)
	const oa, mini = wechatsim.StandardAppID, wechatsim.StandardMiniAppID
	users := w.sim.MiniUsers(mini, 0, miniUsers)
	at := -1 // of somebody who follows
	for i, u := range users {
		if w.sim.IsFollower(oa, u.Person) {
			at = i
		}
	}
	person := users[at]
	official := w.sim.OpenID(oa, person.Person)
	body := native(`"mini_openid":"`+person.OpenID+`"`, "k", `,"due_at":"2037-01-01T00:00:00Z"`)
	status, own := w.call(t, "POST", "/v1/messages", body)
	if status != http.StatusCreated {
		t.Fatalf("%d %v", status, own)
	}
	path := fmt.Sprintf("/v1/messages/%.0f", own["id"])
	_, absent := w.callAs(t, w.other, "GET", "/v1/messages/987654321", "")
	for _, call := range [][2]string{{"GET", path}, {"GET", path + "?wait=5"}, {"POST", path + "/cancel"}} {
		status, got := w.callAs(t, w.other, call[0], call[1], "")
		if diff := cmp.Diff(absent, got); status != http.StatusNotFound || diff != "" {
			t.Errorf("%s %s of another's message: %d, differs from one that does not exist: %s", call[0], call[1], status, diff)
		}
	}
	if _, got := w.call(t, "GET", path, ""); got["status"] != "pending" {
		t.Errorf("another has changed it: %v", got)
	}
	status, theirs := w.callAs(t, w.other, "POST", "/v1/messages", native(`"mini_openid":"`+person.OpenID+`"`, "k",
		`,"due_at":"2037-01-01T00:00:00Z","appid":"`+mini+`"`))
	if status != http.StatusCreated || theirs["id"] == own["id"] {
		t.Errorf("another's message with the same key: %d %v", status, theirs)
	}
	status, got := w.callAs(t, w.other, "POST", "/v1/messages", native(`"openid":"`+official+`"`, "k2", `,"appid":"`+oa+`"`))
	if status != http.StatusForbidden {
		t.Errorf("at an account without a right: %d %v", status, got)
	}

	// Whoever may look at the mini program alone learns nothing of the official account, by no id.
	if status, got := w.call(t, "POST", "/v1/login", fmt.Sprintf(`{"appid":"%s","code":"mini-%d-z"}`, mini, at)); status != http.StatusOK {
		t.Fatalf("%d %v", status, got)
	}
	ids := `{"ids":["` + person.OpenID + `","` + official + `","` + person.UnionID + `","oNobody"]}`
	seen := func(credential string) string {
		status, got := w.callAs(t, credential, "POST", "/v1/identities", ids)
		if status != http.StatusOK {
			t.Errorf("%d %v", status, got)
		}
		text, err := json.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if text := seen(w.other); strings.Contains(text, official) || strings.Contains(text, oa) || !strings.Contains(text, person.OpenID) ||
		strings.Contains(text, "oNobody") {
		t.Errorf("without the right at the official account: %s", text)
	}
	if text := seen(w.secret); strings.Count(text, `"`+official+`"`) != 4 || strings.Contains(text, "oNobody") { // as an id, and of three ids
		t.Errorf("with it: %s", text)
	}
	for credential, what := range map[string]string{"": "nobody", strings.Repeat("0", 32): "a wrong secret",
		w.secret[:31]: "a cut one", w.token(t, mini) + "x": "a changed token"} {
		if status, got := w.callAs(t, credential, "GET", path, ""); status != http.StatusUnauthorized {
			t.Errorf("%s: %d %v", what, status, got)
		}
	}
	if status, got := w.callAs(t, w.token(t, mini), "GET", path, ""); status != http.StatusOK {
		t.Errorf("with a token: %d %v", status, got)
	}
}

// TestNativeDoorRepeats: of many at once with one key, by one message or in batches, one is sent.
func TestNativeDoorRepeats(t *testing.T) {
	t.Parallel()
	w := newDoorWorld(t)
	const mini = wechatsim.StandardMiniAppID
	person := w.sim.MiniUsers(mini, 0, 1)[0]
	body := native(`"mini_openid":"`+person.OpenID+`"`, "one", `,"appid":"`+mini+`"`)
	const callers = 16
	ids := make(chan float64, 3*callers)
	var all sync.WaitGroup
	for i := range callers {
		all.Go(func() {
			if i%2 == 0 {
				_, got := w.call(t, "POST", "/v1/messages", body)
				id, _ := got["id"].(float64)
				ids <- id
				return
			}
			_, got := w.call(t, "POST", "/v1/messages", `{"messages":[`+body+`,`+body+`]}`)
			results, _ := got["results"].([]any)
			for _, r := range results {
				id, _ := r.(map[string]any)["id"].(float64)
				ids <- id
			}
		})
	}
	all.Wait()
	close(ids)
	first := 0.0
	for id := range ids {
		if first = max(first, id); id != first || id == 0 {
			t.Errorf("ids %v and %v", first, id)
		}
	}
	if _, got := w.call(t, "GET", fmt.Sprintf("/v1/messages/%.0f?wait=20", first), ""); got["status"] != "sent" {
		t.Errorf("%v", got)
	}
	var rows int
	if err := w.db.Get(&rows, `SELECT COUNT(*) FROM send_request`); err != nil || rows != 1 || len(w.sim.Messages(mini)) != 1 {
		t.Errorf("%d rows, %d messages, %v", rows, len(w.sim.Messages(mini)), err)
	}
}

// TestNativeDoorCancelRaces: a message that is withdrawn while it is sent is either cancelled, and on
// nobody's phone, or sent, and there once.
func TestNativeDoorCancelRaces(t *testing.T) {
	t.Parallel()
	w := newDoorWorld(t)
	const oa, messages = wechatsim.StandardAppID, 60
	var openid string
	for person := 0; openid == ""; person++ {
		if w.sim.IsFollower(oa, person) {
			openid = w.sim.OpenID(oa, person)
		}
	}
	said := make([]int, messages) // by the cancel
	ids := make([]float64, messages)
	var all sync.WaitGroup
	for i := range messages {
		all.Go(func() {
			_, got := w.call(t, "POST", "/v1/messages", fmt.Sprintf(`{"recipient":{"openid":"%s"},"appid":"%s","template":"%s",`+
				`"data":{"first":"a","keyword1":"number %02d","keyword2":"b","keyword3":"c","remark":"d"}}`, openid, oa, seedTemplate, i))
			ids[i], _ = got["id"].(float64)
			for range 8 * i { // a little later each: some come before the sender, some after
				w.call(t, "GET", fmt.Sprintf("/v1/messages/%.0f", ids[i]), "")
			}
			said[i], _ = w.call(t, "POST", fmt.Sprintf("/v1/messages/%.0f/cancel", ids[i]), "")
		})
	}
	all.Wait()
	count := make(map[string]int)
	for i := range messages {
		_, got := w.call(t, "GET", fmt.Sprintf("/v1/messages/%.0f?wait=20", ids[i]), "")
		word, _ := got["status"].(string)
		count[fmt.Sprint(said[i], " ", word)]++
		arrived := 0
		for _, m := range w.sim.Messages(oa) {
			if strings.Contains(string(m.Data), fmt.Sprintf("number %02d", i)) {
				arrived++
			}
		}
		if want := map[string]int{"sent": 1, "cancelled": 0}; arrived != want[word] || word != "sent" && word != "cancelled" ||
			said[i] == http.StatusOK && word != "cancelled" || said[i] == http.StatusConflict && word != "sent" {
			t.Errorf("number %02d: the cancel said %d, it is %v, and arrived %d times", i, said[i], got, arrived)
		}
	}
	if len(count) < 2 {
		t.Errorf("nothing raced: %v", count)
	}
}

// TestNativeDoorGrants: a report counts once, however often it comes.
func TestNativeDoorGrants(t *testing.T) {
	t.Parallel()
	w := newDoorWorld(t, "grants: none", "grants: reports", "[subscribe_send, login, identities]",
		"[subscribe_send, login, identities, grants]")
	w.allow(t, w.sim.MiniUsers(wechatsim.StandardMiniAppID, 0, 1)[0].OpenID)
	for body, field := range map[string]string{
		`"template":"nothing like it"`: "reports[0].template",
	} {
		status, got := w.call(t, "POST", "/v1/grants", `{"appid":"`+wechatsim.StandardMiniAppID+`","reports":[{"openid":"o1","result":"accept",`+
			`"key":"k",`+body+`}]}`)
		if status != http.StatusUnprocessableEntity || !strings.Contains(fmt.Sprint(got["errors"]), field) {
			t.Errorf("%s: %d %v", body, status, got)
		}
	}
	if status, got := w.callAs(t, w.other, "POST", "/v1/grants", `{"appid":"`+wechatsim.StandardMiniAppID+`","reports":[{"openid":"o1",`+
		`"template":"progress","result":"accept","key":"k"}]}`); status != http.StatusForbidden {
		t.Errorf("without the right: %d %v", status, got)
	}
}

// allow reports two acceptances of a person, several times.
func (w *doorWorld) allow(t *testing.T, openid string) {
	t.Helper()
	report := `{"openid":"` + openid + `","template":"progress","result":"accept","key":"%d"}`
	for range 3 {
		status, got := w.call(t, "POST", "/v1/grants", fmt.Sprintf(`{"appid":"`+wechatsim.StandardMiniAppID+`","reports":[`+report+
			`,`+report+`]}`, 1, 2))
		if status != http.StatusOK || got["stored"] != 2.0 {
			t.Fatalf("%d %v", status, got)
		}
	}
	await(t, "the count of what is allowed", func() error {
		var left, waiting int
		err := errors.Join(
			w.db.Get(&left, `SELECT COALESCE(SUM(remaining), 0) FROM subscription_grant WHERE openid = ?`, openid),
			w.db.Get(&waiting, `SELECT COUNT(*) FROM subscription_report`))
		if err == nil && (left != 2 || waiting != 0) {
			err = fmt.Errorf("%d are allowed, %d reports wait", left, waiting)
		}
		return err
	})
}

// TestAPIPage runs the commands of docs/api.md, and compares their answers with the page's. The Chinese
// page has the same.
func TestAPIPage(t *testing.T) {
	t.Parallel()
	page := readPage(t, "api.md")
	blocks := regexp.MustCompile("(?s)```(sh|json)\n(.*?)```").FindAllStringSubmatch(page, -1)
	chinese := regexp.MustCompile("(?s)```(sh|json)\n(.*?)```").FindAllStringSubmatch(readPage(t, "api.zh-CN.md"), -1)
	comments := regexp.MustCompile(`(?m) +#.*$`)
	for i := range max(len(blocks), len(chinese)) {
		if i >= len(blocks) || i >= len(chinese) ||
			comments.ReplaceAllString(blocks[i][2], "") != comments.ReplaceAllString(chinese[i][2], "") {
			t.Fatalf("the pages differ from block %d on", i+1)
		}
	}
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl on this machine: the commands of docs/api.md are not run")
	}
	w := newDoorWorld(t, "grants: none", "grants: reports", "[subscribe_send, login, identities]",
		"[subscribe_send, login, identities, grants]")
	const oa, mini = wechatsim.StandardAppID, wechatsim.StandardMiniAppID
	users := w.sim.MiniUsers(mini, 0, miniUsers)
	at := 0 // of somebody who does not follow
	for w.sim.IsFollower(oa, users[at].Person) {
		at++
	}
	person := users[at]
	if status, got := w.call(t, "POST", "/v1/login", fmt.Sprintf(`{"appid":"%s","code":"mini-%d-a"}`, mini, at)); status != http.StatusOK {
		t.Fatalf("%d %v", status, got)
	}
	w.allow(t, person.OpenID)
	here := strings.NewReplacer("oUser-1", person.OpenID, "oUnion-1", person.UnionID, "wx0b00000000000001", mini,
		"order_paid", "progress", "0a1b2c3d", fmt.Sprintf("mini-%d-b", at))
	answered, ids := 0, pageIDs{}
	for i, block := range blocks {
		if block[1] != "sh" || strings.HasPrefix(block[2], "export ") {
			continue
		}
		command := exec.CommandContext(t.Context(), "sh", "-ec", ids.in(here.Replace(block[2])))
		command.Env = append(os.Environ(), "DOOR="+w.url, "SECRET="+w.secret)
		out, err := command.Output()
		if err != nil || i+1 == len(blocks) || blocks[i+1][1] != "json" {
			t.Fatalf("%v: %s\n%s", err, block[2], out)
		}
		ids.learn(blocks[i+1][2], string(out))
		want, got := plain(t, ids.in(here.Replace(blocks[i+1][2]))), plain(t, string(out))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s\n(-page +answer):\n%s", block[2], diff)
		}
		answered++
	}
	if answered < 7 {
		t.Errorf("%d commands were run", answered)
	}
}

// pageIDs are what the ids of the page are here: servers leave some out.
type pageIDs map[string]string

var (
	idInAnswer = regexp.MustCompile(`("id": ?)(\d+)`)
	idInPath   = regexp.MustCompile(`(/messages/)(\d+)`)
)

// learn takes the ids of an answer in the order of the page's.
func (ids pageIDs) learn(page, answer string) {
	got := idInAnswer.FindAllStringSubmatch(answer, -1)
	for i, on := range idInAnswer.FindAllStringSubmatch(page, -1) {
		if i < len(got) && ids[on[2]] == "" {
			ids[on[2]] = got[i][2]
		}
	}
}

func (ids pageIDs) of(page string) string {
	if here, known := ids[page]; known {
		return here
	}
	return page
}

func (ids pageIDs) in(text string) string {
	for _, pattern := range []*regexp.Regexp{idInAnswer, idInPath} {
		text = pattern.ReplaceAllStringFunc(text, func(found string) string {
			parts := pattern.FindStringSubmatch(found)
			return parts[1] + ids.of(parts[2])
		})
	}
	return text
}

// plain is JSON without what differs each time.
func plain(t *testing.T, text string) (v any) {
	t.Helper()
	text = regexp.MustCompile(`"20\d\d-[-\d:.T]+Z"`).ReplaceAllString(text, `"a moment"`)
	text = regexp.MustCompile(`("(?:session_key|msgid)": ?)"[^"]+"`).ReplaceAllString(text, `$1"any"`)
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return v
}

// TestReportKey: each application's keys are its own, and fit the column.
func TestReportKey(t *testing.T) {
	long := strings.Repeat("k", 128)
	keys := map[string]bool{}
	for _, application := range []string{"shop", "till", strings.Repeat("a", 64)} {
		for _, key := range []string{"1", long, long[1:] + "x"} {
			got := reportKey(application, key)
			if len(got) > 128 || keys[got] || got != reportKey(application, key) {
				t.Errorf("%s of %s is %q", key, application, got)
			}
			keys[got] = true
		}
	}
}
