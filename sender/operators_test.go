package sender

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
	"github.com/unionbridge/unionbridge/sender/queue"
	"github.com/unionbridge/unionbridge/sender/requests"
	"github.com/unionbridge/unionbridge/sender/retention"
)

// place inserts a row in some state.
func (f *fixture) place(t *testing.T, state string, more columns) int64 {
	t.Helper()
	c := columns{"unionid": f.unionid(1), "appid": appid, "status": state}
	if state != "pending" && state != "waiting" {
		c["finished_at"] = time.Now().UTC().Add(-time.Hour)
	}
	for name, value := range more {
		c[name] = value
	}
	return f.insert(t, c)
}

func (f *fixture) requests() requests.Store { return requests.Store{DB: f.db, DefaultAppID: appid} }

// TestForcedThenFailed: a row that was sent, and whose repetition is refused, ends as failed. Its
// warning tells the producer, for whom failed means "did not get it" otherwise.
func TestForcedThenFailed(t *testing.T) {
	f := newFixture(t)
	s := newStepper(t, f)
	id := f.insert(t, columns{"unionid": f.unionid(1)})
	s.attempt(t)
	msgid := *f.row(t, id).MsgID
	if _, err := f.requests().Retry(t.Context(), []int64{id}, requests.RetryOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	f.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultErrcode, Code: 43101, Path: wechat.EndpointSendTemplate})
	s.attempt(t)
	// Then it is an ordinary failed row, which anybody retries.
	for range 2 {
		var row struct{ Status, Warning string }
		if err := f.db.GetContext(t.Context(), &row, `SELECT status, warning FROM v_send_status WHERE id = ?`, id); err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("sent again on an operator's word; before, it was sent, msgid %d", msgid)
		if row.Status != "failed" || row.Warning != want {
			t.Fatalf("%+v, want failed and %q", row, want)
		}
		if _, err := f.requests().Retry(t.Context(), []int64{id}, requests.RetryOptions{}); err != nil {
			t.Fatal(err)
		}
		s.attempt(t)
	}
}

// TestRetriedIsSent: a running sender takes what was given back, whatever it ended as.
func TestRetriedIsSent(t *testing.T) {
	f := newFixture(t)
	past := time.Now().UTC().Add(-time.Hour)
	ids := []int64{
		f.place(t, "failed", columns{"attempts": 4}),
		f.place(t, "unknown", columns{"uncertain_at": past, "attempts": 4}),
		f.place(t, "expired", columns{"expires_at": past}),
		f.place(t, "cancelled", columns{"cancel": 1}),
	}
	f.start(t, "one")
	changes, err := f.requests().Retry(t.Context(), ids, requests.RetryOptions{Force: true, IgnoreExpiry: true, Withdrawn: true})
	if err != nil || len(changes) != len(ids) {
		t.Fatal(changes, err)
	}
	for _, id := range ids {
		f.await(t, id, queue.Sent)
	}
	if n := len(f.messagesTo(1)); n != len(ids) {
		t.Errorf("%d messages, want %d", n, len(ids))
	}
}

