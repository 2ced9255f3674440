package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// start runs the program and returns its base URL; stop ends it and returns the exit code.
func start(t *testing.T, args ...string) (base string, stop func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, append([]string{"-listen", "127.0.0.1:0"}, args...), writer, io.Discard)
		_ = writer.Close()
	}()
	lines := bufio.NewReader(reader)
	line, err := lines.ReadString('\n')
	if err != nil {
		t.Fatalf("no base URL: %v", err)
	}
	go func() { _, _ = io.Copy(io.Discard, lines) }()
	return strings.TrimSpace(line), func() int {
		cancel()
		return <-code
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

func TestRun(t *testing.T) {
	base, stop := start(t, "-accounts", "2", "-followers", "7", "-mini-users", "3", "-unbound",
		"-fault", `{"kind":"errcode","code":-1,"path":"/cgi-bin/token","next":1}`)
	type account struct {
		AppID     string `json:"appid"`
		Bound     bool   `json:"bound"`
		Followers int    `json:"followers"`
		Users     int    `json:"users"`
	}
	var got []account
	if err := json.Unmarshal([]byte(get(t, base+"/_sim/accounts")), &got); err != nil {
		t.Fatal(err)
	}
	want := []account{
		{wechatsim.StandardAppID, false, 7, 0}, {"wx0a00000000000002", false, 7, 0},
		{wechatsim.StandardMiniAppID, false, 0, 3},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	token := base + "/cgi-bin/token?grant_type=client_credential&appid=wx0a00000000000002&secret=0a5ec2e7000000000000000000000002"
	if body := get(t, token); !strings.Contains(body, `"errcode":-1`) {
		t.Errorf("the fault did not hit: %s", body)
	}
	if body := get(t, token); !strings.Contains(body, `"expires_in":7200`) {
		t.Errorf("token: %s", body)
	}
	if code := stop(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	if conn, err := net.Dial("tcp", strings.TrimPrefix(base, "http://")); err == nil {
		_ = conn.Close()
		t.Error("it still listens")
	}
}

// TestMiniCallback: a mini program's events come to its own path, in the form that was asked for.
func TestMiniCallback(t *testing.T) {
	arrived := make(chan string, 1)
	web := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		arrived <- r.URL.Path + " " + string(body)
	}))
	t.Cleanup(web.Close)
	base, stop := start(t, "-callback-url", web.URL+"/{appid}", "-callback-format", "list_array")
	template := wechatsim.StandardSubscribeTemplates()[0].ID
	response, err := http.Post(base+"/_sim/subscribe?person=1&template="+template, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	got := <-arrived
	if !strings.HasPrefix(got, "/"+wechatsim.StandardMiniAppID+" {") ||
		!strings.Contains(got, `"List":[{"TemplateId":"`+template+`"`) {
		t.Error(got)
	}
	if code := stop(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

func TestBadCommandLines(t *testing.T) {
	for _, test := range []struct {
		args, want string
		code       int
	}{
		{"extra", `unexpected argument "extra"`, exitUsage},
		{"-nonsense", "not defined: -nonsense", exitUsage},
		{"-not-following 2", "-not-following: 2 is no share", exitUsage},
		{"-followers -1", "-followers: -1 is negative", exitUsage},
		{"-repeat-window 0s", "-repeat-window: 0s is not above zero", exitUsage},
		{"-keep some", `-keep: "some" is none of`, exitUsage},
		{"-callback-aes-key x", "43 characters", exitUsage},
		{"-callback-format yaml", `format: "yaml" is none of array`, exitUsage},
		{"-callback-sent-failed 2", "-callback-sent-failed: 2 is no share", exitUsage},
		{`-fault {"kind":"x"}`, `there is no kind "x"`, exitUsage},
		{`-fault {"sort":"x"}`, `unknown field "sort"`, exitUsage},
		{"-listen nowhere:-1", "listening:", exitError},
	} {
		var stdout, stderr bytes.Buffer
		code := run(t.Context(), strings.Fields(test.args), &stdout, &stderr)
		if code != test.code || !strings.Contains(stderr.String(), test.want) ||
			strings.Count(stderr.String(), "\n") != 1 {
			t.Errorf("%s: exit code %d, %q; want %d, one line with %q", test.args, code,
				stderr.String(), test.code, test.want)
		}
	}
}

func TestHelp(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), []string{"-help"}, &stdout, &stderr); code != exitOK ||
		stderr.Len() > 0 || !strings.Contains(stdout.String(), "-mini-users") {
		t.Errorf("exit code %d, %q, %q", code, stdout.String(), stderr.String())
	}
}
