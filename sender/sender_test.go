package sender

import (
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/wechatsim"
	"github.com/unionbridge/unionbridge/sender/channel"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// TestDelivers: whatever way the recipient is named, the right person gets the right message, once.
func TestDelivers(t *testing.T) {
	f := newFixture(t)
	rows := map[int64]int{ // id → person
		f.insert(t, columns{"unionid": f.unionid(1)}):                                            1,
		f.insert(t, columns{"mini_openid": f.sim.OpenID(miniID, 2)}):                             2,
		f.insert(t, columns{"mini_openid": f.sim.OpenID(miniID, 3), "mini_appid": miniID}):       3,
		f.insert(t, columns{"openid": f.sim.OpenID(appid, 4)}):                                   4,
		f.insert(t, columns{"unionid": f.unionid(5), "appid": appid, "template": f.templateID}):  5,
		f.insert(t, columns{"unionid": f.unionid(6), "url": "https://example.com/x?a=1&b=2"}):    6,
		f.insert(t, columns{"unionid": f.unionid(7), "mini_path": "pages/order?id=7&x=<1>"}):     7,
		f.insert(t, columns{"unionid": f.unionid(8), "priority": 0}):                             8,
		f.insert(t, columns{"unionid": f.unionid(9), "priority": 2, "expires_at": "2037-01-01"}): 9,
	}
	f.start(t, "one")
	for id, person := range rows {
		r := f.await(t, id, queue.Sent)
		got := f.messagesTo(person)
		if len(got) != 1 {
			t.Fatalf("person %d got %d messages", person, len(got))
		}
		if r.MsgID == nil || *r.MsgID != got[0].MsgID || *r.OpenID != got[0].OpenID || *r.Channel != "oa_template" ||
			r.Attempts != 1 || *r.AppID != appid || r.Reason != nil {
			t.Errorf("request %d: the row says %+v, the simulator %+v", id, r, got[0])
		}
	}
	m := f.messagesTo(7)[0]
	var link struct{ AppID, PagePath string }
	if err := json.Unmarshal(m.MiniProgram, &link); err != nil || link.AppID != miniID || link.PagePath != "pages/order?id=7&x=<1>" {
		t.Errorf("the link is %s (%v)", m.MiniProgram, err)
	}
	if url := f.messagesTo(6)[0].URL; url != "https://example.com/x?a=1&b=2" {
		t.Errorf("the url is %s", url)
	}
	var sent map[string]struct{ Value string }
	if err := json.Unmarshal(m.Data, &sent); err != nil || strings.Contains(string(m.Data), `\u00`) {
		t.Errorf("the data is %s (%v)", m.Data, err)
	}
}

// TestBadRows: a row that can never be sent fails with a reason and a cure, and costs WeChat
// nothing.
func TestBadRows(t *testing.T) {
	f := newFixture(t)
	u := f.unionid(1)
	cases := []struct {
		name   string
		row    columns
		reason string
		text   string // in errmsg
	}{
		{"no recipient", columns{}, channel.ReasonNoRecipient, "set one of unionid"},
		{"empty recipient", columns{"unionid": ""}, channel.ReasonNoRecipient, "set one of unionid"},
		{"mini_appid alone", columns{"mini_appid": miniID}, channel.ReasonNoRecipient, "set one of unionid"},
		{"two recipients", columns{"unionid": u, "openid": "oA"}, channel.ReasonSeveralRecipients, "unionid and openid"},
		{"an id that is none", columns{"unionid": "u 1"}, channel.ReasonBadRecipient, `"u 1"`},
		{"a mini program nobody knows", columns{"mini_openid": "mA", "mini_appid": "wx00000000000000ff"}, channel.ReasonBadRecipient, "mini_programs"},
		{"data is an array", columns{"unionid": u, "data": `["x"]`}, channel.ReasonBadData, "not an array"},
		{"data is a string", columns{"unionid": u, "data": `"{}"`}, channel.ReasonBadData, "not a string"},
		{"data is null", columns{"unionid": u, "data": `null`}, channel.ReasonBadData, "not null"},
		{"data is empty", columns{"unionid": u, "data": `{}`}, channel.ReasonBadData, "empty"},
		{"a value is null", columns{"unionid": u, "data": `{"thing1": null}`}, channel.ReasonBadData, "data.thing1"},
		{"a value is an object without value", columns{"unionid": u, "data": `{"thing1": {"color": "#000"}}`}, channel.ReasonBadData, "data.thing1"},
		{"1 MB of data", columns{"unionid": u, "data": `{"thing1":"` + strings.Repeat("x", 1<<20) + `"}`}, channel.ReasonBadData, "at most 16384"},
		{"an unknown template", columns{"unionid": u, "template": "nope"}, channel.ReasonUnknownTemplate, "order"},
		{"a template of another account", columns{"unionid": u, "template": "elsewhere"}, channel.ReasonUnknownTemplate, appid},
		{"a url without a scheme", columns{"unionid": u, "url": "example.com"}, channel.ReasonBadLink, "https://"},
		{"an account nobody knows", columns{"unionid": u, "appid": "wx00000000000000ff"}, "unknown_account", "official_accounts"},
		{"a priority that is none", columns{"unionid": u, "priority": 7}, "bad_priority", "0 (urgent)"},
	}
	ids := make([]int64, len(cases))
	for i, c := range cases {
		ids[i] = f.insert(t, c.row)
	}
	good := f.insert(t, columns{"unionid": u})
	f.start(t, "one")
	for i, c := range cases {
		r := f.await(t, ids[i], queue.Failed)
		if r.reason() != c.reason || r.ErrMsg == nil || !strings.Contains(*r.ErrMsg, c.text) || r.Attempts != 0 {
			t.Errorf("%s: %s after %d attempts, want %s and %q in the text; text: %v", c.name, r.reason(), r.Attempts, c.reason, c.text, deref(r.ErrMsg))
		}
	}
	f.await(t, good, queue.Sent)
	if n := f.sim.Calls()["/cgi-bin/message/template/send"]; n != 1 {
		t.Errorf("%d sends, want the good row's only", n)
	}
}

func deref(s *string) string {
	if s == nil {
		return "NULL"
	}
	return *s
}

// TestAnswers walks answers of WeChat to what becomes of the row.
func TestAnswers(t *testing.T) {
	const path = "/cgi-bin/message/template/send"
	code := func(n int) wechatsim.Fault { return wechatsim.Fault{Kind: wechatsim.FaultErrcode, Code: n, Path: path} }
	cases := []struct {
		name     string
		fault    wechatsim.Fault
		status   queue.Status
		reason   string
		attempts int
		later    bool // pending, and due later
		paused   bool
	}{
		{"refused", code(43101), queue.Failed, "refused_by_user", 1, false, false},
		{"blacklist", code(43019), queue.Failed, "blacklisted", 1, false, false},
		{"bad argument", code(47003), queue.Failed, "invalid_keyword_value", 1, false, false},
		{"not a follower", code(43004), queue.Waiting, "not_follower", 1, false, false},
		{"invalid openid", code(40003), queue.Waiting, "invalid_openid", 1, false, false},
		{"unknown code", code(99999), queue.Failed, "unknown_code", 1, false, false},
		{"too many to this person", code(43117), queue.Pending, "", 1, true, false},
		{"invalid template", code(40037), queue.Pending, "invalid_template", 1, true, false},
		{"busy, perhaps sent", code(-1), queue.Pending, "", 1, true, false},
		{"502, perhaps sent", wechatsim.Fault{Kind: wechatsim.FaultStatus, Code: 502, Path: path}, queue.Pending, "server_error", 1, true, false},
		{"html", wechatsim.Fault{Kind: wechatsim.FaultHTML, Path: path}, queue.Pending, "bad_answer", 1, true, false},
		{"empty", wechatsim.Fault{Kind: wechatsim.FaultEmpty, Path: path}, queue.Pending, "bad_answer", 1, true, false},
		{"truncated", wechatsim.Fault{Kind: wechatsim.FaultTruncate, Path: path}, queue.Pending, "bad_answer", 1, true, false},
		{"reset", wechatsim.Fault{Kind: wechatsim.FaultReset, Path: path}, queue.Pending, "connection_lost", 1, true, false},
		{"quota of the day", code(45009), queue.Pending, "quota_day", 0, false, true},
		{"quota of the minute", code(45011), queue.Pending, "quota_minute", 0, false, true},
		{"address not in the whitelist", code(40164), queue.Pending, "", 0, false, true},
		{"no permission", code(48001), queue.Pending, "", 0, false, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.sim.SetFault(c.fault)
			id := f.insert(t, columns{"unionid": f.unionid(1)})
			f.start(t, "one")
			eventually(t, "the attempt to be settled", func() bool {
				return f.count(t, `SELECT COUNT(*) FROM send_request WHERE attempted_at IS NOT NULL AND lease IS NULL`) == 1
			})
			r := f.row(t, id)
			if r.Status != string(c.status) || r.Attempts != c.attempts || (c.reason != "" && r.reason() != c.reason) {
				t.Errorf("the row is %s (%s) after %d attempts, want %s (%s) after %d; %s",
					r.Status, r.reason(), r.Attempts, c.status, c.reason, c.attempts, deref(r.ErrMsg))
			}
			if r.Reason == nil || r.ErrMsg == nil {
				t.Errorf("the row does not say why: %+v", r)
			}
			due := f.count(t, `SELECT COUNT(*) FROM send_request WHERE due_at > CURRENT_TIMESTAMP(3) + INTERVAL 3 SECOND`)
			if c.status == queue.Pending && (due == 1) != c.later {
				t.Errorf("due later: %v, want %v", due == 1, c.later)
			}
			if paused := f.count(t, `SELECT COUNT(*) FROM account_state WHERE appid = ? AND scope = 'send'`, appid); (paused == 1) != c.paused {
				t.Errorf("account paused: %v, want %v", paused == 1, c.paused)
			}
		})
	}
}

