package api

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/intake"
)

// TestMessage: every field arrives as it was sent.
func TestMessage(t *testing.T) {
	fk := new(fake)
	f := newAPI(t, fk)
	got := f.post(t, "/v1/messages", `{"recipient":{"mini_appid":"wxM","mini_openid":"oM"},
		"template":"order_paid","data":{"thing1": {"value": "茶"}},"appid":"wxA","url":"https://example.com/",
		"mini_path":"p?a=1","jump_appid":"wxJ","page":"pages/x","lang":"zh_CN","mini_state":"trial",
		"route":"mini,official","priority":0,"due_at":"2026-12-01T08:00:00+08:00",
		"expires_at":"2026-12-02T00:00:00Z","key":"k"}`)
	if got.status != http.StatusCreated || got.header.Get("Location") != "/v1/messages/1" ||
		string(got.body) != `{"id":1,"repeated":false}` {
		t.Fatalf("%d %s %s", got.status, got.header, got.body)
	}
	m := fk.messages[0]
	due := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	if m.Priority == nil || *m.Priority != 0 || !m.DueAt.Equal(due) || !m.ExpiresAt.Equal(due.AddDate(0, 0, 1)) {
		t.Errorf("priority and moments: %+v", m)
	}
	m.Priority, m.DueAt, m.ExpiresAt = nil, time.Time{}, time.Time{}
	want := intake.Message{AppID: "wxA", Recipient: intake.Recipient{MiniAppID: "wxM", MiniOpenID: "oM"},
		Template: "order_paid", Data: json.RawMessage(`{"thing1": {"value": "茶"}}`),
		URL: "https://example.com/", MiniPath: "p?a=1", JumpAppID: "wxJ", Key: "k", Options: intake.Options{
			Route: "mini,official", Page: "pages/x", Lang: "zh_CN", MiniState: "trial"}}
	if fmt.Sprintf("%+v", m) != fmt.Sprintf("%+v", want) {
		t.Errorf("\n%+v, want\n%+v", m, want)
	}
}

// TestKeys: a message's own key counts, else that of the header, in a batch with the place.
func TestKeys(t *testing.T) {
	fk := new(fake)
	f := newAPI(t, fk)
	own := strings.Replace(order, `"data"`, `"key":"own","data"`, 1)
	for _, body := range []string{order, own, `{"messages":[` + order + `,` + own + `,` + order + `]}`} {
		req := f.request(t, http.MethodPost, "/v1/messages", strings.NewReader(body))
		req.Header.Set("Idempotency-Key", "h")
		if got := f.do(t, req); got.status >= 300 {
			t.Fatalf("%d %s", got.status, got.body)
		}
	}
	var keys []string
	for _, m := range fk.messages {
		keys = append(keys, m.Key)
	}
	if want := []string{"h", "own", "h/0", "own", "h/2"}; !slices.Equal(keys, want) {
		t.Errorf("%q, want %q", keys, want)
	}
	for name, values := range map[string][]string{"twice": {"a", "b"}, "long": {strings.Repeat("k", 201)}} {
		req := f.request(t, http.MethodPost, "/v1/messages", strings.NewReader(order))
		req.Header["Idempotency-Key"] = values
		if got := f.do(t, req); got.status != 422 || got.field() != "Idempotency-Key" {
			t.Errorf("a key %s: %d %s", name, got.status, got.body)
		}
	}
	if n := len(fk.messages); n != 5 {
		t.Errorf("%d messages, want 5", n)
	}
}

