package queue

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

const channelName = "mini_subscribe"

// sent is the usual result of a claimed row: WeChat has taken the message.
func sent(r Request) Result {
	return Result{
		ID: r.ID, Token: r.Token, Status: Sent, MsgID: 1 << 60, OpenID: "o-1", Channel: channelName,
		EarlierInDoubt: r.InDoubtFor.Valid,
	}
}

// TestSettle: what each kind of result makes of a row that was claimed three minutes ago.
func TestSettle(t *testing.T) {
	f := newFixture(t)
	for _, tc := range settleCases() {
		t.Run(tc.name, func(t *testing.T) {
			id := f.insert(t, tc.before)
			claimed := f.claim(t, id)[0]
			f.update(t, "attempted_at = "+string(in(-3)), id)
			r := tc.result
			r.ID, r.Token, r.EarlierInDoubt = id, claimed.Token, claimed.InDoubtFor.Valid
			done, err := f.Settle(t.Context(), []Result{r}, SettleOrder{AppID: appid})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(Settled{Written: []Result{r}}, done); diff != "" {
				t.Errorf("what Settle returns differs (-want +got):\n%s", diff)
			}
			f.wantRow(t, id, tc.want)
		})
	}
	f.wantNulls(t)
}

type settleCase struct {
	name   string
	before columns
	result Result // without ID, Token and EarlierInDoubt
	want   row
}

func settleCases() []settleCase {
	const again = "sent again on an operator's word; before"
	const anyway = "sent on an operator's word; before"
	usual := sent(Request{})
	warned, nameless := usual, usual
	warned.Warning, nameless.MsgID = "w", 0
	delivered := Delivery{1 << 60, "o-1", channelName}
	cut := Note{Warning: "cut"}
	failed := Result{Status: Failed, Channel: channelName, Note: Note{
		Reason: "refused_by_user", ErrCode: 43101, ErrMsg: "user refuse", Warning: "cut"}}
	refused := failed.Note
	kept := func(warning string) Note { n := refused; n.Warning = warning; return n }
	long, tooLong := strings.Repeat("茶", 1000), failed
	tooLong.Note = Note{ErrMsg: long + "x", Warning: long}
	expired := Request{}.End(Expired, "expired", "")
	retry := Result{Status: Pending, Delay: 10 * time.Minute}
	wait := Result{Status: Waiting, Delay: time.Hour, Refund: true}

	first := columns{}
	second := columns{"attempts": 1, "reason": "timeout", "errcode": -1, "errmsg": "busy",
		"warning": "cut"}
	inDoubt := columns{"uncertain_at": in(-9)}
	expiring := columns{"expires_at": in(5)}
	ended := func(inDoubtFrom string) Moments {
		return Moments{Due: "1m", Attempted: "-3m", InDoubtFrom: inDoubtFrom, Finished: "0m"}
	}
	open := func(due, inDoubtFrom string) Moments {
		return Moments{Due: due, Attempted: "-3m", InDoubtFrom: inDoubtFrom}
	}
	return []settleCase{
		{"sent", first, usual, row{Sent, appid, 1, false, Note{}, ended(""), delivered}},
		{"sent, repeated", second, usual, row{Sent, appid, 2, false, cut, ended(""), delivered}},
		{"sent, with a warning", second, warned,
			row{Sent, appid, 2, false, Note{Warning: "w"}, ended(""), delivered}},
		{"sent, without a msgid", second, nameless,
			row{Sent, appid, 2, false, cut, ended(""), Delivery{0, "o-1", channelName}}},
		{"sent, earlier in doubt", inDoubt, usual,
			row{Sent, appid, 1, false, Note{}, ended("-9m"), delivered}},
		{"failed", second, failed, row{Failed, appid, 2, false, refused, ended(""), Delivery{}}},
		{"failed before an attempt", columns{"sent_openid": "o-0"}, Request{}.End(Failed, "bad", "text"),
			row{Failed, appid, 0, false, Note{Reason: "bad", ErrMsg: "text"}, ended(""),
				Delivery{SentOpenID: "o-0"}}},
		{"failed, earlier in doubt", inDoubt, failed,
			row{Unknown, appid, 1, false, refused, ended("-9m"), Delivery{}}},
		{"failed, left behind", left(nil), failed,
			row{Unknown, appid, 2, false, refused, ended("-5m"), Delivery{}}},
		{"expired", expiring, expired,
			row{Expired, appid, 0, false, Note{Reason: "expired"}, ended(""), Delivery{}}},
		{"expired, earlier in doubt", inDoubt, expired,
			row{Unknown, appid, 0, false, Note{Reason: "expired"}, ended("-9m"), Delivery{}}},
		{"cancelled", first, Request{}.End(Cancelled, "", ""),
			row{Cancelled, appid, 0, false, Note{}, ended(""), Delivery{}}},
		{"unknown", first, Result{Status: Unknown, InDoubt: true, OpenID: "o-1", Channel: channelName},
			row{Unknown, appid, 1, false, Note{}, ended("-3m"), Delivery{SentOpenID: "o-1"}}},
		{"retry", first, retry, row{Pending, appid, 1, false, Note{}, open("10m", ""), Delivery{}}},
		{"retry, expires later", columns{"expires_at": in(99)}, retry,
			row{Pending, appid, 1, false, Note{}, open("10m", ""), Delivery{}}},
		{"retry, expires first", expiring, retry,
			row{Pending, appid, 1, false, Note{}, open("5m", ""), Delivery{}}},
		{"retry in doubt", first, Result{Status: Pending, InDoubt: true, Delay: 2 * time.Minute},
			row{Pending, appid, 1, false, Note{}, open("2m", "-3m"), Delivery{}}},
		{"retry in doubt again", inDoubt, Result{Status: Pending, InDoubt: true},
			row{Pending, appid, 1, false, Note{}, open("0m", "-9m"), Delivery{}}},
		{"wait", first, wait, row{Waiting, appid, 0, false, Note{}, open("60m", ""), Delivery{}}},
		{"wait, expires first", expiring, wait,
			row{Waiting, appid, 0, false, Note{}, open("5m", ""), Delivery{}}},
		{"released", first, Request{}.Release(),
			row{Pending, appid, 0, false, Note{}, open("0m", ""), Delivery{}}},
		{"sent again", columns{"warning": again}, failed,
			row{Failed, appid, 1, false, kept(again), ended(""), Delivery{}}},
		{"sent though withdrawn", columns{"warning": anyway}, failed,
			row{Failed, appid, 1, false, kept(anyway), ended(""), Delivery{}}},
		{"long texts", first, tooLong,
			row{Failed, appid, 1, false, Note{ErrMsg: long + "…", Warning: long}, ended(""), Delivery{}}},
	}
}

