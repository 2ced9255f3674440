package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/intake"
)

// contract is openapi.json, whose schemas are JSON Schema 2020-12, as OpenAPI 3.1 has it.
type contract struct {
	paths    map[string]map[string]json.RawMessage // by path and lower-case method
	schemas  map[string]schema
	compiler *jsonschema.Compiler
	compiled map[string]*jsonschema.Schema
	seen     map[string]bool // "METHOD path status"
}

type schema struct {
	Properties map[string]json.RawMessage `json:"properties"`
	Required   []string                   `json:"required"`
}

// described is an operation of the document.
type described struct {
	RequestBody *struct{ Content map[string]json.RawMessage } `json:"requestBody"`
	Responses   map[string]struct {
		Content map[string]json.RawMessage
		Headers map[string]json.RawMessage
	} `json:"responses"`
	Security *[]any `json:"security"`
}

const documentURL = "file:///openapi.json"

func newContract(t testing.TB) *contract {
	t.Helper()
	var doc struct {
		OpenAPI    string                                `json:"openapi"`
		Paths      map[string]map[string]json.RawMessage `json:"paths"`
		Components struct {
			Schemas map[string]schema `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(openapi, &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1.") {
		t.Fatalf("openapi.json is of OpenAPI %q", doc.OpenAPI)
	}
	tree, err := jsonschema.UnmarshalJSON(bytes.NewReader(openapi))
	if err != nil {
		t.Fatal(err)
	}
	c := &contract{paths: doc.Paths, schemas: doc.Components.Schemas, compiler: jsonschema.NewCompiler(),
		compiled: make(map[string]*jsonschema.Schema), seen: make(map[string]bool)}
	c.compiler.AssertFormat()
	if err := c.compiler.AddResource(documentURL, tree); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *contract) operation(t testing.TB, method, pattern string) (d described) {
	t.Helper()
	text, ok := c.paths[pattern][strings.ToLower(method)]
	if !ok {
		t.Fatalf("openapi.json has no %s %s", method, pattern)
	}
	if err := json.Unmarshal(text, &d); err != nil {
		t.Fatal(err)
	}
	return d
}

// validate holds JSON against the schema that stands at keys of the document.
func (c *contract) validate(t testing.TB, body []byte, keys ...string) error {
	t.Helper()
	escape := strings.NewReplacer("~", "~0", "/", "~1", "{", "%7B", "}", "%7D", "+", "%2B")
	pointer := documentURL + "#"
	for _, key := range keys {
		pointer += "/" + escape.Replace(key)
	}
	s, ok := c.compiled[pointer]
	if !ok {
		var err error
		if s, err = c.compiler.Compile(pointer); err != nil {
			t.Fatal(err)
		}
		c.compiled[pointer] = s
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return err
	}
	return s.Validate(value)
}

// pattern is the path of the document that a request's path belongs to; "": none.
func (c *contract) pattern(path string) string {
	for pattern := range c.paths {
		if regexp.MustCompile("^" + strings.ReplaceAll(pattern, "{id}", "[1-9][0-9]*") + "$").MatchString(path) {
			return pattern
		}
	}
	return ""
}

// check holds an answer against the document: its status, type, headers and body.
func (c *contract) check(t *testing.T, method, path string, got reply) {
	t.Helper()
	pattern := c.pattern(path)
	_, known := c.paths[pattern][strings.ToLower(method)]
	if !known { // 404 and 405 of no operation
		if err := c.validate(t, got.body, "components", "schemas", "Problem"); err != nil {
			t.Errorf("%s %s: %v", method, path, err)
		}
		return
	}
	status := strconv.Itoa(got.status)
	response, ok := c.operation(t, method, pattern).Responses[status]
	if !ok {
		t.Errorf("%s %s: %s is not in openapi.json: %s", method, path, status, got.body)
		return
	}
	c.seen[method+" "+pattern+" "+status] = true
	kind := got.header.Get("Content-Type")
	if _, ok := response.Content[kind]; !ok {
		t.Errorf("%s %s: %s has Content-Type %q", method, path, status, kind)
		return
	}
	err := c.validate(t, got.body, "paths", pattern, strings.ToLower(method), "responses", status,
		"content", kind, "schema")
	if err != nil {
		t.Errorf("%s %s: %s %s: %v", method, path, status, got.body, err)
	}
	for _, name := range []string{"Location", "Retry-After", "WWW-Authenticate"} {
		if _, ok := response.Headers[name]; !ok && got.header.Get(name) != "" {
			t.Errorf("%s %s: %s has the header %s, which openapi.json does not name", method, path, status, name)
		}
	}
	if p := got.problem(); kind == "application/problem+json" && p.Status != got.status {
		t.Errorf("%s %s: %s says status %d", method, path, status, p.Status)
	}
}

// TestOpenAPIFields: the document and the structs have the same fields.
func TestOpenAPIFields(t *testing.T) {
	c := newContract(t)
	for name, v := range map[string]any{
		"Message": message{}, "Recipient": recipient{}, "Accepted": accepted{}, "Result": result{},
		"Status": status{}, "Problem": problem{}, "Person": Person{}, "Account": Account{},
	} {
		var fields []string
		for f := range fieldsOf(reflect.TypeOf(v)) {
			fields = append(fields, f)
		}
		slices.Sort(fields)
		if got := slices.Sorted(maps.Keys(c.schemas[name].Properties)); !slices.Equal(got, fields) {
			t.Errorf("%s is %q in openapi.json, and %q in the code", name, got, fields)
		}
	}
}

func fieldsOf(t reflect.Type) map[string]bool {
	fields := make(map[string]bool)
	for f := range t.Fields() {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			fields[name] = true
		}
	}
	return fields
}

// TestOpenAPIPaths: the document and the code have the same paths with the same methods, and ask for
// credentials at the same ones.
func TestOpenAPIPaths(t *testing.T) {
	c := newContract(t)
	f := newAPI(t, new(fake))
	for pattern, item := range c.paths {
		op, _, known := f.api.find(strings.ReplaceAll(pattern, "{id}", "7"))
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"} {
			_, documented := item[strings.ToLower(method)]
			if served := known && op.method == method; documented != served {
				t.Errorf("%s %s: documented %t, served %t", method, pattern, documented, served)
			}
			if !documented {
				continue
			}
			d := c.operation(t, method, pattern)
			if open := d.Security != nil && len(*d.Security) == 0; op.path != pattern || op.open != open {
				t.Errorf("%s %s: %+v, open in openapi.json: %t", method, pattern, op, open)
			}
			if (d.RequestBody != nil) != (op.most > 0) {
				t.Errorf("%s %s: the body is documented otherwise than it is read", method, pattern)
			}
		}
	}
	for pattern := range operations() {
		if c.paths[pattern] == nil {
			t.Errorf("openapi.json lacks %s", pattern)
		}
	}
	got := f.do(t, func() *http.Request {
		req := f.request(t, http.MethodGet, "/v1/openapi.json", nil)
		req.Header.Del("Authorization")
		return req
	}())
	if got.status != http.StatusOK || !bytes.Equal(got.body, openapi) {
		t.Errorf("GET /v1/openapi.json: %d with %d bytes", got.status, len(got.body))
	}
}

// TestOpenAPIStatuses goes every way to every status, and finds that the document names those and no
// other. do holds each answer against it.
func TestOpenAPIStatuses(t *testing.T) {
	fk := new(fake)
	f := newAPI(t, fk)
	failures := []struct {
		status int
		err    error
	}{
		{403, &applications.Refusal{Reason: applications.ReasonForbidden, Code: 48001, Message: "no"}},
		{429, &applications.Refusal{Reason: applications.ReasonDay, Code: 45009, Message: "no"}},
		{422, &intake.Rejection{Code: 40003, Field: "recipient", Message: "no"}},
		{503, intake.ErrUnavailable},
		{503, intake.ErrUnknown},
		{503, errors.New("the disk is full")},
	}
	calls := map[string]struct {
		method, path, body string
		fail               func(err error)
		answers            []int // of what fail can make of it
	}{
		"messages": {"POST", "/v1/messages", order, func(err error) {
			fk.accept = func(intake.Message) intake.Result { return intake.Result{Err: err} }
		}, []int{403, 422, 429, 503}},
		"identities": {"POST", "/v1/identities", `{"ids":["oPerson"]}`, func(err error) {
			fk.people = func([]string, []string) ([]Person, error) { return nil, err }
		}, []int{403, 422, 429, 503}},
		"login": {"POST", "/v1/login", `{"appid":"` + mini + `","code":"x"}`, func(err error) {
			fk.login = func(string, string) (Login, error) { return Login{}, err }
		}, []int{403, 422, 429, 503}},
		"grants": {"POST", "/v1/grants", `{"appid":"` + mini + `","reports":[{"openid":"oPerson",` +
			`"template":"order_paid","result":"accept","key":"1"}]}`,
			func(err error) { fk.report = err }, []int{403, 422, 429, 503}},
		"get": {"GET", "/v1/messages/1", "", func(err error) {
			fk.statuses = func([]int64) ([]intake.Status, error) { return nil, err }
		}, []int{403, 429, 503}},
		"cancel": {"POST", "/v1/messages/1/cancel", "", func(err error) {
			fk.cancel = func(int64) (intake.Status, error) { return intake.Status{ID: 1, Status: "cancelled"}, err }
		}, []int{403, 429, 503}},
	}
	send := func(name string, status int, change func(*http.Request)) {
		t.Helper()
		c := calls[name]
		req := f.request(t, c.method, c.path, strings.NewReader(c.body))
		if change != nil {
			change(req)
		}
		if got := f.do(t, req); got.status != status {
			t.Errorf("%s: %d, want %d: %s", name, got.status, status, got.body)
		}
	}
	send("messages", 201, nil)
	fk.accept = func(intake.Message) intake.Result { return intake.Result{ID: 1, Repeated: true} }
	send("messages", 200, nil)
	for _, name := range []string{"identities", "login", "grants", "get", "cancel"} {
		send(name, 200, nil)
	}
	f.get(t, "/v1/openapi.json")
	for name, c := range calls {
		for _, failure := range failures {
			if slices.Contains(c.answers, failure.status) {
				c.fail(failure.err)
				send(name, failure.status, nil)
			}
		}
		send(name, 401, func(r *http.Request) { r.Header.Del("Authorization") })
		if c.body == "" {
			continue
		}
		for status, change := range map[int]func(*http.Request){
			400: func(r *http.Request) { setBody(r, `{"no":`) },
			413: func(r *http.Request) { setBody(r, `{"x":"`+strings.Repeat("x", maxBatchBody)+`"}`) },
			415: func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") },
		} {
			send(name, status, change)
		}
	}
	if got := f.get(t, "/v1/messages/1?wait=x"); got.status != 422 || got.field() != "wait" {
		t.Errorf("a wrong wait: %d %s", got.status, got.body)
	}
	fk.statuses = nil
	if got := f.get(t, "/v1/messages/99"); got.status != 404 {
		t.Errorf("no message: %d", got.status)
	}
	for word, status := range map[string]int{"pending": 202, "sent": 409} {
		fk.cancel = func(id int64) (intake.Status, error) { return intake.Status{ID: id, Status: word}, nil }
		send("cancel", status, nil)
	}
	fk.cancel = func(int64) (intake.Status, error) { return intake.Status{}, intake.ErrNotFound }
	send("cancel", 404, nil)

	for pattern, item := range f.doc.paths {
		for method := range item {
			if method == "parameters" {
				continue
			}
			for status := range f.doc.operation(t, method, pattern).Responses {
				if way := strings.ToUpper(method) + " " + pattern + " " + status; !f.doc.seen[way] {
					t.Errorf("openapi.json has %s, which nothing led to", way)
				}
			}
		}
	}
}

func setBody(r *http.Request, text string) {
	r.Body = readCloser{strings.NewReader(text)}
	r.ContentLength = int64(len(text))
}

type readCloser struct{ *strings.Reader }

func (readCloser) Close() error { return nil }

// TestOpenAPIRequests: what the document allows is accepted, and what it does not allow is refused.
func TestOpenAPIRequests(t *testing.T) {
	fk := new(fake)
	f := newAPI(t, fk)
	for body, want := range map[string]bool{
		order: true,
		`{"recipient":{"unionid":"u"},"template":"t","data":{"a":{"value":1}},"appid":null,"url":null,` +
			`"mini_path":null,"jump_appid":null,"page":null,"lang":null,"mini_state":null,"route":null,` +
			`"priority":null,"due_at":null,"expires_at":null,"key":null}`: true,
		`{"recipient":{"mini_appid":"m","mini_openid":"o"},"template":"t","data":{"a":"b"},"appid":"wx1",` +
			`"url":"https://example.com","mini_path":"p","jump_appid":"wx2","page":"q","lang":"zh_CN",` +
			`"mini_state":"trial","route":"mini,official","priority":2,"due_at":"2026-12-01T08:00:00+08:00",` +
			`"expires_at":"2026-12-02T00:00:00.5Z","key":"k"}`: true,
		`{"messages":[` + order + `,` + order + `]}`: true,
		`{}`:                                     true, // to the fake: the intake refuses it
		`{"messages":[]}`:                        false,
		`{"messages":[` + order + `],"key":"x"}`: false,
		strings.Replace(order, `"data"`, `"due_at":"","data"`, 1):    false,
		strings.Replace(order, `"data"`, `"Template":"","data"`, 1):  false,
		strings.Replace(order, `"openid"`, `"OpenID"`, 1):            false,
		strings.Replace(order, `"oPerson"`, `5`, 1):                  false,
		strings.Replace(order, `"oPerson"`, `"o","name":"x"`, 1):     false,
		strings.Replace(order, `"data"`, `"priority":"1","data"`, 1): false,
		`[]`: false,
	} {
		err := f.doc.validate(t, []byte(body), "paths", "/v1/messages", "post", "requestBody", "content",
			"application/json", "schema")
		if body != `{}` && (err == nil) != want {
			t.Errorf("%s: by openapi.json %v, want %t", body, err, want)
		}
		if got := f.post(t, "/v1/messages", body); (got.status < 300) != want {
			t.Errorf("%s: %d %s, want %t", body, got.status, got.body, want)
		}
	}
}
