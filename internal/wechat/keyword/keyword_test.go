package keyword_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechat/keyword"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// keywordCase is a value and what becomes of it.
type keywordCase struct {
	kind, value string
	refused     string // the rule of ours that it breaks, "": none
	// we let it pass, and the simulator, which knows one reading of each rule only, refuses it
	doubtful bool
}

func keywordCases() []keywordCase {
	han, emoji := "咖", "😀"
	const control = "takes no line breaks or control characters"
	return []keywordCase{
		{kind: "thing", value: strings.Repeat(han, 20)},
		{kind: "thing", value: strings.Repeat(han, 21), refused: "thing takes at most 20"},
		// beyond the basic plane: one character each
		{kind: "thing", value: "a" + strings.Repeat(emoji, 19)},
		{kind: "thing", value: "a" + strings.Repeat(emoji, 20), refused: "thing takes at most 20"},
		{kind: "thing", value: strings.Repeat("𠮷", 20)},
		{kind: "thing", value: strings.Repeat("e\u0301", 10)}, // combining marks count
		{kind: "thing", value: strings.Repeat("e\u0301", 10) + "e",
			refused: "thing takes at most 20"},
		{kind: "thing", value: strings.Repeat("x", 20)},
		{kind: "thing", value: "咖啡 & 茶 <1> \"2\" \\ '3'"},
		{kind: "thing", value: "第一行\n第二行", refused: control},
		{kind: "thing", value: "a\tb", refused: control},
		{kind: "thing", value: "a\u2028b", refused: control},
		{kind: "thing", value: "a\x7fb", refused: control},
		{kind: "thing", value: "", refused: "is empty"},
		{kind: "thing", value: "  \u3000", refused: "calls empty"},
		{kind: "thing", value: "①②", refused: "calls empty"},
		{kind: "thing", value: emoji, refused: "calls empty"},
		{kind: "thing", value: "①a"},
		{kind: "const", value: strings.Repeat(han, 20)},
		{kind: "const", value: strings.Repeat(han, 21), refused: "const takes at most 20"},
		{kind: "enum", value: strings.Repeat(han, 40)},
		{kind: "enum", value: "", refused: "is empty"},

		{kind: "number", value: "0"},
		{kind: "number", value: "-12.50"},
		{kind: "number", value: strings.Repeat("9", 32)},
		{kind: "number", value: strings.Repeat("9", 33), refused: "at most 32 digits"},
		// does the point count?
		{kind: "number", value: strings.Repeat("9", 31) + ".5", doubtful: true},
		{kind: "number", value: "+5", doubtful: true},
		{kind: "number", value: " 5 ", doubtful: true},
		{kind: "number", value: "１２", doubtful: true},
		{kind: "number", value: "5 5", refused: "at most 32 digits"},
		{kind: "number", value: "1,000", refused: "at most 32 digits"},
		{kind: "number", value: "三", refused: "at most 32 digits"},
		{kind: "number", value: "1.2.3", refused: "at most 32 digits"},
		{kind: "number", value: "-", refused: "at most 32 digits"},
		{kind: "letter", value: strings.Repeat("aZ", 16)},
		{kind: "letter", value: strings.Repeat("a", 33), refused: "letter takes at most 32"},
		{kind: "letter", value: "a1", refused: "letters only"},
		{kind: "letter", value: "字", refused: "letters only"},
		{kind: "letter", value: "é", doubtful: true},
		{kind: "symbol", value: "!?+-￥"},
		{kind: "symbol", value: "!!!!!!", refused: "symbol takes at most 5"},
		{kind: "symbol", value: "!a", refused: "symbols only"},
		{kind: "symbol", value: "字", refused: "symbols only"},
		{kind: "symbol", value: "! !", doubtful: true},
		{kind: "character_string", value: "A-1024_" + strings.Repeat("x", 25)},
		{kind: "character_string", value: strings.Repeat("x", 33),
			refused: "character_string takes at most 32"},
		{kind: "character_string", value: "A 中", refused: "no Chinese characters"},
		{kind: "character_string", value: "A，1", doubtful: true}, // a full-width symbol

		{kind: "time", value: "15:01"},
		{kind: "time", value: "0:00:59"},
		{kind: "time", value: "2019年10月1日 15:01"},
		{kind: "time", value: "2026-01-02 15:04:05"},
		{kind: "time", value: "15:01~16:02"},
		{kind: "time", value: "2026/1/2 15:01 ~ 2026/1/3 16:02"},
		{kind: "time", value: "15:01～16:02", refused: "half-width ~"},
		{kind: "time", value: "2026-01-02～15:01", refused: "half-width ~"},
		{kind: "time", value: "15:01~16:02~17:03", refused: "24-hour time"},
		{kind: "time", value: "25:01", refused: "24-hour time"},
		{kind: "time", value: "15:60", refused: "24-hour time"},
		{kind: "time", value: "2026-13-02 15:01", refused: "24-hour time"},
		{kind: "time", value: "2026-12-32 15:01", refused: "24-hour time"},
		{kind: "time", value: "明天", refused: "24-hour time"},
		{kind: "time", value: "1767337440", refused: "24-hour time"},
		{kind: "time", value: "3pm", refused: "24-hour time"},
		{kind: "time", value: "15:\n01", refused: control},
		{kind: "time", value: "2026-01-02", doubtful: true},
		{kind: "time", value: "2026-01-02T15:04:05+08:00", doubtful: true},
		{kind: "time", value: "2026年1月2日 周五 15:04", doubtful: true},
		{kind: "time", value: "2026年1月2日 星期五", doubtful: true},
		{kind: "time", value: "2026年1月2日 15:04（周五）", doubtful: true},
		{kind: "time", value: "周五 2026年1月2日 15:04", doubtful: true},
		{kind: "time", value: "15:04 周五", doubtful: true},
		{kind: "time", value: "周五 15:01~周六 16:02", doubtful: true},
		{kind: "time", value: "15:01~16:02~", refused: "24-hour time"},
		{kind: "time", value: "15:01~", refused: "24-hour time"},
		{kind: "time", value: "星期五", refused: "24-hour time"},
		{kind: "time", value: "星期五 25:01", refused: "24-hour time"},
		{kind: "time", value: "2026年1月2日 星期五 25:01", refused: "24-hour time"},
		{kind: "time", value: "1月2日 15:04", doubtful: true},
		{kind: "time", value: "15：04", doubtful: true},
		{kind: "date", value: "2026-01-02"},
		{kind: "date", value: "2026年1月2日"},
		{kind: "date", value: "2026.1.2 15:04"},
		{kind: "date", value: "2026-01-02~2026-01-05"},
		{kind: "date", value: "2026年1月2日 星期五", doubtful: true},
		{kind: "date", value: "2026-01-02 至 2026-01-05", doubtful: true},
		{kind: "date", value: "2026-01"},
		{kind: "date", value: "2026/1"},
		{kind: "date", value: "2026.01"},
		{kind: "date", value: "2026年1月"},
		{kind: "date", value: "2026年01月~2026年03月"},
		{kind: "date", value: "2026.1~2026.3"},
		{kind: "date", value: "1月1日"},
		{kind: "date", value: "01-01"},
		{kind: "date", value: "1/31"},
		{kind: "date", value: "2026年", doubtful: true},
		{kind: "date", value: "1月", doubtful: true},
		{kind: "date", value: "2026年 1月", doubtful: true},
		{kind: "date", value: "2026年1月上旬", doubtful: true},
		{kind: "date", value: "20260102 15:04", doubtful: true},
		{kind: "date", value: "20260102~20260105", doubtful: true},
		{kind: "date", value: "2026年 1月 2日", doubtful: true},
		{kind: "date", value: "2026 年 1 月 2 日 15:04", doubtful: true},
		{kind: "date", value: "2026年 15:04", doubtful: true},
		{kind: "date", value: "2026-01 15:04", doubtful: true},
		{kind: "date", value: "2026年1月2日~5日", doubtful: true},
		{kind: "date", value: "1月2日-3号", doubtful: true},
		{kind: "date", value: "20260102150405", doubtful: true},
		{kind: "date", value: "２０２６年１月２日", doubtful: true},
		{kind: "date", value: "2026年1月2日~32日", refused: "a date"},
		{kind: "date", value: "2026年 13月 2日", refused: "a date"},
		{kind: "date", value: "31/12/2026", refused: "a date"},
		{kind: "date", value: "2026010215", refused: "a date"},
		{kind: "date", value: "2026", refused: "a date"},
		{kind: "date", value: "2026-13", refused: "a date"},
		{kind: "date", value: "2026-00", refused: "a date"},
		{kind: "date", value: "13-01", refused: "a date"},
		{kind: "date", value: "01-32", refused: "a date"},
		{kind: "date", value: "2026年13月", refused: "a date"},
		{kind: "date", value: "2026-01-32", refused: "a date"},
		{kind: "date", value: "01", refused: "a date"},
		{kind: "date", value: "202601020", refused: "a date"},
		{kind: "date", value: "2026年1月～3月", refused: "half-width ~"},
		{kind: "time", value: "2026年1月2日 15时", doubtful: true},
		{kind: "time", value: "15点", doubtful: true},
		{kind: "time", value: "25点", refused: "24-hour time"},
		{kind: "time", value: "15点60", refused: "24-hour time"},
		{kind: "time", value: "2026-01-02 3pm", refused: "24-hour time"},
		{kind: "date", value: "next week", refused: "a date"},
		{kind: "date", value: "2026-02-30"}, // the calendar is WeChat's
		{kind: "date", value: "20260102", doubtful: true},
		{kind: "date", value: "15:04", doubtful: true},

		{kind: "amount", value: "39.80元"},
		{kind: "amount", value: "￥39.80"},
		{kind: "amount", value: "$5"},
		{kind: "amount", value: "€123456789012"},
		{kind: "amount", value: "1234567890123", refused: "at most 12 digits"},
		{kind: "amount", value: "123456789012.34", doubtful: true}, // do decimals count?
		{kind: "amount", value: "-5", doubtful: true},
		{kind: "amount", value: "-￥5", doubtful: true},
		{kind: "amount", value: "５元", doubtful: true},
		{kind: "amount", value: "¥ 5 元", doubtful: true},
		{kind: "amount", value: "￥￥5", refused: "one currency symbol"},
		{kind: "amount", value: "CNY 5", refused: "one currency symbol"},
		{kind: "amount", value: "1,000.00", refused: "one currency symbol"},
		{kind: "amount", value: "元", refused: "one currency symbol"},
		{kind: "amount", value: "免费", refused: "one currency symbol"},

		{kind: "phone_number", value: "+86-0766-66888866"},
		{kind: "phone_number", value: "+86-0766-668888667",
			refused: "phone_number takes at most 17"},
		{kind: "phone_number", value: "123 ext 4", doubtful: true},
		{kind: "car_number", value: "粤A8Z888挂"},
		{kind: "car_number", value: "粤A8Z8888挂挂", refused: "car_number takes at most 8"},
		{kind: "name", value: strings.Repeat(han, 10)},
		{kind: "name", value: strings.Repeat(han, 11), refused: "at most 10 Chinese characters"},
		{kind: "name", value: strings.Repeat("x", 20)},
		{kind: "name", value: strings.Repeat("x", 21), refused: "name takes at most 20"},
		// what a mixed name may have is not said
		{kind: "name", value: "张 Maximilian III", doubtful: true},
		{kind: "phrase", value: "配送中"},
		{kind: "phrase", value: strings.Repeat(han, 5)},
		{kind: "phrase", value: strings.Repeat(han, 6), refused: "phrase takes at most 5"},
		{kind: "phrase", value: "OK", refused: "Chinese characters only"},
		{kind: "phrase", value: "已发货！", doubtful: true},
		{kind: "short_thing", value: strings.Repeat(han, 20)},
		// its limit is not documented
		{kind: "short_thing", value: strings.Repeat(han, 30), doubtful: true},
		{kind: "short_thing", value: "", refused: "is empty"},
	}
}

