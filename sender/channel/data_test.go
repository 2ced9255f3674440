package channel

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechat/keyword"
)

func TestParseData(t *testing.T) {
	for _, c := range []struct{ data, want, rejected string }{
		{`{"b":"x","a":"y"}`, `{"a":{"value":"y"},"b":{"value":"x"}}`, ""},
		{` { "a" : { "color" : "#173177" , "value" : "x" } , "b" : 12.50 } `,
			`{"a":{"value":"x"},"b":{"value":"12.50"}}`, ""},
		{`{"a":-0.5,"b":0,"c":1e3}`,
			`{"a":{"value":"-0.5"},"b":{"value":"0"},"c":{"value":"1e3"}}`, ""},
		{`{"a":"\u5496\u5561 \"&\" \/ \\"}`, `{"a":{"value":"咖啡 \"&\" / \\"}}`, ""},
		{`{"a":"one\ntwo","b":"x\u0001y"}`, `{"a":{"value":"one\ntwo"},"b":{"value":"xy"}}`, ""},
		{`{"a":"first","a":"last"}`, `{"a":{"value":"last"}}`, ""},
		{`{"a":{"Value":"x"}}`, `{"a":{"value":"x"}}`, ""},
		{`{"a":""}`, `{"a":{"value":""}}`, ""},
		{`{}`, "", "data is empty: give a value for each keyword of the template"},
		{`[1]`, "", `data must be a JSON object such as {"thing1":"text"}, not an array`},
		{`null`, "", `data must be a JSON object such as {"thing1":"text"}, not null`},
		{`{"a":true}`, "", `data.a must be a string, a number or {"value":"…"}, not a boolean`},
		{`{"a":{"color":"x"}}`, "",
			`data.a must be a string, a number or {"value":"…"}, not an object`},
		{`{"a":{"value":null}}`, "",
			`data.a must be a string, a number or {"value":"…"}, not an object`},
	} {
		values, why := ParseData(c.data)
		got, rejected := "", ""
		if why != nil {
			rejected = why.Message
			if why.Reason != ReasonBadData || why.After != 0 {
				t.Errorf("%s: %+v", c.data, *why)
			}
		} else {
			got = string(wechat.TemplateData(values))
		}
		if got != c.want || rejected != c.rejected {
			t.Errorf("%s: %s (%s), want %s (%s)", c.data, got, rejected, c.want, c.rejected)
		}
	}
}

// FuzzParsePlain: what the fast reader takes, encoding/json reads alike.
func FuzzParsePlain(f *testing.F) {
	for _, s := range []string{
		`{"thing1":"咖啡 & 茶","time2":"2026-01-02 15:04","amount3":"39.80元"}`,
		`{"a":{"value":"x","color":"#1"},"b":-0.5}`, `{"a":"\u5496\n"}`, `{"a":1e3}`, `{"a":01}`,
		`{"a":"x",}`, `{"a":{"value":"x","Value":"y"}}`, `{"a":"x","a":"y"}`, `{"":"\ud800"}`,
		`{"a":-}`, `{"a":1.}`, `{"a":"x"} x`, "{\"a\":\"\x01\"}", "{\"a\":\"x\"}\x00",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		fast, ok := parsePlain(s)
		if !ok {
			return
		}
		slow, why := parseAny(s)
		if why != nil {
			t.Fatalf("%q is read as %q and refused by encoding/json: %s", s, fast, why.Message)
		}
		if diff := cmp.Diff(slow, fast); diff != "" {
			t.Errorf("%q, -encoding/json +fast:\n%s", s, diff)
		}
	})
}

// TestManyProblems: whatever a row carries, the text fits its column.
func TestManyProblems(t *testing.T) {
	var problems []keyword.Problem
	for i := range 500 {
		problems = append(problems, keyword.Problem{Key: strings.Repeat("k", 20+i), Rule: "is missing"})
	}
	got := Describe(problems)
	if n := len([]rune(got)); n > 1024 || n < 900 {
		t.Errorf("a text of %d characters: %s", n, got)
	}
	few := Describe(problems[:22])
	if want := fmt.Sprintf("data.%s is missing", strings.Repeat("k", 20)); !strings.HasPrefix(few, want) {
		t.Errorf("%s", few)
	}
	if got := Describe(nil); got != "" {
		t.Errorf("no problem is described as %q", got)
	}
}
