package echo

import (
	"context"
	"crypto/sha1"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
)

const token = "echoToken"

// shop is an application that is told.
type shop struct {
	*httptest.Server
	mu     sync.Mutex
	status int // 0: 200
	heard  []string
	wrong  []string
}

func newShop(t *testing.T) *shop {
	t.Helper()
	s := new(shop)
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// ServeHTTP checks the signature as an account's server does.
func (s *shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	query := r.URL.Query()
	parts := []string{token, query.Get("timestamp"), query.Get("nonce")}
	slices.Sort(parts)
	sum := sha1.Sum([]byte(strings.Join(parts, "")))
	body, _ := io.ReadAll(r.Body)
	var e event
	if err := xml.Unmarshal(body, &e); err != nil || hex.EncodeToString(sum[:]) != query.Get("signature") ||
		e.MsgType != "event" || e.Event != "TEMPLATESENDJOBFINISH" || e.CreateTime == 0 || query.Get("kept") != "1" {
		s.wrong = append(s.wrong, r.URL.String()+" "+string(body))
	}
	s.heard = append(s.heard, fmt.Sprintf("%d %s %s %s", e.MsgID, e.Status, e.ToUserName, e.FromUserName))
	if s.status != 0 {
		w.Header().Set("Location", "https://example.com")
		w.WriteHeader(s.status)
	}
}

// takes sets what it answers, and forgets what it has heard.
func (s *shop) takes(status int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status, s.heard = status, nil
}

func (s *shop) want(t *testing.T, what string, want ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	got := slices.Sorted(slices.Values(s.heard))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s, -want +got:\n%s", what, diff)
	}
	if len(s.wrong) > 0 {
		t.Errorf("%s: %v", what, s.wrong)
	}
}

type bed struct {
	*Echo
	db     *sqlx.DB
	leases *database.Leases
	log    *strings.Builder
}

func newBed(t *testing.T, db *sqlx.DB, s *shop) bed {
	t.Helper()
	b := bed{db: db, log: new(strings.Builder), leases: database.NewLeases(db, database.LeaseConfig{Holder: t.Name() + fmt.Sprint(time.Now().UnixNano())})}
	b.Echo = New(Config{DB: db, Leases: b.leases, Logger: slog.New(slog.NewTextHandler(b.log, nil)),
		Targets:    map[string]Target{"shop": {URL: s.URL + "/push?kept=1", Token: token}},
		Registerer: prometheus.NewRegistry(), Now: time.Now})
	return b
}

func (b bed) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	if _, err := b.db.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

// message inserts one, with its echo.
func (b bed) message(t *testing.T, id int, application, status, reason string) {
	t.Helper()
	b.exec(t, `INSERT INTO send_request (id, appid, openid, template, data, application, status, reason, msgid, sent_openid, finished_at)
		VALUES (?, 'wx1', 'o1', 't', '{}', ?, ?, ?, IF(? = 'sent', ? + 1000, NULL), IF(? = 'sent', 'o1', NULL),
		        IF(? IN ('pending', 'waiting'), NULL, CURRENT_TIMESTAMP(3)))`, id, application, status, reason, status, id, status, status)
	b.exec(t, `INSERT INTO door_echo (request_id, application) VALUES (?, ?)`, id, application)
}

