package retention

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

// TestRetentionOfZeroDates: what INSERT IGNORE makes of a date that is none is archived, and
// deleted, as any other row.
func TestRetentionOfZeroDates(t *testing.T) {
	f := newFixture(t)
	old := time.Now().UTC().AddDate(0, -3, 0)
	f.loosely(t, `INSERT INTO send_request (appid, unionid, template, data, status, due_at, expires_at, created_at, finished_at)
		SELECT ?, 'u', 'order', '{}', 'failed', CASE WHEN n < 700 THEN '0000-00-00' ELSE ? END,
		       CASE WHEN n % 2 = 0 THEN '0000-00-00' ELSE ? END, ?, ?
		  FROM `+numbers(3),
		appid, old, old, old, old)
	young := f.insert(t, columns{"unionid": "u", "appid": appid, "status": "failed", "finished_at": time.Now().UTC()})
	f.loosely(t, `UPDATE send_request SET due_at = '0000-00-00' WHERE id = ?`, young)
	if err := f.purger(true).Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	left := f.maps(t, `SELECT id FROM send_request`)
	if diff := cmp.Diff([]map[string]any{{"id": uint64(young)}}, left); diff != "" {
		t.Error(diff)
	}
	for query, want := range map[string]int{
		`SELECT COUNT(*) FROM send_request_archive`:                                                  1000,
		`SELECT COUNT(*) FROM send_request_archive WHERE due_at IS NULL`:                             700,
		`SELECT COUNT(*) FROM send_request_archive WHERE expires_at IS NULL`:                         500,
		`SELECT COUNT(*) FROM send_request_archive WHERE due_at IS NOT NULL AND due_at = expires_at`: 150,
	} {
		if got := f.count(t, query); got != want {
			t.Errorf("%s: %d, want %d", query, got, want)
		}
	}
}

// TestRetentionOfArchived: a row that the archive has already, as after somebody put it back by
// hand, stops nothing.
func TestRetentionOfArchived(t *testing.T) {
	f := newFixture(t)
	old := time.Now().UTC().AddDate(0, -3, 0)
	var ids []int64
	for range 3 {
		ids = append(ids, f.place(t, "sent", columns{"due_at": old, "finished_at": old}))
	}
	f.exec(t, `INSERT INTO send_request_archive (id, template, data, priority, status, attempts) VALUES (?, 'the first', '{}', 1, 'sent', 1)`, ids[1])
	if err := f.purger(true).Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := f.count(t, `SELECT COUNT(*) FROM send_request`); n != 0 {
		t.Errorf("%d rows are left", n)
	}
	var archived []string
	if err := f.db.SelectContext(t.Context(), &archived, `SELECT template FROM send_request_archive ORDER BY id`); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"order", "the first", "order"}, archived); diff != "" {
		t.Error(diff)
	}
}

// TestRetentionOfBadRows: a row that the archive does not take stays, is named once, and stops no
// other.
func TestRetentionOfBadRows(t *testing.T) {
	f := newFixture(t)
	rows := f.fill(t)
	refuse := `ADD CONSTRAINT no_key CHECK (dedup_key IS NULL)`
	if dbtest.ServerOf(t, f.db).Name == "TiDB" { // it does not enforce CHECK
		refuse = `MODIFY dedup_key VARCHAR(1) CHARACTER SET ascii COLLATE ascii_bin`
	}
	f.exec(t, `ALTER TABLE send_request_archive `+refuse)
	var bad []int64
	if err := f.db.SelectContext(t.Context(), &bad, `SELECT id FROM send_request ORDER BY id LIMIT 3`); err != nil {
		t.Fatal(err)
	}
	f.exec(t, `UPDATE send_request SET dedup_key = CONCAT('k', id) WHERE id <= ?`, bad[2])
	var log bytes.Buffer
	r := f.purger(true)
	r.cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	for range 2 {
		if err := r.Purge(t.Context()); err != nil {
			t.Fatal(err)
		}
		var left []int64
		if err := f.db.SelectContext(t.Context(), &left, `SELECT id FROM send_request ORDER BY id`); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(bad, left); diff != "" {
			t.Fatalf("the rows that are left: %s", diff)
		}
	}
	if n := f.count(t, `SELECT COUNT(*) FROM send_receipt`); n != 3 {
		t.Errorf("%d receipts are left, want those of the three rows", n)
	}
	for _, id := range bad {
		if n := strings.Count(log.String(), fmt.Sprintf(" request=%d ", id)); n != 1 {
			t.Errorf("request %d is named %d times, want once", id, n)
		}
	}
	if want := fmt.Sprintf("requests=%d unknown_outcome=0 receipts_alone=0 stuck=3", rows-3); !strings.Contains(log.String(), want) {
		t.Errorf("the log has no %q:\n%s", want, &log)
	}
}

// TestRetentionLaneFails: what stops one status' rows stops no other's, and is told.
func TestRetentionLaneFails(t *testing.T) {
	f := newFixture(t)
	old := time.Now().UTC().AddDate(0, -3, 0)
	for _, state := range []string{"sent", "failed", "unknown"} {
		f.place(t, state, columns{"due_at": old, "finished_at": old})
	}
	dbtest.Trigger(t, f.db, `CREATE TRIGGER no_failed BEFORE DELETE ON send_request FOR EACH ROW
		BEGIN IF OLD.status = 'failed' THEN INSERT INTO not_there VALUES (1); END IF; END`)
	err := f.purger(false).Purge(t.Context())
	if err == nil || !strings.Contains(err.Error(), "failed requests: ") || !strings.Contains(err.Error(), "not_there") {
		t.Errorf("the error: %v", err)
	}
	left := f.maps(t, `SELECT status FROM send_request`)
	if diff := cmp.Diff([]map[string]any{{"status": "failed"}}, left); diff != "" {
		t.Error(diff)
	}
}
