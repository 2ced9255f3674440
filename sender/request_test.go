package sender

import (
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// preparer is an account that prepares and does nothing else. It has no pre-flight.
func preparer() *account {
	return &account{
		cfg: Account{AppID: appid, ResendWindow: 9 * time.Minute},
		svc: &Service{installation: "abcdefghijkl", cfg: Config{
			MiniAppIDs: []string{miniID},
			Templates:  map[string]map[string]string{"order": {appid: wechatsim.StandardTemplates()[0].ID}},
		}},
	}
}

func text(s string) sql.NullString { return sql.NullString{String: s, Valid: true} }

func orderRow() request {
	return request{
		ID: 123456, UnionID: text("oUnionABCDEFGHIJKLMNOPQRST0"), Template: "order", URL: text("https://example.com/orders/1024"),
		Data: text(`{"thing1":"咖啡 & 茶","time2":"2026-01-02 15:04","amount3":"39.80元","character_string4":"A-1024"}`),
	}
}

func TestReadData(t *testing.T) {
	for _, c := range []struct{ data, want, wrong string }{
		{`{"b":"x","a":"y"}`, `{"a":{"value":"y"},"b":{"value":"x"}}`, ""},
		{` { "a" : { "color" : "#173177" , "value" : "x" } , "b" : 12.50 } `, `{"a":{"value":"x"},"b":{"value":"12.50"}}`, ""},
		{`{"a":-0.5,"b":0,"c":1e3}`, `{"a":{"value":"-0.5"},"b":{"value":"0"},"c":{"value":"1e3"}}`, ""},
		{`{"a":"\u5496\u5561 \"&\" \/ \\"}`, `{"a":{"value":"咖啡 \"&\" / \\"}}`, ""},
		{`{"a":"one\ntwo","b":"x\u0001y"}`, `{"a":{"value":"one\ntwo"},"b":{"value":"xy"}}`, ""},
		{`{"a":"first","a":"last"}`, `{"a":{"value":"last"}}`, ""},
		{`{"a":{"Value":"x"}}`, `{"a":{"value":"x"}}`, ""},
		{`{"a":""}`, `{"a":{"value":""}}`, ""},
		{`{}`, "", "data is empty: give a value for each keyword of the template"},
		{`[1]`, "", `data must be a JSON object such as {"thing1":"text"}, not an array`},
		{`null`, "", `data must be a JSON object such as {"thing1":"text"}, not null`},
		{`{"a":true}`, "", `data.a must be a string, a number or {"value":"…"}, not a boolean`},
		{`{"a":{"color":"x"}}`, "", `data.a must be a string, a number or {"value":"…"}, not an object`},
		{`{"a":{"value":null}}`, "", `data.a must be a string, a number or {"value":"…"}, not an object`},
	} {
		values, rejected := readData(request{Data: text(c.data)})
		got, wrong := "", ""
		if rejected != nil {
			wrong = rejected.text
		} else {
			got = string(writeData(values))
		}
		if got != c.want || wrong != c.wrong {
			t.Errorf("%s: %s (%s), want %s (%s)", c.data, got, wrong, c.want, c.wrong)
		}
	}
	if _, rejected := readData(request{DataBytes: maxData + 1}); rejected == nil || rejected.text != "data has 16385 bytes, at most 16384 are allowed" {
		t.Errorf("overlong data: %v", rejected)
	}
}

// FuzzReadPlain: what the fast reader takes, encoding/json reads alike.
func FuzzReadPlain(f *testing.F) {
	for _, s := range []string{
		orderRow().Data.String, `{"a":{"value":"x","color":"#1"},"b":-0.5}`, `{"a":"\u5496\n"}`, `{"a":1e3}`, `{"a":01}`, `{"a":"x",}`,
		`{"a":{"value":"x","Value":"y"}}`, `{"a":"x","a":"y"}`, `{"":"\ud800"}`, `{"a":-}`, `{"a":1.}`, `{"a":"x"} x`, "{\"a\":\"\x01\"}", "{\"a\":\"x\"}\x00",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		fast, ok := readPlain(s)
		if !ok {
			return
		}
		slow, rejected := readAny(s)
		if rejected != nil {
			t.Fatalf("%q is read as %q and refused by encoding/json: %s", s, fast, rejected.text)
		}
		if diff := cmp.Diff(slow, fast); diff != "" {
			t.Errorf("%q, -encoding/json +fast:\n%s", s, diff)
		}
	})
}

