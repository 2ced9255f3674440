package main

import (
	"database/sql"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

var begin = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// scene is two requests that went well, one of them with a repetition, and one that was withdrawn.
func scene() evidence {
	e := evidence{records: map[string]record{}, window: 20 * time.Second, slack: 10 * time.Second, overdue: 15 * time.Second, allReceipts: true}
	for i, order := range []string{"A", "B"} {
		e.records[order] = record{order: order, person: i, committed: true}
		want := e.records[order]
		e.rows = append(e.rows, row{
			id: int64(i + 1), order: order, status: "sent", msgid: int64(100 + i), sentOpenID: order, createdAt: begin,
			finishedAt: at(2 * time.Second), attemptedAt: at(time.Second), uncertainAt: at(time.Second),
			expiresAt: at(30 * time.Second),
		})
		e.messages = append(e.messages, wechatsim.Message{
			AppID: stage.AppID, OpenID: order, Person: i, TemplateID: stage.TemplateID(), Data: json.RawMessage(want.data()),
			ClientMsgID: "c" + order, MsgID: int64(100 + i), Time: begin.Add(2 * time.Second),
		})
		e.posts = append(e.posts, post{order, "c" + order, "a", begin.Add(time.Second)}, post{order, "c" + order, "b", begin.Add(25 * time.Second)})
		e.receipts = append(e.receipts, receipt{int64(100 + i), order, "success"})
	}
	e.records["C"] = record{order: "C", person: 2, committed: true, withdrawn: true}
	e.rows = append(e.rows, row{id: 3, order: "C", status: "cancelled", finishedAt: at(time.Second), createdAt: begin})
	e.records["D"] = record{order: "D"} // its INSERT was not answered, and not carried out
	return e
}

func at(d time.Duration) sql.NullTime { return sql.NullTime{Time: begin.Add(d), Valid: true} }

func TestJudgeKnowsAGoodRound(t *testing.T) {
	v := judge(scene())
	if len(v.violations) > 0 {
		t.Errorf("violations: %+v", v.violations)
	}
	want := []any{3, 3, 1, 0, 0, 4, 2, map[string]int{"sent": 2, "cancelled": 1}}
	got := []any{v.rows, v.committed, v.unconfirmed, v.lost, v.twice, v.posts, v.repeats, v.status}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// Each broken promise is seen.
func TestJudgeSeesViolations(t *testing.T) {
	for name, test := range map[string]struct {
		spoil func(*evidence)
		want  string
	}{
		"lost":              {func(e *evidence) { e.rows = slices.Delete(e.rows, 2, 3) }, "C: committed, and lost"},
		"open":              {func(e *evidence) { e.rows[2].status = "pending" }, "C: row 3 is still pending"},
		"waiting":           {func(e *evidence) { e.rows[2].status = "waiting" }, "C: row 3 is still waiting"},
		"half final":        {func(e *evidence) { e.rows[0].lease = "x" }, "A: row 1 is sent, but finished_at or lease"},
		"without its msgid": {func(e *evidence) { e.rows[0].msgid = 0 }, "A: row 1 is sent with msgid 0"},
		"nobody's row":      {func(e *evidence) { delete(e.records, "C") }, "C: row 3 is nobody's"},
		"inserted twice": {func(e *evidence) {
			again := e.rows[2]
			again.id = 9
			e.rows = append(e.rows, again)
		}, "C: rows 3 and 9 are one request"},
		"withdrawn, and failed":   {func(e *evidence) { e.rows[2].status = "failed" }, "C: withdrawn before it was due"},
		"sent, but never arrived": {func(e *evidence) { e.messages = e.messages[1:] }, "A: row 1 is sent, but nothing arrived"},
		"arrived, but called":     {func(e *evidence) { e.rows[0].status, e.rows[0].msgid = "expired", 0 }, "A: arrived, but row 1 is expired"},
		"twice under one id":      {func(e *evidence) { e.messages = append(e.messages, e.messages[0]) }, "A: arrived 2 times, under the ids cA, cA"},
		"another person":          {func(e *evidence) { e.messages[1].Person = 7 }, "B: went to person 7"},
		"another text":            {func(e *evidence) { e.messages[1].Data = e.messages[0].Data }, "A: arrived 2 times"},
		"a changed text": {func(e *evidence) {
			e.messages[1].Data = json.RawMessage(strings.Replace(string(e.messages[1].Data), "80元", "81元", 1))
		}, "B: arrived as"},
		"another openid in the row": {func(e *evidence) { e.rows[0].sentOpenID = "o" }, "A: row 1 says that it was sent to o"},
		"another msgid in the row":  {func(e *evidence) { e.rows[0].msgid = 5 }, "A: row 1 says msgid 5"},
		"a message of no row":       {func(e *evidence) { e.messages[1].Data = json.RawMessage(`{}`) }, "a message that no row asks for"},
		"late":                      {func(e *evidence) { e.messages[0].Time = begin.Add(46 * time.Second) }, "A: arrived 16s after its expires_at"},
		"early": {func(e *evidence) {
			r := e.records["A"]
			r.due = 3 * time.Second
			e.records["A"] = r
		}, "A: arrived 995ms before it was due"},
		"two ids":              {func(e *evidence) { e.posts[1].clientID = "other" }, "A: posted under the ids cA and other"},
		"outside the window":   {func(e *evidence) { e.posts[1].at = begin.Add(32 * time.Second) }, "A: posted again 31s after"},
		"receipt lost":         {func(e *evidence) { e.receipts = e.receipts[1:] }, "A: the receipt of msgid 100 is lost"},
		"receipt of another":   {func(e *evidence) { e.receipts[0].openid = "o" }, "A: the receipt of msgid 100 names o"},
		"receipt from nowhere": {func(e *evidence) { e.receipts = append(e.receipts, receipt{7, "A", "success"}) }, "a receipt of msgid 7"},
	} {
		t.Run(name, func(t *testing.T) {
			e := scene()
			test.spoil(&e)
			var all []string
			for _, v := range judge(e).violations {
				all = append(all, strings.TrimPrefix(v.order+": "+v.text, ": "))
			}
			if !slices.ContainsFunc(all, func(text string) bool { return strings.HasPrefix(text, test.want) }) {
				t.Errorf("want a violation %q, have %q", test.want, all)
			}
		})
	}
}

// What is no violation.
func TestJudgeForgives(t *testing.T) {
	for name, spoil := range map[string]func(*evidence){
		"an unknown outcome that arrived": func(e *evidence) { e.rows[0].status, e.rows[0].msgid = "unknown", 0 },
		"an unconfirmed INSERT that was carried out": func(e *evidence) {
			e.rows = append(e.rows, row{id: 4, order: "D", status: "failed", finishedAt: at(0), createdAt: begin})
		},
		"another msgid where WeChat makes them up": func(e *evidence) { e.rows[0].msgid, e.newIDs = 5, true },
		"a late repetition of what was refused":    func(e *evidence) { e.posts[1].at, e.rows[0].uncertainAt.Valid = begin.Add(time.Hour), false },
		"moments of a wrong clock": func(e *evidence) {
			e.timeless = true
			e.messages[0].Time = begin.Add(-time.Hour)
			e.messages[1].Time = begin.Add(time.Hour)
		},
		"receipts that may be lost": func(e *evidence) { e.allReceipts, e.receipts = false, e.receipts[1:] },
	} {
		t.Run(name, func(t *testing.T) {
			e := scene()
			spoil(&e)
			if v := judge(e); len(v.violations) > 0 {
				t.Errorf("violations: %+v", v.violations)
			}
		})
	}
}

func TestStoryIsInOrder(t *testing.T) {
	e := scene()
	e.rows[0].status, e.rows[0].msgid = "failed", 0
	v := judge(e)
	if len(v.violations) != 1 {
		t.Fatalf("violations: %+v", v.violations)
	}
	last := -1
	for _, part := range []string{"asked:", "row 1: failed", "created_at", "posted by a as cA", "arrived as msgid 100", "finished_at", "03:04:30.000 posted by b as cA"} {
		at := strings.Index(v.violations[0].story, part)
		if at <= last && part != "finished_at" {
			t.Errorf("%q is not in its place:\n%s", part, v.violations[0].story)
		}
		last = at
	}
}