// TestCancelWhileSending: rows are withdrawn while a sender works through them. What is reported as
// cancelled was not received, and everything else was.
func TestCancelWhileSending(t *testing.T) {
	f := newFixture(t)
	const rows = 1500
	ids := make([]int64, rows)
	for i := range ids {
		ids[i] = f.insert(t, columns{"unionid": f.unionid(i % 100), "dedup_key": i})
	}
	stop := f.start(t, "one")
	eventually(t, "a part", func() bool { return len(f.sim.Messages(appid)) > 50 })
	cancelled := map[int64]bool{}
	// From the end, where the sender is not yet, towards where it is.
	for at := rows; at > 0; at -= 50 {
		changes, err := f.requests().Cancel(t.Context(), ids[at-50:at])
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range changes {
			if c.Refused == "" {
				cancelled[c.ID] = true
			}
		}
	}
	eventually(t, "the end", func() bool {
		return f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'pending'`) == 0
	})
	stop()
	received := map[string]int{}
	for _, m := range f.sim.Messages(appid) {
		received[m.ClientMsgID]++
	}
	if len(cancelled) == 0 || len(received) == 0 {
		t.Fatalf("%d cancelled, %d received: the test shows nothing", len(cancelled), len(received))
	}
	s := &Service{shared: &shared{}}
	if err := f.db.GetContext(t.Context(), &s.installation, `SELECT id FROM installation`); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		row, got := f.row(t, id), received[s.clientMsgID(id)]
		if want := map[string]int{"sent": 1, "cancelled": 0}; want[row.Status] != got || (cancelled[id] && row.Status != "cancelled") {
			t.Errorf("request %d is %s, reported cancelled: %t, received %d times", id, row.Status, cancelled[id], got)
		}
	}
}

// TestRetryRaces: many operators retry the same failed rows while senders work: each row goes out
// once for each time somebody was told that it was retried.
func TestRetryRaces(t *testing.T) {
	f := newFixture(t)
	const rows = 200
	ids := make([]int64, rows)
	for i := range ids {
		ids[i] = f.place(t, "failed", columns{"unionid": f.unionid(i % 100)})
	}
	stopOne, stopTwo := f.start(t, "one"), f.start(t, "two")
	var mu sync.Mutex
	retried := 0
	var operators sync.WaitGroup
	for range 4 {
		operators.Go(func() {
			changes, err := f.requests().Retry(context.Background(), ids, requests.RetryOptions{})
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			for _, c := range changes {
				if c.Refused == "" {
					retried++
				}
			}
		})
	}
	operators.Wait()
	eventually(t, "the end", func() bool { return f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'sent'`) == rows })
	stopOne()
	stopTwo()
	if n := len(f.sim.Messages(appid)); n != rows || retried != rows {
		t.Errorf("%d messages, %d retries reported; want %d of each", n, retried, rows)
	}
}

// TestResolveWithdrawn: a request that was withdrawn too late is not sent by somebody who does not
// know of that.
func TestResolveWithdrawn(t *testing.T) {
	f := newFixture(t)
	s := newStepper(t, f)
	id := f.place(t, "unknown", columns{"cancel": 1, "reason": "cancelled_too_late", "uncertain_at": time.Now().UTC().Add(-time.Hour)})
	c, err := f.requests().ResolveResend(t.Context(), id, requests.RetryOptions{})
	if c.Status != "unknown" || !strings.HasPrefix(c.Refused, "it was withdrawn") || err != nil {
		t.Fatal(c, err)
	}
	s.attempt(t)
	if n := len(f.messagesTo(1)); n != 0 {
		t.Fatalf("%d messages to somebody whose message was withdrawn", n)
	}
	c, err = f.requests().ResolveResend(t.Context(), id, requests.RetryOptions{Withdrawn: true})
	if diff := cmp.Diff(requests.Change{ID: id, Status: "pending"}, c); diff != "" || err != nil {
		t.Fatal(diff, err)
	}
	s.attempt(t)
	if row := f.row(t, id); row.Status != "sent" || len(f.messagesTo(1)) != 1 {
		t.Errorf("the row is %s, %d messages; want one", row.Status, len(f.messagesTo(1)))
	}
}

// TestRetentionAndRetry: what an operator gives back while old rows are being deleted is deleted or
// sent, never both and never neither.
func TestRetentionAndRetry(t *testing.T) {
	f := newFixture(t)
	old := time.Now().UTC().AddDate(0, -3, 0)
	ids := make([]int64, 600)
	for i := range ids {
		ids[i] = f.insert(t, columns{"unionid": f.unionid(i % 100), "appid": appid, "status": "failed", "due_at": old, "finished_at": old,
			"template": []string{"order", f.templateID}[i%2]})
	}
	purger := retention.New(retention.Config{
		DB: f.db, Keep: 30 * 24 * time.Hour, Archive: true, Logger: slog.New(slog.DiscardHandler), Now: time.Now,
	})
	stop := f.start(t, "one")
	done := make(chan error, 1)
	go func() { done <- purger.Purge(context.Background()) }()
	retried := 0
	for at := len(ids); at > 0; at -= 20 {
		changes, err := f.requests().Retry(t.Context(), ids[at-20:at], requests.RetryOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range changes {
			if c.Refused == "" {
				retried++
			}
		}
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end", func() bool { return f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'pending'`) == 0 })
	stop()
	sent, archived := f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'sent'`), f.count(t, `SELECT COUNT(*) FROM send_request_archive`)
	if sent != retried || len(f.sim.Messages(appid)) != retried || sent+archived != len(ids) {
		t.Errorf("%d retried, %d sent, %d received, %d archived, of %d", retried, sent, len(f.sim.Messages(appid)), archived, len(ids))
	}
}
