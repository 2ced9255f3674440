package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

func TestReport(t *testing.T) {
	var out bytes.Buffer
	report(stage.NewScreen(&out, time.Now), "a machine", []figure{
		{"first_sweep", 41234.6, "followers/s", atLeast(35_000), "first sweep"},
		{"first_sweep_memory", 64.04, "MiB", atMost(64), "peak memory"},
		{"idle_queries", 4.966, "queries/s", atMost(5), "idle"},
		{"send_ratio", 12.34, "x", target{}, "ratio"},
		{"second_sweep_rows_written", 1, "rows", exactly(0), "rows"},
		{"finished_ratio", 0.89, "x", atLeast(0.9), "share"},
	})
	_, lines, found := strings.Cut(out.String(), "first_sweep 4")
	want := `1235 followers/s >=35000 ok
first_sweep_memory 64.0 MiB <=64 short
idle_queries 4.97 queries/s <=5 ok
send_ratio 12.3 x - ok
second_sweep_rows_written 1 rows =0 short
finished_ratio 0.89 x >=0.90 short
`
	if diff := cmp.Diff(want, lines); !found || diff != "" {
		t.Error(diff)
	}
	for _, line := range strings.Split(strings.TrimSpace(lines), "\n")[1:] {
		if fields := strings.Fields(line); len(fields) != 5 {
			t.Errorf("%q has %d fields, want name value unit target verdict", line, len(fields))
		}
	}
	if !strings.Contains(out.String(), ">= 0.90  short") || !strings.Contains(out.String(), ">= 35,000  ok") {
		t.Errorf("the table lacks a target:\n%s", out.String())
	}
	if !strings.Contains(out.String(), "a machine") || !strings.Contains(out.String(), "41,234") {
		t.Errorf("the table lacks the machine or the figure:\n%s", out.String())
	}
}

func TestMedian(t *testing.T) {
	for want, values := range map[float64][]float64{7: {7}, 2: {3, 1, 2}, 5: {5, 9, 5}} {
		if got := median(values); got != want {
			t.Errorf("median(%v) = %v, want %v", values, got, want)
		}
	}
}

// backlog is three requests that ended as they should.
func backlog() (users []wechatsim.Identity, messages []wechatsim.Message, rows map[string]sentRow) {
	rows = make(map[string]sentRow)
	for i := range 3 {
		users = append(users, wechatsim.Identity{UnionID: fmt.Sprint("u", i)})
		var plain map[string]string
		_ = json.Unmarshal([]byte(message("B", i)), &plain) // a literal
		long := make(map[string]map[string]string)
		for key, value := range plain {
			long[key] = map[string]string{"value": value}
		}
		data, _ := json.Marshal(long) // strings always encode
		m := wechatsim.Message{
			AppID: stage.AppID, OpenID: fmt.Sprint("o", i), UnionID: users[i].UnionID, TemplateID: stage.TemplateID(), Data: data, MsgID: int64(i + 1),
		}
		messages = append(messages, m)
		rows[order("B", i)] = sentRow{"sent", m.OpenID, m.MsgID}
	}
	return users, messages, rows
}

func TestJudge(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(m []wechatsim.Message, rows map[string]sentRow) []wechatsim.Message
		want  verdict
	}{
		"good": {func(m []wechatsim.Message, _ map[string]sentRow) []wechatsim.Message { return m }, verdict{}},
		"another person": {func(m []wechatsim.Message, _ map[string]sentRow) []wechatsim.Message {
			m[1].UnionID = "u2"
			return m
		}, verdict{wrong: 1}},
		"another account": {func(m []wechatsim.Message, _ map[string]sentRow) []wechatsim.Message {
			m[1].AppID = "wx"
			return m
		}, verdict{wrong: 1}},
		"another template": {func(m []wechatsim.Message, _ map[string]sentRow) []wechatsim.Message {
			m[1].TemplateID = "t"
			return m
		}, verdict{wrong: 1}},
		"another text": {func(m []wechatsim.Message, _ map[string]sentRow) []wechatsim.Message {
			m[1].Data = bytes.Replace(m[1].Data, []byte("28.00"), []byte("28.01"), 1)
			return m
		}, verdict{wrong: 1}},
		"a row that does not know": {func(m []wechatsim.Message, rows map[string]sentRow) []wechatsim.Message {
			rows[order("B", 1)] = sentRow{"pending", "", 0}
			return m
		}, verdict{wrong: 1}},
		"a row with another msgid": {func(m []wechatsim.Message, rows map[string]sentRow) []wechatsim.Message {
			rows[order("B", 1)] = sentRow{"sent", "o1", 9}
			return m
		}, verdict{wrong: 1}},
		"nobody's message": {func(m []wechatsim.Message, _ map[string]sentRow) []wechatsim.Message {
			return append(m, wechatsim.Message{Data: json.RawMessage(`{}`)})
		}, verdict{wrong: 1}},
		"twice":   {func(m []wechatsim.Message, _ map[string]sentRow) []wechatsim.Message { return append(m, m[0], m[0]) }, verdict{duplicates: 2}},
		"missing": {func(m []wechatsim.Message, _ map[string]sentRow) []wechatsim.Message { return m[:1] }, verdict{missing: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			users, messages, rows := backlog()
			messages = test.spoil(messages, rows)
			if got := judge(users, messages, rows); got != test.want {
				t.Errorf("judge() = %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestParse(t *testing.T) {
	o, err := parse([]string{"-scale", "0.01", "-only", "sweep|idle"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	got := []any{o.followers, o.requests, o.wants("sweep"), o.wants("send"), o.wants("idle"), o.wants("latency")}
	if diff := cmp.Diff([]any{10_000, 2000, true, false, true, false}, got); diff != "" {
		t.Error(diff)
	}
	if o, err = parse([]string{"-only", "send"}, io.Discard); err != nil {
		t.Fatal(err)
	}
	if b := (&bench{options: o}); b.mainSize() != o.requests || o.wantsAny("sweep", "slow", "change", "kill", "large") {
		t.Errorf("-only send: %d followers for %d requests, and more than send is measured", b.mainSize(), o.requests)
	}
	if o, err = parse([]string{"-full-tables=false"}, io.Discard); err != nil {
		t.Fatal(err)
	}
	if o.wantsSender("future") || o.wantsSender("finished") || !o.wantsSender("fair") {
		t.Error("-full-tables=false leaves out the wrong parts")
	}
	for _, args := range [][]string{{"-only", "["}, {"-only", "nothing"}, {"-requests", "5"}, {"-followers", "5000"}, {"-kills", "0"}, {"-kill-followers", "9"}, {"word"}, {"-nonsense"}} {
		if _, err := parse(args, io.Discard); err == nil || errors.Is(err, flag.ErrHelp) {
			t.Errorf("parse(%q) = %v", args, err)
		}
	}
}