// TestUncertainSendIsRepeatedOnce: the message went out, the answer did not come. The repetition
// carries the same client_msg_id, so that the person gets it once.
func TestUncertainSendIsRepeatedOnce(t *testing.T) {
	f := newFixture(t)
	f.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultReset, After: true, Next: 1, Path: "/cgi-bin/message/template/send"})
	id := f.insert(t, columns{"unionid": f.unionid(1)})
	f.start(t, "one")
	eventually(t, "the first attempt", func() bool {
		return f.count(t, `SELECT COUNT(*) FROM send_request WHERE uncertain_at IS NOT NULL AND lease IS NULL`) == 1
	})
	f.exec(t, `UPDATE send_request SET due_at = CURRENT_TIMESTAMP(3)`)
	r := f.await(t, id, queue.Sent)
	got := f.messagesTo(1)
	if len(got) != 1 || r.Attempts != 2 || *r.MsgID != got[0].MsgID {
		t.Errorf("%d messages, row %+v", len(got), r)
	}
}

// TestOldUncertainSendIsNotRepeated: beyond WeChat's window a repetition would be a second message.
func TestOldUncertainSendIsNotRepeated(t *testing.T) {
	f := newFixture(t)
	crashed := f.insert(t, columns{"unionid": f.unionid(1), "lease": "dead", "attempts": 1,
		"attempted_at": "2020-01-01", "due_at": "2020-01-01 00:01:00"})
	repeated := f.insert(t, columns{"unionid": f.unionid(2), "attempts": 1, "uncertain_at": "2020-01-01"})
	f.start(t, "one")
	for _, id := range []int64{crashed, repeated} {
		if r := f.await(t, id, queue.Unknown); r.reason() != "outcome_unknown" || r.ErrMsg == nil {
			t.Errorf("the row says %+v", r)
		}
	}
	if n := len(f.sim.Messages(appid)); n != 0 {
		t.Errorf("%d messages went out", n)
	}
}

