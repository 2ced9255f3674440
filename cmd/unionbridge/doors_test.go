package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unionbridge/unionbridge/internal/applications"
	"github.com/unionbridge/unionbridge/internal/config"
	"github.com/unionbridge/unionbridge/internal/database/dbtest"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// TestDoors: an application gets tokens from the daemon, which another instance knows, also after a
// restart; and nothing that the daemon prints shows them or the secret.
func TestDoors(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.Empty(t))
	api := freePort(t)
	path := w.writeConfig(t, w.dir)
	text := strings.Replace(w.config(fmt.Sprintf(`
applications:
  - name: shop
    secret_hash_file: shop.hash
    accounts: {%s: [template_send]}
log: {level: debug}
`, wechatsim.StandardAppID)), "http: {", fmt.Sprintf("http: {api_listen: %q, api_proxy_from: [127.0.0.1], ", api), 1)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	made := do(t.Context(), "", "-c", path, "application", "secret", "shop", "--write", "--json")
	var line newSecretLine
	if err := json.Unmarshal([]byte(made.stdout), &line); err != nil {
		t.Fatalf("%v: %+v", err, made)
	}
	printed := outputs{}
	var tokens []string
	for range 2 { // the second time it is a restart
		func() {
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			ended := make(chan result, 1)
			go func() { ended <- do(ctx, "", "-c", path, "run", "--migrate") }()
			await(t, "readiness", w.ready)
			for range 2 {
				tokens = append(tokens, fetchToken(t, api, line.Secret))
			}
			if got := fetchToken(t, api, line.Secret+"x"); got != "" {
				t.Errorf("a token for a wrong secret: %s", got)
			}
			stop()
			printed.add("run", <-ended)
		}()
	}

	cfg, err := config.Load(filepath.Join(w.dir, "config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	other, err := newApplications(cfg, registryParts{db: dbtest.Open(t, w.dsn), holder: "another"})
	if err != nil {
		t.Fatal(err)
	}
	secrets := map[string]string{"the secret": line.Secret, "its hash": line.Hash}
	for _, token := range tokens {
		s, err := other.Verify(t.Context(), token, netip.MustParseAddr("127.0.0.1"))
		if err != nil || s.Application.Name != "shop" || s.AppID != wechatsim.StandardAppID {
			t.Errorf("a token of the daemon is %+v, %v at another instance", s, err)
		}
		if err := other.Allow(s, applications.TemplateSend, s.AppID, "progress"); err != nil {
			t.Errorf("it may not send: %v", err)
		}
		secrets["the token …"+token[len(token)-4:]] = token
	}
	printed.check(t, secrets)
	for _, words := range []string{"the doors for applications are open", "application got a token",
		"wrong_secret", "source=192.0.2.1"} {
		if !strings.Contains(printed["run"], words) {
			t.Errorf("the log lacks %q", words)
		}
	}
}

// fetchToken does what an SDK does; "" for an error.
func fetchToken(t *testing.T, address, secret string) string {
	t.Helper()
	query := url.Values{"grant_type": {"client_credential"}, "appid": {wechatsim.StandardAppID}, "secret": {secret}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
		"http://"+address+"/cgi-bin/token?"+query.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Forwarded-For", "192.0.2.1")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return answer.AccessToken
}

// TestAllowedTemplates: an application that may send an alias may name its ids, which is all that an
// SDK knows.
func TestAllowedTemplates(t *testing.T) {
	cfg := &config.Config{Templates: map[string]config.Template{
		"paid": {Official: config.OfficialTemplate{IDs: map[string]string{"wx1": "A", "wx2": "B"}},
			Mini: &config.MiniTemplate{IDs: map[string]string{"wx3": "C"}}},
		"other": {Official: config.OfficialTemplate{IDs: map[string]string{"wx1": "D"}}},
	}}
	if got := allowedTemplates(cfg, config.Application{}); got != nil {
		t.Errorf("without templates: %v, want all", got)
	}
	got := map[string]bool{}
	for _, name := range allowedTemplates(cfg, config.Application{Templates: []string{"paid", "E"}}) {
		got[name] = true
	}
	if want := 5; len(got) != want || !got["paid"] || !got["A"] || !got["B"] || !got["C"] || !got["E"] {
		t.Errorf("allowed: %v", got)
	}
}

// TestDescribeApplication: "config check" says in a line all that an application may do.
func TestDescribeApplication(t *testing.T) {
	got := describeApplication(config.Application{
		Name: "shop", Accounts: map[string][]string{"wx2": {"login"}, "wx1": {"template_send", "identities"}},
		Limit: config.Limit{Minute: 6, Day: 100}, Forward: []string{"/wxa/getwxacode", "/wxa/msg_sec_check"},
		Echo: &config.Echo{URL: "https://shop.example.com/secret"}, Disabled: true,
	})
	want := "shop: wx1 template_send identities, wx2 login; 6 a minute; 100 a day; forwards /wxa/getwxacode /wxa/msg_sec_check; " +
		"is told what became of its messages; disabled"
	if got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}
