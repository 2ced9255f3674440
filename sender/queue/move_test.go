package queue

import (
	"testing"
	"time"
)

// way is where a row stands, and where it came from.
type way struct {
	AppID    string `db:"appid"`
	Status   Status `db:"status"`
	From     string `db:"fallback_from"`
	Why      string `db:"fallback_reason"`
	Code     int    `db:"fallback_errcode"`
	Attempts int    `db:"attempts"`
	Leased   bool   `db:"leased"`
	First    bool   `db:"first"` // when the first account was refused is known
	Other    bool   `db:"other"`
}

func (f fixture) wantWay(t *testing.T, id int64, want way) {
	t.Helper()
	var got way
	err := f.db.GetContext(t.Context(), &got, `
		SELECT COALESCE(appid, '') AS appid, status, COALESCE(fallback_from, '') AS fallback_from,
		       COALESCE(fallback_reason, '') AS fallback_reason,
		       COALESCE(fallback_errcode, 0) AS fallback_errcode, attempts, lease IS NOT NULL AS leased,
		       first_refused_at IS NOT NULL AS first, other_refused_at IS NOT NULL AS other
		  FROM send_request WHERE id = ?`, id)
	if err != nil || got != want {
		t.Errorf("request %d: %+v, %v; want %+v", id, got, err, want)
	}
}

func moveOf(r Request, to string) Result {
	return Result{ID: r.ID, Token: r.Token, Status: Pending, Move: &Move{
		At: appid, To: to, Refused: RefusedByFirst, Origin: Origin{appid, "not_follower", 43004}}}
}

// TestMoveIsFenced: a move needs the claim, the account and that no attempt is in doubt, each as it
// was read.
func TestMoveIsFenced(t *testing.T) {
	for name, c := range map[string]struct {
		change string // of the claimed row
		want   way
	}{
		"as it was": {"", way{AppID: otherAppID, Status: Pending, From: appid, Why: "not_follower",
			Code: 43004, First: true}},
		"claimed again": {`lease = 'another'`, way{AppID: appid, Status: Pending, Attempts: 1, Leased: true}},
		"at another account": {`appid = 'wxcc'`,
			way{AppID: "wxcc", Status: Pending, Attempts: 1, Leased: true}},
		"in doubt": {`uncertain_at = CURRENT_TIMESTAMP(3)`,
			way{AppID: appid, Status: Pending, Attempts: 1, Leased: true}},
		"sent": {`status = 'sent'`, way{AppID: appid, Status: Sent, Attempts: 1, Leased: true}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			id := f.insert(t, columns{"appid": appid})
			ours := f.claim(t, id)
			if c.change != "" {
				f.exec(t, `UPDATE send_request SET `+c.change+` WHERE id = ?`, id)
			}
			done, err := f.Settle(t.Context(), []Result{moveOf(ours[0], otherAppID)}, SettleOrder{AppID: appid})
			if err != nil || (done.Overtaken == 0) != (c.change == "") {
				t.Errorf("%+v, %v", done, err)
			}
			f.wantWay(t, id, c.want)
		})
	}
}

// TestReturnWaits: a row that returns waits with its hints, until the end of the wait that began
// first.
func TestReturnWaits(t *testing.T) {
	f := newFixture(t)
	id := f.insert(t, columns{"appid": appid, "wait_until": in(5)})
	r := moveOf(f.claim(t, id)[0], appid)
	r.Status, r.Delay, r.Waits = Waiting, time.Hour, &Waits{unionidWait("u-1")}
	r.Move.Refused = RefusedByOther
	if _, err := f.Settle(t.Context(), []Result{r}, SettleOrder{AppID: appid}); err != nil {
		t.Fatal(err)
	}
	f.wantWay(t, id, way{AppID: appid, Status: Waiting, From: appid, Why: "not_follower", Code: 43004,
		Attempts: 1, Other: true})
	if waits, err := f.Waits(t.Context(), []int64{id}); err != nil || len(waits[id]) != 1 {
		t.Errorf("%v, %v", waits, err)
	}
	var left int
	if err := f.db.GetContext(t.Context(), &left, `SELECT TIMESTAMPDIFF(SECOND, CURRENT_TIMESTAMP(3), due_at)
		FROM send_request WHERE id = ?`, id); err != nil || left > 300 || left < 200 {
		t.Errorf("it waits %d s, %v", left, err)
	}
}

