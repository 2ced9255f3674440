package queue

import (
	"cmp"
	"database/sql"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
)

// TestLanes: a lane is due by its first row, and rows that are due later do not count.
func TestLanes(t *testing.T) {
	f := newFixture(t)
	for _, c := range []columns{
		{"due_at": in(60)}, {"due_at": in(-60)},
		{"appid": nil},
		{"appid": otherAppID, "due_at": in(1)}, {"appid": otherAppID, "due_at": in(2)},
		{"priority": 0, "due_at": in(1)},
		{"template": "refund"},
		{"status": "waiting", "due_at": in(60)},
		{"status": "unknown"},
		{"status": "sent"},
	} {
		f.insert(t, c)
	}
	due := func(l Lane) Lane { l.Due = true; return l }
	order := lane(Pending)
	free, other, urgent, refund := order, order, order, order
	free.AppID, other.AppID = nullable(""), nullable(otherAppID)
	urgent.Priority, refund.Template = 0, "refund"
	pending := []Lane{due(free), urgent, due(order), due(refund), other}
	for _, tc := range []struct {
		of   []Status
		want []Lane
	}{
		{[]Status{Pending}, pending},
		{[]Status{Waiting, Unknown}, []Lane{due(lane(Unknown)), lane(Waiting)}},
		{[]Status{Failed}, nil},
	} {
		got, err := f.Watch(nil, tc.of...).Look(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(got, func(a, b Lane) int {
			return cmp.Or(
				cmp.Compare(a.Status, b.Status), cmp.Compare(a.AppID.String, b.AppID.String),
				cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Template, b.Template))
		})
		if diff := gocmp.Diff(tc.want, got); diff != "" {
			t.Errorf("the lanes of %s differ (-want +got):\n%s", tc.of, diff)
		}
	}
}

// TestUrgentFirst: priority orders what is due, and within a priority the moment.
func TestUrgentFirst(t *testing.T) {
	f := newFixture(t)
	f.insert(t, columns{"priority": 2, "due_at": "2020-01-01"}) // bulk
	normal := f.insert(t, columns{"appid": nil, "due_at": "2021-01-01"})
	older := f.insert(t, columns{"due_at": "2020-01-01"})
	urgent := f.insert(t, columns{"priority": 0})
	if diff := gocmp.Diff([]int64{urgent, older, normal}, idsOf(f.due(t, 3))); diff != "" {
		t.Errorf("order differs (-want +got):\n%s", diff)
	}
}

// TestDueTakesShares: of each lane its quantum, of all of them the limit, and only what is due.
func TestDueTakesShares(t *testing.T) {
	f := newFixture(t)
	place := func(template string, due ...int) (ids []int64) {
		for _, minutes := range due {
			ids = append(ids, f.insert(t, columns{"template": template, "due_at": in(minutes)}))
		}
		return ids
	}
	a := place("a", -10, -20, -30, 10)
	b := place("b", -15, -25, -35)
	place("c", -99) // no share
	ofNobody := f.insert(t, columns{"template": "b", "appid": nil, "due_at": in(-99)})
	f.insert(t, columns{"template": "b", "due_at": in(-99), "status": "waiting"})
	share := func(template, account string, quantum int) Share {
		l := Lane{AppID: nullable(account), Priority: 1, Template: template}
		return Share{Lane: l, Quantum: quantum}
	}
	all := []Share{share("b", appid, 9), share("a", appid, 9)}
	for _, tc := range []struct {
		name   string
		shares []Share
		limit  int
		except []int64
		want   []int64
	}{
		{"all", all, 9, nil, []int64{b[2], a[2], b[1], a[1], b[0], a[0]}},
		{"quanta", []Share{share("b", appid, 1), share("a", appid, 2)}, 9, nil,
			[]int64{b[2], a[2], a[1]}},
		{"limit", all, 2, nil, []int64{b[2], a[2]}},
		{"except", all, 2, []int64{b[2], a[1]}, []int64{a[2], b[1]}},
		{"of no account", []Share{share("b", "", 9)}, 9, nil, []int64{ofNobody}},
		{"no shares", nil, 9, nil, []int64{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rows, err := f.Due(t.Context(), tc.shares, tc.limit, tc.except)
			if err != nil {
				t.Fatal(err)
			}
			if diff := gocmp.Diff(tc.want, idsOf(rows)); diff != "" {
				t.Errorf("rows differ (-want +got):\n%s", diff)
			}
			for _, r := range rows {
				if of := tc.shares[r.Lane]; of.Template != r.Template {
					t.Errorf("request %d of %s counts as one of %s", r.ID, r.Template, of.Template)
				}
			}
		})
	}
}

