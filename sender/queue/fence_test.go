package queue

import "testing"

// TestFence: a claimer that was overtaken does not overwrite what the other one wrote.
func TestFence(t *testing.T) {
	f := newFixture(t)
	id := f.insert(t, columns{"appid": nil})
	claimOnce := func() Request {
		t.Helper()
		got, err := f.Claim(t.Context(), ClaimOrder{AppID: appid, Rows: f.due(t, 10)})
		if err != nil || len(got.Ours) != 1 {
			t.Fatalf("claimed: %+v, %v", got, err)
		}
		return got.Ours[0]
	}
	slow := claimOnce()
	if due := f.shares(t, 10); len(due) != 0 {
		t.Fatalf("a claimed row is due again at once: %v", due)
	}
	f.update(t, "due_at = CURRENT_TIMESTAMP(3)", id)
	fast := claimOnce()
	if !fast.InDoubtFor.Valid {
		t.Error("the second claim does not know that the first one's outcome is open")
	}
	// What is known to have been sent is true whoever holds the row by now; anything else is fenced.
	for _, c := range []struct {
		name      string
		result    Result
		overtaken int64
		status    Status
	}{
		{"late failure", slow.End(Failed, "x", "x"), 1, Pending},
		{"late release", slow.Release(), 1, Pending},
		{"late success", sent(slow), 0, Sent},
		{"failure after that", fast.End(Failed, "x", "x"), 1, Sent},
	} {
		done, err := f.Settle(t.Context(), []Result{c.result}, SettleOrder{AppID: appid})
		if err != nil || done.Overtaken != c.overtaken {
			t.Errorf("%s: %+v, %v; want %d overtaken", c.name, done, err, c.overtaken)
		}
		f.wantStatus(t, map[int64]Status{id: c.status})
	}
	if r := f.row(t, id); r.MsgID != 1<<60 || r.Held {
		t.Errorf("the row says %+v", r)
	}
}

// TestSettleLate: what a result may overwrite after its row went on without it.
func TestSettleLate(t *testing.T) {
	f := newFixture(t)
	simple := Result{Token: "mine", Status: Sent, MsgID: 1, OpenID: "o-1"}
	general := simple
	general.Warning = "cut"
	failed := Result{Token: "mine", Status: Failed}
	for _, tc := range []struct {
		is           Status
		lease        any
		sent, failed bool
	}{
		{Pending, "mine", true, true},
		{Pending, "of another", true, false},
		{Pending, nil, true, false},
		{Waiting, nil, true, false},
		{Unknown, nil, true, false},
		{Unknown, "mine", true, false},
		{Sent, nil, false, false},
		{Failed, nil, false, false},
		{Expired, nil, false, false},
		{Cancelled, nil, false, false},
	} {
		for result, want := range map[Result]bool{simple: tc.sent, general: tc.sent, failed: tc.failed} {
			result.ID = f.insert(t, columns{"status": tc.is, "lease": tc.lease, "msgid": 9})
			status, overtaken := result.Status, int64(0)
			if !want {
				status, overtaken = tc.is, 1
			}
			done, err := f.Settle(t.Context(), []Result{result}, SettleOrder{AppID: appid})
			if err != nil || done.Overtaken != overtaken {
				t.Errorf("%+v of a row that is %s: %+v, %v", result, tc.is, done, err)
			}
			row := f.row(t, result.ID)
			if row.Status != status || want != (row.MsgID == result.MsgID) {
				t.Errorf("%+v of a row that was %s: it says %+v", result, tc.is, row)
			}
		}
	}
}