// TestCrashedClaimFallsDueAgain: no rescuer is needed for the rows of an instance that died.
func TestCrashedClaimFallsDueAgain(t *testing.T) {
	f := newFixture(t)
	id := f.insert(t, columns{"unionid": f.unionid(1), "lease": "dead", "attempts": 1})
	f.exec(t, `UPDATE send_request SET attempted_at = CURRENT_TIMESTAMP(3) - INTERVAL 61 SECOND, due_at = CURRENT_TIMESTAMP(3) - INTERVAL 1 SECOND`)
	f.start(t, "one")
	if r := f.await(t, id, queue.Sent); r.Attempts != 2 {
		t.Errorf("the row says %+v", r)
	}
	if n := f.count(t, `SELECT COUNT(*) FROM send_request WHERE uncertain_at IS NOT NULL`); n != 1 {
		t.Error("the crashed attempt is not remembered as uncertain")
	}
}

func TestDueExpiredCancelled(t *testing.T) {
	f := newFixture(t)
	u := f.unionid(1)
	expired := f.insert(t, columns{"unionid": u, "expires_at": "2020-01-01"})
	cancelled := f.insert(t, columns{"unionid": u, "cancel": 1})
	tooLate := f.insert(t, columns{"unionid": u, "cancel": 1, "lease": "dead", "attempts": 1, "attempted_at": "2020-01-01", "due_at": "2020-01-01"})
	later := f.insert(t, columns{"unionid": u, "due_at": "2037-01-01"})
	f.start(t, "one")
	f.await(t, expired, queue.Expired)
	f.await(t, cancelled, queue.Cancelled)
	f.await(t, tooLate, queue.Unknown)
	if r := f.row(t, later); r.Status != "pending" || r.Attempts != 0 {
		t.Errorf("the row due in 2037 says %+v", r)
	}
	if n := len(f.sim.Messages(appid)); n != 0 {
		t.Errorf("%d messages went out", n)
	}
}

