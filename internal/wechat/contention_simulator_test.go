package wechat_test

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// rival is another program of the same account, as they are usually written: it keeps a classic
// token until WeChat refuses it, and then fetches the next.
type rival struct {
	t       *testing.T
	base    string
	openid  string
	token   string
	fetched int
}

func (r *rival) work() {
	if r.get("/cgi-bin/user/info?openid=" + r.openid + "&access_token=" +
		r.token)["errcode"] == nil {
		return
	}
	answer := r.get("/cgi-bin/token?grant_type=client_credential&appid=" + wechatsim.StandardAppID +
		"&secret=" + wechatsim.StandardSecret)
	r.token = answer["access_token"].(string)
	r.fetched++
}

func (r *rival) get(path string) (answer map[string]any) {
	r.t.Helper()
	resp, err := http.Get(r.base + path)
	if err != nil {
		r.t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		r.t.Fatal(err)
	}
	return answer
}

// TestRivalAgainstSimulator lets a program that fetches classic tokens work beside us for three
// hours of the simulator's clock, one call of each a minute.
func TestRivalAgainstSimulator(t *testing.T) {
	for name, tt := range map[string]struct {
		mode      wechat.TokenMode
		contended bool
	}{
		"classic mode": {wechat.TokenClassic, true},
		"stable mode":  {wechat.TokenStable, false}, // WeChat keeps the two kinds apart
	} {
		t.Run(name, func(t *testing.T) {
			var clock atomic.Int64
			clock.Store(1_790_000_000)
			now := func() time.Time { return time.Unix(clock.Load(), 0) }
			options := wechatsim.Standard(10, 0, 0)
			options.Now = now
			sim := wechatsim.New(options)
			server := httptest.NewServer(sim)
			defer func() { server.Close(); sim.Close() }()
			var out strings.Builder
			c := wechat.New(wechat.Config{
				AppID: wechatsim.StandardAppID, Secret: wechatsim.StandardSecret,
				BaseURL: server.URL, Now: now, Token: wechat.TokenConfig{Mode: tt.mode},
				Logger: slog.New(slog.NewTextHandler(&out, nil)),
			})
			openid := everybody(t, c)[0]
			other := &rival{t: t, base: server.URL, openid: openid}
			firstSeen := 0
			for minute := range 180 {
				other.work()
				if _, err := c.UserInfo(t.Context(), openid); err != nil {
					t.Fatalf("minute %d: %v", minute, err)
				}
				if firstSeen == 0 && c.Contended() {
					firstSeen = minute
				}
				clock.Add(60)
			}
			if c.Contended() != tt.contended {
				t.Errorf("contended %t, want %t; the other program fetched %d tokens",
					c.Contended(), tt.contended, other.fetched)
			}
			if tt.contended && (firstSeen == 0 || firstSeen > 60) {
				t.Errorf("the contention was seen in minute %d", firstSeen)
			}
			if alarms := strings.Count(out.String(), "level=ERROR"); tt.contended &&
				(alarms < 2 || alarms > 3) || !tt.contended && alarms > 0 {
				t.Errorf("%d alarms in three hours:\n%s", alarms, &out)
			}
			if n := sim.Calls()[wechat.EndpointToken]; n > 60 {
				t.Errorf("%d classic tokens in three hours", n)
			}
		})
	}
}

// TestClassicAgainstSimulator: one token for its whole life, the next before its end, and at once
// when it is killed.
func TestClassicAgainstSimulator(t *testing.T) {
	var clock atomic.Int64
	clock.Store(1_790_000_000)
	now := func() time.Time { return time.Unix(clock.Load(), 0) }
	options := wechatsim.Standard(10, 0, 0)
	options.Now = now
	sim := wechatsim.New(options)
	server := httptest.NewServer(sim)
	defer func() { server.Close(); sim.Close() }()
	refused := 0
	c := wechat.New(wechat.Config{
		AppID: wechatsim.StandardAppID, Secret: wechatsim.StandardSecret, BaseURL: server.URL,
		Now: now, Token: wechat.TokenConfig{Mode: wechat.TokenClassic},
		Observe: func(call wechat.Call) {
			if call.Err != nil {
				refused++
			}
		},
	})
	openid := everybody(t, c)[0]
	call := func() {
		t.Helper()
		if _, err := c.UserInfo(t.Context(), openid); err != nil {
			t.Fatal(err)
		}
	}
	for range 24 * 60 {
		call()
		clock.Add(60)
	}
	if n := sim.Calls()[wechat.EndpointToken]; n < 12 || n > 14 || refused != 0 {
		t.Errorf("%d tokens a day and %d refused calls, want 13 and none", n, refused)
	}
	before := sim.Calls()[wechat.EndpointToken]
	sim.InvalidateTokens(wechatsim.StandardAppID)
	call()
	call()
	if n := sim.Calls()[wechat.EndpointToken] - before; n != 1 || refused != 1 {
		t.Errorf("%d tokens and %d refused calls after the token was killed, want one each", n,
			refused)
	}
}
