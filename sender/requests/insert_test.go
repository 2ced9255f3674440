package requests

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestInsert: what is not given has its default, and a dedup key is inserted once.
func TestInsert(t *testing.T) {
	f := newFixture(t)
	unionid, key, hour := "u1", "k-1", time.Hour.Microseconds()
	r := Request{UnionID: &unionid, Template: "order", Data: `{}`, Priority: 1, ExpiresIn: &hour, DedupKey: &key}
	id, existed, err := f.store.Insert(t.Context(), r)
	if err != nil || existed {
		t.Fatal(id, existed, err)
	}
	inserted := f.count(t, `
		SELECT COUNT(*) FROM send_request
		 WHERE id = ? AND appid IS NULL AND unionid = 'u1' AND due_at <= CURRENT_TIMESTAMP(3)
		   AND expires_at > CURRENT_TIMESTAMP(3) + INTERVAL 59 MINUTE`, id)
	if inserted != 1 {
		t.Error("the row is not as it was given")
	}
	if again, existed, err := f.store.Insert(t.Context(), r); again != id || !existed || err != nil {
		t.Errorf("the second: %d, existed %t, %v; want %d", again, existed, err, id)
	}
	century := 876_000 * time.Hour.Microseconds()
	late := Request{UnionID: &unionid, Template: "order", Data: `{}`, Priority: 1, ExpiresIn: &century}
	if id, _, err := f.store.Insert(t.Context(), late); err != nil ||
		f.count(t, `SELECT COUNT(*) FROM send_request WHERE id = ? AND expires_at = '2038-01-19'`, id) != 1 {
		t.Errorf("a row that expires in a century: %v", err)
	}
	got, err := f.store.Outcome(t.Context(), id)
	if diff := cmp.Diff(Outcome{ID: id, Status: "pending"}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if _, err := f.store.Outcome(t.Context(), id+1); err == nil {
		t.Error("a missing row has an outcome")
	}
}
