package intake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/devtools/link"
)

// TestKeys: the same key of the same application to the same person at the same account is the same
// message, whatever it says; anything else is another one.
func TestKeys(t *testing.T) {
	db := newDB(t)
	till := shop()
	till.Name = "till"
	f := newInstance(t, db, shop(), till)
	f.cfg.Archive = true
	first := f.must(t, order(keyed("1")))
	if r := f.must(t, order(keyed("1"))); r.ID != first.ID || !r.Repeated || first.Repeated {
		t.Errorf("%+v after %+v", r, first)
	}
	if strings.Contains(f.log.String(), "used the key") {
		t.Error("an equal message is a warning")
	}
	r := f.must(t, order(keyed("1"), func(m *Message) { m.Data = json.RawMessage(`{"thing1":"水"}`) }))
	if r.ID != first.ID || !strings.Contains(f.log.String(), "used the key") || strings.Contains(f.log.String(), "水") {
		t.Errorf("%+v: %s", r, f.log)
	}
	for name, change := range map[string]func(*Message){
		"another person":  func(m *Message) { m.OpenID = "o2" },
		"another kind":    func(m *Message) { m.Recipient = Recipient{UnionID: person} },
		"another account": func(m *Message) { m.AppID = mini },
		"another key":     keyed("2"),
		"no key":          keyed(""),
	} {
		if r := f.must(t, order(keyed("1"), change)); r.ID == first.ID || r.Repeated {
			t.Errorf("%s: %+v", name, r)
		}
	}
	f.session = session(&till)
	if r := f.must(t, order(keyed("1"))); r.ID == first.ID {
		t.Errorf("another application: %+v", r)
	}
	f.exec(t, `INSERT INTO send_request_archive (id, template, data, priority, dedup_key, application, status, attempts, archived_at)
		SELECT id, template, data, priority, dedup_key, application, 'sent', 1, CURRENT_TIMESTAMP(3) FROM send_request WHERE id = ?`, first.ID)
	f.exec(t, `DELETE FROM send_request WHERE id = ?`, first.ID)
	a := shop()
	f.session = session(&a)
	if r := f.must(t, order(keyed("1"))); r.ID != first.ID || !r.Repeated {
		t.Errorf("archived: %+v", r)
	}
}

// TestAtOnce: one key, shown to two instances by many callers at once, is one row.
func TestAtOnce(t *testing.T) {
	db := newDB(t)
	instances := []*fixture{newInstance(t, db, shop()), newInstance(t, db, shop())}
	for round := range 10 {
		var mu sync.Mutex
		ids := make(map[int64]int)
		fresh := 0
		var callers sync.WaitGroup
		for i := range 20 {
			callers.Go(func() {
				other := order(keyed(fmt.Sprint(round, "-", i)))
				results := instances[i%2].accept(t, order(keyed(fmt.Sprint("one ", round))), other)
				mu.Lock()
				defer mu.Unlock()
				ids[results[0].ID]++
				if !results[0].Repeated {
					fresh++
				}
				if results[0].Err != nil || results[1].Err != nil || results[1].Repeated {
					t.Errorf("%+v", results)
				}
			})
		}
		callers.Wait()
		if len(ids) != 1 || fresh != 1 {
			t.Errorf("ids %v, %d of them new", ids, fresh)
		}
	}
	if n := instances[0].rows(t); n != 210 {
		t.Errorf("%d rows, want 210", n)
	}
}

// TestDuplicateWindow: an equal message without a key is the same within the window, over instances,
// and a new one from its end on.
func TestDuplicateWindow(t *testing.T) {
	db := newDB(t)
	a := shop()
	a.DuplicateWindow = time.Minute
	f, g := newInstance(t, db, a), newInstance(t, db, a)
	first := f.must(t, order())
	if r := g.must(t, order()); r.ID != first.ID || !r.Repeated {
		t.Errorf("%+v after %+v", r, first)
	}
	for name, change := range map[string]func(*Message){
		"other data":     func(m *Message) { m.Data = json.RawMessage(`{"thing1":"水"}`) },
		"another url":    func(m *Message) { m.URL = "https://example.com" },
		"another person": func(m *Message) { m.OpenID = "o2" },
		"its own key":    keyed("1"),
	} {
		if r := f.must(t, order(change)); r.ID == first.ID {
			t.Errorf("%s: %+v", name, r)
		}
	}
	for age, repeated := range map[string]bool{"59000000": true, "60000000": false} {
		m := order(func(m *Message) { m.OpenID = "age" + age })
		first := f.must(t, m)
		f.exec(t, `UPDATE door_duplicate SET accepted_at = CURRENT_TIMESTAMP(3) - INTERVAL `+age+
			` MICROSECOND WHERE request_id = ?`, first.ID)
		if r := g.must(t, m); r.Repeated != repeated {
			t.Errorf("after %s µs: %+v", age, r)
		}
	}
	var mu sync.Mutex
	ids := make(map[int64]bool)
	var callers sync.WaitGroup
	for i := range 20 {
		callers.Go(func() {
			r := []*fixture{f, g}[i%2].must(t, order(func(m *Message) { m.OpenID = "atOnce" }))
			mu.Lock()
			defer mu.Unlock()
			ids[r.ID] = true
		})
	}
	callers.Wait()
	if len(ids) != 1 {
		t.Errorf("%d rows of equal messages at once", len(ids))
	}
}

