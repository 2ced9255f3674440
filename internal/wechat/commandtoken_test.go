package wechat

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// shell is a client whose token command is a script.
func shell(t *testing.T, script string, out *lockedBuffer) *Client {
	t.Helper()
	c := New(Config{
		AppID: testAppID, Secret: testSecret,
		Token: TokenConfig{Mode: TokenCommand,
			Command: []string{"/bin/sh", "-c", script, "sh", t.TempDir()}},
		Logger:  slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Observe: func(call Call) { printAll(out, call, call.Err) },
	})
	return c
}

func TestCommandToken(t *testing.T) {
	t.Setenv("UNIONBRIDGE_TEST_LEAK", testSecret)
	var out lockedBuffer
	for name, script := range map[string]string{
		"bare":  `echo ` + testToken(3),
		"json":  `echo '{"access_token":"` + testToken(3) + `","expires_in":60}'`,
		"noisy": `echo warning: slow >&2; printf ` + testToken(3),
		"environment": `[ "$(env | cut -d= -f1 | grep -v -e '^_$' -e '^PWD$' -e '^SHLVL$' | sort | tr '\n' ' ')" = "HOME LANG PATH UNIONBRIDGE_APPID " ] &&
			[ "$UNIONBRIDGE_APPID" = ` + testAppID + ` ] && [ "$PWD" = / ] && ! read -r line && echo ` + testToken(3),
	} {
		got, err := shell(t, script, &out).commandToken(t.Context())
		if err != nil || got.value != testToken(3) {
			t.Errorf("%s: %v, %v", name, got.value, err)
		}
	}
}

// TestCommandLeavesBehind: a program that ended well while something of it holds the pipe is heard,
// and the rest ended.
func TestCommandLeavesBehind(t *testing.T) {
	var out lockedBuffer
	c := shell(t, `sleep 300 & echo $! > "$1/child"; echo `+testToken(3), &out)
	c.commandDelay = 50 * time.Millisecond
	got, err := c.commandToken(t.Context())
	if err != nil || got.value != testToken(3) {
		t.Errorf("%v, %v", got.value, err)
	}
	child := pids(c.cfg.Token.Command[4])["child"]
	if child == 0 {
		t.Fatal("the script left nothing behind")
	}
	waitDead(t, child)
}

// waitDead polls, since the kernel takes a moment to kill.
func waitDead(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); alive(pid); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("what the program started is alive still")
		}
	}
}

func TestCommandFails(t *testing.T) {
	quoting := testToken(1) + " secret=abc"
	for name, tt := range map[string]struct {
		script string
		reason Reason
		policy Policy
		text   string // in the error
	}{
		"exit status": {`echo starting >&2; echo "curl: (7) cannot connect" >&2; exit 7`,
			ReasonTokenSupply, PolicyRetry,
			"starting curl: (7) cannot connect (token_supply): exit status 7"},
		"a signal": {`kill -9 $$`, ReasonTokenSupply, PolicyRetry, "signal: killed"},
		"no token": {`true`, ReasonBadAnswer, PolicyRetry, "standard output: neither"},
		"a page": {`echo "<html>` + quoting + `"`, ReasonBadAnswer, PolicyRetry,
			"standard output: neither"},
		"an errcode": {`echo '{"errcode":40164,"errmsg":"invalid ip ` + quoting + `"}'`,
			"ip_not_allowed", PolicyConfig, "40164 invalid ip"},
		"too much": {`yes ` + testToken(1), ReasonBadAnswer, PolicyRetry, "answer too large"},
		"talkative": {`i=0; while [ $i -lt 200 ]; do echo "line $i ` + quoting +
			`" >&2; i=$((i+1)); done; echo the end >&2; exit 1`,
			ReasonTokenSupply, PolicyRetry, "the end (token_supply)"},
		"one long line": {`i=0; while [ $i -lt 200 ]; do printf "x` + quoting +
			`" >&2; i=$((i+1)); done; exit 1`,
			ReasonTokenSupply, PolicyRetry, "exit status 1"},
		"traced": {`echo "> GET /t?key=` + testQueryKey +
			`" >&2; echo "> Authorization: Bearer hunter2hunter2" >&2; echo "X-Api-Key: ` +
			`hunter2hunter2" >&2; exit 1`,
			ReasonTokenSupply, PolicyRetry, "> GET /t?[redacted]"},
		"token to stderr": {`echo '{"access_token":"` + testToken(1) + `"}' ` + testSecret +
			` >&2; exit 2`, ReasonTokenSupply, PolicyRetry, "exit status 2"},
	} {
		t.Run(name, func(t *testing.T) {
			var out lockedBuffer
			_, err := shell(t, tt.script, &out).Followers(t.Context(), "")
			e := mustError(t, err)
			if e.Reason != tt.reason || e.Policy != tt.policy ||
				e.Endpoint != EndpointTokenCommand || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("%s, %s: %v; want %s, %s: %s", e.Reason, e.Policy, err, tt.reason,
					tt.policy, tt.text)
			}
			slog.New(slog.NewJSONHandler(&out, nil)).Error("failed", "error", err, "e", e)
			printAll(&out, err, err)
			for _, secret := range append(secrets(), "hunter2", "secret=abc", "tKn_tKn_") {
				if strings.Contains(out.String(), secret) {
					t.Errorf("%s leaks:\n%s", secret, out.String())
				}
			}
			if len(e.Message) > maxMessage+len("…") {
				t.Errorf("message of %d bytes", len(e.Message))
			}
		})
	}
}

