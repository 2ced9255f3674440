package throttle

import (
	"strings"
	"testing"
	"time"

	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/sender/channel"
)

func count(t *testing.T, db *sqlx.DB, query string, args ...any) (n int) {
	t.Helper()
	if err := db.GetContext(t.Context(), &n, query, args...); err != nil {
		t.Fatal(err)
	}
	return n
}

func exec(t *testing.T, db *sqlx.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

// TestStoredState: what one instance stores another one reads, of its own account.
func TestStoredState(t *testing.T) {
	db := dbtest.New(t)
	s, strange := sqlStore{db, appid}, sqlStore{db, "wx0a00000000000002"}
	row := newStateRow(channel.Outcome{
		Reason: "quota_day", Code: 45009, Message: strings.Repeat("满", 2000)})
	if err := s.save(scopeSend, *row, time.Hour); err != nil {
		t.Fatal(err)
	}
	past := newStateRow(channel.Outcome{Reason: "x"})
	if err := s.save(scopeTemplate+order, *past, -time.Minute); err != nil {
		t.Fatal(err)
	}
	if err := strange.save(scopeSend, *past, 876_000*time.Hour); err != nil {
		t.Error("a pause until after the end of TIMESTAMP: ", err)
	}
	if err := strange.clear(scopeSend); err != nil {
		t.Fatal(err)
	}
	if rows, err := strange.load(t.Context()); err != nil || len(rows) != 0 {
		t.Errorf("another account reads %v, %v", rows, err)
	}
	rows, err := s.load(t.Context())
	if err != nil || len(rows) != 2 {
		t.Fatalf("read is %v, %v", rows, err)
	}
	for _, r := range rows {
		left := r.remaining()
		if r.Scope == scopeSend {
			if r.Reason != "quota_day" || left > time.Hour || left < time.Hour-time.Minute {
				t.Errorf("read is %+v", r)
			}
		} else if left > -time.Minute || left < -2*time.Minute {
			t.Errorf("read is %+v", r)
		}
	}
	const said = `SELECT COUNT(*) FROM account_state WHERE scope = 'send' AND errcode = 45009
		AND CHAR_LENGTH(errmsg) = 1001 OR scope <> 'send' AND errcode IS NULL AND errmsg IS NULL`
	if n := count(t, db, said); n != 2 {
		t.Errorf("%d rows say what WeChat said, want 2", n)
	}

	// since is the beginning of the reason, not of its last probe.
	const old = `UPDATE account_state SET since = '2026-01-01' WHERE scope = 'send'`
	const kept = `SELECT COUNT(*) FROM account_state WHERE scope = 'send' AND since = '2026-01-01'`
	exec(t, db, old)
	if err := s.save(scopeSend, *row, time.Hour); err != nil || count(t, db, kept) != 1 {
		t.Errorf("the same reason has another beginning (%v)", err)
	}
	row.Reason = "no_permission"
	if err := s.save(scopeSend, *row, time.Hour); err != nil || count(t, db, kept) != 0 {
		t.Errorf("another reason has the same beginning (%v)", err)
	}
	const all = `SELECT COUNT(*) FROM account_state`
	if err := strange.clear(scopeSend); err != nil || count(t, db, all) != 2 {
		t.Errorf("another account's row was removed (%v)", err)
	}
	if err := s.clear(scopeSend); err != nil || count(t, db, all) != 1 {
		t.Errorf("the row was not removed (%v)", err)
	}
}

// TestDaysCount: the messages of a day add up, of each account and day.
func TestDaysCount(t *testing.T) {
	db := dbtest.New(t)
	f := newFixture(t, withBudget(100, 0), func(c *Config) { c.DB = db })
	f.CountSent(3)
	f.CountSent(0)
	f.CountSent(4)
	f.clock.move(24 * time.Hour)
	f.CountSent(5)
	if n := count(t, db, `SELECT COUNT(*) FROM send_day`); n != 2 {
		t.Errorf("send_day has %d rows, want 2", n)
	}
	n, err := f.store.sentOn(t.Context(), time.Date(2026, 11, 22, 0, 0, 0, 0, china()))
	if err != nil || n != 7 {
		t.Errorf("the first day has %d messages (%v), want 7", n, err)
	}
	f.refresh(t)
	if n := f.ClaimLimit(1000); n != 95 {
		t.Errorf("%d of 100 are left on the second day after 5", n)
	}
	n, err = sqlStore{db, "another"}.sentOn(t.Context(), quotaDay(f.clock.now()))
	if err != nil || n != 0 {
		t.Errorf("another account has %d messages (%v)", n, err)
	}
}

// TestStateIsWrittenInTheEnd: a pause whose row could not be removed is not forgotten by the next
// one.
func TestStateIsWrittenInTheEnd(t *testing.T) {
	db := dbtest.New(t)
	f := newFixture(t, func(c *Config) { c.DB = db })
	exec(t, db, `INSERT INTO account_state (appid, scope, reason, paused_until)
		VALUES (?, 'send', 'x', CURRENT_TIMESTAMP(3))`, appid)
	f.load(t)
	f.clock.move(time.Second)
	exec(t, db, `RENAME TABLE account_state TO away`)
	f.send(t, order, sent)
	f.wantLogged(t, "writing the account's state", 1)
	if f.Reload(t.Context()) != nil {
		t.Error("nothing is paused, and the table was asked")
	}
	exec(t, db, `RENAME TABLE away TO account_state`)
	f.reload(t)
	if n := count(t, db, `SELECT COUNT(*) FROM account_state`); n != 0 {
		t.Errorf("account_state still has %d rows", n)
	}
	exec(t, db, `DROP TABLE account_state, send_day`)
	if f.Load(t.Context()) == nil {
		t.Error("there is no table, and that is no error")
	}
	if _, err := f.store.sentOn(t.Context(), f.clock.now()); err == nil {
		t.Error("there is no table, and that is no error")
	}
}

// TestHeldState: an operator's open transaction on account_state does not stop whoever asks for
// the state.
func TestHeldState(t *testing.T) {
	db := dbtest.New(t)
	f := newFixture(t, func(c *Config) { c.DB = db })
	exec(t, db, `INSERT INTO account_state (appid, scope, reason) VALUES (?, 'send', 'x')`, appid)
	tx := db.MustBegin()
	defer func() { _ = tx.Rollback() }()
	tx.MustExec(`DELETE FROM account_state`)
	written := make(chan struct{})
	go func() {
		defer close(written)
		f.Reserve("order", order).Done(noPermission)
	}()
	deadline := time.Now().Add(5 * time.Second)
	for !f.Paused() {
		if time.Now().After(deadline) {
			t.Fatal("the state could not be read while its row was held")
		}
		time.Sleep(time.Millisecond)
	}
	select {
	case <-written:
		t.Error("the row was written while it was held")
	case <-time.After(50 * time.Millisecond):
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	<-written
	if n := count(t, db, `SELECT COUNT(*) FROM account_state WHERE reason = 'no_permission'`); n != 1 {
		t.Error("the pause is not stored")
	}
}
