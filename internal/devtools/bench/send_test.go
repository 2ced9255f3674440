package main

import (
	"context"
	"io"
	"net/http/httptest"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/devtools/stage"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// newBench is a benchmark with a schema of its own, a map of the mini program's users and a simulator in this
// process.
func newBench(t *testing.T, users int) (*bench, *wechatsim.Server) {
	t.Helper()
	people := wechatsim.New(wechatsim.Standard(users, users, 0))
	t.Cleanup(people.Close)
	server := httptest.NewServer(people)
	t.Cleanup(server.Close)
	b := &bench{
		screen: stage.NewScreen(io.Discard, time.Now),
		users:  people.MiniUsers(stage.MiniAppID, 0, users),
		scene:  &scene{db: dbtest.New(t).DB, simulator: &stage.Simulator{URL: server.URL}, size: users},
	}
	if err := stage.InsertMiniUsers(t.Context(), b.db, b.users); err != nil {
		t.Fatal(err)
	}
	for person := range users {
		_, err := b.db.ExecContext(t.Context(), "INSERT INTO follower (appid, openid, unionid) VALUES (?, ?, ?)",
			stage.AppID, people.OpenID(stage.AppID, person), people.UnionID(person))
		if err != nil {
			t.Fatal(err)
		}
	}
	return b, people
}

// The hand loops are the measure of the daemon: they have to do the whole job.
func TestHand(t *testing.T) {
	const requests = 2*handBatch + 3
	for name, run := range map[string]func(*hand) func(context.Context) error{
		"loop":     func(h *hand) func(context.Context) error { return h.loop },
		"pipeline": func(h *hand) func(context.Context) error { return h.pipeline },
	} {
		t.Run(name, func(t *testing.T) {
			b, people := newBench(t, requests)
			if err := b.execAll(t.Context(), "CREATE TABLE hand_request LIKE send_request"); err != nil {
				t.Fatal(err)
			}
			if err := b.insertRequests(t.Context(), "hand_request", requests); err != nil {
				t.Fatal(err)
			}
			h := &hand{bench: b, db: b.db}
			var err error
			if h.script, err = b.newScript(t.Context(), handInFlight); err != nil {
				t.Fatal(err)
			}
			if err := run(h)(t.Context()); err != nil {
				t.Fatal(err)
			}
			rows, err := b.sentRows(t.Context(), "hand_request")
			if err != nil {
				t.Fatal(err)
			}
			if v := judge(b.users, people.Messages(stage.AppID), rows); v != (verdict{}) {
				t.Errorf("judge() = %+v", v)
			}
		})
	}
}

func TestCrowds(t *testing.T) {
	b, _ := newBench(t, 3)
	for _, c := range []crowd{dueRows(7), bulkRows(5), futureRows(4), waitingRows(2), finishedRows(10)} {
		if err := b.insertCrowd(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	got := make(map[string]int)
	for name, where := range map[string]string{
		"all":      "1 = 1",
		"due":      "status = 'pending' AND priority = 1 AND due_at <= CURRENT_TIMESTAMP(3) AND appid IS NULL",
		"bulk":     "status = 'pending' AND priority = 2 AND due_at <= CURRENT_TIMESTAMP(3)",
		"future":   "status = 'pending' AND due_at > CURRENT_TIMESTAMP(3) + INTERVAL 6 DAY",
		"waiting":  "status = 'waiting' AND due_at > CURRENT_TIMESTAMP(3) AND unionid NOT IN (SELECT f.unionid FROM follower f)",
		"finished": "status = 'sent' AND msgid > 0 AND finished_at <= CURRENT_TIMESTAMP(3)",
		"known":    "unionid IN (SELECT f.unionid FROM follower f)",
	} {
		var n int
		if err := b.db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM send_request WHERE "+where).Scan(&n); err != nil {
			t.Fatal(err)
		}
		got[name] = n
	}
	want := map[string]int{"all": 28, "due": 7, "bulk": 5, "future": 4, "waiting": 2, "finished": 10, "known": 26}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// WeChat drops a message whose client_msg_id it knows, and that is made of the row's id.
func TestEmptyKeepsIDsNew(t *testing.T) {
	b, _ := newBench(t, 3)
	for range 2 {
		if err := b.insertRequests(t.Context(), "send_request", 3); err != nil {
			t.Fatal(err)
		}
		for range 2 { // a table that is empty already has no last id
			before := b.highest
			last, err := b.lastID(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if last != 0 && last <= before {
				t.Errorf("id %d came again", last)
			}
			if err := b.empty(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if b.highest < 6 {
		t.Errorf("six rows ended at id %d", b.highest)
	}
}

// What is not due yet does not count as open where only the later rows are waited for.
func TestDone(t *testing.T) {
	b, _ := newBench(t, 3)
	if err := b.insertCrowd(t.Context(), futureRows(3)); err != nil {
		t.Fatal(err)
	}
	last, err := b.lastID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	expect := func(after int64, want bool) {
		t.Helper()
		if done, err := b.done(t.Context(), after); err != nil || done != want {
			t.Errorf("done(%d) = %t, %v; want %t", after, done, err, want)
		}
	}
	expect(0, false)
	expect(last, true)
	if err := b.insertRequests(t.Context(), "send_request", 2); err != nil {
		t.Fatal(err)
	}
	expect(last, false)
	if err := b.execAll(t.Context(), "UPDATE send_request SET status = 'sent' WHERE due_at < CURRENT_TIMESTAMP(3) + INTERVAL 1 DAY"); err != nil {
		t.Fatal(err)
	}
	expect(last, true)
}

func TestCPU(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("known on Linux only")
	}
	cpu := watched{{"this", os.Getpid(), cpuOf(os.Getpid())}}
	for begin := time.Now(); cpu.used("this") < 5*tick; {
		if time.Since(begin) > 30*time.Second {
			t.Fatal("no processor time was counted in half a minute of work")
		}
	}
	if cpu.used("another") != 0 || cpuOf(-1) != 0 {
		t.Error("a process that does not exist has used processor time")
	}
}