func TestCommandCannotStart(t *testing.T) {
	for _, argv := range [][]string{{filepath.Join(t.TempDir(), "absent")}, {t.TempDir()}, nil} {
		c := New(Config{AppID: testAppID, Token: TokenConfig{Mode: TokenCommand, Command: argv}})
		_, err := c.Followers(t.Context(), "")
		if e := mustError(t, err); e.Reason != ReasonTokenSupply || e.Policy != PolicyConfig {
			t.Errorf("%q: %v", argv, err)
		}
	}
}

// TestCommandDiesWithItsTime: of context and timeout the earlier one ends the program and what it
// started, and the program is reaped.
func TestCommandDiesWithItsTime(t *testing.T) {
	for name, tt := range map[string]struct {
		reason Reason
		run    func(c *Client) error
	}{
		"timeout": {ReasonTimeout, func(c *Client) error {
			c.commandTimeout = 500 * time.Millisecond
			_, err := c.Followers(t.Context(), "")
			return err
		}},
		"context": {ReasonCancelled, func(c *Client) error {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			dir := c.cfg.Token.Command[4]
			go func() { // as soon as both processes are there
				for ctx.Err() == nil && len(pids(dir)) < 2 {
					time.Sleep(5 * time.Millisecond)
				}
				cancel()
			}()
			_, err := c.Followers(ctx, "")
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var out lockedBuffer
			c := shell(t, `cd "$1"; sleep 300 & echo $! > child; echo $$ > self; echo waiting `+
				`for the vault >&2; wait`, &out)
			c.commandDelay = time.Minute // nobody holds the pipe: the group died as one
			begin := time.Now()
			err := tt.run(c)
			if e := mustError(t, err); e.Reason != tt.reason || e.Policy != PolicyRetry ||
				e.Message != "waiting for the vault" {
				t.Errorf("%v", err)
			}
			if waited := time.Since(begin); waited > 5*time.Second {
				t.Errorf("waited %v", waited)
			}
			started := pids(c.cfg.Token.Command[4])
			if len(started) != 2 {
				t.Fatalf("processes %v", started)
			}
			if err := syscall.Kill(started["self"], 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("the program is there still, dead or alive: %v", err)
			}
			waitDead(t, started["child"])
		})
	}
}

// pids are the numbers that the script wrote down, by file.
func pids(dir string) map[string]int {
	all := map[string]int{}
	for _, name := range []string{"self", "child"} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if pid, bad := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && bad == nil {
			all[name] = pid
		}
	}
	return all
}

// alive is false for a zombie too: init, which inherits the orphan, may take its time or be none.
func alive(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ESRCH)
	}
	return !bytes.Contains(stat, []byte(") Z "))
}