// TestBatch: each message has its own answer, whose fields say which one it is.
func TestBatch(t *testing.T) {
	fk := new(fake)
	fk.accept = func(m intake.Message) intake.Result {
		switch m.Template {
		case "gone":
			return intake.Result{Err: &intake.Rejection{Code: 40037, Field: "template", Message: "no"}}
		case "again":
			return intake.Result{ID: 77, Repeated: true}
		case "forbidden":
			return intake.Result{Err: &applications.Refusal{Reason: applications.ReasonForbidden, Code: 48001}}
		case "much":
			return intake.Result{Err: &applications.Refusal{Reason: applications.ReasonMinute, Code: 45011}}
		case "away":
			return intake.Result{Err: intake.ErrUnavailable}
		case "lost":
			return intake.Result{Err: intake.ErrUnknown}
		}
		return intake.Result{}
	}
	f := newAPI(t, fk)
	of := func(templates ...string) string {
		var list []string
		for _, name := range templates {
			list = append(list, strings.Replace(order, "order_paid", name, 1))
		}
		return strings.Join(list, ",")
	}
	got := f.post(t, "/v1/messages", `{"messages":[`+of("order_paid", "gone", "again", "forbidden", "much",
		"away", "lost")+`,{"template":5},{"recipient":{"x":1}},null,{"due_at":"tomorrow"}]}`)
	var answers struct{ Results []result }
	got.decode(t, &answers)
	var short []string
	for _, r := range answers.Results {
		text := fmt.Sprint(r.ID, r.Repeated)
		if p := r.Error; p != nil {
			text = fmt.Sprint(p.Status, " ", strings.TrimPrefix(p.Type, "urn:unionbridge:problem:"))
			for _, e := range p.Errors {
				text += " " + e.Field
			}
		}
		short = append(short, text)
	}
	want := []string{"1 false", "422 invalid messages[1].template", "77 true", "403 forbidden", "429 limit",
		"503 unavailable", "503 unknown", "400 invalid messages[7].template",
		"400 invalid messages[8].recipient.x", "400 invalid messages[9]", "422 invalid messages[10].due_at"}
	if got.status != 200 || !slices.Equal(short, want) {
		t.Errorf("%d\n%q, want\n%q", got.status, short, want)
	}
	if len(fk.messages) != 1 {
		t.Errorf("%d messages were accepted", len(fk.messages))
	}

	for body, kind := range map[string]string{of("away", "away"): typeUnavailable,
		of("away", "lost", "away"): typeUnknown} {
		got := f.post(t, "/v1/messages", `{"messages":[`+body+`]}`)
		if got.status != 503 || got.problem().Type != kind || got.header.Get("Retry-After") == "" {
			t.Errorf("of nothing accepted: %d %s", got.status, got.body)
		}
	}
	for n, status := range map[int]int{0: 422, 1: 200, 500: 200, 501: 422} {
		list := strings.TrimPrefix(strings.Repeat(","+order, n), ",")
		if got := f.post(t, "/v1/messages", `{"messages":[`+list+`]}`); got.status != status {
			t.Errorf("%d messages: %d, want %d", n, got.status, status)
		}
	}
}

