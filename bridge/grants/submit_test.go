package grants

import (
	"context"
	"testing"
	"time"
)

// TestSubmit: reports are stored and counted, and one whose key is there already changes nothing.
func TestSubmit(t *testing.T) {
	l, _, db := newLedger(t, Reports)
	at := time.Now().UTC().Add(-time.Minute).Truncate(time.Second)
	reports := []Report{
		{Grant: Grant{person, template}, Result: "accept", Key: "1", At: at},
		{Grant: Grant{person, template}, Result: "accept", Key: "2"},
		{Grant: Grant{person, template}, Result: "reject", Key: "3", At: at.Add(-time.Hour)},
	}
	for range 3 {
		if err := l.Submit(t.Context(), mini, reports); err != nil {
			t.Fatal(err)
		}
	}
	var rows int
	if err := db.Get(&rows, `SELECT COUNT(*) FROM subscription_report`); err != nil || rows != len(reports) {
		t.Errorf("%d reports are stored, want %d: %v", rows, len(reports), err)
	}
	if _, err := l.takeReports(context.Background(), []string{mini}); err != nil {
		t.Fatal(err)
	}
	if r := numberOf(t, db, person); r.Remaining != 2 {
		t.Errorf("%+v, want 2 messages", r)
	}
	// Taken ones are deleted, and their keys still known.
	if err := l.Submit(t.Context(), mini, reports); err != nil {
		t.Fatal(err)
	}
	if _, err := l.takeReports(context.Background(), []string{mini}); err != nil {
		t.Fatal(err)
	}
	if r := numberOf(t, db, person); r.Remaining != 2 {
		t.Errorf("%+v after a repetition, want 2 messages", r)
	}
	if err := l.Submit(t.Context(), mini, nil); err != nil {
		t.Error(err)
	}
}
