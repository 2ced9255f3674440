package requests

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func ids(l Listing) []int64 {
	out := make([]int64, len(l.Records))
	for i, r := range l.Records {
		out[i] = r.ID
	}
	return out
}

func TestListFilters(t *testing.T) {
	f := newFixture(t)
	now := time.Now().UTC().Truncate(time.Second)
	at := func(hours int) time.Time { return now.Add(time.Duration(hours) * time.Hour) }
	rows := []columns{
		{"status": "sent", "created_at": at(-50), "msgid": 11, "sent_openid": "oX", "appid": appid, "application": "shop"},
		{"status": "failed", "created_at": at(-40), "reason": "timeout", "appid": appid, "dedup_key": "k-2"},
		{"status": "failed", "created_at": at(-30), "reason": "bad_data", "template": "other", "appid": "wxother"},
		{"status": "pending", "created_at": at(-20)},
		{"status": "waiting", "created_at": at(-10), "appid": appid, "unionid": nil, "openid": "oX"},
	}
	id := make([]int64, len(rows))
	for i, c := range rows {
		if _, ok := c["unionid"]; !ok {
			c["unionid"] = fmt.Sprintf("u%d", i)
		}
		id[i] = f.insert(t, c)
	}
	for _, tc := range []struct {
		name  string
		f     Filter
		limit int
		want  []int64
		more  bool
	}{
		{"all", Filter{}, 50, []int64{id[4], id[3], id[2], id[1], id[0]}, false},
		{"limit", Filter{}, 2, []int64{id[4], id[3]}, true},
		{"as many as the limit", Filter{}, 5, []int64{id[4], id[3], id[2], id[1], id[0]}, false},
		{"status", Filter{Statuses: []string{"failed"}}, 50, []int64{id[2], id[1]}, false},
		{"statuses", Filter{Statuses: []string{"failed", "sent"}}, 2, []int64{id[2], id[1]}, true},
		{"reason", Filter{Reason: "timeout"}, 50, []int64{id[1]}, false},
		{"status and reason", Filter{Statuses: []string{"failed"}, Reason: "bad_data"}, 50, []int64{id[2]}, false},
		{"default account", Filter{AppID: appid}, 50, []int64{id[4], id[3], id[1], id[0]}, false},
		{"other account", Filter{AppID: "wxother"}, 50, []int64{id[2]}, false},
		{"template", Filter{Template: "other"}, 50, []int64{id[2]}, false},
		{"application", Filter{Application: "shop"}, 50, []int64{id[0]}, false},
		{"application of another name", Filter{Application: "Shop"}, 50, []int64{}, false},
		{"since", Filter{Since: at(-35)}, 50, []int64{id[4], id[3], id[2]}, false},
		{"until", Filter{Until: at(-35)}, 50, []int64{id[1], id[0]}, false},
		{"between", Filter{Since: at(-45), Until: at(-15)}, 50, []int64{id[3], id[2], id[1]}, false},
		{"between, of a status", Filter{Since: at(-45), Until: at(-15), Statuses: []string{"sent", "failed"}}, 50, []int64{id[2], id[1]}, false},
		{"nothing then", Filter{Since: at(1)}, 50, []int64{}, false},
		{"recipient", Filter{Recipient: "oX"}, 50, []int64{id[4], id[0]}, false},
		{"recipient by unionid", Filter{Recipient: "u3"}, 50, []int64{id[3]}, false},
		{"dedup key", Filter{DedupKey: "k-2"}, 50, []int64{id[1]}, false},
		{"msgid", Filter{MsgID: 11}, 50, []int64{id[0]}, false},
		{"msgid of another status", Filter{MsgID: 11, Statuses: []string{"failed"}}, 50, []int64{}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := f.store.List(t.Context(), tc.f, tc.limit)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, ids(got)); diff != "" || got.More != tc.more || got.Cut {
				t.Errorf("more %t, cut %t, ids %s", got.More, got.Cut, diff)
			}
		})
	}
}

// TestListEmpty: an empty table is no error.
func TestListEmpty(t *testing.T) {
	f := newFixture(t)
	got, err := f.store.List(t.Context(), Filter{Since: time.Now().Add(-time.Hour)}, 50)
	if err != nil || len(got.Records) > 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestListArchive: a dedup key or a msgid that is in the archive only is found there.
func TestListArchive(t *testing.T) {
	f := newFixture(t)
	f.exec(t, `INSERT INTO send_request_archive (id, template, data, priority, status, attempts, created_at, due_at, dedup_key, msgid)
		VALUES (900, 'order', '{}', 1, 'sent', 1, NOW(3), NOW(3), 'k-9', 12)`)
	got, err := f.store.List(t.Context(), Filter{DedupKey: "k-9"}, 50)
	if err != nil || len(got.Records) != 1 || !got.Records[0].Archived {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestListDepth: where no index helps, the search ends at its depth and says so; gaps in the ids do
// not count.
func TestListDepth(t *testing.T) {
	f := newFixture(t)
	first := f.insert(t, columns{"unionid": "wanted"})
	f.exec(t, `INSERT INTO send_request (id, unionid, template, data)
		SELECT ? + (n + 1) * 1000, 'other', 'order', '{}'
		  FROM `+numbers(4), first)
	for _, tc := range []struct {
		depth int64
		want  int
		last  int64
	}{{5000, 0, first + 5001*1000}, {10_000, 0, first + 1000}, {10_001, 1, 0}, {0, 1, 0}} {
		got, err := f.store.List(t.Context(), Filter{Recipient: "wanted", Depth: tc.depth}, 50)
		if err != nil || len(got.Records) != tc.want || got.Cut != (tc.last != 0) || got.Last != tc.last {
			t.Errorf("depth %d: %d found, cut %t at %d, want %d found, cut at %d (%v)",
				tc.depth, len(got.Records), got.Cut, got.Last, tc.want, tc.last, err)
		}
	}
}

// TestRetryMatching: all that match, and nothing else, over several pages.
func TestRetryMatching(t *testing.T) {
	f := newFixture(t)
	f.exec(t, `INSERT INTO send_request (unionid, template, data, status, reason, appid, uncertain_at)
		SELECT 'u', 'order', '{}', CASE WHEN n % 3 = 0 THEN 'failed' ELSE 'sent' END, CASE WHEN n % 6 = 0 THEN 'timeout' END, ?,
		       CASE WHEN n % 12 = 0 THEN CURRENT_TIMESTAMP(3) END
		  FROM `+numbers(4), appid)
	if n, cut, err := f.store.Count(t.Context(), Filter{Reason: "timeout"}); n != 1667 || cut || err != nil {
		t.Errorf("%d rows match, cut %t, %v; want all 1667", n, cut, err)
	}
	counts := map[string]int{}
	err := f.store.RetryMatching(t.Context(), Filter{Statuses: []string{"failed"}, Reason: "timeout"}, RetryOptions{},
		func(changes []Change) {
			for _, c := range changes {
				counts[c.Refused]++
			}
		})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]int{"": 833, refusedUnknown: 834}, counts); diff != "" {
		t.Error(diff)
	}
	if n := f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'pending'`); n != 833 {
		t.Errorf("%d rows are pending, want 833", n)
	}
}