// TestWaiting: a recipient who is not there yet is waited for, and not for ever.
func TestWaiting(t *testing.T) {
	f := newFixture(t)
	f.config.Accounts[0].Wait = time.Hour
	const newcomer = 150
	stranger := f.sim.OpenID(miniID, newcomer)
	waits := map[string]int64{
		"unknown_user":  f.insert(t, columns{"mini_openid": stranger}),
		"not_following": f.insert(t, columns{"unionid": f.unionid(newcomer)}),
	}
	withdrawn := f.insert(t, columns{"unionid": f.unionid(newcomer + 1)})
	impatient := f.insert(t, columns{"unionid": f.unionid(newcomer + 2)})
	stop := f.start(t, "one")
	for reason, id := range waits {
		if r := f.await(t, id, queue.Waiting); r.reason() != reason || r.ErrMsg == nil || r.Attempts != 0 {
			t.Errorf("the row says %+v, want the reason %s", r, reason)
		}
	}
	f.await(t, withdrawn, queue.Waiting)
	f.await(t, impatient, queue.Waiting)
	stop()

	f.exec(t, `UPDATE send_request SET cancel = 1 WHERE id = ?`, withdrawn)
	f.exec(t, `UPDATE send_request SET due_at = CURRENT_TIMESTAMP(3) WHERE id = ?`, impatient)
	f.exec(t, `INSERT INTO mini_user (appid, openid, unionid) VALUES (?, ?, ?)`, miniID, stranger, f.unionid(newcomer))
	f.sim.Follow(appid, newcomer)
	f.exec(t, `INSERT INTO follower (appid, openid, unionid) VALUES (?, ?, ?)`, appid, f.sim.OpenID(appid, newcomer), f.unionid(newcomer))
	f.start(t, "two") // a new owner begins with a maintenance round
	for _, id := range waits {
		f.await(t, id, queue.Sent)
	}
	f.await(t, withdrawn, queue.Cancelled)
	if r := f.await(t, impatient, queue.Failed); r.reason() != "no_follower" {
		t.Errorf("the row says %+v", r)
	}
	if n := len(f.messagesTo(newcomer)); n != len(waits) {
		t.Errorf("%d messages, want %d", n, len(waits))
	}
}

// TestForeignOpenID: an openid that neither the map nor WeChat knows is the producer's mistake, and
// final.
func TestForeignOpenID(t *testing.T) {
	f := newFixture(t)
	id := f.insert(t, columns{"openid": f.sim.OpenID(miniID, 1)})
	f.start(t, "one")
	if r := f.await(t, id, queue.Failed); r.reason() != "invalid_openid" || r.Attempts != 1 {
		t.Errorf("the row says %+v", r)
	}
	if n := f.count(t, `SELECT COUNT(*) FROM follower_recheck`); n != 0 {
		t.Errorf("%d people are to be checked", n)
	}
}

