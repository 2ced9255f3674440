package main

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	gosync "sync"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// tokenTap is a simulator that remembers every access token that was used.
type tokenTap struct {
	next http.Handler

	mu     gosync.Mutex
	tokens map[string]bool
}

func (tap *tokenTap) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if token := r.URL.Query().Get("access_token"); token != "" {
		tap.mu.Lock()
		tap.tokens[token] = true
		tap.mu.Unlock()
	}
	tap.next.ServeHTTP(w, r)
}

// TestNoSecretInAnyOutput runs everything, well and badly, with the log at its most talkative, and
// looks for each secret in everything that came out: both streams, and the daemon's pages.
func TestNoSecretInAnyOutput(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.Empty(t))
	tap := &tokenTap{next: w.sim, tokens: map[string]bool{}}
	w.server.Config.Handler = tap
	parsed, err := mysql.ParseDSN(w.dsn)
	if err != nil {
		t.Fatal(err)
	}
	const wrongPassword, aesKey = "wr0ng-p4ssword", "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
	secrets := map[string]string{
		"the database's password": parsed.Passwd, "a refused password": wrongPassword,
		"the AppSecret":             wechatsim.StandardSecret,
		"the mini program's secret": wechatsim.StandardMiniSecret,
		"the callback's token":      "c4llback-t0ken", "the AES key": aesKey,
	}
	if parsed.Passwd == "" {
		delete(secrets, "the database's password")
	}
	write := func(name, dsn, baseURL string) string {
		path := filepath.Join(w.dir, name)
		content := `
log: {level: debug}
database: {dsn: "` + dsn + `"}
wechat: {base_url: "` + baseURL + `", timeout: 5s, send_timeout: 5s}
http: {listen: "` + w.listen + `"}
state_dir: state
official_accounts:
  - appid: ` + wechatsim.StandardAppID + `
    secret: "` + wechatsim.StandardSecret + `"
    callback: {token: c4llback-t0ken, aes_key: ` + aesKey + `}
mini_programs:
  - {appid: ` + wechatsim.StandardMiniAppID + `, secret: "` + wechatsim.StandardMiniSecret + `"}
templates:
  progress: {official: {id: "` + template() + `"}}
`
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	dead := httptest.NewServer(nil)
	dead.Close()
	denied := parsed.Clone()
	denied.Passwd = wrongPassword
	nowhere := parsed.Clone()
	nowhere.Addr = strings.TrimPrefix(dead.URL, "http://")

	printed := outputs{}
	good := write("good.yaml", w.dsn, w.server.URL)
	commands := [][]string{
		{"migrate", "up"}, {"migrate", "status"}, {"config", "check", "--online"}, {"sync"},
		{"lookup", "nobody"},
		{"send", "--openid", w.sim.OpenID(wechatsim.StandardAppID, 1), "--template", "progress",
			"--set", "thing1=x", "--wait", "1ns"},
	}
	for _, path := range []string{
		good, write("denied.yaml", denied.FormatDSN(), w.server.URL),
		write("nowhere.yaml", nowhere.FormatDSN(), w.server.URL),
		write("refused.yaml", w.dsn, dead.URL),
		write("broken.yaml", w.dsn+"?:"+wrongPassword, w.server.URL),
	} {
		for _, args := range commands {
			printed.add(filepath.Base(path)+" "+args[0],
				do(t.Context(), "", append([]string{"-c", path}, args...)...))
		}
	}
	for _, fault := range []wechatsim.Fault{
		{Kind: wechatsim.FaultErrcode, Code: 40001}, {Kind: wechatsim.FaultErrcode, Code: 40164},
		{Kind: wechatsim.FaultHTML}, {Kind: wechatsim.FaultTruncate}, {Kind: wechatsim.FaultReset},
		{Kind: wechatsim.FaultStatus},
	} {
		w.sim.SetFault(fault)
		printed.add("sync with "+string(fault.Kind), do(t.Context(), "", "-c", good, "sync"))
		w.sim.ClearFaults()
	}
	w.runDaemon(t, good, printed)

	tap.mu.Lock()
	defer tap.mu.Unlock()
	if len(tap.tokens) == 0 {
		t.Error("no token was ever used: the test does not look for any")
	}
	for token := range tap.tokens {
		secrets["an access token …"+token[len(token)-4:]] = token
	}
	printed.check(t, secrets)
}

// outputs are everything that was printed, by what printed it.
type outputs map[string]string

func (o outputs) add(what string, got result) { o[what] += got.stdout + got.stderr }

// check looks for secrets when all is done: a token is known only after it was used.
func (o outputs) check(t *testing.T, secrets map[string]string) {
	t.Helper()
	for what, text := range o {
		for name, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%s prints %s:\n%s", what, name, text)
			}
		}
	}
}

// runDaemon lets a daemon send, well and to a WeChat that drops connections, and reads its pages.
func (w *world) runDaemon(t *testing.T, config string, printed outputs) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan result, 1)
	go func() { ended <- do(ctx, "", "-c", config, "run") }()
	await(t, "readiness", w.ready)
	db := dbtest.Open(t, w.dsn)
	w.request(t, db, 20)
	w.sim.SetFault(wechatsim.Fault{Kind: wechatsim.FaultReset, Probability: 0.5})
	await(t, "the posts", func() error {
		if w.posts() < 20 {
			return context.DeadlineExceeded
		}
		return nil
	})
	for _, page := range []string{"/", "/healthz", "/readyz", "/metrics"} {
		status, body, err := w.get(page)
		if err != nil || status != http.StatusOK {
			t.Errorf("%s: %d, %v", page, status, err)
		}
		printed.add(page, result{stdout: body})
	}
	stop()
	printed.add("run", <-ended)
}
