package retention

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jmoiron/sqlx"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/sender/queue"
)

// TestRetentionDecides: which rows go. Rows are named by their template.
func TestRetentionDecides(t *testing.T) {
	f := newFixture(t)
	ago := func(days float64) time.Time {
		return time.Now().UTC().Add(-time.Duration(days * 24 * float64(time.Hour)))
	}
	place := func(name string, state queue.Status, due, finished any) {
		f.insert(t, columns{"unionid": "u", "template": name, "status": string(state), "due_at": due, "finished_at": finished, "created_at": ago(90)})
	}
	for _, state := range []queue.Status{queue.Sent, queue.Failed, queue.Expired, queue.Cancelled, queue.Unknown} {
		place("old "+string(state), state, ago(31), ago(31))
		place("as old "+string(state), state, ago(31), ago(31))
		place("young "+string(state), state, ago(29), ago(29))
	}
	place("due long ago, finished lately", queue.Sent, ago(60), ago(1))
	place("finished long ago, due lately", queue.Cancelled, ago(1), ago(60)) // goes when it would have been due for as long
	place("without an end", queue.Sent, ago(60), nil)                        // somebody's UPDATE by hand
	place("old pending", queue.Pending, ago(60), nil)
	place("old waiting", queue.Waiting, ago(60), nil)
	f.exec(t, `UPDATE send_request SET appid = ? WHERE id % 2 = 0`, appid)
	f.exec(t, `UPDATE send_request SET priority = 2 WHERE id % 5 = 0`)
	if err := f.purger(false).Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	var left []string
	if err := f.db.SelectContext(t.Context(), &left, `SELECT template FROM send_request ORDER BY id`); err != nil {
		t.Fatal(err)
	}
	want := []string{"young sent", "young failed", "young expired", "young cancelled", "young unknown",
		"due long ago, finished lately", "finished long ago, due lately", "old pending", "old waiting"}
	if diff := cmp.Diff(want, left); diff != "" {
		t.Error(diff)
	}
}

// TestRetentionOfUnknown: an unknown outcome stays for a week at the least, somebody has to look
// into it.
func TestRetentionOfUnknown(t *testing.T) {
	f := newFixture(t)
	for _, days := range []int{1, 6, 8} {
		end := time.Now().UTC().AddDate(0, 0, -days)
		f.insert(t, columns{"unionid": "u", "status": "unknown", "due_at": end, "finished_at": end})
		f.insert(t, columns{"unionid": "u", "status": "failed", "due_at": end, "finished_at": end})
	}
	var log bytes.Buffer
	r := f.purger(false)
	r.cfg.Keep, r.cfg.Logger = time.Hour, slog.New(slog.NewTextHandler(&log, nil))
	if err := r.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	unknown := f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'unknown'`)
	failed := f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'failed'`)
	if unknown != 2 || failed != 0 {
		t.Errorf("%d unknown and %d failed rows are left, want 2 and 0", unknown, failed)
	}
	if !strings.Contains(log.String(), "requests=4 unknown_outcome=1") || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("the log: %s", &log)
	}
	log.Reset()
	if err := r.Purge(t.Context()); err != nil || log.Len() > 0 {
		t.Errorf("a run with nothing to do: %v, %s", err, &log)
	}
}

// TestRetentionArchives: nothing is lost on the way, and the receipt goes along.
func TestRetentionArchives(t *testing.T) {
	f := newFixture(t)
	rows := f.fill(t)
	lone := time.Now().UTC().AddDate(0, 0, -31)
	f.exec(t, `INSERT INTO send_receipt (appid, msgid, openid, status, arrived_at) VALUES (?, 1, 'o', 'success', ?), (?, 2, 'o', 'success', NOW(3))`,
		appid, lone, appid)
	f.exec(t, `INSERT INTO send_day (appid, day, sent) VALUES (?, CURRENT_DATE - INTERVAL 41 DAY, 1), (?, CURRENT_DATE, 1)`, appid, appid)
	// A late receipt goes with its request too.
	f.exec(t, `UPDATE send_receipt SET arrived_at = NOW(3) WHERE msgid BETWEEN 1000 AND 1009`)
	var before, after []map[string]any
	const columns = `id, appid, unionid, template, CAST(data AS CHAR) AS data, priority, status, msgid, sent_openid, created_at, due_at, finished_at`
	before = f.maps(t, `SELECT `+columns+` FROM send_request ORDER BY id`)
	if err := f.purger(true).Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	after = f.maps(t, `SELECT `+columns+` FROM send_request_archive ORDER BY id`)
	if diff := cmp.Diff(before, after); diff != "" || len(after) != rows {
		t.Errorf("%d rows in the archive, want %d: %.2000s", len(after), rows, diff)
	}
	for query, want := range map[string]int{
		`SELECT COUNT(*) FROM send_request`: 0,
		`SELECT COUNT(*) FROM send_request_archive WHERE receipt_status = 'success' AND receipt_at >= finished_at`: rows,
		`SELECT COUNT(*) FROM send_receipt`:                 1,
		`SELECT COUNT(*) FROM send_receipt WHERE msgid = 2`: 1,
		`SELECT COUNT(*) FROM send_day`:                     1,
	} {
		if got := f.count(t, query); got != want {
			t.Errorf("%s: %d, want %d", query, got, want)
		}
	}
}

