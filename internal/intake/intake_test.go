package intake

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/applications"
)

func nullText(s string) sql.NullString { return sql.NullString{String: s, Valid: s != ""} }

func nullTime(at time.Time) sql.NullTime { return sql.NullTime{Time: at, Valid: !at.IsZero()} }

// TestRow: every field of a message arrives in its column, and an empty one is NULL.
func TestRow(t *testing.T) {
	f := newInstance(t, newDB(t), shop())
	due := time.Now().UTC().Add(time.Hour).Truncate(time.Millisecond)
	whole := Message{
		AppID: official, Recipient: Recipient{MiniAppID: mini, MiniOpenID: person}, Template: "order_paid",
		Data: json.RawMessage("{ \"thing1\": \"茶\\u0041😀\",\n\"number2\": 7 }\n"),
		URL:  "https://example.com/?q=1", MiniPath: "pages/a?b=1", JumpAppID: "wx0c00000000000001",
		Options: Options{Route: "official,mini", Page: "pages/p", Lang: "en_US", MiniState: "trial",
			Priority: new(2), DueAt: due, ExpiresAt: due.Add(time.Hour)},
		Key: "order 1 茶",
	}
	type columns struct {
		AppID, MiniAppID, MiniOpenID, OpenID, UnionID sql.NullString
		Template, Data                                string
		URL, MiniPath, JumpAppID, Page, Lang          sql.NullString
		MiniState, Route, Application                 sql.NullString
		Priority                                      int
		DueAt                                         time.Time
		ExpiresAt                                     sql.NullTime
	}
	read := func(id int64) (c columns) {
		t.Helper()
		err := f.db.QueryRowContext(t.Context(), `
			SELECT appid, mini_appid, mini_openid, openid, unionid, template, data, url, mini_path,
			       jump_appid, page, lang, mini_state, route, application, priority, due_at, expires_at
			  FROM send_request WHERE id = ?`, id).Scan(&c.AppID, &c.MiniAppID, &c.MiniOpenID, &c.OpenID,
			&c.UnionID, &c.Template, &c.Data, &c.URL, &c.MiniPath, &c.JumpAppID, &c.Page, &c.Lang,
			&c.MiniState, &c.Route, &c.Application, &c.Priority, &c.DueAt, &c.ExpiresAt)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	got := read(f.must(t, whole).ID)
	var data map[string]any
	if err := json.Unmarshal([]byte(got.Data), &data); err != nil || data["thing1"] != "茶A😀" {
		t.Errorf("data is %s, %v", got.Data, err)
	}
	got.Data = ""
	want := columns{
		AppID: nullText(official), MiniAppID: nullText(mini), MiniOpenID: nullText(person),
		Template: "order_paid", URL: nullText(whole.URL), MiniPath: nullText(whole.MiniPath),
		JumpAppID: nullText(whole.JumpAppID), Page: nullText("pages/p"), Lang: nullText("en_US"),
		MiniState: nullText("trial"), Route: nullText("official,mini"), Application: nullText("shop"),
		Priority: 2, DueAt: due, ExpiresAt: nullTime(due.Add(time.Hour)),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	got = read(f.must(t, order()).ID)
	if late := time.Since(got.DueAt); late < 0 || late > time.Minute {
		t.Errorf("it is due at %s", got.DueAt)
	}
	got.Data, got.DueAt = "", time.Time{}
	want = columns{OpenID: nullText(person), Template: "order_paid", Application: nullText("shop"), Priority: 1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestRefusals: what is wrong is refused with its code and field, costs nobody else their message, and
// leaves no row.
func TestRefusals(t *testing.T) {
	f := newInstance(t, newDB(t), shop())
	long := strings.Repeat("长", 1025)
	for field, cases := range map[string][]struct {
		code   int
		change func(*Message)
	}{
		"recipient": {{40003, func(m *Message) { m.OpenID = "" }},
			{40003, func(m *Message) { m.Recipient = Recipient{MiniAppID: mini} }}},
		"recipient.openid":      {{40003, func(m *Message) { m.OpenID = " " + person }}, {40003, func(m *Message) { m.OpenID = long }}},
		"recipient.mini_openid": {{40003, func(m *Message) { m.MiniOpenID = "o1" }}},
		"recipient.unionid":     {{40003, func(m *Message) { m.UnionID = "o1" }}},
		"recipient.mini_appid":  {{40003, func(m *Message) { m.MiniAppID = "ö" }}},
		"appid":                 {{40003, func(m *Message) { m.AppID = "wx 1" }}},
		"template": {{40036, func(m *Message) { m.Template = "" }}, {40037, func(m *Message) { m.Template = "a " }},
			{40037, func(m *Message) { m.Template = long }}, {40037, func(m *Message) { m.Template = "nowhere" }}},
		"key": {{40097, keyed(long)}, {40097, keyed("\xff")}},
		"url": {{40039, func(m *Message) { m.URL = "javascript:alert(1)" }}, {40039, func(m *Message) { m.URL = "https://" }},
			{40039, func(m *Message) { m.URL = "https://a/" + strings.Repeat("a", 2048) }},
			{40039, func(m *Message) { m.URL = "https://a/\n" }}},
		"mini_path":  {{40165, func(m *Message) { m.MiniPath = long }}},
		"jump_appid": {{40166, func(m *Message) { m.JumpAppID, m.MiniPath = "a b", "p" }}},
		"page":       {{41030, func(m *Message) { m.Page = long }}},
		"lang":       {{40097, func(m *Message) { m.Lang = "de" }}},
		"mini_state": {{40097, func(m *Message) { m.MiniState = "beta" }}},
		"route":      {{40097, func(m *Message) { m.Route = "both" }}},
		"priority":   {{40097, func(m *Message) { m.Priority = new(3) }}, {40097, func(m *Message) { m.Priority = new(-1) }}},
		"due_at": {{40097, func(m *Message) { m.DueAt = time.Unix(-1, 0) }},
			{40097, func(m *Message) { m.DueAt = lastMoment() }}},
		"expires_at": {{40097, func(m *Message) { m.ExpiresAt = time.Now().Add(-time.Second) }},
			{40097, func(m *Message) { m.DueAt, m.ExpiresAt = time.Now().Add(2*time.Hour), time.Now().Add(time.Hour) }}},
		"data": {{47003, func(m *Message) { m.Data = nil }}, {47003, func(m *Message) { m.Data = json.RawMessage(`{}`) }},
			{47003, func(m *Message) { m.Data = json.RawMessage(`[1]`) }}, {47003, func(m *Message) { m.Data = json.RawMessage(`{"a":"` + "\xff" + `"}`) }},
			{47003, func(m *Message) { m.Data = json.RawMessage(`{"a":"` + strings.Repeat("a", maxData) + `"}`) }}},
	} {
		for i, c := range cases {
			r := f.accept(t, order(c.change))[0]
			why, ok := errors.AsType[*Rejection](r.Err)
			if !ok || why.Code != c.code || why.Field != field {
				t.Errorf("%s[%d]: %+v, want %d", field, i, r.Err, c.code)
			}
		}
	}
	if n := f.rows(t); n != 0 {
		t.Errorf("%d rows of refused messages", n)
	}
	results := f.accept(t, order(), order(func(m *Message) { m.Template = "" }), order())
	if results[0].Err != nil || code(results[1]) != 40036 || results[2].Err != nil || f.rows(t) != 2 {
		t.Errorf("%+v", results)
	}
	if got := code(f.accept(t, make([]Message, MaxBatch+1)...)[0]); got != codeData {
		t.Errorf("a batch too large: %d", got)
	}
}

// TestRights: each account that a message may go to needs the right, and so does the template.
func TestRights(t *testing.T) {
	a := shop()
	a.Accounts, a.Templates = map[string][]applications.Call{official: {applications.TemplateSend}}, []string{"order_paid"}
	f := newInstance(t, newDB(t), a)
	for name, tc := range map[string]struct {
		change func(*Message)
		want   int
	}{
		"allowed":            {func(*Message) {}, 0},
		"another account":    {func(m *Message) { m.AppID = mini }, 48001},
		"a second account":   {func(m *Message) { m.Route = "official,mini" }, 48001},
		"another template":   {func(m *Message) { m.Template = "ad" }, 48001},
		"a right it has not": {func(m *Message) { m.Call = applications.UniformSend }, 48001},
		"a right it has":     {func(m *Message) { m.Call = applications.TemplateSend }, 0},
	} {
		if got := code(f.accept(t, order(tc.change))[0]); got != tc.want {
			t.Errorf("%s: %d, want %d", name, got, tc.want)
		}
	}
	if r := f.Accept(t.Context(), applications.Session{}, []Message{order()}); r[0].Err == nil {
		t.Error("nobody's message is accepted")
	}
}

func TestPriority(t *testing.T) {
	a := shop()
	f := newInstance(t, newDB(t), a)
	for given, want := range map[int]int{0: 1, 1: 1, 2: 2} {
		r := f.must(t, order(func(m *Message) { m.Priority = &given }))
		var got int
		if err := f.db.Get(&got, `SELECT priority FROM send_request WHERE id = ?`, r.ID); err != nil || got != want {
			t.Errorf("priority %d became %d, want %d (%v)", given, got, want, err)
		}
	}
}

// TestLimits: exactly as many are accepted as the limit says, over instances and callers, and neither
// repetitions nor refused ones count.
func TestLimits(t *testing.T) {
	db := newDB(t)
	a := shop()
	a.Limit.Day = 50
	instances := []*fixture{newInstance(t, db, a), newInstance(t, db, a)}
	first := instances[0].must(t, order(keyed("one")))
	var mu sync.Mutex
	accepted, limited := 1, 0
	var callers sync.WaitGroup
	for i := range 8 {
		callers.Go(func() {
			f := instances[i%2]
			for range 10 {
				results := f.accept(t, order(keyed("one")), order(func(m *Message) { m.Template = "" }), order())
				mu.Lock()
				switch code(results[2]) {
				case 0:
					accepted++
				case 45009:
					limited++
				default:
					t.Errorf("%+v", results[2])
				}
				if results[0].Err == nil && results[0].ID != first.ID {
					t.Errorf("%+v", results[0])
				}
				mu.Unlock()
			}
		})
	}
	callers.Wait()
	if n := instances[0].rows(t); n != 50 || accepted != 50 || accepted+limited != 81 {
		t.Errorf("%d rows, %d accepted, %d limited; want 50, 50, 31", n, accepted, limited)
	}
}

// TestOlderInstance: nothing is accepted while a program that knows no doors holds a lease.
func TestOlderInstance(t *testing.T) {
	f := newInstance(t, newDB(t), shop())
	f.exec(t, `INSERT INTO lease (name, holder, epoch, expires_at)
		VALUES ('send:x', 'old', 1, CURRENT_TIMESTAMP(3) + INTERVAL 1 MINUTE)`)
	if r := f.accept(t, order())[0]; code(r) != -1 || !strings.Contains(r.Err.Error(), "old") {
		t.Errorf("%+v", r)
	}
}

// TestGone: without a database, or a committer, the answer is that nothing was accepted, in time.
func TestGone(t *testing.T) {
	db := newDB(t)
	idle := newStopped(t, db, shop())
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if r := idle.Accept(ctx, idle.session, []Message{order()})[0]; code(r) != -1 {
		t.Errorf("nobody runs: %+v", r)
	}
	f := newInstance(t, db, shop())
	f.must(t, order())
	f.exec(t, `RENAME TABLE send_request TO send_request_away`)
	if r := f.accept(t, order())[0]; code(r) != -1 {
		t.Errorf("no table: %+v", r)
	}
	f.exec(t, `RENAME TABLE send_request_away TO send_request`)
	f.must(t, order())
}
