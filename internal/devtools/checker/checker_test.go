package checker

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

const appid = wechatsim.StandardAppID

var begin = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func at(d time.Duration) sql.NullTime { return sql.NullTime{Time: begin.Add(d), Valid: true} }

// history is two requests that went well, each with a repetition, one that was withdrawn, one whose
// recipient does not follow, and one whose INSERT was not answered, and not carried out.
func history() History {
	h := History{
		Requests: map[string]Request{}, AllReceipts: true,
		Times: &Times{Window: 20 * time.Second, Slack: 10 * time.Second, Overdue: 15 * time.Second},
	}
	for i, order := range []string{"A", "B"} {
		want := Request{
			Order: order, Committed: true, Text: Text("茶&<>", "1.80元", order),
			Recipient: wechatsim.Identity{Person: i, UnionID: "u" + order, OpenID: "o" + order},
		}
		h.Requests[order] = want
		h.Rows = append(h.Rows, Row{
			ID: int64(i + 1), AppID: appid, Order: order, Status: "sent", MsgID: int64(100 + i),
			SentOpenID: "o" + order, Created: begin, Due: begin, Finished: at(2 * time.Second),
			Attempted: at(time.Second), InDoubt: at(time.Second), Expires: at(30 * time.Second),
		})
		h.Messages = append(h.Messages, wechatsim.Message{
			AppID: appid, OpenID: "o" + order, UnionID: "u" + order, Person: i, TemplateID: harness.TemplateID(),
			Data: json.RawMessage(Data(want.Text, false)), ClientMsgID: "c" + order,
			MsgID: int64(100 + i), Time: begin.Add(2 * time.Second),
		})
		h.Posts = append(h.Posts,
			Post{Order: order, ClientMsgID: "c" + order, From: "a", At: begin.Add(time.Second)},
			Post{Order: order, ClientMsgID: "c" + order, From: "b", At: begin.Add(25 * time.Second)})
		h.Receipts = append(h.Receipts, Receipt{int64(100 + i), "o" + order})
	}
	h.Requests["C"] = Request{Order: "C", Committed: true, Withdrawn: true}
	h.Rows = append(h.Rows,
		Row{ID: 3, Order: "C", Status: "cancelled", Finished: at(time.Second), Created: begin})
	h.Requests["D"] = Request{Order: "D"}
	h.Requests["E"] = Request{Order: "E", Committed: true, Waits: true}
	h.Rows = append(h.Rows,
		Row{ID: 4, Order: "E", Status: "waiting", Reason: "no_follower", Created: begin})
	return h
}