// TestArchiveKeepsColumns: whatever column both tables have goes along; so erasing a person finds
// what a moved row's openid belongs to.
func TestArchiveKeepsColumns(t *testing.T) {
	f := newFixture(t)
	old := time.Now().UTC().AddDate(0, 0, -60).Truncate(time.Second)
	id := f.insert(t, columns{
		"unionid": "u", "mini_appid": "wxMini", "mini_openid": "oMini", "openid": "oOfficial", "appid": "wxMini",
		"url": "https://example.com", "mini_path": "pages/a", "priority": 2, "due_at": old, "expires_at": old,
		"dedup_key": "key", "created_at": old, "status": "sent", "reason": "why", "errcode": 1, "errmsg": "text",
		"warning": "careful", "attempts": 3, "attempted_at": old, "channel": "mini_subscribe", "sent_openid": "oMini",
		"msgid": 7, "finished_at": old, "wished_at": old, "route": "official,mini", "jump_appid": "wxJump",
		"page": "pages/b", "lang": "en_US", "mini_state": "trial", "application": "shop",
		"fallback_from": appid, "fallback_reason": "not_following", "fallback_errcode": 43004,
	})
	before := f.maps(t, `SELECT * FROM send_request`)[0]
	if err := f.purger(true).Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	archived := f.maps(t, `SELECT * FROM send_request_archive`)
	if len(archived) != 1 {
		t.Fatalf("request %d: %d rows in the archive", id, len(archived))
	}
	for name, want := range before {
		got, both := archived[0][name]
		if !both {
			continue
		}
		if want == nil {
			t.Errorf("%s: the test writes nothing there", name)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-request +archive):\n%s", name, diff)
		}
	}
}

// TestRetentionForEver: 0 keeps everything but the counts of days.
func TestRetentionForEver(t *testing.T) {
	f := newFixture(t)
	rows := f.fill(t)
	r := f.purger(false)
	r.cfg.Keep = 0
	if err := r.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := f.count(t, `SELECT COUNT(*) FROM send_request`); n != rows {
		t.Errorf("%d rows are left, want %d", n, rows)
	}
}

// TestRetentionInterrupted: a run that is stopped has moved whole requests only, and the next one
// goes on.
func TestRetentionInterrupted(t *testing.T) {
	f := newFixture(t)
	rows := f.fill(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.purger(true).Purge(ctx) }()
	eventually(t, "a part", func() bool { return f.count(t, `SELECT COUNT(*) FROM send_request_archive`) > 0 })
	cancel()
	if err := <-done; err == nil {
		t.Error("a run that was stopped tells of no error")
	}
	left, archived := f.count(t, `SELECT COUNT(*) FROM send_request`), f.count(t, `SELECT COUNT(*) FROM send_request_archive`)
	if left == 0 || left+archived != rows {
		t.Errorf("%d rows are left and %d archived, want %d in all and both", left, archived, rows)
	}
	if err := f.purger(true).Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := f.count(t, `SELECT COUNT(*) FROM send_request_archive WHERE receipt_status = 'success'`); n != rows {
		t.Errorf("%d rows in the archive, want %d", n, rows)
	}
}

// TestRetentionLeavesLockedRows: a row that a producer holds stays until the next run and holds up
// nobody.
func TestRetentionLeavesLockedRows(t *testing.T) {
	f := newFixture(t)
	old := time.Now().UTC().AddDate(0, -3, 0)
	held := f.insert(t, columns{"unionid": "u", "status": "failed", "due_at": old, "finished_at": old})
	f.insert(t, columns{"unionid": "u", "status": "failed", "due_at": old, "finished_at": old})
	tx, err := f.db.BeginTxx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), `UPDATE send_request SET cancel = 1 WHERE id = ?`, held); err != nil {
		t.Fatal(err)
	}
	if err := f.purger(false).Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := f.count(t, `SELECT COUNT(*) FROM send_request`); n != 1 {
		t.Errorf("%d rows are left, want the locked one", n)
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	if err := f.purger(false).Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := f.count(t, `SELECT COUNT(*) FROM send_request`); n != 0 {
		t.Errorf("%d rows are left, want none", n)
	}
}