func (b bed) round(t *testing.T) {
	t.Helper()
	if _, err := b.Round(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// left are the messages that are not told yet.
func (b bed) left(t *testing.T) (ids []int64) {
	t.Helper()
	if err := b.db.Select(&ids, `SELECT request_id FROM door_echo ORDER BY request_id`); err != nil {
		t.Fatal(err)
	}
	return ids
}

func (b bed) dueNow(t *testing.T) {
	t.Helper()
	b.exec(t, `UPDATE door_echo SET due_at = CURRENT_TIMESTAMP(3)`)
}

// TestNews: receipts are told as WeChat tells them, and what died with us as failed; the rest waits.
func TestNews(t *testing.T) {
	s := newShop(t)
	b := newBed(t, dbtest.New(t), s)
	b.message(t, 1, "shop", "sent", "")
	b.message(t, 2, "shop", "sent", "")
	b.message(t, 3, "shop", "failed", "bad_keyword")
	b.message(t, 4, "shop", "expired", "")
	b.message(t, 5, "shop", "waiting", "no_follower")
	b.message(t, 6, "shop", "unknown", "")
	b.message(t, 7, "shop", "sent", "")
	b.message(t, 8, "removed", "failed", "x")
	b.exec(t, `INSERT INTO send_receipt (appid, msgid, openid, status) VALUES ('wx1', 1001, 'o1', 'success'), ('wx1', 1002, 'o1', 'failed:user block')`)
	b.round(t)
	s.want(t, "the first round", "1 success wx1 o1", "2 failed:user block wx1 o1", "3 failed: bad keyword wx1 ", "4 failed: expired wx1 ")
	if diff := cmp.Diff([]int64{5, 6, 7}, b.left(t)); diff != "" {
		t.Error(diff)
	}
	s.takes(0)
	b.exec(t, `INSERT INTO send_receipt (appid, msgid, openid, status) VALUES ('wx1', 1007, 'o1', 'success')`)
	b.dueNow(t)
	b.round(t)
	s.want(t, "a late receipt", "7 success wx1 o1")
	s.takes(0)
	b.exec(t, `UPDATE send_request SET finished_at = CURRENT_TIMESTAMP(3) - INTERVAL 25 HOUR WHERE id = 6`)
	b.exec(t, `DELETE FROM send_request WHERE id = 5`)
	b.dueNow(t)
	b.round(t)
	s.want(t, "nothing comes any more")
	if left := b.left(t); len(left) > 0 {
		t.Errorf("%v are left", left)
	}
}

// TestTries: what the application does not take is kept, told again with growing pauses, and given up
// after a day. A redirect is no success.
func TestTries(t *testing.T) {
	s := newShop(t)
	b := newBed(t, dbtest.New(t), s)
	b.message(t, 1, "shop", "failed", "bad_data")
	for i, status := range []int{http.StatusInternalServerError, http.StatusFound, http.StatusNoContent} {
		s.takes(status)
		b.dueNow(t)
		b.round(t)
		s.want(t, http.StatusText(status), "1 failed: bad data wx1 ")
		var tries, wait int64
		if err := b.db.QueryRow(`SELECT tries, TIMESTAMPDIFF(SECOND, CURRENT_TIMESTAMP(3), due_at) FROM door_echo`).Scan(&tries, &wait); err != nil {
			t.Fatal(err)
		}
		if want := int64(10 << i); tries != int64(i+1) || wait > want || wait < want-5 {
			t.Errorf("try %d: %d tries, again in %d s", i+1, tries, wait)
		}
		b.round(t)
		s.want(t, "before it is due", "1 failed: bad data wx1 ")
	}
	s.Close()
	b.exec(t, `UPDATE door_echo SET news_at = CURRENT_TIMESTAMP(3) - INTERVAL 25 HOUR`)
	b.dueNow(t)
	b.round(t)
	if left := b.left(t); len(left) > 0 || !strings.Contains(b.log.String(), "for a day") {
		t.Errorf("%v are left: %s", left, b.log)
	}
	if strings.Contains(b.log.String(), token) || strings.Contains(b.log.String(), "kept=1") {
		t.Errorf("the log has the URL or the token: %s", b.log)
	}
	if again(1000) != time.Hour {
		t.Errorf("the longest pause is %s", again(1000))
	}
}

// TestTwoInstances: two at once tell each message once, and one that ends leaves the rest to the other.
func TestTwoInstances(t *testing.T) {
	s := newShop(t)
	db := dbtest.New(t)
	const n = 300
	first, second := newBed(t, db, s), newBed(t, db, s)
	for i := range n {
		first.message(t, i+1, "shop", "failed", "bad_data")
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var running sync.WaitGroup
	for _, b := range []bed{first, second} {
		running.Go(func() { _ = b.leases.Run(ctx) })
		running.Go(func() { b.Run(ctx) })
	}
	deadline := time.Now().Add(30 * time.Second)
	for len(first.left(t)) > 0 && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	cancel()
	running.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if unique := slices.Compact(slices.Sorted(slices.Values(s.heard))); len(unique) != n || len(s.heard) != n {
		t.Errorf("%d messages were told %d times", len(unique), len(s.heard))
	}
}
