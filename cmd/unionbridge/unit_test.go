package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/database"
	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/sender/requests"
	"github.com/unionbridge/unionbridge/sync"
)

// TestExitCodes: the code of every kind of error, bare and deep inside others.
func TestExitCodes(t *testing.T) {
	for _, tc := range []struct {
		err  error
		want int
	}{
		{nil, exitOK},
		{errors.New("something"), exitFailed},
		{exitError{exitConfig, errors.New("sendd")}, exitConfig},
		{&database.SchemaError{}, exitDatabase},
		{&mysql.MySQLError{Number: 1045}, exitDatabase},
		{syscall.ECONNREFUSED, exitDatabase},
		{&fs.PathError{Op: "open", Path: "spool", Err: syscall.ENOENT}, exitFailed},
		{&wechat.Error{Code: 48001}, exitWeChat},
		{&wechat.Error{Reason: wechat.ReasonUnreachable, Err: syscall.ECONNREFUSED}, exitWeChat},
		{sync.ErrBusy, exitBusy},
		{sync.ErrTooManyGone, exitBlocked},
		{errInterrupted, exitInterrupted},
	} {
		for _, err := range []error{tc.err, wrap(tc.err)} {
			c := &cli{stderr: new(strings.Builder), begun: true}
			if got := c.report(t.Context(), c.rootCommand(), err); got != tc.want {
				t.Errorf("%v gives exit code %d, want %d", err, got, tc.want)
			}
		}
	}
}

func wrap(err error) error {
	if err == nil {
		return nil
	}
	return errors.Join(fmt.Errorf("sweeping: %w", err), nil)
}

// TestInterruptedIsNoFailure: what a signal cut off is not blamed on the database or WeChat.
func TestInterruptedIsNoFailure(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stderr strings.Builder
	c := &cli{stderr: &stderr, begun: true}
	err := fmt.Errorf("listing followers: %w",
		&wechat.Error{Reason: wechat.ReasonCancelled, Err: context.Canceled})
	if got := c.report(ctx, c.rootCommand(), err); got != exitInterrupted {
		t.Errorf("exit code %d, want %d", got, exitInterrupted)
	}
	if diff := cmp.Diff("unionbridge: interrupted\n", stderr.String()); diff != "" {
		t.Errorf("words (-want +got):\n%s", diff)
	}
}

// TestKeywords: --data and --set make one object, with numbers as they were typed.
func TestKeywords(t *testing.T) {
	file := filepath.Join(t.TempDir(), "data.json")
	if err := os.WriteFile(file, []byte(` {"thing1": {"value": "文"}} `), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		data string
		set  []string
		want string
	}{
		{`{"amount3": 39.80}`, nil, `{"amount3":39.80}`},
		{`{"a": "1", "b": "2"}`, []string{"b=<3&4>", "c=x=y", "d="},
			`{"a":"1","b":"<3&4>","c":"x=y","d":""}`},
		{"", []string{"thing1=茶"}, `{"thing1":"茶"}`},
		{"@" + file, nil, `{"thing1":{"value":"文"}}`},
		{"-", nil, `{"from":"stdin"}`},
	} {
		c := &cli{stdin: strings.NewReader(`{"from":"stdin"}`)}
		got, err := c.keywords(tc.data, tc.set)
		if err != nil {
			t.Errorf("%s %v: %v", tc.data, tc.set, err)
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s %v (-want +got):\n%s", tc.data, tc.set, diff)
		}
	}
	for _, bad := range []string{"{", "[]", "null", "1", `{} {}`, `{"a":}`} {
		if got, err := (&cli{}).keywords(bad, nil); err == nil {
			t.Errorf("--data %s gives %s, want an error", bad, got)
		}
	}
}