// TestBodies: what cannot be read is refused with the field's name, and quoted nowhere.
func TestBodies(t *testing.T) {
	fk := new(fake)
	f := newAPI(t, fk)
	edit := func(from, to string) string { return strings.Replace(order, from, to, 1) }
	const wide = "SECRET WORDS"
	for name, test := range map[string]struct {
		body, field string
		status      int
	}{
		"nothing":              {"", "", 400},
		"null":                 {"null", "", 400},
		"a list":               {"[]", "", 400},
		"a text":               {`"` + wide + `"`, "", 400},
		"cut":                  {order[:30], "", 400},
		"two":                  {order + order, "", 400},
		"not UTF-8":            {edit("oPerson", "\xff"), "", 400},
		"deep":                 {strings.Repeat("[", 20000), "", 400},
		"an unknown field":     {edit(`"data"`, `"tempalte":"`+wide+`","data"`), "tempalte", 400},
		"another case":         {edit(`"template"`, `"Template"`), "Template", 400},
		"twice":                {edit(`"data"`, `"template":"x","data"`), "template", 400},
		"twice, escaped":       {edit(`"data"`, `"t\u0065mplate":"x","data"`), "template", 400},
		"a number":             {edit(`"order_paid"`, `5`), "template", 400},
		"a text for a number":  {edit(`"data"`, `"priority":"1","data"`), "priority", 400},
		"a fraction":           {edit(`"data"`, `"priority":1.5,"data"`), "priority", 400},
		"a recipient as text":  {edit(`{"openid":"oPerson"}`, `"oPerson"`), "recipient", 400},
		"in the recipient":     {edit(`"oPerson"`, `7`), "recipient.openid", 400},
		"twice in it":          {edit(`"oPerson"`, `"a","openid":"b"`), "recipient.openid", 400},
		"unknown in it":        {edit(`"oPerson"`, `"a","unionId":"b"`), "recipient.unionId", 400},
		"a long unknown field": {edit(`"data"`, `"`+strings.Repeat("x", 65)+`":1,"data"`), "", 400},
		"messages as object":   {`{"messages":{}}`, "messages", 400},
		"messages and more":    {`{"messages":[` + order + `],"template":"x"}`, "template", 400},
		"a moment":             {edit(`"data"`, `"due_at":"2026-12-01","data"`), "due_at", 422},
		"a moment as number":   {edit(`"data"`, `"expires_at":1790000000,"data"`), "expires_at", 400},
		"above 1 MiB":          {edit("茶", strings.Repeat("x", 1<<20)), "", 413},
	} {
		got := f.post(t, "/v1/messages", test.body)
		if got.status != test.status || got.field() != test.field || got.problem().Detail == "" {
			t.Errorf("%s: %d %s, want %d about %q", name, got.status, got.body, test.status, test.field)
		}
		if strings.Contains(string(got.body), wide) || strings.Contains(f.log.String(), wide) {
			t.Errorf("%s: the error quotes the body", name)
		}
	}
	if len(fk.messages) > 0 {
		t.Errorf("accepted: %+v", fk.messages)
	}
	for name, body := range map[string]string{
		"a BOM":             "\ufeff" + order,
		"blanks":            " \r\n" + order + "\n",
		"brackets in texts": edit("茶", `{[\"\\`),
		"names in data":     edit(`"thing1"`, `"template":"x","template"`),
		"a list in data":    edit(`"茶"`, `["a","b",{"c":1}]`),
	} {
		if got := f.post(t, "/v1/messages", body); got.status != 201 {
			t.Errorf("%s: %d %s", name, got.status, got.body)
		}
	}
	for _, kind := range []string{"application/json; charset=utf-8", "", "application/x-www-form-urlencoded", ";"} {
		req := f.request(t, http.MethodPost, "/v1/messages", strings.NewReader(order))
		req.Header.Set("Content-Type", kind)
		if got := f.do(t, req); got.status != 201 {
			t.Errorf("Content-Type %q: %d", kind, got.status)
		}
	}
	if got := f.do(t, f.request(t, http.MethodPost, "/v1/messages", io.MultiReader(strings.NewReader(order)))); got.status != 201 {
		t.Errorf("in chunks: %d %s", got.status, got.body)
	}
}

// TestIdentities: the accounts are those at which the application has the right, and no other.
func TestIdentities(t *testing.T) {
	fk := new(fake)
	var asked []string
	fk.people = func(appids, ids []string) ([]Person, error) {
		asked = append(slices.Clone(appids), ids...)
		return []Person{{ID: ids[0], UnionID: "u", Accounts: []Account{
			{AppID: official, OpenID: "o", Kind: "official", Subscribed: true}}}}, nil
	}
	f := newAPI(t, fk)
	got := f.post(t, "/v1/identities", `{"ids":["oPerson","u-_9"]}`)
	if got.status != 200 || string(got.body) != `{"people":[{"id":"oPerson","unionid":"u","accounts":[{"appid":"`+
		official+`","openid":"o","kind":"official","subscribed":true}]}]}` {
		t.Errorf("%d %s", got.status, got.body)
	}
	if want := []string{official, "oPerson", "u-_9"}; !slices.Equal(asked, want) {
		t.Errorf("asked for %q, want %q", asked, want)
	}
	fk.people = nil
	if got := f.post(t, "/v1/identities", `{"ids":["nobody"]}`); string(got.body) != `{"people":[]}` {
		t.Errorf("nobody: %s", got.body)
	}
	many := strings.TrimPrefix(strings.Repeat(`,"o"`, maxIdentities+1), ",")
	for body, field := range map[string]string{`{}`: "ids", `{"ids":[]}`: "ids", `{"ids":[` + many + `]}`: "ids",
		`{"ids":["a",""]}`: "ids[1]", `{"ids":["a b"]}`: "ids[0]", `{"ids":["é"]}`: "ids[0]",
		`{"ids":["` + strings.Repeat("x", 65) + `"]}`: "ids[0]", `{"ids":["%"]}`: "ids[0]"} {
		if got := f.post(t, "/v1/identities", body); got.status != 422 || got.field() != field {
			t.Errorf("%s: %d %s, want 422 about %s", body, got.status, got.body, field)
		}
	}
	fk.bearer = func(string) (applications.Session, error) {
		return applications.Session{Application: &applications.Application{Name: "other",
			Accounts: map[string][]applications.Call{official: {applications.TemplateSend}}}}, nil
	}
	fk.allow = &applications.Refusal{Reason: applications.ReasonForbidden, Code: 48001, Message: "no"}
	asked = nil
	if got := f.post(t, "/v1/identities", `{"ids":["oPerson"]}`); got.status != 403 || asked != nil {
		t.Errorf("without the right: %d, asked %q", got.status, asked)
	}
}

