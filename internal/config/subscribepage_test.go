package config

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSubscribePageConfig loads the configuration that docs/subscribe.md shows, in both languages, with
// an official account and without one as the page says.
func TestSubscribePageConfig(t *testing.T) {
	const database = "database: {dsn: \"u:p@tcp(h)/d\"}\n"
	const official = "official_accounts: [{appid: wx0123456789abcdef, secret: s3cret}]\n"
	withoutOfficial := regexp.MustCompile(`(?m)^    (official|route): .*\n`)
	for _, page := range []string{"subscribe.md", "subscribe.zh-CN.md"} {
		text, err := os.ReadFile("../../docs/" + page)
		if err != nil {
			t.Fatal(err)
		}
		_, shown, found := strings.Cut(string(text), "```yaml\n")
		shown, _, ended := strings.Cut(shown, "```\n")
		if !found || !ended {
			t.Fatalf("docs/%s has no configuration", page)
		}
		alone := withoutOfficial.ReplaceAllString(shown, "")
		if strings.Count(alone, "\n") != strings.Count(shown, "\n")-2 {
			t.Fatalf("docs/%s: official and route are not found in\n%s", page, shown)
		}
		for name, file := range map[string]string{
			"with an official account": database + official + shown, "without": database + alone,
		} {
			dir := scene(t)
			path := filepath.Join(dir, "unionbridge.yaml")
			writeFile(t, path, file, 0o600)
			writeFile(t, filepath.Join(dir, "mini.secret"), "s3cret", 0o600)
			cfg, err := Load(path)
			if err != nil {
				t.Errorf("docs/%s %s: %v", page, name, err)
				continue
			}
			mini, alias := cfg.MiniPrograms[0], cfg.Templates["order_ready"]
			if !mini.Sends || alias.Mini.IDs[mini.AppID] == "" || alias.Mini.Keys["thing1"] != "thing16" ||
				len(otherWarnings(cfg)) > 0 {
				t.Errorf("docs/%s %s: %+v, %+v, %q", page, name, mini, alias, cfg.Warnings)
			}
		}
	}
}