// TestSettleBatch: a full batch of both kinds, whose every row becomes what its own result says.
func TestSettleBatch(t *testing.T) {
	f := newFixture(t)
	f.bulk(t, MaxSettle, Pending, in(-1))
	ours := f.claim(t, idsOf(f.due(t, MaxSettle))...)
	batch := make([]Result, len(ours))
	for i, r := range ours {
		batch[i] = sent(r)
		batch[i].MsgID = r.ID
		switch i % 4 {
		case 1:
			batch[i] = r.End(Failed, "bad", "")
		case 2:
			batch[i].Channel = DefaultChannel // not the batch's first one
		case 3:
			batch[i].Warning = "cut"
		}
	}
	f.update(t, "lease = 'of another'", ours[0].ID, ours[1].ID, ours[5].ID)
	done, err := f.Settle(t.Context(), batch, SettleOrder{AppID: appid})
	if err != nil || len(done.Written) != MaxSettle || len(done.Locked) > 0 || done.Overtaken != 2 {
		t.Errorf("%d written, %d locked, %d overtaken, %v; want %d, 0, 2", len(done.Written),
			len(done.Locked), done.Overtaken, err, MaxSettle)
	}
	const quarter = MaxSettle / 4
	for where, want := range map[string]int{
		`status = 'sent' AND channel = 'mini_subscribe' AND warning IS NULL AND msgid = id`: quarter,
		`status = 'sent' AND channel = 'oa_template' AND warning IS NULL AND msgid = id`:    quarter,
		`status = 'sent' AND channel = 'mini_subscribe' AND warning = 'cut' AND msgid = id`: quarter,
		`status = 'failed' AND channel IS NULL AND msgid IS NULL AND reason = 'bad'`:        quarter - 2,
		`status = 'pending' AND lease = 'of another'`:                                       2,
		`status <> 'pending' AND (lease IS NOT NULL OR finished_at IS NULL)`:                0,
	} {
		if n := f.count(t, where); n != want {
			t.Errorf("%d rows are %s, want %d", n, where, want)
		}
	}
	if done, err := f.Settle(t.Context(), nil, SettleOrder{AppID: appid}); err != nil || len(done.Written) > 0 {
		t.Errorf("settling nothing: %+v, %v", done, err)
	}
}