func TestCheckFindsNothingWrong(t *testing.T) {
	v := Check(history())
	if len(v.Violations) > 0 {
		t.Errorf("violations: %+v", v.Violations)
	}
	got := []any{v.Committed, v.Unconfirmed, v.Lost, v.Twice, v.Repeats, v.Status,
		v.Wrong, v.Duplicates, v.Missing}
	want := []any{4, 1, 0, 0, 2, map[string]int{"sent": 2, "cancelled": 1, "waiting": 1}, 0, 0, 0}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A check that cannot fail proves nothing: each of these is one promise broken.
func TestCheckFinds(t *testing.T) {
	again := func(h *History) { h.Messages = append(h.Messages, h.Messages[0]) }
	to := func(h *History, order string) { // a message with E's or nobody's text
		m := h.Messages[1]
		m.Data, m.MsgID = json.RawMessage(Data(Text("a", "b", order), false)), 102
		h.Messages = append(h.Messages, m)
	}
	for name, test := range map[string]struct {
		spoil func(*History)
		want  string
	}{
		"lost":              {func(h *History) { h.Rows = slices.Delete(h.Rows, 2, 3) }, "C committed, and lost"},
		"pending":           {func(h *History) { h.Rows[2].Status = "pending" }, "C row 3 is still pending"},
		"waiting":           {func(h *History) { h.Rows[2].Status = "waiting" }, "C row 3 is still waiting"},
		"half final":        {func(h *History) { h.Rows[0].Lease = "x" }, "A row 1 is sent, but finished_at or lease"},
		"without its msgid": {func(h *History) { h.Rows[0].MsgID = 0 }, "A row 1 is sent with msgid 0"},
		"nobody's row":      {func(h *History) { delete(h.Requests, "C") }, "C row 3 belongs to no request"},
		"inserted twice": {func(h *History) {
			twin := h.Rows[2]
			twin.ID = 9
			h.Rows = append(h.Rows, twin)
		}, "C rows 3 and 9 are one request"},
		"withdrawn, and failed":      {func(h *History) { h.Rows[2].Status = "failed" }, "C withdrawn before it was due"},
		"sent, but never arrived":    {func(h *History) { h.Messages = h.Messages[1:] }, "A row 1 is sent, but nothing arrived"},
		"arrived, but expired":       {func(h *History) { h.Rows[0].Status, h.Rows[0].MsgID = "expired", 0 }, "A arrived, but row 1 is expired"},
		"twice under one id":         {again, "A arrived 2 times, under the ids cA, cA"},
		"another person":             {func(h *History) { h.Messages[1].Person = 7 }, "B went to person 7"},
		"another unionid":            {func(h *History) { h.Messages[1].UnionID = "uX" }, "B went to person 1 (unionid uX"},
		"another openid":             {func(h *History) { h.Messages[1].OpenID = "oX" }, "B went to person 1 (unionid uB, openid oX)"},
		"another account":            {func(h *History) { h.Messages[1].AppID = "wxX" }, "B went out through wxX"},
		"another template":           {func(h *History) { h.Messages[1].TemplateID = "tX" }, "B went out through " + appid + " with template tX"},
		"another account in the row": {func(h *History) { h.Rows[1].AppID = "wxX" }, `B row 2 says that account "wxX" sent it`},
		"a subscribe message posted again": {func(h *History) {
			h.Posts[2].Subscribe, h.Posts[3].Subscribe = true, true
		}, "B posted 2 times as a subscribe message"},
		"another text":              {func(h *History) { h.Messages[1].Data = h.Messages[0].Data }, "A arrived 2 times"},
		"a changed text":            {func(h *History) { h.change("80元", "81元") }, "B arrived as"},
		"a spoiled text":            {func(h *History) { h.change(`茶\u0026`, `茶\u0026amp;`) }, "B arrived as"},
		"a keyword lost":            {func(h *History) { h.Requests["B"].Text["time3"] = "15:04" }, "B arrived as"},
		"another openid in the row": {func(h *History) { h.Rows[0].SentOpenID = "o" }, "A row 1 says that it was sent to o"},
		"another msgid in the row":  {func(h *History) { h.Rows[0].MsgID = 5 }, "A row 1 says msgid 5"},
		"a message without a text":  {func(h *History) { h.Messages[1].Data = json.RawMessage(`{}`) }, "1 messages that no row asks for"},
		"a message of nobody":       {func(h *History) { to(h, "X") }, "X 1 messages that no row asks for"},
		"garbage":                   {func(h *History) { h.Messages[1].Data = json.RawMessage(`{"thing1":"x"}`) }, "B row 2 is sent, but nothing arrived"},
		"late":                      {func(h *History) { h.Messages[0].Time = begin.Add(46 * time.Second) }, "A arrived 16s after its expires_at"},
		"early": {func(h *History) {
			r := h.Requests["A"]
			r.Due = 3 * time.Second
			h.Requests["A"] = r
		}, "A arrived 995ms before it was due"},
		"two ids":               {func(h *History) { h.Posts[1].ClientMsgID = "other" }, "A posted under the ids cA and other"},
		"outside the window":    {func(h *History) { h.Posts[1].At = begin.Add(32 * time.Second) }, "A posted again 31s after"},
		"receipt lost":          {func(h *History) { h.Receipts = h.Receipts[1:] }, "A the receipt of msgid 100 is lost"},
		"receipt of another":    {func(h *History) { h.Receipts[0].OpenID = "o" }, "A the receipt of msgid 100 names o"},
		"receipt from nowhere":  {func(h *History) { h.Receipts = append(h.Receipts, Receipt{7, "A"}) }, "a receipt of msgid 7"},
		"to a non-follower":     {func(h *History) { to(h, "E") }, "E arrived at somebody who cannot be reached"},
		"non-follower failed":   {func(h *History) { h.Rows[3].Status = "failed" }, `E the recipient cannot be reached, and row 4 is failed`},
		"waiting for no reason": {func(h *History) { h.Rows[3].Reason = "" }, `E the recipient cannot be reached, and row 4 is waiting with reason ""`},
		"undisturbed, and nothing arrived": {func(h *History) {
			h.Undisturbed, h.Messages, h.Rows[0].Status, h.Rows[0].MsgID = true, h.Messages[1:], "failed", 0
		}, "A nothing arrived; row 1 is failed"},
		"undisturbed, and unknown": {func(h *History) {
			h.Undisturbed, h.Rows[0].Status, h.Rows[0].MsgID = true, "unknown", 0
		}, "A arrived, but row 1 is unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			h := history()
			test.spoil(&h)
			var all []string
			for _, v := range Check(h).Violations {
				all = append(all, v.String())
			}
			if !slices.ContainsFunc(all, func(text string) bool { return strings.HasPrefix(text, test.want) }) {
				t.Errorf("want a violation %q, have %q", test.want, all)
			}
		})
	}
}

