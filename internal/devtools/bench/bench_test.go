package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/devtools/checker"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

func TestReport(t *testing.T) {
	var out bytes.Buffer
	run := harness.ForTest(t, harness.NewScreen(&out, time.Now))
	b := &bench{T: run, options: &options{followers: 1_000_000, requests: 200_000}}
	b.server = "a server"
	b.values = map[string]float64{
		"first_sweep": 51234.6, "first_sweep_memory": 48.04, "idle_queries": 4.966, "send_ratio": 12.34,
		"second_sweep_rows_written": 1, "finished_ratio": 0.89,
	}
	b.report()
	_, lines, found := strings.Cut(out.String(), "\nfirst_sweep 5")
	want := `1235 followers/s >=50000 ok
first_sweep_memory 48.0 MiB <=48 short
second_sweep_rows_written 1 rows =0 short
send_ratio 12.3 x - ok
idle_queries 4.97 queries/s <=5 ok
finished_ratio 0.89 x >=0.90 short
`
	if diff := cmp.Diff(want, lines); !found || diff != "" {
		t.Error(diff)
	}
	for _, line := range strings.Split(strings.TrimSpace(lines), "\n")[1:] {
		if fields := strings.Fields(line); len(fields) != 5 {
			t.Errorf("%q has %d fields, want name value unit target verdict", line, len(fields))
		}
	}
	for _, part := range []string{">= 0.90  short", ">= 50,000  ok", "a server", "51,234"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("the table lacks %q:\n%s", part, out.String())
		}
	}
}

// The names are those that programs and people compare over time.
func TestFiguresHaveDistinctNames(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range parse(t).figures() {
		if seen[f.name] {
			t.Errorf("figure %q comes twice", f.name)
		}
		seen[f.name] = true
	}
	if len(seen) == 0 {
		t.Error("no figures")
	}
}

func TestMedian(t *testing.T) {
	for want, values := range map[float64][]float64{7: {7}, 2: {3, 1, 2}, 5: {5, 9, 5}} {
		if got := median(values); got != want {
			t.Errorf("median(%v) = %v, want %v", values, got, want)
		}
	}
}

// The backlog's texts, in the form in which WeChat gets them, are what the checker wants.
func TestCheckBacklog(t *testing.T) {
	var users []wechatsim.Identity
	var messages []wechatsim.Message
	var rows []checker.Row
	for i := range 3 {
		users = append(users, wechatsim.Identity{UnionID: fmt.Sprint("u", i), OpenID: "mini", Person: i})
		var plain map[string]string
		_ = json.Unmarshal([]byte(message("B", i)), &plain) // a literal
		m := wechatsim.Message{
			AppID: harness.AppID, OpenID: fmt.Sprint("o", i), UnionID: users[i].UnionID, Person: i,
			TemplateID: harness.TemplateID(), Data: json.RawMessage(checker.Data(plain, false)), MsgID: int64(i + 1),
		}
		messages = append(messages, m)
		row := checker.Row{AppID: harness.AppID, Order: order("B", i), Status: "sent", SentOpenID: m.OpenID, MsgID: m.MsgID}
		row.Finished.Valid = true
		rows = append(rows, row)
	}
	if v := checkBacklog(users, messages, rows); len(v.Violations) > 0 {
		t.Errorf("violations: %q", v.Violations)
	}
	messages[1].Data = bytes.Replace(messages[1].Data, []byte("28.00"), []byte("28.01"), 1)
	if v := checkBacklog(users, messages[1:], rows); v.Wrong != 1 || v.Missing != 1 {
		t.Errorf("%d wrong and %d missing", v.Wrong, v.Missing)
	}
}