// TestSettleLeavesLocked: results of rows that another transaction holds are returned, and the
// others are written. Settle waits for no row that it knows to be held.
func TestSettleLeavesLocked(t *testing.T) {
	f := newFixture(t)
	for name, skipLocked := range map[string]bool{"known": true, "unknown": false} {
		t.Run(name, func(t *testing.T) {
			ours := f.claim(t, f.insert(t, columns{}), f.insert(t, columns{}),
				f.insert(t, columns{}), f.insert(t, columns{}))
			batch := []Result{sent(ours[0]), sent(ours[1]), ours[2].End(Failed, "bad", ""),
				ours[3].End(Failed, "bad", "")}
			free, held := []Result{batch[1], batch[3]}, []Result{batch[0], batch[2]}
			release := f.hold(t, ours[0].ID, ours[2].ID)
			begin := time.Now()
			done, err := f.Settle(t.Context(), batch, SettleOrder{AppID: appid, SkipLocked: skipLocked})
			if err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begin); skipLocked && took >= lockTimeout {
				t.Errorf("it took %s", took)
			}
			if diff := cmp.Diff(Settled{Written: free, Locked: held}, done); diff != "" {
				t.Errorf("what Settle returns differs (-want +got):\n%s", diff)
			}
			release()
			f.wantStatus(t, map[int64]Status{
				ours[0].ID: Pending, ours[1].ID: Sent, ours[2].ID: Pending, ours[3].ID: Failed})
			if _, err := f.Settle(t.Context(), done.Locked, SettleOrder{AppID: appid, SkipLocked: true}); err != nil {
				t.Fatal(err)
			}
			f.wantStatus(t, map[int64]Status{ours[0].ID: Sent, ours[2].ID: Failed})
		})
	}
}

// TestSettleError: what is returned with an error has been written, and nothing else.
func TestSettleError(t *testing.T) {
	f := newFixture(t)
	for name, fails := range map[string]Status{"usual results": Sent, "others": Failed} {
		t.Run(name, func(t *testing.T) {
			dbtest.Trigger(t, f.db, fmt.Sprintf(`CREATE TRIGGER failing BEFORE UPDATE ON send_request FOR EACH ROW
				BEGIN IF NEW.status = '%s' THEN INSERT INTO not_there VALUES (1); END IF; END`, fails))
			defer f.exec(t, `DROP TRIGGER failing`)
			ours := f.claim(t, f.insert(t, columns{}), f.insert(t, columns{}))
			batch := []Result{sent(ours[0]), ours[1].End(Failed, "bad", "")}
			var want Settled
			rows := map[int64]Status{ours[0].ID: Pending, ours[1].ID: Pending}
			if fails == Failed {
				want.Written, rows[ours[0].ID] = batch[:1], Sent
			}
			done, err := f.Settle(t.Context(), batch, SettleOrder{AppID: appid})
			if err == nil {
				t.Error("no error")
			}
			if diff := cmp.Diff(want, done); diff != "" {
				t.Errorf("what Settle returns differs (-want +got):\n%s", diff)
			}
			f.wantStatus(t, rows)
		})
	}
}

// TestResult: the rules that need no database.
func TestResult(t *testing.T) {
	for _, tc := range []struct {
		result Result
		final  Status
		posted bool
	}{
		{Result{Status: Sent}, Sent, true},
		{Result{Status: Sent, EarlierInDoubt: true}, Sent, true},
		{Result{Status: Failed}, Failed, false},
		{Result{Status: Failed, EarlierInDoubt: true}, Unknown, false},
		{Result{Status: Expired, EarlierInDoubt: true}, Unknown, false},
		{Result{Status: Pending, EarlierInDoubt: true}, Pending, false},
		{Result{Status: Pending, InDoubt: true}, Pending, true},
		{Result{Status: Unknown, InDoubt: true}, Unknown, true},
	} {
		final, posted := tc.result.Final(), tc.result.Posted()
		if final != tc.final || posted != tc.posted {
			t.Errorf("%+v: %s, %t; want %s, %t", tc.result, final, posted, tc.final, tc.posted)
		}
	}
}