// TestKeywords holds each value against our rule and against the simulator's, which was written
// apart from it: what we refuse the simulator refuses, and what we let pass it takes, but for what
// is marked as doubtful.
func TestKeywords(t *testing.T) {
	options := wechatsim.Standard(1, 0, 0)
	ids := map[string]string{}
	for i, c := range keywordCases() {
		if ids[c.kind] == "" {
			id := fmt.Sprintf("T%042d", i)
			ids[c.kind] = id
			options.Accounts[0].Templates = append(options.Accounts[0].Templates,
				wechatsim.Template{ID: id, Content: "甲:{{" + c.kind + "1.DATA}}"})
		}
	}
	sim := wechatsim.New(options)
	server := httptest.NewServer(sim)
	t.Cleanup(func() { server.Close(); sim.Close() })
	client := wechat.New(wechat.Config{AppID: wechatsim.StandardAppID,
		Secret: wechatsim.StandardSecret, BaseURL: server.URL})

	for _, c := range keywordCases() {
		key := c.kind + "1"
		template := keyword.Parse("甲:{{" + key + ".DATA}}")
		problems := template.Check([]keyword.Value{{Key: key, Value: c.value}})
		switch {
		case c.refused == "" && len(problems) > 0:
			t.Errorf("%s %q: refused, %v", c.kind, c.value, problems)
		case c.refused != "" && (len(problems) != 1 ||
			!strings.Contains(problems[0].Rule, c.refused)):
			t.Errorf("%s %q: %v, want %q", c.kind, c.value, problems, c.refused)
		}
		data, err := json.Marshal(map[string]any{key: map[string]string{"value": c.value}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = client.SendTemplate(t.Context(), wechat.TemplateMessage{
			ToUser: sim.OpenID(wechatsim.StandardAppID, 0), TemplateID: ids[c.kind], Data: data,
		})
		e, failed := errors.AsType[*wechat.Error](err)
		if failed && e.Code != 47003 {
			t.Fatalf("%s %q: %v", c.kind, c.value, err)
		}
		if want := c.refused != "" || c.doubtful; failed != want {
			t.Errorf("%s %q: the simulator refuses it: %t, want %t (%v)", c.kind, c.value, failed,
				want, err)
		}
	}
}

func check(content string, values ...keyword.Value) []string {
	var texts []string
	k := keyword.Parse(content)
	for _, p := range append(k.Check(values), k.Doubts(values)...) {
		texts = append(texts, p.String())
	}
	return texts
}

func TestKeywordTexts(t *testing.T) {
	type values = []keyword.Value
	const category = "品:{ {thing1.DATA} }\n时:{{time2.DATA}}"
	const legacy = "{{first.DATA}}\n单:{{keyword1.DATA}}\n{{remark.DATA}}"
	long := strings.Repeat("啡", 25)
	for _, c := range []struct {
		name, content string
		values        values
		want          []string
	}{
		{"fine", category, values{{"thing1", "咖啡"}, {"time2", "15:01"}}, nil},
		{"all problems, in the template's order", category,
			values{{"time2", "明天"}, {"thing1", long}}, []string{
				"data.thing1 has 25 characters, thing takes at most 20",
				"data.time2 has 2 characters, time takes a 24-hour time such as 15:01 or " +
					"2026-01-02 " +
					"15:01, a range with a half-width ~",
			}},
		{"missing and empty", category, values{{"thing1", ""}},
			[]string{"data.thing1 is empty", "data.time2 is missing"}},
		{"blank", category, values{{"thing1", "   "}, {"time2", "15:01"}}, []string{
			"data.thing1 has 3 characters, only blanks or symbols that WeChat does not show, " +
				"which it calls empty"}},
		{"legacy", legacy, values{{"first", "您好"}, {"keyword1", long}, {"remark", ""}}, []string{
			"data.first is not shown any more, since 2023-05-04",
			"data.keyword1 has 25 characters, of which WeChat shows 20"}},
		{"legacy line break", legacy, values{{"keyword1", "a\nb"}}, []string{
			"data.keyword1 has 3 characters, and a line break, at which WeChat cuts or which it " +
				"removes"}},
		{"legacy, missing", legacy, nil, []string{"data.keyword1 is missing"}},
		{"legacy by a key of its own", "{{orderSum.DATA}} {{name.DATA}}",
			values{{"orderSum", long}, {"name", "!"}},
			[]string{"data.orderSum has 25 characters, of which WeChat shows 20"}},
		{"an undocumented kind has to be there", "{{thing1.DATA}} {{future_kind2.DATA}}",
			values{{"thing1", "x"}, {"future_kind2", long + long + "\n"}}, nil},
		{"no placeholder", "Hello", values{{"thing1", long}}, nil},
	} {
		if diff := cmp.Diff(c.want, check(c.content, c.values...)); diff != "" {
			t.Errorf("%s, -want +got:\n%s", c.name, diff)
		}
	}
	for content, want := range map[string]bool{category: false, legacy: true,
		"{{keyword1.DATA}}": true, "{{name.DATA}}": true, "{{name1.DATA}}": false} {
		if got := keyword.Parse(content).Check(nil) == nil; got != want {
			t.Errorf("%q: legacy %t, want %t", content, got, want)
		}
	}
}

func TestNames(t *testing.T) {
	tests := map[string][]string{
		"{{first.DATA}}\n订单：{{thing1.DATA}}\n{{time2.DATA}} {{thing1.DATA}}": {"first", "thing1",
			"time2"},
		"{ {result.DATA} }\n\n时间:    { { withdrawTime.DATA } }": {"result",
			"withdrawTime"},
		"{{x.data}} {y.DATA} 无": nil,
	}
	for content, want := range tests {
		if diff := cmp.Diff(want, keyword.Parse(content).Names()); diff != "" {
			t.Errorf("%q (-want +got):\n%s", content, diff)
		}
	}
}

func TestFit(t *testing.T) {
	family := "👨\u200d👩\u200d👧"
	for _, c := range []struct{ key, value, want, said string }{
		{"thing1", "咖啡", "咖啡", ""},
		{"thing1", strings.Repeat("啡", 20), strings.Repeat("啡", 20), ""},
		{"thing1", strings.Repeat("啡", 21), strings.Repeat("啡", 19) + "…",
			"data.thing1 has 21 characters, shortened to 20"},
		{"thing12", "一\r\n二\n", "一 二", "data.thing12 has 5 characters, line breaks and control " +
			"characters replaced by blanks"},
		{"thing1", strings.Repeat("a\n", 20), "a a a a a a a a a a…",
			"data.thing1 has 40 characters, line breaks and control characters replaced by " +
				"blanks, shortened to 20"},
		{"thing1", strings.Repeat("x", 18) + "e\u0301" + "yz", strings.Repeat("x", 18) + "…",
			"data.thing1 has 22 characters, shortened to 19"},
		{"thing1", strings.Repeat("x", 16) + family + "yz", strings.Repeat("x", 16) + "…",
			"data.thing1 has 23 characters, shortened to 17"},
		{"thing", strings.Repeat("x", 30), strings.Repeat("x", 30), ""}, // a legacy key
		{"short_thing1", strings.Repeat("x", 30), strings.Repeat("x", 30), ""},
		{"character_string1", strings.Repeat("1", 40), strings.Repeat("1", 40), ""},
		{"name1", strings.Repeat("啡", 30), strings.Repeat("啡", 30), ""},
	} {
		values := []keyword.Value{{Key: c.key, Value: c.value}}
		said := ""
		for _, p := range keyword.Fit(values) {
			said += p.String()
		}
		if values[0].Value != c.want || said != c.said {
			t.Errorf("%s %q: %q (%s), want %q (%s)", c.key, c.value, values[0].Value, said, c.want,
				c.said)
		}
		broken := keyword.Parse("{{" + c.key + ".DATA}}").Check(values)
		if strings.HasPrefix(c.key, "thing") && len(broken) > 0 {
			t.Errorf("%s %q: what was fitted is refused: %v", c.key, c.value, broken)
		}
	}
}

// FuzzKeywords: no value makes a rule panic, no text about a value holds the value, and what is
// fitted passes unless it is blank.
func FuzzKeywords(f *testing.F) {
	for _, c := range keywordCases() {
		f.Add(c.kind, c.value)
	}
	f.Fuzz(func(t *testing.T, kind, value string) {
		template := keyword.Parse("{{" + kind + "1.DATA}}")
		values := []keyword.Value{{Key: kind + "1", Value: value}}
		const sign = "机密"
		for _, p := range template.Check([]keyword.Value{{Key: kind + "1", Value: value + sign}}) {
			if !strings.Contains(kind, sign) && strings.Contains(p.String(), sign) {
				t.Errorf("the value stands in %q", p)
			}
		}
		keyword.Fit(values)
		for _, p := range template.Check(values) {
			if kind == "thing" && !strings.Contains(p.Rule, "empty") {
				t.Errorf("%q becomes %q: %v", value, values[0].Value, p)
			}
		}
	})
}