// change changes the text of B's message.
func (h *History) change(old, text string) {
	h.Messages[1].Data = json.RawMessage(strings.Replace(string(h.Messages[1].Data), old, text, 1))
}

// What is no violation.
func TestCheckAllows(t *testing.T) {
	for name, spoil := range map[string]func(*History){
		"an unknown outcome that arrived": func(h *History) { h.Rows[0].Status, h.Rows[0].MsgID = "unknown", 0 },
		"an unconfirmed INSERT that was carried out": func(h *History) {
			h.Rows = append(h.Rows, Row{ID: 5, Order: "D", Status: "failed", Finished: at(0), Created: begin})
		},
		"another msgid where WeChat makes them up": func(h *History) { h.Rows[0].MsgID, h.NewIDs = 5, true },
		"the other account": func(h *History) {
			h.Templates = map[string]string{appid: harness.TemplateID(), "wxX": "tX"}
			h.Messages[1].AppID, h.Messages[1].TemplateID, h.Rows[1].AppID = "wxX", "tX", "wxX"
		},
		"a subscribe message posted once": func(h *History) {
			h.Posts[2].Subscribe, h.Posts[2].ClientMsgID, h.Posts = true, "", h.Posts[:3]
		},
		"a late repetition of what was refused": func(h *History) {
			h.Posts[1].At, h.Rows[0].InDoubt.Valid = begin.Add(time.Hour), false
		},
		"moments of a wrong clock": func(h *History) {
			h.Times = nil
			h.Messages[0].Time, h.Messages[1].Time = begin.Add(-time.Hour), begin.Add(time.Hour)
		},
		"receipts that may be lost": func(h *History) { h.AllReceipts, h.Receipts = false, h.Receipts[1:] },
	} {
		t.Run(name, func(t *testing.T) {
			h := history()
			spoil(&h)
			if v := Check(h); len(v.Violations) > 0 {
				t.Errorf("violations: %+v", v.Violations)
			}
		})
	}
}

func TestCounts(t *testing.T) {
	for name, test := range map[string]struct {
		spoil                      func(*History)
		wrong, duplicates, missing int
	}{
		"another person": {func(h *History) { h.Messages[1].Person = 7 }, 1, 0, 0},
		"nobody's":       {func(h *History) { h.Messages[1].Data = json.RawMessage(`{}`) }, 1, 0, 1},
		"pending":        {func(h *History) { h.Rows[0].Status = "pending" }, 1, 0, 0},
		"three times":    {func(h *History) { h.Messages = append(h.Messages, h.Messages[0], h.Messages[0]) }, 0, 2, 0},
		"missing":        {func(h *History) { h.Messages = nil }, 0, 0, 2},
	} {
		h := history()
		test.spoil(&h)
		v := Check(h)
		if v.Wrong != test.wrong || v.Duplicates != test.duplicates || v.Missing != test.missing {
			t.Errorf("%s: %d wrong, %d duplicates, %d missing", name, v.Wrong, v.Duplicates, v.Missing)
		}
	}
}

func TestStoryIsInOrder(t *testing.T) {
	h := history()
	h.Rows[0].Status, h.Rows[0].MsgID = "failed", 0
	v := Check(h)
	if len(v.Violations) != 1 {
		t.Fatalf("violations: %+v", v.Violations)
	}
	last := -1
	for _, part := range []string{
		"asked:", "row 1: failed", "created_at", "posted by a as cA", "arrived as msgid 100",
		"03:04:30.000 posted by b as cA",
	} {
		at := strings.Index(v.Violations[0].Story, part)
		if at <= last {
			t.Errorf("%q is not in its place:\n%s", part, v.Violations[0].Story)
		}
		last = at
	}
}