// TestGrants: reports are stored as they came, all or none.
func TestGrants(t *testing.T) {
	fk := new(fake)
	f := newAPI(t, fk)
	report := `{"openid":"oUser","template":"order_paid","result":"accept","key":"7","accepted_at":"` +
		time.Now().UTC().Format(time.RFC3339) + `"}`
	body := func(reports string) string { return `{"appid":"` + mini + `","reports":[` + reports + `]}` }
	got := f.post(t, "/v1/grants", body(report+`,{"openid":"oUser","template":"t","result":"reject","key":"8"}`))
	if got.status != 200 || string(got.body) != `{"stored":2}` || len(fk.reports) != 2 {
		t.Fatalf("%d %s: %+v", got.status, got.body, fk.reports)
	}
	if r := fk.reports[0]; r.OpenID != "oUser" || r.Template != "order_paid" || r.Result != "accept" ||
		r.Key != "7" || r.AcceptedAt.IsZero() || !fk.reports[1].AcceptedAt.IsZero() {
		t.Errorf("%+v", fk.reports)
	}
	edit := func(from, to string) string { return body(report + "," + strings.Replace(report, from, to, 1)) }
	for name, test := range map[string]struct {
		body, field string
		status      int
	}{
		"no reports": {body(""), "reports", 422},
		"too many":   {body(strings.TrimPrefix(strings.Repeat(","+report, maxReports+1), ",")), "reports", 422},
		"no openid":  {edit("oUser", ""), "reports[1].openid", 422},
		"a template": {edit("order_paid", strings.Repeat("x", 129)), "reports[1].template", 422},
		"no result":  {edit("accept", ""), "reports[1].result", 422},
		"a result":   {edit("accept", "接受"), "reports[1].result", 422},
		"no key":     {edit(`"7"`, `""`), "reports[1].key", 422},
		"the future": {edit(`2`, `3`), "reports[1].accepted_at", 422},
		"the past":   {edit(`2`, `1`), "reports[1].accepted_at", 422},
		"no moment":  {edit(`T`, ` `), "reports[1].accepted_at", 422},
		"a field":    {edit(`"key"`, `"keys"`), "reports[1].keys", 400},
		"no appid":   {`{"reports":[` + report + `]}`, "appid", 422},
	} {
		if got := f.post(t, "/v1/grants", test.body); got.status != test.status || got.field() != test.field {
			t.Errorf("%s: %d %s, want %d about %s", name, got.status, got.body, test.status, test.field)
		}
	}
	if len(fk.reports) != 2 {
		t.Errorf("%d reports were stored, want 2", len(fk.reports))
	}
	req := f.request(t, http.MethodPost, "/v1/grants", strings.NewReader(`{"reports":[`+report+`]}`))
	req.Header.Set("Authorization", "Bearer "+token) // it is of an account
	if got := f.do(t, req); got.status != 200 {
		t.Errorf("with a token: %d %s", got.status, got.body)
	}
}