// roundMinutes rounds an age in microseconds.
func roundMinutes(n *sql.NullInt64) {
	n.Int64 = int64((time.Duration(n.Int64) * time.Microsecond).Round(time.Minute) / time.Minute)
}

// TestDueReads: what a claim reads of a row, whichever query finds it.
func TestDueReads(t *testing.T) {
	f := newFixture(t)
	minutes := func(n int64) sql.NullInt64 { return sql.NullInt64{Int64: n, Valid: true} }
	// A JSON text of one word is stored as it is, on every server.
	word := func(n int) string { return `"` + strings.Repeat("x", n-2) + `"` }
	message := Message{Template: "order", Data: nullable(`"x"`), DataBytes: 3}
	for _, tc := range []struct {
		name   string
		before columns
		want   Request
	}{
		{"all", columns{
			"unionid": "u-2", "mini_appid": "wxm", "mini_openid": "om", "openid": "o",
			"url": "https://e", "mini_path": "pages/i", "cancel": 2, "priority": 2, "attempts": 3,
			"reason": "timeout", "expires_at": in(7), "uncertain_at": in(-5),
			"jump_appid": "wxj", "page": "pages/p", "lang": "en_US", "mini_state": "trial",
			"route": "official,mini", "fallback_from": "wxf", "fallback_reason": "no_grant",
			"fallback_errcode": 43101,
		}, Request{
			Recipient: Recipient{nullable("u-2"), nullable("wxm"), nullable("om"), nullable("o")},
			Message: Message{
				"order", nullable(`"x"`), 3, nullable("https://e"), nullable("pages/i"), nullable("wxj"),
				Options{nullable("pages/p"), nullable("en_US"), nullable("trial")}},
			Path: Path{Route: nullable("official,mini"), FallbackFrom: nullable("wxf"),
				FallbackReason: nullable("no_grant"), FallbackErrCode: minutes(43101)},
			State: State{Cancel: true, Priority: 2, Attempts: 3, Reason: nullable("timeout"),
				ExpiresIn: minutes(7), InDoubtFor: minutes(5)},
		}},
		{"nothing", columns{"unionid": nil}, Request{Message: message, State: State{Priority: 1}}},
		{"expired", columns{"unionid": nil, "expires_at": in(-2)}, Request{Message: message,
			State: State{Priority: 1, Expired: true, ExpiresIn: minutes(-2)}}},
		{"left behind", left(columns{"unionid": nil}), Request{Message: message,
			State: State{Priority: 1, Attempts: 1, InDoubtFor: minutes(5)}}},
		{"left behind twice", left(columns{"unionid": nil, "uncertain_at": in(-9)}), Request{
			Message: message, State: State{Priority: 1, Attempts: 1, InDoubtFor: minutes(9)}}},
		{"attempted", columns{"unionid": nil, "attempted_at": in(-9)}, Request{
			Message: message, State: State{Priority: 1}}},
		{"longest data", columns{"unionid": nil, "data": word(MaxData)}, Request{
			Message: Message{
				Template: "order", Data: nullable(word(MaxData)), DataBytes: MaxData},
			State: State{Priority: 1}}},
		{"overlong data", columns{"unionid": nil, "data": word(MaxData + 1)}, Request{ // not read
			Message: Message{Template: "order", DataBytes: MaxData + 1}, State: State{Priority: 1}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f.exec(t, `DELETE FROM send_request`)
			if tc.before["data"] == nil {
				tc.before["data"] = `"x"`
			}
			tc.want.ID, tc.want.AppID = f.insert(t, tc.before), nullable(appid)
			byID, err := f.DueByID(t.Context(), appid, []int64{tc.want.ID})
			if err != nil {
				t.Fatal(err)
			}
			for query, got := range map[string][]Request{"Due": f.due(t, 9), "DueByID": byID} {
				if len(got) != 1 {
					t.Fatalf("%s: %d rows", query, len(got))
				}
				roundMinutes(&got[0].ExpiresIn)
				roundMinutes(&got[0].InDoubtFor)
				if diff := gocmp.Diff(tc.want, got[0]); diff != "" {
					t.Errorf("%s: the request differs (-want +got):\n%s", query, diff)
				}
			}
		})
	}
}

