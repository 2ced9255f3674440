package callback

import (
	"bytes"
	"context"
	"crypto/sha1"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechat/push"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

const (
	pushAppID  = wechatsim.StandardAppID
	pushToken  = "s3cr3t-t0ken"
	pushAESKey = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
)

// received is what a fake Store was told.
type received struct {
	OpenID string `db:"openid"`
	MsgID  int64  `db:"msgid"`
	What   string `db:"what"` // a receipt's status, "followed" or "left"
}

// pushTable stores pushes in a table of its own, with a key as the real one has.
type pushTable struct{ db *sqlx.DB }

func newPushTable(t *testing.T) pushTable {
	t.Helper()
	p := pushTable{dbtest.New(t)}
	_, err := p.db.ExecContext(t.Context(), `
		CREATE TABLE pushed (
			appid VARCHAR(64), openid VARCHAR(64), msgid BIGINT, what VARCHAR(64), event_at BIGINT, times INT NOT NULL DEFAULT 1,
			PRIMARY KEY (appid, openid, msgid, what, event_at)) CHARACTER SET ascii COLLATE ascii_bin`)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p pushTable) insert(ctx context.Context, appid string, r received, at time.Time) error {
	_, err := p.db.ExecContext(ctx, `INSERT INTO pushed (appid, openid, msgid, what, event_at) VALUES (?, ?, ?, ?, ?)
		ON DUPLICATE KEY UPDATE times = times + 1`, appid, r.OpenID, r.MsgID, r.What, at.Unix())
	return err
}

func (p pushTable) Receipt(ctx context.Context, appid string, r push.Receipt) error {
	return p.insert(ctx, appid, received{r.OpenID, r.MsgID, r.Status}, r.At)
}

func (p pushTable) Follow(ctx context.Context, appid string, e push.FollowEvent) error {
	what := "left"
	if e.Followed {
		what = "followed"
	}
	return p.insert(ctx, appid, received{e.OpenID, 0, what}, e.At)
}

func (p pushTable) Event(context.Context, string, push.Message) (bool, error) {
	return false, nil
}

func (p pushTable) rows(t *testing.T) []received {
	t.Helper()
	var rows []received
	if err := p.db.SelectContext(t.Context(), &rows,
		`SELECT openid, msgid, what FROM pushed ORDER BY openid, msgid, what, event_at`); err != nil {
		t.Fatal(err)
	}
	return rows
}

// fake is a Store whose receipts are up to the test.
type fake struct {
	receipt func(ctx context.Context, r push.Receipt) error
}

func (f fake) Receipt(ctx context.Context, _ string, r push.Receipt) error {
	return f.receipt(ctx, r)
}
func (f fake) Follow(context.Context, string, push.FollowEvent) error { return nil }

// Event takes the events of subscribe messages, and no others.
func (f fake) Event(_ context.Context, _ string, m push.Message) (bool, error) {
	return len(m.Popup) > 0, nil
}

type listener struct {
	*Listener
	url  string
	logs *logBuffer
	reg  *prometheus.Registry
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// listen starts a listener for the standard account; change may alter it before it serves.
func listen(t *testing.T, store Store, change func(*Listener)) *listener {
	t.Helper()
	account, err := push.New(push.Config{AppID: pushAppID, Token: pushToken, AESKey: pushAESKey})
	if err != nil {
		t.Fatal(err)
	}
	l := &listener{logs: new(logBuffer), reg: prometheus.NewRegistry()}
	l.Listener = New(Config{
		Listen: "127.0.0.1:0", Accounts: map[string]*push.Callback{pushAppID: account},
		Store:  store,
		Logger: slog.New(slog.NewTextHandler(l.logs, nil)), Registerer: l.reg, Now: time.Now,
	})
	if change != nil {
		change(l.Listener)
	}
	if err := l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := l.Stop(ctx); err != nil {
			t.Errorf("stopping: %v", err)
		}
	})
	l.url = "http://" + l.Addr() + "/wechat/" + pushAppID
	return l
}

