package keyword_test

import (
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

var sizes = map[string][]string{"enum3": {"大", "中", "小"}}

func problemsOf(s *keyword.Set, values ...keyword.Value) (texts []string) {
	for _, p := range s.Check(values) {
		texts = append(texts, p.String())
	}
	return texts
}

// TestSubscribeLimits: where a subscribe message's rules differ from a template message's.
func TestSubscribeLimits(t *testing.T) {
	han := "咖"
	for _, tt := range []struct {
		key, value            string
		template, subscribing string // the rule that is broken there
	}{
		{"amount1", "￥1234567890元", "", ""},
		{"amount1", "12345678901", "", "at most 10 digits"},
		{"amount1", "¥1234567890.12", "", ""},
		{"amount1", "1234567890123", "at most 12 digits", "at most 10 digits"},
		{"name1", strings.Repeat(han, 10), "", ""},
		{"name1", strings.Repeat("x", 20), "", ""},
		{"name1", "张 Maximilian III", "", "at most 10 characters if one is Chinese"},
		{"name1", strings.Repeat(han, 11), "at most 10 Chinese",
			"at most 10 characters if one is Chinese"},
		{"name1", strings.Repeat("x", 21), "name takes at most 20", "at most 20 letters"},
		{"enum3", "小", "", ""},
		{"enum3", "巨大", "", "one of its listed values: 大, 中, 小"},
		{"enum4", "巨大", "", ""}, // WeChat lists nothing for it
		{"thing1", strings.Repeat(han, 21), "thing takes at most 20", "thing takes at most 20"},
		{"phrase1", "OK", "Chinese characters only", "Chinese characters only"},
		{"short_thing1", strings.Repeat(han, 30), "", ""},
		{"time1", "15:01～16:02", "half-width ~", "half-width ~"},
		{"thing1", "a\nb", "no line breaks", "no line breaks"},
		{"keyword1", "", "", "is empty"}, // no legacy here
		{"first", strings.Repeat(han, 30), "", ""},
	} {
		content := "甲:{{" + tt.key + ".DATA}}"
		value := keyword.Value{Key: tt.key, Value: tt.value}
		for want, got := range map[string][]string{
			tt.template + "/template":     problemsOf(keyword.Parse(content), value),
			tt.subscribing + "/subscribe": problemsOf(keyword.ParseSubscribe(content, sizes), value),
		} {
			rule, where, _ := strings.Cut(want, "/")
			if (rule == "") != (len(got) == 0) || !strings.Contains(strings.Join(got, "; "), rule) {
				t.Errorf("%s %q in a %s message: %q, want %q", tt.key, tt.value, where, got, rule)
			}
		}
	}
}

// TestSubscribeSimulator holds our rules against the simulator's, which was written apart from
// them: what we refuse, it refuses, too.
func TestSubscribeSimulator(t *testing.T) {
	options := wechatsim.Standard(1, 1, 0)
	ids := map[string]string{}
	for i, c := range keywordCases() {
		if ids[c.kind] == "" {
			ids[c.kind] = fmt.Sprintf("T%042d", i)
			options.Minis[0].Templates = append(options.Minis[0].Templates,
				wechatsim.SubscribeTemplate{ID: ids[c.kind], LongTerm: true,
					Content: "甲:{{" + c.kind + "1.DATA}}"})
		}
	}
	sim := wechatsim.New(options)
	server := httptest.NewServer(sim)
	t.Cleanup(func() { server.Close(); sim.Close() })
	client := wechat.New(wechat.Config{AppID: wechatsim.StandardMiniAppID,
		Secret: wechatsim.StandardMiniSecret, BaseURL: server.URL})
	for _, id := range ids {
		sim.Grant(wechatsim.StandardMiniAppID, 0, id, 1)
	}
	for _, c := range keywordCases() {
		value := keyword.Value{Key: c.kind + "1", Value: c.value}
		s := keyword.ParseSubscribe("甲:{{"+value.Key+".DATA}}", nil)
		_, err := client.SendSubscribe(t.Context(), wechat.SubscribeMessage{
			ToUser:     sim.OpenID(wechatsim.StandardMiniAppID, 0),
			TemplateID: ids[c.kind], Data: wechat.TemplateData([]keyword.Value{value}),
		})
		e, failed := errors.AsType[*wechat.Error](err)
		if failed && e.Code != 47003 {
			t.Fatalf("%s %q: %v", c.kind, c.value, err)
		}
		if len(problemsOf(s, value)) > 0 && !failed {
			t.Errorf("%s %q: refused, and the simulator takes it", c.kind, c.value)
		}
	}
}

// TestSubscribeProblems: all that is wrong is named at once, in the template's order, and nothing
// is said about what WeChat would not show, which only legacy templates have.
func TestSubscribeProblems(t *testing.T) {
	s := keyword.ParseSubscribe("品:{{thing1.DATA}}\n额:{{amount2.DATA}}\n型:{{enum3.DATA}}\n"+
		"单:{{character_string4.DATA}}", sizes)
	values := []keyword.Value{{Key: "enum3", Value: "XL"}, {Key: "thing1", Value: " "},
		{Key: "amount2", Value: "12345678901"}}
	want := []string{
		"data.thing1 has 1 characters, only blanks or symbols that WeChat does not show, which " +
			"it calls empty",
		"data.amount2 has 11 characters, amount takes one currency symbol or none, at most 10 " +
			"digits, and perhaps 元",
		"data.enum3 has 2 characters, enum takes one of its listed values: 大, 中, 小",
		"data.character_string4 is missing",
	}
	if diff := cmp.Diff(want, problemsOf(s, values...)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if doubts := s.Doubts(values); doubts != nil {
		t.Errorf("doubts %v", doubts)
	}
	many := map[string][]string{"enum1": strings.Split("abcdefghijkl", "")}
	got := problemsOf(keyword.ParseSubscribe("{{enum1.DATA}}", many),
		keyword.Value{Key: "enum1", Value: "z"})
	if len(got) != 1 || !strings.HasSuffix(got[0], "i, j, …") {
		t.Errorf("a long list: %q", got)
	}
}

// FuzzSubscribe: no value makes a rule panic, and no text about a value holds the value.
func FuzzSubscribe(f *testing.F) {
	for _, c := range keywordCases() {
		f.Add(c.kind+"1", c.value)
	}
	f.Add("enum3", "小")
	f.Fuzz(func(t *testing.T, key, value string) {
		const sign = "机密"
		s := keyword.ParseSubscribe("{{"+key+".DATA}}", sizes)
		for _, p := range s.Check([]keyword.Value{{Key: key, Value: value + sign}}) {
			if !strings.Contains(key, sign) && strings.Contains(p.String(), sign) {
				t.Errorf("the value stands in %q", p)
			}
		}
	})
}