// TestStillOpen: whatever the row tells is said, and the daemon is only asked for where the row
// tells nothing.
func TestStillOpen(t *testing.T) {
	row := func(status, reason string, code, attempts int) outcome {
		o := outcome{ID: 7, Status: status, Reason: orNull(reason), Attempts: attempts}
		if code != 0 {
			o.ErrCode = &code
		}
		return o
	}
	for _, tc := range []struct {
		row  outcome
		want string
	}{
		{row("pending", "", 0, 0), `pending after 1s: no daemon has claimed it. Check that ` +
			`"unionbridge run" uses this database, that the request is due, and that the account ` +
			`is not paused ("unionbridge status")`},
		{row("pending", "", 0, 1), "pending after 1s: is it paused or due later? The daemon's " +
			"log and account_state say more"},
		{row("pending", "ip_not_allowed", 40164, 0),
			"pending after 1s: ip_not_allowed, errcode 40164; " + wechat.Explain(40164)},
		{row("pending", "invalid_template", 40037, 1),
			"pending after 1s: invalid_template, errcode 40037; " + wechat.Explain(40037)},
		{row("pending", "unreachable", 0, 0),
			"pending after 1s: unreachable; the daemon's log and account_state say more"},
		{row("pending", "", 12345, 1), "pending after 1s: errcode 12345; the daemon's log and " +
			"account_state say more"},
		{row("waiting", "not_following", 43004, 1),
			"waiting after 1s: the recipient is not known as a follower yet; it goes out once " +
				"they are"},
	} {
		if diff := cmp.Diff("request 7 is still "+tc.want,
			stillOpen(tc.row, time.Second, cures{}).Error()); diff != "" {
			t.Errorf("words (-want +got):\n%s", diff)
		}
	}
}

// TestLastLineOfALog: where standard error is a JSON log, its last line is JSON too.
func TestLastLineOfALog(t *testing.T) {
	for _, tc := range []struct {
		format string
		logs   bool
		want   string
	}{{"json", true, `"err":"listening: no","exit_code":1}`}, {"json", false, "unionbridge: listening: no"},
		{"text", true, "unionbridge: listening: no"}} {
		var stderr strings.Builder
		c := &cli{stderr: &stderr, begun: true, logs: tc.logs,
			cfg: &config.Config{Log: config.Log{Format: tc.format}}}
		code := c.report(t.Context(), c.rootCommand(), errors.New("listening: no"))
		got := strings.TrimSpace(stderr.String())
		if code != exitFailed || !strings.HasSuffix(got, tc.want) || strings.Contains(got, "\n") ||
			json.Valid([]byte(got)) != (tc.logs && tc.format == "json") {
			t.Errorf("%s, %t: %d %q, want %q", tc.format, tc.logs, code, got, tc.want)
		}
	}
}

// TestPutOff: of a request that was put off before an attempt, the reason and what to do are said.
func TestPutOff(t *testing.T) {
	const nothing = "requests cancel"
	d := requests.Detail{SentBy: "a", Record: requests.Record{ID: 7, Status: "pending",
		DueAt: time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)}}
	if got := explainRequest(explainable{Detail: d}); !strings.HasPrefix(got, "It is not due before 2026-") ||
		strings.Contains(got, nothing) {
		t.Error(got)
	}
	d.Reason, d.ErrMsg = "unknown_template", "the account's list has no template x"
	for _, due := range []bool{false, true} {
		d.Due = due
		got := explainRequest(explainable{Detail: d})
		for _, words := range []string{" account's list has no template x. ", "console",
			"requests cancel 7"} {
			if !strings.Contains(got, words) {
				t.Errorf("due %t: %q lacks %q", due, got, words)
			}
		}
	}
	d.Due, d.Reason, d.ErrMsg = false, "catalog", "the list cannot be read"
	if got := explainRequest(explainable{Detail: d}); !strings.HasPrefix(got, "It was put off, and is tried again at 2026-") ||
		!strings.Contains(got, "The list cannot be read.") || strings.Contains(got, nothing) {
		t.Error(got)
	}
}