func parse(t *testing.T, args ...string) *options {
	t.Helper()
	o := &options{}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	check := o.define(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	if err := check(); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestFlags(t *testing.T) {
	wanted := func(o *options) string {
		names := slices.DeleteFunc(o.scenarioNames(), func(name string) bool { return !o.wants(name) })
		return strings.Join(names, " ")
	}
	o := parse(t, "-scale", "0.01", "-only", "sweep|idle")
	if o.followers != 10_000 || o.requests != 2000 || wanted(o) != "sweep idle" {
		t.Errorf("%d followers, %d requests, %s", o.followers, o.requests, wanted(o))
	}
	o = parse(t, "-only", "send")
	if size := o.accounts()[0].followers; size != o.requests || wanted(o) != "send" {
		t.Errorf("-only send: %d followers for %d requests, %s", size, o.requests, wanted(o))
	}
	o = parse(t, "-full-tables=false", "-ten-million=false")
	if want := "sweep send far producers idle lanes invented latency memory waiting takeover urgent fair door subscribe mixed lost slow change kill"; wanted(o) != want {
		t.Errorf("wanted %q, want %q", wanted(o), want)
	}
	if o = parse(t, "-only", "migration"); wanted(o) != "migration" {
		t.Errorf("-only migration: %s", wanted(o))
	}
	for _, args := range [][]string{
		{"-only", "["}, {"-only", "nothing"}, {"-requests", "5"}, {"-followers", "5000"}, {"-kills", "0"},
		{"-kill-followers", "9"}, {"word"}, {"-nonsense"},
	} {
		var out, errs bytes.Buffer
		if code := program(&options{}).Execute(t.Context(), args, &out, &errs); code != 2 || errs.Len() == 0 {
			t.Errorf("Execute(%q) = %d, said %q", args, code, errs.String())
		}
	}
}

// newBench is a benchmark with a schema of its own, a map of the mini program's users and a simulator in this
// process.
func newBench(t *testing.T, users int) (*bench, *wechatsim.Server) {
	t.Helper()
	run := harness.ForTest(t, harness.NewScreen(io.Discard, time.Now))
	people := wechatsim.New(wechatsim.Standard(users, users, 0))
	t.Cleanup(people.Close)
	b := &bench{T: run, setUp: &setUp{
		db: run.Wrap(dbtest.New(t)), simulator: run.Simulator(run.Serve(people)), size: users,
		users: people.MiniUsers(harness.MiniAppID, 0, users),
	}}
	b.db.InsertMiniUsers(b.users)
	b.db.Insert("follower (appid, openid, unionid)", users, func(person int) []any {
		return []any{harness.AppID, people.OpenID(harness.AppID, person), people.UnionID(person)}
	})
	return b, people
}

// The baselines are the measure of the daemon: they have to do the whole job.
func TestBaseline(t *testing.T) {
	const requests = 2*baselineBatch + 3
	for name, run := range map[string]func(*baseline){"loop": (*baseline).loop, "pipeline": (*baseline).pipeline} {
		t.Run(name, func(t *testing.T) {
			b, people := newBench(t, requests)
			b.db.Do("CREATE TABLE hand_request LIKE send_request")
			b.insertRequests("hand_request", requests)
			hand := &baseline{b, b.db, b.newScript(baselineInFlight)}
			run(hand)
			hand.nameAccount()
			rows := checker.ReadRows(b.db, "hand_request")
			if v := checkBacklog(b.users, people.Messages(harness.AppID), rows); len(v.Violations) > 0 {
				t.Errorf("%d violations, the first: %s", len(v.Violations), v.Violations[0])
			}
		})
	}
}

// TestMigrationSteps: each step of the migration that is measured changes something, and none of its
// statements is left out.
func TestMigrationSteps(t *testing.T) {
	const text = `-- +goose NO TRANSACTION
-- +goose Up
-- a comment; of no consequence
SET @ddl = (SELECT 'ALTER TABLE a
    ADD COLUMN b INT');
PREPARE x FROM @ddl;
EXECUTE x;

CREATE TABLE IF NOT EXISTS c (d INT);
-- +goose Down
DROP TABLE c;
`
	want := []migrationStep{
		{"ALTER TABLE a", []string{"SET @ddl = (SELECT 'ALTER TABLE a\n    ADD COLUMN b INT')",
			"PREPARE x FROM @ddl", "EXECUTE x"}},
		{"CREATE TABLE IF NOT EXISTS c", []string{"CREATE TABLE IF NOT EXISTS c (d INT)"}},
	}
	diff := cmp.Diff(want, migrationSteps(text), cmp.AllowUnexported(migrationStep{}))
	if diff != "" {
		t.Error(diff)
	}
}

func TestCrowds(t *testing.T) {
	b, _ := newBench(t, 3)
	for _, c := range []crowd{dueRows(7), bulkRows(5), futureRows(4), waitingRows(2), finishedRows(10), sleepingRows(20)} {
		b.insertCrowd(c)
	}
	got := make(map[string]int)
	for name, where := range map[string]string{
		"all":      "1 = 1",
		"due":      "status = 'pending' AND priority = 1 AND due_at <= CURRENT_TIMESTAMP(3) AND appid IS NULL",
		"bulk":     "status = 'pending' AND priority = 2 AND due_at <= CURRENT_TIMESTAMP(3)",
		"future":   "status = 'pending' AND due_at > CURRENT_TIMESTAMP(3) + INTERVAL 6 DAY",
		"waiting":  "status = 'waiting' AND due_at > CURRENT_TIMESTAMP(3) AND reason = 'no_follower' AND unionid NOT IN (SELECT f.unionid FROM follower f)",
		"sleeping": "reason = 'not_following' AND (unionid IS NULL) <> (mini_openid IS NULL)",
		"finished": "status = 'sent' AND msgid > 0 AND finished_at <= CURRENT_TIMESTAMP(3)",
		"known":    "unionid IN (SELECT f.unionid FROM follower f)",
	} {
		got[name] = int(b.db.Count("SELECT COUNT(*) FROM send_request WHERE " + where))
	}
	want := map[string]int{"all": 48, "sleeping": 20, "due": 7, "bulk": 5, "future": 4, "waiting": 2, "finished": 10, "known": 26}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// WeChat drops a message whose client_msg_id it knows, and that is made of the row's id.
func TestClearKeepsIDsNew(t *testing.T) {
	b, _ := newBench(t, 3)
	for range 2 {
		b.insertRequests("send_request", 3)
		for range 2 { // a table that is empty already has no last id
			before := b.highest
			last := b.lastID()
			if last != 0 && last <= before {
				t.Errorf("id %d came again", last)
			}
			b.clear()
		}
	}
	if b.highest < 6 {
		t.Errorf("six rows ended at id %d", b.highest)
	}
}

// What is not due yet does not count as open where only the later rows are waited for.
func TestDone(t *testing.T) {
	b, _ := newBench(t, 3)
	b.insertCrowd(futureRows(3))
	last := b.lastID()
	expect := func(after int64, want bool) {
		t.Helper()
		if done := b.done(after); done != want {
			t.Errorf("done(%d) = %t, want %t", after, done, want)
		}
	}
	expect(0, false)
	expect(last, true)
	b.insertRequests("send_request", 2)
	expect(last, false)
	b.db.Do("UPDATE send_request SET status = 'sent' WHERE due_at < CURRENT_TIMESTAMP(3) + INTERVAL 1 DAY")
	expect(last, true)
}

func TestCPU(t *testing.T) {
	if harness.CPUTime(os.Getpid()) == 0 && runtime.GOOS != "linux" {
		t.Skip("known on Linux only")
	}
	cpu := watched{{"this", os.Getpid(), harness.CPUTime(os.Getpid())}}
	for begin := time.Now(); cpu.used("this") < 5*harness.ClockTick; {
		if time.Since(begin) > 30*time.Second {
			t.Fatal("no processor time was counted in half a minute of work")
		}
	}
	if cpu.used("another") != 0 || harness.CPUTime(-1) != 0 {
		t.Error("a process that does not exist has used processor time")
	}
}

// The floor's statement stores what the sweep would: quotes survive, and what is empty is NULL.
func TestInsertText(t *testing.T) {
	db := dbtest.New(t)
	people := []followerInfo{
		{OpenID: "o1", UnionID: "u1", Time: 1_600_000_000, Scene: "ADD_SCENE_QR_CODE", QRScene: 7, QRStr: `a'b\c`, Remark: "老王", Group: 2, Tags: json.RawMessage("[2,128]"), Language: "zh_CN"},
		{OpenID: "o2", Time: 1_600_000_001, Tags: json.RawMessage("[]")},
	}
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE floor_follower LIKE follower"); err != nil {
		t.Fatal(err)
	}
	if _, err := db.ExecContext(t.Context(), insertText(people)); err != nil {
		t.Fatal(err)
	}
	type row struct {
		OpenID         string    `db:"openid"`
		UnionID        *string   `db:"unionid"`
		SubscribeTime  time.Time `db:"subscribe_time"`
		SubscribeScene *string   `db:"subscribe_scene"`
		QRScene        int64     `db:"qr_scene"`
		QRStr          *string   `db:"qr_scene_str"`
		Remark         *string   `db:"remark"`
		Group          int64     `db:"groupid"`
		Tags           *string   `db:"tagid_list"`
		Language       *string   `db:"language"`
	}
	var got []row
	err := db.SelectContext(t.Context(), &got, `
		SELECT openid, unionid, subscribe_time, subscribe_scene, qr_scene, qr_scene_str, remark, groupid,
		       REPLACE(tagid_list, ' ', '') AS tagid_list, language -- MySQL adds spaces
		  FROM floor_follower
		 WHERE appid = ? AND subscribed = 1 AND info_at IS NOT NULL
		 ORDER BY openid`, harness.AppID)
	if err != nil {
		t.Fatal(err)
	}
	want := []row{
		{"o1", new("u1"), time.Unix(1_600_000_000, 0).UTC(), new("ADD_SCENE_QR_CODE"), 7, new(`a'b\c`), new("老王"), 2, new("[2,128]"), new("zh_CN")},
		{OpenID: "o2", SubscribeTime: time.Unix(1_600_000_001, 0).UTC()},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