// TestLostAnswer: where the answer to the last statement is lost, the intake looks it up, and says that
// it does not know where it cannot. A repetition with the key is then one row in all.
func TestLostAnswer(t *testing.T) {
	limited := shop()
	limited.Limit.Day = 100
	for statement, a := range map[string]applications.Application{
		"INSERT INTO send_request": shop(), "COMMIT": limited,
	} {
		for _, hangs := range []bool{false, true} {
			db := newDB(t)
			thief, through, err := link.OpenThief(dbtest.DSN(t, db))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = thief.Close() }()
			f := newInstance(t, dbtest.Open(t, through), a)
			f.must(t, order())
			thief.Steal(hangs, statement)
			r := f.accept(t, order(keyed("1")))[0]
			if !thief.Stole() || r.Err != nil || r.ID == 0 {
				t.Errorf("%s, hangs %t, stolen %t: %+v", statement, hangs, thief.Stole(), r)
			}
			again := f.must(t, order(keyed("1")))
			if again.ID != r.ID || !again.Repeated || f.rows(t) != 2 {
				t.Errorf("%s: %+v after %+v, %d rows", statement, again, r, f.rows(t))
			}
		}
	}
}

// TestBadRow: a row that the database does not take costs only itself. A narrower column stands for
// whatever that may be.
func TestBadRow(t *testing.T) {
	db := newDB(t)
	f := newInstance(t, db, shop())
	f.exec(t, `ALTER TABLE send_request MODIFY url VARCHAR(30) NULL DEFAULT NULL`)
	batch := make([]Message, 40)
	for i := range batch {
		batch[i] = order(func(m *Message) { m.OpenID = fmt.Sprint("o", i) })
		if i%10 == 3 {
			batch[i].URL = "https://example.com/" + strings.Repeat("a", 100)
		}
	}
	for i, r := range f.accept(t, batch...) {
		want := 0
		if i%10 == 3 {
			want = codeKeyword
		}
		if code(r) != want {
			t.Errorf("%d: %+v", i, r)
		}
	}
	if n := f.rows(t); n != 36 {
		t.Errorf("%d rows", n)
	}
}

// TestOwn: an application sees and withdraws its own messages, and of others not even that they are.
func TestOwn(t *testing.T) {
	db := newDB(t)
	till := shop()
	till.Name = "till"
	f := newInstance(t, db, shop(), till)
	id := f.must(t, order()).ID
	s, err := f.Status(t.Context(), f.session, id)
	if err != nil || s.ID != id || s.Status != "pending" || s.CreatedAt.IsZero() {
		t.Errorf("%+v, %v", s, err)
	}
	for _, other := range []applications.Session{session(&till), {}} {
		if _, err := f.Status(t.Context(), other, id); !errors.Is(err, ErrNotFound) {
			t.Errorf("read: %v", err)
		}
		if _, err := f.Cancel(t.Context(), other, id); !errors.Is(err, ErrNotFound) {
			t.Errorf("withdrawn: %v", err)
		}
	}
	if s, err = f.Status(t.Context(), f.session, id); err != nil || s.Status != "pending" {
		t.Errorf("%+v, %v", s, err)
	}
	for range 2 {
		if s, err = f.Cancel(t.Context(), f.session, id); err != nil || s.Status != "cancelled" {
			t.Errorf("%+v, %v", s, err)
		}
	}
	f.exec(t, `INSERT INTO send_request_archive (id, appid, template, data, priority, application, status, attempts, receipt_status, archived_at)
		VALUES (900, 'wx1', 't', '{}', 1, 'shop', 'sent', 1, 'success', CURRENT_TIMESTAMP(3))`)
	if s, err = f.Status(t.Context(), f.session, 900); err != nil || s.Status != "sent" || s.Receipt != "success" {
		t.Errorf("archived: %+v, %v", s, err)
	}
}

func pace(_ context.Context, piece func() error) error { return piece() }

func TestPurge(t *testing.T) {
	db := newDB(t)
	f := newStopped(t, db, shop())
	f.exec(t, `INSERT INTO door_duplicate (content, request_id, accepted_at) VALUES
		('old', 1, CURRENT_TIMESTAMP(3) - INTERVAL 3 HOUR), ('new', 2, CURRENT_TIMESTAMP(3))`)
	if err := Purge(t.Context(), db, pace); err != nil {
		t.Fatal(err)
	}
	var left []string
	if err := db.Select(&left, `SELECT content FROM door_duplicate`); err != nil || len(left) != 1 || left[0] != "new" {
		t.Errorf("%v are left, %v", left, err)
	}
}

// TestEcho: who wants to be told is written down with each message, once.
func TestEcho(t *testing.T) {
	db := newDB(t)
	a, till := shop(), shop()
	a.Echo, till.Name = true, "till"
	f := newInstance(t, db, a, till)
	first := f.must(t, order(keyed("1")))
	f.must(t, order(keyed("1")))
	second := f.must(t, order())
	f.session = session(&till)
	f.must(t, order())
	var ids []int64
	if err := db.Select(&ids, `SELECT request_id FROM door_echo ORDER BY request_id`); err != nil {
		t.Fatal(err)
	}
	if len(ids) != 2 || ids[0] != first.ID || ids[1] != second.ID {
		t.Errorf("%v, want %d and %d", ids, first.ID, second.ID)
	}
}