// TestRetentionBesideRetries: a row that an operator opens again while a run deletes its neighbours
// stays: also on a server that ignores SKIP LOCKED.
func TestRetentionBesideRetries(t *testing.T) {
	f := newFixture(t)
	old := time.Now().UTC().AddDate(0, -3, 0)
	f.exec(t, `INSERT INTO send_request (appid, unionid, template, data, status, due_at, finished_at)
		SELECT ?, 'u', 'order', '{}', 'failed', ?, ? FROM `+numbers(3), appid, old, old)
	var ids []int64
	if err := f.db.SelectContext(t.Context(), &ids, `SELECT id FROM send_request WHERE id % 50 = 7 ORDER BY id`); err != nil {
		t.Fatal(err)
	}
	tx, err := f.db.BeginTxx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback() }()
	query, args, err := sqlx.In(`UPDATE send_request SET status = 'pending', finished_at = NULL WHERE id IN (?)`, ids)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
	purged := make(chan error)
	go func() { purged <- f.purger(true).Purge(t.Context()) }()
	eventually(t, "the first deletions", func() bool { return f.count(t, `SELECT COUNT(*) FROM send_request`) < 1000 })
	if err := errors.Join(tx.Commit(), <-purged); err != nil {
		t.Fatal(err)
	}
	if n := f.count(t, `SELECT COUNT(*) FROM send_request WHERE status = 'pending'`); n != len(ids) {
		t.Errorf("%d of %d rows that were opened again are left", n, len(ids))
	}
	if n := f.count(t, `SELECT COUNT(*) FROM send_request_archive`); n != 1000-len(ids) {
		t.Errorf("%d rows are archived, want %d", n, 1000-len(ids))
	}
}