func TestData(t *testing.T) {
	text := map[string]string{"thing1": `a"&<茶`}
	for short, want := range map[bool]string{true: `{"thing1":"a\"&<茶"}`, false: `{"thing1":{"value":"a\"&<茶"}}`} {
		var got, wanted any
		if err := json.Unmarshal([]byte(Data(text, short)), &got); err != nil {
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

func TestCompareFollower(t *testing.T) {
	sim := wechatsim.NewStandard(3, 0, 0)
	good := Follower{OpenID: sim.OpenID(appid, 0), UnionID: sim.UnionID(0), Subscribed: true}
	swapped, gone, nobody, late := good, good, good, good
	swapped.UnionID, gone.Subscribed, nobody.OpenID, late.UnionID = sim.UnionID(1), false, "o", ""
	for _, test := range []struct {
		row           Follower
		want          string
		misattributed bool
	}{
		{good, "", false},
		{swapped, fmt.Sprintf("%s has the unionid %q, the truth is %q", good.OpenID, sim.UnionID(1), good.UnionID), true},
		{late, fmt.Sprintf("%s has the unionid %q, the truth is %q", good.OpenID, "", good.UnionID), false},
		{gone, good.OpenID + ": subscribed is false, the truth is true", false},
		{nobody, "o is nobody's openid", true},
	} {
		if got, misattributed := test.row.compare(appid, sim); got != test.want || misattributed != test.misattributed {
			t.Errorf("compare(%+v) = %q, %t", test.row, got, misattributed)
		}
	}
}

// TestCompareMap spoils a right map in every way that the comparison has to see.
func TestCompareMap(t *testing.T) {
	const followers, newcomer, leaver = 20, 1 << 30, 3
	run := harness.ForTest(t, harness.NewScreen(io.Discard, time.Now))
	db := run.Wrap(dbtest.New(t))
	people := wechatsim.New(wechatsim.Standard(followers, 0, 0))
	people.Unfollow(appid, leaver)
	people.Follow(appid, newcomer)
	everybody := []int{newcomer}
	for person := range followers {
		everybody = append(everybody, person)
	}
	for _, test := range []struct {
		name, spoil         string
		wrong, missing      int
		misattributed, subs int
	}{
		{"right", "DO 1", 0, 0, 0, followers},
		{"empty", "DELETE FROM follower", 0, followers + 1, 0, 0},
		{"one missing", "DELETE FROM follower WHERE subscribed = 1 ORDER BY openid LIMIT 1", 0, 1, 0, followers - 1},
		{"back by mistake", "UPDATE follower SET subscribed = 1", 1, 1, 0, followers + 1},
		{"gone by mistake", "UPDATE follower SET subscribed = 0 WHERE subscribed = 1 ORDER BY openid LIMIT 2", 2, 2, 0, followers - 2},
		{"without a unionid", "UPDATE follower SET unionid = NULL WHERE subscribed = 1 ORDER BY openid LIMIT 1", 1, 1, 0, followers},
		{"another's unionid", "UPDATE follower SET unionid = 'oAnother' ORDER BY openid LIMIT 1", 1, 1, 1, followers},
		{"a stranger", "INSERT INTO follower (appid, openid) VALUES ('" + appid + "', 'oStranger')", 1, 0, 1, followers + 1},
		{"another account's rows do not count", "INSERT INTO follower (appid, openid) VALUES ('wx1', 'oStranger')", 0, 0, 0, followers},
	} {
		db.MustExec("DELETE FROM follower")
		for _, person := range everybody {
			db.MustExec("INSERT INTO follower (appid, openid, unionid, subscribed) VALUES (?, ?, ?, ?)", appid,
				people.OpenID(appid, person), people.UnionID(person), people.IsFollower(appid, person))
		}
		db.MustExec(test.spoil)
		f := CompareMap(run, db, appid, people)
		got := []int{f.Wrong, len(everybody) - f.Right, f.Misattributed, f.Subscribed}
		if diff := cmp.Diff([]int{test.wrong, test.missing, test.misattributed, test.subs}, got); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
	}
}

// The rows are read back in either form of their data.
func TestReadRows(t *testing.T) {
	db := harness.ForTest(t, harness.NewScreen(io.Discard, time.Now)).Wrap(dbtest.New(t))
	for i, short := range []bool{true, false} {
		db.MustExec("INSERT INTO send_request (unionid, template, data) VALUES ('u', 't', ?)",
			Data(Text("茶", "1元", fmt.Sprint("N-", i)), short))
	}
	rows := ReadRows(db, "send_request")
	if len(rows) != 2 || rows[0].Order != "N-0" || rows[1].Order != "N-1" || rows[0].Status != "pending" || rows[0].Created.IsZero() {
		t.Errorf("read %+v", rows)
	}
}