func (l *listener) counted(event, result string) int {
	families, err := l.reg.Gather()
	if err != nil {
		panic(err)
	}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			labels := map[string]string{}
			for _, label := range m.GetLabel() {
				labels[label.GetName()] = label.GetValue()
			}
			if family.GetName() == "unionbridge_callbacks_total" && labels["appid"] == pushAppID &&
				labels["event"] == event && labels["result"] == result {
				return int(m.GetCounter().GetValue())
			}
		}
	}
	return 0
}

// pushURL signs as WeChat does.
func pushURL(base, token string, more string) string {
	stamp := fmt.Sprint(time.Now().Unix())
	parts := []string{token, stamp, "n1"}
	slices.Sort(parts)
	sum := sha1.Sum([]byte(strings.Join(parts, "")))
	return base + "?signature=" + hex.EncodeToString(sum[:]) + "&timestamp=" + stamp + "&nonce=n1" +
		more
}

func receiptXML(msgid int) string {
	return fmt.Sprintf("<xml><FromUserName>oA</FromUserName><CreateTime>1700000000</CreateTime><MsgType>event</MsgType>"+
		"<Event>TEMPLATESENDJOBFINISH</Event><MsgID>%d</MsgID><Status>success</Status></xml>",
		msgid)
}

func post(t *testing.T, url, body string) (int, string) {
	t.Helper()
	resp, err := http.Post(url, "text/xml", strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp.StatusCode, string(answer)
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestSimulatedPushes lets the platform push in all its modes and with all its vices; every event
// it has made and not lost must be in the table, once.
func TestSimulatedPushes(t *testing.T) {
	const messages = 150
	for name, callback := range map[string]wechatsim.Callback{
		"plaintext":  {},
		"compatible": {AESKey: pushAESKey, Compatible: true},
		"secure":     {AESKey: pushAESKey, Secure: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			table := newPushTable(t)
			l := listen(t, table, nil)
			callback.URL, callback.Token = l.url, pushToken
			callback.Jitter, callback.Duplicate = 200*time.Millisecond, 0.3
			callback.UserBlock, callback.SystemFailed, callback.FreqLimit = 0.2, 0.2, 0.2
			sim := wechatsim.NewStandard(messages, 0, 0)
			defer sim.Close()
			sim.SetCallback(pushAppID, &callback)
			sent := sendAll(t, sim, messages)
			person := sim.Join(pushAppID, 1)[0]
			sim.Unfollow(pushAppID, person)
			eventually(t, "all pushes are stored", func() bool {
				return len(table.rows(t)) >= messages+2
			})
			statuses := map[string]int{}
			for _, r := range table.rows(t) {
				statuses[r.What]++
				if r.MsgID == 0 {
					continue
				}
				if sent[r.MsgID] != r.OpenID {
					t.Errorf("receipt %+v, the message went to %q", r, sent[r.MsgID])
				}
				delete(sent, r.MsgID)
			}
			if len(sent) > 0 || len(statuses) != 6 {
				t.Errorf("%d messages without a receipt, statuses %v", len(sent), statuses)
			}
			sim.Close() // the duplicates on their way may be dropped
			if _, failed := sim.Pushes(); failed > 0 {
				t.Errorf("%d pushes were given up", failed)
			}
		})
	}
}

// sendAll sends one message to each of n followers and returns who got which.
func sendAll(t *testing.T, sim *wechatsim.Server, n int) map[int64]string {
	t.Helper()
	api := httptest.NewServer(sim)
	t.Cleanup(api.Close)
	client := wechat.New(wechat.Config{
		AppID: pushAppID, Secret: wechatsim.StandardSecret, BaseURL: api.URL,
		Timeout: 5 * time.Second, SendTimeout: 5 * time.Second, MaxConnections: 4,
	})
	sent := map[int64]string{}
	for person := range n {
		openid := sim.OpenID(pushAppID, person)
		id, err := client.SendTemplate(t.Context(), wechat.TemplateMessage{
			ToUser: openid, TemplateID: wechatsim.StandardTemplates()[1].ID,
			Data: []byte(`{"thing1":{"value":"x"}}`),
		})
		if err != nil {
			t.Fatal(err)
		}
		sent[id] = openid
	}
	return sent
}

// TestRepeatedPushes: what could not be stored is repeated and stored then; what was stored is not
// stored again.
func TestRepeatedPushes(t *testing.T) {
	table := newPushTable(t)
	var failures atomic.Int64
	failures.Store(7)
	l := listen(t, fake{func(ctx context.Context, r push.Receipt) error {
		if failures.Add(-1) >= 0 {
			return errors.New("the database is away")
		}
		return table.Receipt(ctx, pushAppID, r)
	}}, nil)
	sim := wechatsim.NewStandard(10, 0, 0)
	defer sim.Close()
	sim.SetCallback(pushAppID, &wechatsim.Callback{
		URL: l.url, Token: pushToken, AESKey: pushAESKey, Secure: true, Duplicate: 1,
		RetryWait: time.Millisecond, Attempts: 10,
	})
	sendAll(t, sim, 5)
	eventually(t, "all deliveries are taken",
		func() bool { taken, _ := sim.Pushes(); return taken == 10 })
	if n := len(table.rows(t)); n != 5 {
		t.Errorf("%d receipts, want 5", n)
	}
	stored, duplicate, failed := l.counted(push.EventReceipt, resultStored),
		l.counted(push.EventReceipt, resultDuplicate), l.counted(push.EventReceipt, resultFailed)
	if stored+duplicate != 10 || stored < 5 || failed != 7 {
		t.Errorf("%d stored, %d duplicates, %d failed; want 10 together, and 7", stored, duplicate,
			failed)
	}
}

func TestAnswers(t *testing.T) {
	var got []push.Receipt
	l := listen(t, fake{func(_ context.Context, r push.Receipt) error {
		got = append(got, r)
		return nil
	}}, nil)
	other := strings.Replace(l.url, pushAppID, "wx0000000000000000", 1)
	for _, test := range []struct {
		name, url, body string
		status          int
		answer          string
	}{
		{"a receipt", pushURL(l.url, pushToken, ""), receiptXML(1), 200, "success"},
		{"again", pushURL(l.url, pushToken, ""), receiptXML(1), 200, "success"},
		{"control characters", pushURL(l.url, pushToken, ""),
			strings.Replace(receiptXML(2), "success", "suc\x02cess", 1), 200, "success"},
		{"a message of a person", pushURL(l.url, pushToken, ""),
			"<xml><MsgType>text</MsgType><Content>\x02</Content></xml>", 200, "success"},
		{"an event of another kind", pushURL(l.url, pushToken, ""),
			"<xml><MsgType>event</MsgType><Event>nice_new_event</Event></xml>", 200, "success"},
		{"an event of subscribe messages", pushURL(l.url, pushToken, ""),
			"<xml><FromUserName>oA</FromUserName><CreateTime>1700000000</CreateTime><MsgType>event</MsgType>" +
				"<Event>subscribe_msg_popup_event</Event><SubscribeMsgPopupEvent><List><TemplateId>t</TemplateId>" +
				"<SubscribeStatusString>accept</SubscribeStatusString></List></SubscribeMsgPopupEvent></xml>",
			200, "success"},
		{"one that the store does not want", pushURL(l.url, pushToken, ""),
			"<xml><CreateTime>1700000000</CreateTime><MsgType>event</MsgType><Event>user_info_modified</Event>" +
				"<OpenID>oA</OpenID></xml>", 200, "success"},
		{"a receipt without its id", pushURL(l.url, pushToken, ""),
			strings.Replace(receiptXML(3), "MsgID", "Id", 2), 200, "success"},
		{"wrong token", pushURL(l.url, "guess", ""), receiptXML(4), 403, "refused"},
		{"no signature", l.url, receiptXML(4), 403, "refused"},
		{"another account", pushURL(other, pushToken, ""), receiptXML(4), 404,
			"404 page not found\n"},
		{"no account", pushURL("http://"+l.Addr()+"/wechat/", pushToken, ""), receiptXML(4), 404,
			"404 page not found\n"},
		{"another path", "http://" + l.Addr() + "/metrics", "", 404, "404 page not found\n"},
		{"too large", pushURL(l.url, pushToken, ""), receiptXML(4) + strings.Repeat(" ", maxPush),
			413, "too large"},
		{"as large as it may be", pushURL(l.url, pushToken, ""), receiptXML(5) +
			strings.Repeat(" ", maxPush-len(receiptXML(5))), 200, "success"},
	} {
		if status, answer := post(t, test.url, test.body); status != test.status ||
			answer != test.answer {
			t.Errorf("%s: %d %q, want %d %q", test.name, status, answer, test.status, test.answer)
		}
	}
	var want []push.Receipt
	for _, id := range []int64{1, 2, 5} {
		want = append(want, push.Receipt{OpenID: "oA", MsgID: id, Status: push.ReceiptSuccess,
			At: time.Unix(1_700_000_000, 0).UTC()})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("receipts (-want +got):\n%s", diff)
	}
	wantCounts := map[string]int{"stored": 3, "duplicate": 1, "message": 1, "other": 1,
		"accepted": 1, "not wanted": 1, "unreadable": 1, "refused": 2, "too_large": 1}
	gotCounts := map[string]int{
		"stored":     l.counted(push.EventReceipt, resultStored),
		"duplicate":  l.counted(push.EventReceipt, resultDuplicate),
		"message":    l.counted(eventMessage, resultIgnored),
		"other":      l.counted(eventOther, resultIgnored),
		"accepted":   l.counted(push.EventPopup, resultStored),
		"not wanted": l.counted(push.EventInfoModified, resultIgnored),
		"unreadable": l.counted(eventUnread, resultUnreadable),
		"refused":    l.counted(eventUnread, resultRefused),
		"too_large":  l.counted(eventUnread, resultTooLarge),
	}
	if diff := cmp.Diff(wantCounts, gotCounts); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
}

type page struct {
	status            int
	contentType, body string
}

func get(t *testing.T, client *http.Client, url string) page {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return page{resp.StatusCode, resp.Header.Get("Content-Type"), string(body)}
}

func TestEcho(t *testing.T) {
	l := listen(t, fake{}, nil)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for url, want := range map[string]page{
		pushURL(l.url, pushToken, "&echostr=4375120948345356249"): {200,
			"text/plain; charset=utf-8", "4375120948345356249"},
		pushURL(l.url, pushToken, "&echostr=%3Cscript%3E"): {200,
			"text/plain; charset=utf-8", "<script>"},
		pushURL(l.url, "guess", "&echostr=4375120948345356249"): {403,
			"text/plain; charset=utf-8", "refused"},
		pushURL(l.url, pushToken, ""): {403,
			"text/plain; charset=utf-8", "refused"},
		pushURL(l.url+"0", pushToken, "&echostr=1"): {404,
			"text/plain; charset=utf-8", "404 page not found\n"},
	} {
		if diff := cmp.Diff(want, get(t, client, url), cmp.AllowUnexported(page{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", url, diff)
		}
	}
}

// TestRefusalsAreLoggedOnce: a stranger fills no log, and the log holds no secret.
func TestRefusalsAreLoggedOnce(t *testing.T) {
	now := atomic.Int64{}
	l := listen(t, fake{}, func(c *Listener) {
		c.quiet = newQuiet(func() time.Time { return time.Unix(1_700_000_000+now.Load(), 0) })
	})
	for range 5 {
		post(t, pushURL(l.url, "guess", ""), receiptXML(1))
	}
	now.Store(61)
	post(t, pushURL(l.url, "guess", ""), receiptXML(1))
	logs := l.logs.String()
	if n := strings.Count(logs, "refused"); n != 2 ||
		!strings.Contains(logs, "not_logged_before=4") {
		t.Errorf("%d lines, want 2, the second with 4 that were left out:\n%s", n, logs)
	}
	for _, secret := range []string{pushToken, pushAESKey, "signature=", "oA"} {
		if strings.Contains(logs, secret) {
			t.Errorf("the log holds %q:\n%s", secret, logs)
		}
	}
}