// TestRetentionReads: open rows cost a run nothing, wherever they stand, and nor do finished ones
// that are young.
func TestRetentionReads(t *testing.T) {
	f := newFixture(t)
	f.exec(t, `INSERT INTO send_request (appid, unionid, template, data, status, created_at, due_at, finished_at)
		SELECT ?, 'u', 'order', '{}', CASE WHEN n < 9000 THEN 'pending' ELSE 'sent' END, NOW(3) - INTERVAL 60 DAY,
		       NOW(3) + INTERVAL CASE WHEN n < 9000 THEN 7 ELSE -7 END DAY, CASE WHEN n < 9000 THEN NULL ELSE NOW(3) - INTERVAL 7 DAY END
		  FROM `+numbers(4), appid)
	n := f.reads(t, func() {
		if err := f.purger(false).Purge(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	if n > 200 {
		t.Errorf("a run with nothing to do read %d rows or entries", n)
	}
}

// TestRetentionTurn: one instance at a time; the other one finds nothing wrong with that.
func TestRetentionTurn(t *testing.T) {
	f := newFixture(t)
	rows := f.fill(t)
	leases := func(holder string) *database.Leases {
		l := database.NewLeases(f.db, database.LeaseConfig{Holder: holder, TTL: 10 * time.Second})
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = l.Run(ctx)
		}()
		t.Cleanup(func() {
			cancel()
			<-ended
		})
		return l
	}
	one, purger := leases("one"), f.purger(false)
	purger.cfg.Leases = leases("two")
	held, err := one.TryAcquire(t.Context(), leaseName)
	if err != nil || held == nil {
		t.Fatal(held, err)
	}
	if err := purger.purgeUnderLease(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := f.count(t, `SELECT COUNT(*) FROM send_request`); n != rows {
		t.Errorf("%d rows are left although another instance holds the lease, want %d", n, rows)
	}
	if err := held.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := purger.purgeUnderLease(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := f.count(t, `SELECT COUNT(*) FROM send_request`); n != 0 {
		t.Errorf("%d rows are left, want none", n)
	}
}

// TestPurgeReads: statistics of empty tables do not lead to a scan for each row or receipt.
func TestPurgeReads(t *testing.T) {
	f := newFixture(t)
	if dbtest.ServerOf(t, f.db).Name == "TiDB" {
		t.Skip("TiDB does not count what it reads for a session")
	}
	for _, table := range []string{"send_request", "send_receipt"} {
		f.exec(t, `ALTER TABLE `+table+` STATS_AUTO_RECALC = 0`)
		f.exec(t, `ANALYZE TABLE `+table)
	}
	n := f.fill(t)
	f.exec(t, `INSERT INTO send_receipt (appid, msgid, openid, status, arrived_at)
		SELECT appid, -msgid, openid, status, arrived_at FROM send_receipt`)
	f.exec(t, `UPDATE send_request SET finished_at = NOW(3) WHERE msgid % 3 > 0`)
	f.exec(t, `INSERT INTO send_request (appid, unionid, template, data, due_at)
		SELECT ?, 'u', 'later', '{}', NOW(3) + INTERVAL 1 DAY FROM `+numbers(4), appid)
	read := f.reads(t, func() {
		if err := f.purger(true).Purge(t.Context()); err != nil {
			t.Error(err)
		}
	})
	if read > 30*n {
		t.Errorf("purging %d requests and twice as many receipts read %d rows and entries", n/3, read)
	}
	if left := f.count(t, `SELECT COUNT(*) FROM send_receipt WHERE msgid < 0`); left > 0 {
		t.Errorf("%d receipts that belong to no request are left", left)
	}
}

// TestRetentionOfHints: with a row goes what it waited for, where another program ended it.
func TestRetentionOfHints(t *testing.T) {
	f := newFixture(t)
	old := time.Now().UTC().AddDate(0, -3, 0)
	id := f.place(t, "failed", columns{"due_at": old, "finished_at": old})
	waiting := f.place(t, "waiting", columns{"due_at": time.Now().UTC().Add(time.Hour)})
	for _, id := range []int64{id, waiting} {
		f.exec(t, `INSERT INTO send_wait (request_id, kind, appid, value) VALUES (?, 'unionid', ?, 'u')`, id, appid)
	}
	if err := f.purger(false).Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := f.count(t, `SELECT COUNT(*) FROM send_wait WHERE request_id = ?`, waiting); n != 1 {
		t.Errorf("a waiting row has %d hints", n)
	}
	if n := f.count(t, `SELECT COUNT(*) FROM send_wait`); n != 1 {
		t.Errorf("%d hints are left, want 1", n)
	}
}

// TestRetentionOfAttempts: an attempt goes with its request, also where somebody deleted that by
// hand; one of a request that exists stays, however old it is.
func TestRetentionOfAttempts(t *testing.T) {
	f := newFixture(t)
	old := time.Now().UTC().AddDate(0, -3, 0)
	ids := []int64{
		f.place(t, "unknown", columns{"due_at": old, "finished_at": old}),
		f.place(t, "unknown", columns{"due_at": time.Now().UTC()}),
		1 << 40, 1<<40 + 1,
	}
	for i, id := range ids {
		f.exec(t, `INSERT INTO send_attempt (request_id, appid, openid, template_id, lease, begun_at)
			VALUES (?, ?, 'o', 't', 'l', NOW(3) - INTERVAL ? HOUR)`, id, appid, 2*(3-i))
	}
	if err := f.purger(false).Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	var left []int64
	if err := f.db.SelectContext(t.Context(), &left, `SELECT request_id FROM send_attempt ORDER BY request_id`); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int64{ids[1], ids[3]}, left); diff != "" {
		t.Errorf("attempts (-want +got):\n%s", diff)
	}
}

// TestOthers: other rooms delete once a day, also where requests are kept for ever, and their failure
// keeps nothing else from being deleted.
func TestOthers(t *testing.T) {
	f := newFixture(t)
	now, calls := time.Now(), 0
	p := f.purger(false)
	p.cfg.Now = func() time.Time { return now }
	p.cfg.Keep = 0
	fails := errors.New("not today")
	p.cfg.Others = []func(context.Context, Pace) error{
		func(context.Context, Pace) error { return fails },
		func(ctx context.Context, pace Pace) error {
			return pace(ctx, func() error { calls++; return nil })
		},
	}
	purge := func(want error, total int) {
		t.Helper()
		if err := p.Purge(t.Context()); !errors.Is(err, want) || calls != total {
			t.Errorf("%v and %d calls, want %v and %d", err, calls, want, total)
		}
	}
	purge(fails, 1)
	purge(fails, 2)
	fails = nil
	purge(nil, 3)
	now = now.Add(23 * time.Hour)
	purge(nil, 3)
	now = now.Add(time.Hour)
	purge(nil, 4)
}
