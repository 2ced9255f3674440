package api

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"
)

// fuzz posts bodies to a path. Whatever they are, the answer is one of the document's; and what the
// document allows is never an error of form.
func fuzz(f *testing.F, path string, seeds ...string) {
	for _, seed := range seeds {
		f.Add([]byte(seed))
		f.Add([]byte(seed[:len(seed)/2]))
	}
	a, c := New(newConfig(new(fake), io.Discard, prometheus.NewRegistry())), newContract(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		w := serve(a, http.MethodPost, path, string(body))
		got := reply{w.Code, w.Header(), w.Body.Bytes()}
		c.check(t, http.MethodPost, path, got)
		if got.status >= 500 {
			t.Errorf("%d %s", got.status, got.body)
		}
		if got.status != http.StatusBadRequest || !utf8.Valid(body) {
			return
		}
		err := c.validate(t, body, "paths", path, "post", "requestBody", "content", "application/json", "schema")
		detail := got.problem().Detail
		// A schema sees the last of two fields, and takes 1.0 for an integer.
		if err == nil && !strings.Contains(detail, "twice") && got.field() != "priority" {
			t.Errorf("openapi.json allows %q: %s", body, got.body)
		}
	})
}

func FuzzMessages(f *testing.F) {
	fuzz(f, "/v1/messages", order, `{"messages":[`+order+`,{"recipient":{"unionid":"u"},"template":"t",`+
		`"data":{"a":{"value":1}},"priority":1,"due_at":"2026-12-01T08:00:00+08:00","key":null}]}`,
		`{"messages":{"a":[1,"\u0061",{}]}}`, `{"t\u0065mplate":"a","template":"b"}`, "\ufeff"+order)
}

func FuzzIdentities(f *testing.F) {
	fuzz(f, "/v1/identities", `{"ids":["oPerson","u-_9"]}`, `{"ids":null}`)
}

func FuzzLogin(f *testing.F) {
	fuzz(f, "/v1/login", `{"appid":"`+mini+`","code":"`+loginCode+`"}`, `{"appid":null,"code":"x"}`)
}

func FuzzGrants(f *testing.F) {
	fuzz(f, "/v1/grants", `{"appid":"`+mini+`","reports":[{"openid":"oUser","template":"order_paid",`+
		`"result":"accept","key":"7","accepted_at":"2026-12-01T08:00:00Z"}]}`)
}

// FuzzPaths: whatever a path and a query are, the answer is one of the document's.
func FuzzPaths(f *testing.F) {
	for _, path := range []string{"/v1/messages/1", "/v1/messages/1/cancel", "/v1/messages", "/v1/", "/v1//",
		"/v1/openapi.json", "/v1/messages/９", "/v1/messages/1/x"} {
		f.Add("GET", path, "wait=0")
		f.Add("POST", path, "wait=x&wait=1")
	}
	a, c := New(newConfig(new(fake), io.Discard, prometheus.NewRegistry())), newContract(f)
	f.Fuzz(func(t *testing.T, method, path, query string) {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://x/", nil)
		if err != nil {
			t.Skip()
		}
		r.URL.Path, r.URL.RawQuery, r.Body = path, query, http.NoBody
		r.RemoteAddr = "127.0.0.1:1"
		r.Header.Set("Authorization", "Bearer "+secret)
		if strings.HasPrefix(query, "wait=") && len(query) < 8 {
			r.URL.RawQuery = "wait=0" // a message of the fake is never final
		}
		w := newRecorder()
		a.ServeHTTP(w, r)
		if w.status >= 500 {
			t.Errorf("%d %s", w.status, w.body)
		}
		c.check(t, method, path, reply{w.status, w.header, w.body})
	})
}

// recorder is an answer without a connection.
type recorder struct {
	status int
	header http.Header
	body   []byte
}

func newRecorder() *recorder { return &recorder{header: make(http.Header)} }

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(status int) { r.status = status }

func (r *recorder) Write(b []byte) (int, error) {
	r.body = append(r.body, b...)
	return len(b), nil
}

// FuzzNames: the names of an object are those that package json finds.
func FuzzNames(f *testing.F) {
	for _, seed := range []string{order, `{"a":{"b":[1,"x,\"y"]},"c":"}","\u0064\"":[{}],"e":-1e5}`, `["a"]`, `5`, ` { } `} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		if !json.Valid(text) || !utf8.Valid(text) {
			t.Skip()
		}
		got := make(map[string]bool)
		object := names(text, func(name string, _ []byte) { got[name] = true })
		var want map[string]json.RawMessage
		if err := json.Unmarshal(text, &want); (err == nil && want != nil) != object {
			t.Fatalf("%s: an object: %t", text, object)
		}
		if a, b := slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)); !slices.Equal(a, b) {
			t.Errorf("%s: %q, want %q", text, a, b)
		}
	})
}
