package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// scene is one follower's request and one of somebody who does not follow, as they should end.
type scene struct {
	wants    []want
	messages []wechatsim.Message
	outcomes map[int64]outcome
}

func goodScene() scene {
	return scene{
		wants: []want{
			{
				ID: 7, Order: "D-1", Data: map[string]string{"thing1": "茶&<>", "character_string4": "D-1"},
				Person: wechatsim.Identity{AppID: stage.AppID, OpenID: "oOne", UnionID: "uOne", Following: true},
			},
			{
				ID: 8, Order: "D-2", Data: map[string]string{"thing1": "b", "character_string4": "D-2"},
				Person: wechatsim.Identity{AppID: stage.AppID, OpenID: "oTwo", UnionID: "uTwo"},
			},
		},
		messages: []wechatsim.Message{delivered("D-1", "茶&<>", "oOne", "uOne")},
		outcomes: map[int64]outcome{
			7: {ID: 7, Status: "sent", SentOpenID: "oOne", MsgID: 5},
			8: {ID: 8, Status: "waiting", Reason: "no_follower"},
		},
	}
}

func delivered(order, thing, openid, unionid string) wechatsim.Message {
	data, _ := json.Marshal(map[string]map[string]string{"thing1": {"value": thing}, "character_string4": {"value": order}}) // strings always encode
	return wechatsim.Message{
		AppID: stage.AppID, OpenID: openid, UnionID: unionid, TemplateID: stage.TemplateID(), Data: data, MsgID: 5,
	}
}

func TestCompareFindsNothingWrong(t *testing.T) {
	s := goodScene()
	if wrong := compare(s.wants, s.messages, s.outcomes); len(wrong) > 0 {
		t.Errorf("wrong: %q", wrong)
	}
}

// A check that cannot fail proves nothing: each of these is one thing gone wrong.
func TestCompareFinds(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(*scene)
		want  string
	}{
		"another person":        {func(s *scene) { s.messages[0].UnionID, s.messages[0].OpenID = "uX", "oX" }, "it went to oX"},
		"another account":       {func(s *scene) { s.messages[0].AppID = "wxX" }, "went out through wxX"},
		"another template":      {func(s *scene) { s.messages[0].TemplateID = "tX" }, "template tX"},
		"another text":          {func(s *scene) { s.messages[0] = delivered("D-1", "茶&amp;", "oOne", "uOne") }, "its text is"},
		"a keyword lost":        {func(s *scene) { s.wants[0].Data["time2"] = "15:04" }, "its text is"},
		"twice":                 {func(s *scene) { s.messages = append(s.messages, s.messages[0]) }, "2 messages instead of one"},
		"missing":               {func(s *scene) { s.messages = nil }, "0 messages instead of one"},
		"to a non-follower":     {func(s *scene) { s.messages = append(s.messages, delivered("D-2", "b", "oTwo", "uTwo")) }, "for somebody who does not follow"},
		"nobody's message":      {func(s *scene) { s.messages = append(s.messages, delivered("D-9", "b", "oTwo", "uTwo")) }, "nobody asked for"},
		"garbage":               {func(s *scene) { s.messages[0].Data = json.RawMessage(`{"thing1":"x"}`) }, "0 messages instead of one"},
		"row not sent":          {func(s *scene) { s.outcomes[7] = outcome{ID: 7, Status: "pending"} }, `the row says "pending"`},
		"row with other msgid":  {func(s *scene) { s.outcomes[7] = outcome{7, "sent", "", "oOne", 6} }, "msgid 6"},
		"row with other openid": {func(s *scene) { s.outcomes[7] = outcome{7, "sent", "", "oX", 5} }, "openid oX"},
		"non-follower failed":   {func(s *scene) { s.outcomes[8] = outcome{ID: 8, Status: "failed", Reason: "x"} }, `the row is "failed"`},
		"waiting for no reason": {func(s *scene) { s.outcomes[8] = outcome{ID: 8, Status: "waiting"} }, `with reason ""`},
		"a row too many":        {func(s *scene) { s.outcomes[9] = outcome{ID: 9} }, "3 rows, 2 were inserted"},
		"a row lost":            {func(s *scene) { delete(s.outcomes, 8) }, "1 rows, 2 were inserted"},
	} {
		t.Run(name, func(t *testing.T) {
			s := goodScene()
			test.spoil(&s)
			wrong := strings.Join(compare(s.wants, s.messages, s.outcomes), "\n")
			if !strings.Contains(wrong, test.want) {
				t.Errorf("compare() = %q, want %q in it", wrong, test.want)
			}
		})
	}
}

func TestEncode(t *testing.T) {
	data := map[string]string{"thing1": `a"&<茶`}
	for i, want := range []string{`{"thing1":"a\"&<茶"}`, `{"thing1":{"value":"a\"&<茶"}}`} {
		text, err := encode(i, data)
		if err != nil {
			t.Fatal(err)
		}
		var got, wanted any
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(want), &wanted); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(wanted, got); diff != "" {
			t.Error(diff)
		}
	}
}

func TestDescribe(t *testing.T) {
	got := describe(map[string]int64{"sent": 1200, "pending": 3, "failed": 0})
	if want := "3 pending, 1,200 sent"; got != want {
		t.Errorf("describe() = %q, want %q", got, want)
	}
}