// TestLogin: the answer has what the exchange gave, and an error that is not WeChat's asks for a new
// code.
func TestLogin(t *testing.T) {
	fk := new(fake)
	f := newAPI(t, fk)
	body := `{"appid":"` + mini + `","code":"` + loginCode + `"}`
	got := f.post(t, "/v1/login", body)
	if want := `{"openid":"oUser","unionid":"oUnion","session_key":"` + sessionKey + `"}`; got.status != 200 ||
		string(got.body) != want {
		t.Errorf("%d %s", got.status, got.body)
	}
	for err, status := range map[error]int{
		intake.ErrUnavailable: 503, intake.ErrUnknown: 503, io.ErrUnexpectedEOF: 503,
		&intake.Rejection{Code: 40029, Field: "code", Message: "invalid code"}: 422,
		&intake.Rejection{Code: 45011, Field: "code", Message: "api minute"}:   429,
	} {
		fk.login = func(string, string) (Login, error) { return Login{SessionKey: sessionKey}, err }
		got := f.post(t, "/v1/login", body)
		if got.status != status || strings.Contains(string(got.body), sessionKey) {
			t.Errorf("%v: %d %s", err, got.status, got.body)
		}
		if status == 503 && (got.problem().Type != typeUnknown || !strings.Contains(got.problem().Detail, "wx.login")) {
			t.Errorf("%v: %s does not say what to do", err, got.body)
		}
	}
	for body, field := range map[string]string{`{"code":"x"}`: "appid", `{"appid":"a b","code":"x"}`: "appid",
		`{"appid":"wx1"}`: "code", `{"appid":"wx1","code":"` + strings.Repeat("x", 257) + `"}`: "code"} {
		if got := f.post(t, "/v1/login", body); got.status != 422 || got.field() != field {
			t.Errorf("%s: %d %s", body, got.status, got.body)
		}
	}
}

// TestStatus: an answer has what the row says, a msgid as text, and moments in UTC.
func TestStatus(t *testing.T) {
	fk := new(fake)
	at := time.Date(2026, 12, 1, 8, 0, 0, 0, time.FixedZone("", 8*3600))
	fk.statuses = func(ids []int64) ([]intake.Status, error) {
		return []intake.Status{{ID: ids[0], Status: "sent", Attempts: 2, AppID: official, Channel: "oa_template",
			MsgID: 1<<53 + 1, Receipt: "success", CreatedAt: at, DueAt: at, FinishedAt: at, ReceiptAt: at,
			Warning: "w", FallbackFrom: mini, FallbackReason: "no_grant"}}, nil
	}
	f := newAPI(t, fk)
	got := f.get(t, "/v1/messages/9007199254740993")
	const z = `"2026-12-01T00:00:00Z"`
	want := `{"id":9007199254740993,"status":"sent","final":true,"warning":"w","attempts":2,"appid":"` +
		official + `","channel":"oa_template","msgid":"9007199254740993","receipt":"success","created_at":` + z +
		`,"due_at":` + z + `,"finished_at":` + z + `,"receipt_at":` + z + `,"fallback_from":"` + mini +
		`","fallback_reason":"no_grant"}`
	if got.status != 200 || string(got.body) != want {
		t.Errorf("%d\n%s, want\n%s", got.status, got.body, want)
	}
	for path, status := range map[string]int{"/v1/messages/0": 404, "/v1/messages/-1": 404,
		"/v1/messages/01": 404, "/v1/messages/+1": 404, "/v1/messages/x": 404, "/v1/messages/": 404,
		"/v1/messages/9223372036854775808": 404, "/v1/messages/1/": 404, "/v1/messages/1/x": 404,
		"/v1/messages/1?wait=0": 200, "/v1/messages/1?wait=31": 422, "/v1/messages/1?wait=": 422,
		"/v1/messages/1?wait=-1": 422, "/v1/messages/1?wait=1.5": 422, "/v1/messages/1?wait=1&wait=2": 422,
		"/v1/messages/1?wait=30": 200} {
		if got := f.get(t, path); got.status != status {
			t.Errorf("%s: %d, want %d: %s", path, got.status, status, got.body)
		}
	}
}

// TestMetrics: requests are counted by the document's paths, never by what callers write.
func TestMetrics(t *testing.T) {
	f := newAPI(t, new(fake))
	f.post(t, "/v1/messages", order)
	f.get(t, "/v1/messages/1?wait=0")
	f.get(t, "/v1/messages/2")
	f.get(t, "/v1/nothing")
	f.do(t, f.request(t, "BREW", "/v1/messages", nil))
	families, err := f.reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, family := range families {
		if family.GetName() != "unionbridge_api_requests_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			got = append(got, fmt.Sprint(strings.Join(labels, " "), " ", m.GetCounter().GetValue()))
		}
	}
	want := []string{"GET /v1/messages/{id} 200 1", "GET /v1/messages/{id} 404 1", "GET other 404 1",
		"POST /v1/messages 201 1", "other /v1/messages 405 1"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