// TestFailedCure: a retry is advised only where it can help, and no key is capitalised.
func TestFailedCure(t *testing.T) {
	const producer = "its producer has to INSERT a new one"
	for _, tc := range []struct {
		reason, errmsg string
		code           int
		openid         string
		says           []string
		not            string
	}{
		{"bad_keyword", "data.time2 has 2 characters, time takes a time", 0, "",
			[]string{" data.time2 has", producer}, "retry"},
		{"invalid_keyword_value", "argument invalid!", 47003, "", []string{producer}, "retry"},
		{"bad_data", "data has 20000 bytes", 0, "", []string{" data has", producer}, "retry"},
		{"bad_recipient", "mini_openid needs mini_appid", 0, "", []string{" mini_openid needs"}, "retry"},
		{"malicious_url", "", 40068, "", []string{producer}, "retry"},
		{"invalid_openid", "", 40003, "o1", []string{producer}, "retry"},
		{"invalid_openid", "", 40003, "", []string{"requests retry 7"}, producer},
		{"unknown_template", "template \"x\" is neither", 0, "",
			[]string{" template \"x\" is", "misspelt", "templates in the configuration",
				"requests retry 7"}, "docs/states.md"},
		{"not_following", "this person does not follow", 0, "", []string{" This person"}, producer},
	} {
		d := requests.Detail{OpenID: tc.openid, Record: requests.Record{ID: 7, Status: "failed",
			Reason: tc.reason, ErrMsg: tc.errmsg, ErrCode: tc.code}}
		got := explainRequest(explainable{Detail: d})
		for _, words := range tc.says {
			if !strings.Contains(got, words) {
				t.Errorf("%s: %q lacks %q", tc.reason, got, words)
			}
		}
		if strings.Contains(got, tc.not) {
			t.Errorf("%s: %q says %q", tc.reason, got, tc.not)
		}
	}
}

// TestOutcomeJSON: a msgid above 2^53 keeps its digits in every JSON reader.
func TestOutcomeJSON(t *testing.T) {
	msgid := int64(1<<62 + 1)
	got, err := json.Marshal(outcome{ID: 7, Status: "sent", MsgID: &msgid})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"id":7,"status":"sent","reason":null,"errcode":null,"errmsg":null,"attempts":0,"channel":null,` +
		`"sent_openid":null,"msgid":"4611686018427387905"}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}
}

func TestHolderName(t *testing.T) {
	first, second := holderName(), holderName()
	if first == second {
		t.Errorf("two names of one process are alike: %s", first)
	}
	if len(first) > 128 || !regexp.MustCompile(`^[!-~]+-\d+-[a-z0-9]{8}$`).MatchString(first) {
		t.Errorf("%q is not host, pid and something random in ASCII", first)
	}
}

// TestUnitFile: systemd understands the unit, and its numbers fit the program's.
func TestUnitFile(t *testing.T) {
	unit, err := os.ReadFile("../../deploy/unionbridge.service")
	if err != nil {
		t.Fatal(err)
	}
	setting := func(name string) string {
		m := regexp.MustCompile(`(?m)^` + name + `=(.*)$`).FindStringSubmatch(string(unit))
		if m == nil {
			t.Fatalf("the unit lacks %s", name)
		}
		return m[1]
	}
	if got, want := setting("RestartPreventExitStatus"),
		fmt.Sprint(exitUsage, " ", exitConfig); got != want {
		t.Errorf("RestartPreventExitStatus=%s, want %s", got, want)
	}
	stop, err := time.ParseDuration(setting("TimeoutStopSec") + "s")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "config.yaml")
	const smallest = `{database: {dsn: "u:p@tcp(h:1)/d"}, official_accounts: [{appid: wx0a00000000000001, secret: s}]}`
	if err := os.WriteFile(file, []byte(smallest), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	if least := cfg.ShutdownTimeout.Std() + webGrace + 5*time.Second; stop < least {
		t.Errorf("TimeoutStopSec is %s: a drain with the default shutdown_timeout may take %s",
			stop, least)
	}

	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd-analyze on this machine: the unit's syntax is not checked")
	}
	self, err := os.Executable() // verify wants a binary that exists
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "unionbridge.service")
	text := strings.ReplaceAll(string(unit), "/usr/bin/unionbridge", self)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), analyze, "verify", path).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// TestTaskStop: a stop waits for the task, no longer than its context, and needs none.
func TestTaskStop(t *testing.T) {
	var never *task
	if err := never.stop(t.Context()); err != nil {
		t.Errorf("a task that was never started: %v", err)
	}
	ended := false
	quick := startTask(t.Context(), func(ctx context.Context) {
		<-ctx.Done()
		ended = true
	})
	if err := quick.stop(t.Context()); err != nil || !ended {
		t.Errorf("ended %t, %v", ended, err)
	}
	release := make(chan struct{})
	stuck := startTask(t.Context(), func(context.Context) { <-release })
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := stuck.stop(over); !errors.Is(err, context.Canceled) {
		t.Errorf("a task that does not end: %v", err)
	}
	close(release)
	if err := stuck.stop(t.Context()); err != nil {
		t.Error(err)
	}
}