// TestMoveWaiting: a waiting row is moved where it stands as it was read, and waits for nothing.
func TestMoveWaiting(t *testing.T) {
	f := newFixture(t)
	refused := columns{"status": "waiting", "appid": appid, "due_at": in(9), "reason": "not_follower",
		"errcode": 43004, "attempted_at": in(-9), "attempts": 2}
	id, elsewhere, doubt := f.insert(t, refused), f.insert(t, refused), f.insert(t, refused)
	f.hint(t, unionidWait("u-1"), id)
	f.exec(t, `UPDATE send_request SET appid = 'wxcc' WHERE id = ?`, elsewhere)
	f.exec(t, `UPDATE send_request SET uncertain_at = CURRENT_TIMESTAMP(3) WHERE id = ?`, doubt)
	n, locked, err := f.MoveWaiting(t.Context(), WaitingMove{From: appid, To: otherAppID,
		IDs: []int64{id, elsewhere, doubt}})
	if n != 1 || len(locked) > 0 || err != nil {
		t.Errorf("%d, %v, %v", n, locked, err)
	}
	f.wantWay(t, id, way{AppID: otherAppID, Status: Pending, From: appid, Why: "not_follower", Code: 43004, First: true})
	f.wantWay(t, elsewhere, way{AppID: "wxcc", Status: Waiting, Attempts: 2})
	f.wantWay(t, doubt, way{AppID: appid, Status: Waiting, Attempts: 2})
	if waits, err := f.Waits(t.Context(), []int64{id}); err != nil || len(waits[id]) != 0 {
		t.Errorf("%v, %v", waits, err)
	}
}

// TestStatementsNameTheAccount: whatever changes a row names the account that it read: a row that
// was moved meanwhile stays as it is. Only that a message was sent is true in any case, and the row
// becomes the sender's.
func TestStatementsNameTheAccount(t *testing.T) {
	for name, c := range map[string]struct {
		status Status
		change func(f fixture, r Request) error
	}{
		"claim": {Pending, func(f fixture, r Request) error {
			_, err := f.Claim(t.Context(), ClaimOrder{AppID: appid, Rows: []Request{r}})
			return err
		}},
		"settle": {Pending, func(f fixture, r Request) error {
			f.exec(t, `UPDATE send_request SET lease = 'token' WHERE id = ?`, r.ID)
			_, err := f.Settle(t.Context(), []Result{{ID: r.ID, Token: "token", Status: Failed}},
				SettleOrder{AppID: appid})
			f.exec(t, `UPDATE send_request SET lease = NULL WHERE id = ?`, r.ID)
			return err
		}},
		"release": {Waiting, func(f fixture, r Request) error {
			_, err := f.Release(t.Context(), ReleaseOrder{AppID: appid, IDs: []int64{r.ID}})
			return err
		}},
		"cancel": {Waiting, func(f fixture, r Request) error {
			f.exec(t, `UPDATE send_request SET cancel = 1 WHERE id = ?`, r.ID)
			return f.Cancel(t.Context(), CancelOrder{From: Waiting, AppID: appid, IDs: []int64{r.ID}})
		}},
		"end": {Pending, func(f fixture, r Request) error {
			f.exec(t, `UPDATE send_request SET expires_at = CURRENT_TIMESTAMP(3) WHERE id = ?`, r.ID)
			return f.EndOverdue(t.Context(), appid, []int64{r.ID})
		}},
		"hold": {Pending, func(f fixture, r Request) error {
			_, _, err := f.HoldBack(t.Context(), Hold{AppID: appid, Reason: "x", IDs: []int64{r.ID}})
			return err
		}},
		"place": {Pending, func(f fixture, r Request) error {
			_, _, err := f.Place(t.Context(), PlaceOrder{To: appid, IDs: []int64{r.ID}})
			return err
		}},
		"receipt": {Unknown, func(f fixture, r Request) error {
			_, err := f.ResolveByReceipt(t.Context(), UnknownRequest{Request: r}, Receipt{MsgID: 1}, channelName)
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			id := f.insert(t, columns{"appid": otherAppID, "status": string(c.status)})
			if err := c.change(f, Request{ID: id, AppID: nullable(appid)}); err != nil {
				t.Fatal(err)
			}
			f.wantWay(t, id, way{AppID: otherAppID, Status: c.status})
		})
	}
	f := newFixture(t)
	simple, noted := f.insert(t, columns{"appid": otherAppID}), f.insert(t, columns{"appid": otherAppID})
	late := []Result{
		{ID: simple, Status: Sent, MsgID: 7, OpenID: "o-1", Channel: channelName},
		{ID: noted, Status: Sent, MsgID: 8, OpenID: "o-1", Channel: channelName, Note: Note{Warning: "x"}},
	}
	if _, err := f.Settle(t.Context(), late, SettleOrder{AppID: appid}); err != nil {
		t.Fatal(err)
	}
	f.wantWay(t, simple, way{AppID: appid, Status: Sent})
	f.wantWay(t, noted, way{AppID: appid, Status: Sent})
}