// TestUnlistedNonFollower: they are not sent to again before the map has them.
func TestUnlistedNonFollower(t *testing.T) {
	f := newFixture(t)
	const stranger = 170
	id := f.insert(t, columns{"openid": f.sim.OpenID(appid, stranger)})
	stop := f.start(t, "one")
	f.await(t, id, queue.Waiting)
	f.exec(t, `DELETE FROM follower_recheck`) // the refresh has asked: they do not follow
	stop()
	stop = f.start(t, "two")
	eventually(t, "a maintenance round", func() bool {
		return f.count(t, `SELECT COUNT(*) FROM lease WHERE holder = 'two'`) == 1
	})
	time.Sleep(2 * pollEvery)
	stop()
	if r := f.row(t, id); r.Status != "waiting" || r.Attempts != 1 {
		t.Errorf("the row says %+v", r)
	}
}

// TestUnroutableKeepTheirMeaning: a row that no account claims ends as what it is.
func TestUnroutableKeepTheirMeaning(t *testing.T) {
	f := newFixture(t)
	want := map[int64]queue.Status{}
	for status, row := range map[queue.Status]columns{
		queue.Failed:    {},
		queue.Cancelled: {"cancel": 1},
		queue.Expired:   {"expires_at": "2020-01-01"},
		queue.Unknown:   {"uncertain_at": "2020-01-01"},
	} {
		row["unionid"], row["appid"] = f.unionid(1), "wx00000000000000ff"
		want[f.insert(t, row)] = status
	}
	f.start(t, "one")
	for id, status := range want {
		f.await(t, id, status)
	}
}

// TestAttemptsEnd: a transient error becomes final in the end.
func TestAttemptsEnd(t *testing.T) {
	f := newFixture(t)
	f.config.Accounts[0].MaxAttempts = 2
	f.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultErrcode, Code: 40037, Path: "/cgi-bin/message/template/send"})
	id := f.insert(t, columns{"unionid": f.unionid(1), "attempts": 1})
	f.start(t, "one")
	if r := f.await(t, id, queue.Failed); r.reason() != "invalid_template" || r.Attempts != 2 || r.ErrCode == nil || *r.ErrCode != 40037 {
		t.Errorf("the row says %+v", r)
	}
}

// TestDeadTokenCostsNoAttempt: a refused token is renewed, and the message goes again.
func TestDeadTokenCostsNoAttempt(t *testing.T) {
	f := newFixture(t)
	f.start(t, "one")
	f.await(t, f.insert(t, columns{"unionid": f.unionid(1)}), queue.Sent)
	f.sim.InvalidateTokens(appid)
	if r := f.await(t, f.insert(t, columns{"unionid": f.unionid(2)}), queue.Sent); r.Attempts != 1 {
		t.Errorf("the row says %+v", r)
	}
}

// TestPausedAccountGoesOn: the pause is stored, and a new claimer takes it over and finds out with
// one message.
func TestPausedAccountGoesOn(t *testing.T) {
	f := newFixture(t)
	f.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultErrcode, Code: 40164, Path: "/cgi-bin/message/template/send"})
	for i := range 50 {
		f.insert(t, columns{"unionid": f.unionid(i)})
	}
	stop := f.start(t, "one")
	eventually(t, "the pause", func() bool { return f.count(t, `SELECT COUNT(*) FROM account_state`) == 1 })
	stop()
	if n := f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'pending' AND attempts = 0 AND lease IS NULL`); n != 50 {
		t.Errorf("%d rows are as they were, want 50", n)
	}
	calls := f.sim.Calls()["/cgi-bin/message/template/send"]
	stop = f.start(t, "two") // the pause is not over
	time.Sleep(3 * pollEvery)
	stop()
	if n := f.sim.Calls()["/cgi-bin/message/template/send"]; n != calls {
		t.Errorf("%d sends during the pause", n-calls)
	}
	f.exec(t, `UPDATE account_state SET paused_until = CURRENT_TIMESTAMP(3)`)
	stop = f.start(t, "three")
	eventually(t, "the probe", func() bool { return f.sim.Calls()["/cgi-bin/message/template/send"] == calls+1 })
	stop()
	f.sim.ClearFaults()
	f.exec(t, `UPDATE account_state SET paused_until = CURRENT_TIMESTAMP(3)`)
	f.start(t, "four")
	eventually(t, "all sent", func() bool { return f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'sent'`) == 50 })
	if n := f.count(t, `SELECT COUNT(*) FROM account_state`); n != 0 {
		t.Error("the pause is still stored")
	}
}

