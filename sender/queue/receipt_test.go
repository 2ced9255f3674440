package queue

import (
	"database/sql"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestAddReceipt: a receipt is stored once, with its moment in UTC.
func TestAddReceipt(t *testing.T) {
	f := newFixture(t)
	at := time.Date(2026, 5, 4, 3, 2, 1, 0, time.FixedZone("CST", 8*3600))
	first := Receipt{MsgID: 1 << 60, OpenID: "o-1", Status: "success", At: at}
	repeated := first
	repeated.Status = "failed:user block"
	for _, tc := range []struct {
		appid   string
		receipt Receipt
		fresh   bool
	}{{appid, first, true}, {appid, repeated, false}, {otherAppID, first, true}} {
		fresh, err := f.AddReceipt(t.Context(), tc.appid, tc.receipt)
		if err != nil || fresh != tc.fresh {
			t.Errorf("%+v of %s: new %t, %v; want %t", tc.receipt, tc.appid, fresh, err, tc.fresh)
		}
	}
	var got []Receipt
	if err := f.db.SelectContext(t.Context(), &got, `
		SELECT msgid, openid, status, event_at AS event_time FROM send_receipt WHERE appid = ?`,
		appid); err != nil {
		t.Fatal(err)
	}
	first.At = at.UTC()
	if diff := cmp.Diff([]Receipt{first}, got); diff != "" {
		t.Errorf("receipts differ (-want +got):\n%s", diff)
	}
}

// TestAddReceiptWithoutMsgID: what WeChat does not name is stored once, beside what it names, and is
// found by the person and the template.
func TestAddReceiptWithoutMsgID(t *testing.T) {
	f := newFixture(t)
	at := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	first := Receipt{OpenID: "o-1", TemplateID: "t-1", Status: "failed:user refuse", At: at}
	other, later, named := first, first, first
	other.TemplateID, later.At, named.MsgID = "t-2", at.Add(time.Second), 7
	f.insert(t, columns{"appid": appid, "status": "sent"}) // no msgid: nothing joins it
	for i, r := range []Receipt{first, other, later, named, first, other} {
		fresh, err := f.AddReceipt(t.Context(), appid, r)
		if want := i < 4; fresh != want || err != nil {
			t.Errorf("receipt %d: new %t, %v; want %t", i, fresh, err, want)
		}
	}
	found, err := f.UnclaimedReceipts(t.Context(), appid, []string{"o-1"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	byTemplate := map[string]int{}
	for _, r := range found {
		byTemplate[r.TemplateID]++
		if (r.MsgID == named.MsgID) == (r.MsgID < 0) {
			t.Errorf("msgid %d", r.MsgID)
		}
	}
	if diff := cmp.Diff(map[string]int{"t-1": 3, "t-2": 1}, byTemplate); diff != "" {
		t.Errorf("receipts by template (-want +got):\n%s", diff)
	}
}

// TestUnclaimedReceipts: those to the people named, of the last day, not too young, of no request.
func TestUnclaimedReceipts(t *testing.T) {
	f := newFixture(t)
	event := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	const minAge = 2 * time.Minute
	var want []Receipt
	for i, tc := range []struct {
		name      string
		appid     string
		openid    string
		arrived   int // minutes
		requestOf string
		found     bool
	}{
		{"of no request", appid, "o-1", -5, "", true},
		{"of another person", appid, "o-2", -5, "", true},
		{"of a person who is not named", appid, "o-3", -5, "", false},
		{"of another account", otherAppID, "o-1", -5, "", false},
		{"of a request", appid, "o-1", -5, appid, false},
		{"of another account's request", appid, "o-1", -5, otherAppID, true},
		{"too young", appid, "o-1", -1, "", false},
		{"of yesterday", appid, "o-1", -23 * 60, "", true},
		{"too old", appid, "o-1", -25 * 60, "", false},
	} {
		r := Receipt{MsgID: int64(i + 1), OpenID: tc.openid, Status: tc.name, At: event}
		f.exec(t, `INSERT INTO send_receipt (appid, msgid, openid, status, event_at, arrived_at)
			VALUES (?, ?, ?, ?, ?, `+string(in(tc.arrived))+`)`,
			tc.appid, r.MsgID, r.OpenID, r.Status, r.At)
		if tc.requestOf != "" {
			f.insert(t, columns{"appid": tc.requestOf, "status": "sent", "msgid": r.MsgID})
		}
		if tc.found {
			want = append(want, r)
		}
	}
	get := func() []Receipt {
		t.Helper()
		got, err := f.UnclaimedReceipts(t.Context(), appid, []string{"o-1", "o-2", "o-9"}, minAge)
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(got, func(a, b Receipt) int { return int(a.MsgID - b.MsgID) })
		return got
	}
	if diff := cmp.Diff(want, get()); diff != "" {
		t.Errorf("receipts differ (-want +got):\n%s", diff)
	}
	// WeChat did not say when: the arrival stands for it.
	f.exec(t, `
		UPDATE send_receipt SET event_at = NULL, arrived_at = `+string(in(-3))+` WHERE msgid = 1`)
	if age := time.Since(get()[0].At).Round(time.Minute); age != 3*time.Minute {
		t.Errorf("a receipt without a time is %s old, want 3m", age)
	}
}

// TestUnknownIn: unknown requests of the lane since yesterday, with the moments of their attempts.
func TestUnknownIn(t *testing.T) {
	f := newFixture(t)
	place := func(more columns) int64 {
		c := columns{"status": "unknown", "created_at": in(-90), "due_at": in(-60)}
		for name, value := range more {
			c[name] = value
		}
		return f.insert(t, c)
	}
	type attempts struct {
		SentOpenID  sql.NullString
		First, Last time.Duration // ago
	}
	want := map[int64]attempts{
		place(columns{"uncertain_at": in(-80), "attempted_at": in(-61), "sent_openid": "o-1"}): {
			nullable("o-1"), 80 * time.Minute, 61 * time.Minute},
		place(columns{"attempted_at": in(-61)}): {First: 61 * time.Minute, Last: 61 * time.Minute},
		place(columns{"due_at": in(-23 * 60)}):  {First: 90 * time.Minute, Last: 90 * time.Minute},
	}
	for _, c := range []columns{
		{"due_at": in(-25 * 60)}, {"appid": otherAppID}, {"priority": 0}, {"template": "refund"},
		{"status": "failed"}, {"status": "pending"},
	} {
		place(c)
	}
	rows, err := f.UnknownIn(t.Context(), lane(Unknown), 9)
	if err != nil {
		t.Fatal(err)
	}
	got := map[int64]attempts{}
	for _, r := range rows {
		got[r.ID] = attempts{r.SentOpenID, time.Since(r.First).Round(time.Minute),
			time.Since(r.Last).Round(time.Minute)}
		if r.UnionID.String != "u-1" {
			t.Errorf("request %d is to %+v", r.ID, r.Recipient)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests differ (-want +got):\n%s", diff)
	}
	if rows, err := f.UnknownIn(t.Context(), lane(Unknown), 2); err != nil || len(rows) != 2 {
		t.Errorf("%d rows, %v; want the limit, 2", len(rows), err)
	}
}

// TestResolveByReceipt: it makes an unknown request sent, once, and no other.
func TestResolveByReceipt(t *testing.T) {
	f := newFixture(t)
	receipt := Receipt{MsgID: 1 << 60, OpenID: "o-1"}
	resolve := func(id int64, want bool) {
		t.Helper()
		done, err := f.ResolveByReceipt(t.Context(), UnknownRequest{Request: Request{ID: id, AppID: nullable(appid)}}, receipt, channelName)
		if err != nil || done != want {
			t.Errorf("request %d resolved: %t, %v; want %t", id, done, err, want)
		}
	}
	unknown := columns{"status": "unknown", "reason": "timeout", "uncertain_at": in(-9),
		"attempted_at": in(-9), "due_at": in(-8), "finished_at": in(-8), "attempts": 1}
	id, other := f.insert(t, unknown), f.insert(t, unknown)
	resolve(id, true)
	f.wantRow(t, id, row{
		Status: Sent, Attempts: 1, Note: Note{Reason: "resolved_by_receipt"},
		Moments:  Moments{Due: "-8m", Attempted: "-9m", InDoubtFrom: "-9m", Finished: "-8m"},
		Delivery: Delivery{1 << 60, "o-1", channelName},
	})
	resolve(id, false)
	for _, s := range []Status{Pending, Waiting, Failed, Expired, Cancelled} {
		f.update(t, "status = '"+string(s)+"'", other)
		resolve(other, false)
		f.wantStatus(t, map[int64]Status{other: s})
	}
}

// TestInstallation: the id is the one that the first migration gave.
func TestInstallation(t *testing.T) {
	f := newFixture(t)
	id, err := f.Installation(t.Context())
	if err != nil || len(id) != 12 {
		t.Errorf("got %q, %v; want 12 letters and digits", id, err)
	}
	f.exec(t, `DELETE FROM installation`)
	if _, err := f.Installation(t.Context()); !errors.Is(err, sql.ErrNoRows) {
		t.Errorf("got %v of a database without an id, want sql.ErrNoRows", err)
	}
}

// TestUnclaimedReceiptsReads: statistics of empty tables do not lead to a scan for each receipt.
func TestUnclaimedReceiptsReads(t *testing.T) {
	f := newFixture(t)
	f.freeze(t)
	const n, people = 3000, 1000
	f.bulk(t, 20_000, Pending, in(60))
	f.crowd(t, "t", n, 1, in(-60))
	f.exec(t, `UPDATE send_request SET status = 'sent', msgid = id, sent_openid = CONCAT('o-', id)
		WHERE template <> 'order'`)
	f.exec(t, `INSERT INTO send_receipt (appid, msgid, openid, status, arrived_at)
		SELECT appid, msgid, sent_openid, 'success', `+string(in(-60))+`
		  FROM send_request WHERE msgid > 0`)
	var openids []string
	err := f.db.SelectContext(t.Context(), &openids,
		`SELECT openid FROM send_receipt ORDER BY msgid LIMIT ?`, people)
	if err != nil {
		t.Fatal(err)
	}
	f.exec(t, `DELETE FROM send_request WHERE msgid > 0 ORDER BY msgid LIMIT 1`)
	var found []Receipt
	entries, _ := f.reads(t, func() {
		found, err = f.UnclaimedReceipts(t.Context(), appid, openids, time.Minute)
	})
	if err != nil || len(found) != 1 {
		t.Errorf("%d receipts, %v; want 1", len(found), err)
	}
	// MariaDB makes a table of so long a list, and reads it once or twice by its estimates: 5 or 7
	// entries for each person. A scan would be 20,000 rows at least.
	if entries > 10*people {
		t.Errorf("the query for %d people reads %d rows and entries", people, entries)
	}
}