// TestDueByID: of the rows named, those that are due, pending and of the account.
func TestDueByID(t *testing.T) {
	f := newFixture(t)
	young, old := f.insert(t, columns{"due_at": in(-1)}), f.insert(t, columns{"due_at": in(-9)})
	ids := []int64{young, old}
	for _, c := range []columns{
		{"due_at": in(1)}, {"appid": otherAppID}, {"appid": nil},
		{"status": "waiting"}, {"status": "sent"},
	} {
		ids = append(ids, f.insert(t, c))
	}
	f.insert(t, columns{}) // not named
	got, err := f.DueByID(t.Context(), appid, ids)
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff([]int64{old, young}, idsOf(got)); diff != "" {
		t.Errorf("rows differ (-want +got):\n%s", diff)
	}
}

// TestInDoubtSoon: rows of the account that fall due within minutes with an attempt in doubt.
func TestInDoubtSoon(t *testing.T) {
	f := newFixture(t)
	inDoubt := columns{"uncertain_at": in(-1)}
	attempted := columns{"lease": "x", "attempted_at": in(0)}
	place := func(base columns, more columns) int64 {
		c := columns{}
		for _, from := range []columns{base, more} {
			for name, value := range from {
				c[name] = value
			}
		}
		return f.insert(t, c)
	}
	want := map[int64]time.Duration{
		place(attempted, columns{"due_at": in(1)}):                 time.Minute,
		place(inDoubt, columns{"due_at": in(2)}):                   2 * time.Minute,
		place(inDoubt, columns{"due_at": in(2), "template": "b"}):  2 * time.Minute,
		place(attempted, columns{"due_at": in(1), "priority": 0}):  time.Minute,
		place(inDoubt, columns{"due_at": in(2), "appid": appid}):   2 * time.Minute,
		place(attempted, columns{"due_at": in(1), "template": ""}): time.Minute,
	}
	for _, c := range []columns{
		{"due_at": in(4)}, {"due_at": in(-1)}, {"due_at": in(1), "appid": otherAppID},
		{"due_at": in(1), "status": "waiting"}, {"due_at": in(1), "appid": nil},
	} {
		place(inDoubt, c)
	}
	f.insert(t, columns{"due_at": in(1)}) // nothing is in doubt
	lanes, err := f.Watch(nil, Pending).Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lanes = slices.DeleteFunc(lanes, func(l Lane) bool { return l.AppID.String != appid })
	found, err := f.InDoubtSoon(t.Context(), lanes, 9)
	if err != nil {
		t.Fatal(err)
	}
	got := map[int64]time.Duration{}
	for _, r := range found {
		got[r.ID] = (time.Duration(r.DueIn) * time.Microsecond).Round(time.Minute)
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("rows differ (-want +got):\n%s", diff)
	}
	found, err = f.InDoubtSoon(t.Context(), lanes, 1)
	if err != nil || len(found) != 4 {
		t.Errorf("%d rows, %v; want one of each of 4 lanes", len(found), err)
	}
}