// TestUnreachableWeChat: an outage of the network uses up no attempts.
func TestUnreachableWeChat(t *testing.T) {
	f := newFixture(t)
	address := f.server.Listener.Addr().String()
	f.server.Close()
	id := f.insert(t, columns{"unionid": f.unionid(1)})
	f.start(t, "one")
	eventually(t, "the attempt", func() bool {
		return f.count(t, `SELECT COUNT(*) FROM send_request WHERE attempted_at IS NOT NULL AND lease IS NULL`) == 1
	})
	if r := f.row(t, id); r.Status != "pending" || r.Attempts != 0 {
		t.Errorf("the row says %+v", r)
	}
	f.server = serveAt(t, address, f.sim)
	f.await(t, id, queue.Sent)
	if n := len(f.messagesTo(1)); n != 1 {
		t.Errorf("%d messages", n)
	}
}

// TestManyRowsTwoInstances: everybody gets one message, whichever instance sends it and
// whoever stops in between.
func TestManyRowsTwoInstances(t *testing.T) {
	f := newFixture(t)
	const rows = 2000
	want := map[int]int{}
	for i := range rows {
		f.insert(t, columns{"unionid": f.unionid(i % 100), "data": f.data(fmt.Sprint("N-", i))})
		want[i%100]++
	}
	stopOne := f.start(t, "one")
	f.start(t, "two")
	eventually(t, "a tenth", func() bool { return len(f.sim.Messages(appid)) > rows/10 })
	stopOne() // drains: what it has claimed goes back or is settled
	if n := f.count(t, `SELECT COUNT(*) FROM send_request WHERE lease IS NOT NULL AND status <> 'pending'`); n != 0 {
		t.Errorf("%d finished rows carry a lease", n)
	}
	eventually(t, "all sent", func() bool { return f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'sent'`) == rows })
	got := map[int]int{}
	ids := map[string]bool{}
	for _, m := range f.sim.Messages(appid) {
		got[m.Person]++
		ids[m.ClientMsgID] = true
	}
	if diff := cmp.Diff(want, got); diff != "" || len(ids) != rows {
		t.Errorf("%d different client_msg_ids; messages by person differ (-want +got):\n%s", len(ids), diff)
	}
	if n := f.count(t, `SELECT COUNT(*) FROM send_request WHERE attempts <> 1`); n != 0 {
		t.Errorf("%d rows took more than one attempt", n)
	}
}

// TestStopGivesRowsBack: a stop burns no attempt, and the POST on its way is settled.
func TestStopGivesRowsBack(t *testing.T) {
	f := newFixture(t)
	f.config.Accounts[0].Concurrency = 2
	f.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultSlow, Delay: 300 * time.Millisecond, Path: "/cgi-bin/message/template/send"})
	for i := range 60 {
		f.insert(t, columns{"unionid": f.unionid(i)})
	}
	stop := f.start(t, "one")
	eventually(t, "the first POSTs", func() bool { return f.sim.Calls()["/cgi-bin/message/template/send"] >= 2 })
	stop()
	sent := f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'sent' AND attempts = 1`)
	back := f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'pending' AND attempts = 0 AND lease IS NULL
		AND uncertain_at IS NULL AND due_at <= CURRENT_TIMESTAMP(3)`)
	if sent == 0 || sent+back != 60 || len(f.sim.Messages(appid)) != sent {
		t.Errorf("%d sent, %d given back, %d messages; want 60 rows in all", sent, back, len(f.sim.Messages(appid)))
	}
}

func TestSendTimeoutMustFitTheClaim(t *testing.T) {
	_, err := New(Config{SendTimeout: MaxSendTimeout + 1})
	if err == nil || !strings.Contains(err.Error(), "wechat.send_timeout") {
		t.Errorf("got %v, want an error that names wechat.send_timeout", err)
	}
}

func serveAt(t *testing.T, address string, sim *wechatsim.Server) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(sim)
	eventually(t, "the address", func() bool {
		listener, err := listen(address)
		if err != nil {
			return false
		}
		_ = server.Listener.Close()
		server.Listener = listener
		return true
	})
	server.Start()
	t.Cleanup(server.Close)
	return server
}