func TestExamineTruncates(t *testing.T) {
	a := preparer()
	a.svc.cfg.Truncate = map[string]bool{"order": true}
	row := orderRow()
	row.Data = text(`{"thing1":"` + strings.Repeat("啡", 30) + `","character_string4":"` + strings.Repeat("9", 40) + `"}`)
	_, j, verdict := a.prepare(t.Context(), row)
	if verdict != nil {
		t.Fatalf("%+v", *verdict)
	}
	want := `{"character_string4":{"value":"` + strings.Repeat("9", 40) + `"},"thing1":{"value":"` + strings.Repeat("啡", 19) + `…"}}`
	if diff := cmp.Diff(want, string(j.message.Data)); diff != "" {
		t.Errorf("data, -want +got:\n%s", diff)
	}
	if j.warning != "data.thing1 has 30 characters, shortened to 20" {
		t.Errorf("warning %q", j.warning)
	}
}

// TestTruncateByID: a row that names the template by its id is cut as its alias says.
func TestTruncateByID(t *testing.T) {
	const other = "wx00000000000000ff"
	template := wechatsim.StandardTemplates()[0].ID
	for _, c := range []struct {
		name, row string
		templates map[string]map[string]string
		truncate  map[string]bool
		want      bool
	}{
		{"by the alias", "order", map[string]map[string]string{"order": {appid: template}}, map[string]bool{"order": true}, true},
		{"by the id", template, map[string]map[string]string{"order": {appid: template}}, map[string]bool{"order": true}, true},
		{"not wanted", template, map[string]map[string]string{"order": {appid: template}}, map[string]bool{"order": false}, false},
		{"another template's alias", template, map[string]map[string]string{"order": {appid: strings.Repeat("x", 43)}},
			map[string]bool{"order": true}, false},
		{"another account's id", template, map[string]map[string]string{"order": {other: template}}, map[string]bool{"order": true}, false},
		{"any alias of it", template, map[string]map[string]string{"order": {appid: template}, "cut": {appid: template}},
			map[string]bool{"order": false, "cut": true}, true},
		{"the alias's own word", "order", map[string]map[string]string{"order": {appid: template}, "cut": {appid: template}},
			map[string]bool{"order": false, "cut": true}, false},
	} {
		a := preparer()
		a.svc.cfg.Templates, a.svc.cfg.Truncate = c.templates, c.truncate
		row := orderRow()
		row.Template, row.Data = c.row, text(`{"thing1":"`+strings.Repeat("啡", 30)+`"}`)
		_, j, verdict := a.prepare(t.Context(), row)
		if verdict != nil {
			t.Fatalf("%s: %+v", c.name, *verdict)
		}
		if got := strings.HasSuffix(string(j.message.Data), `啡…"}}`); got != c.want {
			t.Errorf("%s: cut %t, want %t: %s", c.name, got, c.want, j.message.Data)
		}
	}
}

// BenchmarkExamine measures what stands between a claim and its POSTs, with and without the pre-flight.
func BenchmarkExamine(b *testing.B) {
	row := orderRow()
	for _, preflight := range []string{"off", "on"} {
		b.Run("preflight="+preflight, func(b *testing.B) {
			a := preparer()
			if preflight == "on" {
				a = withCatalog(b, standardLister())
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, _, v := a.prepare(b.Context(), row); v != nil {
					b.Fatal(*v)
				}
			}
		})
	}
}
