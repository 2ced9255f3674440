package config

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// otherWarnings leaves out the one about the short secrets that most tests have.
func otherWarnings(cfg *Config) (list []string) {
	for _, w := range cfg.Warnings {
		if !strings.Contains(w, "no AppSecret") {
			list = append(list, w)
		}
	}
	return list
}

const textConfig = `database: {dsn: "u:p@tcp(h:1)/d"}
official_accounts:
  - appid: wx0000000000000001
    name: "服务号：测试，“一”"
    secret: 0123456789abcdef0123456789abcdef
`

func TestText(t *testing.T) {
	change := func(from, to string) string { return strings.Replace(textConfig, from, to, 1) }
	for _, tc := range []struct{ name, text, want string }{
		{"as it should be", textConfig, ""},
		{"BOM", "\ufeff" + textConfig, ""},
		{"UTF-16", "\xff\xfed\x00a\x00", "f.yaml: the file is UTF-16; save it as UTF-8"},
		{"GBK", change("服务号", "\xb7\xfe"), "f.yaml: the file is not UTF-8 (GBK, perhaps); save it as UTF-8"},
		{"colon", change("secret:", "secret："),
			"f.yaml:5:11: a full-width colon; write : and a blank"},
		{"colon in braces", change("dsn:", "dsn："), "f.yaml:1:15: a full-width colon; write : and a blank"},
		{"comma in braces", change(`/d"}`, `/d"，max_connections: 8}`),
			"f.yaml:1:33: a full-width comma; write , and a blank"},
		{"quotation marks", change("secret: 0", "secret: “0"),
			"f.yaml:5:13: a full-width quotation mark or bracket; write the half-width one"},
		{"quotation marks of a name", change(`"服务号：测试，“一”"`, "“一”服务号"), ""},
		{"hyphen", change("  - appid", "  － appid"), "f.yaml:3:3: a full-width hyphen; write - and a blank"},
		{"number sign", textConfig + "＃ 注释\n", "f.yaml:6:1: a full-width number sign; write #"},
		{"blank", change("    secret", "\u3000\u3000secret"),
			"f.yaml:5:1: a wide blank in the indent; use blanks of the keyboard's English mode"},
		{"a variable", change("0123456789abcdef0123456789abcdef", "$OA_SECRET"),
			"f.yaml:5:5: official_accounts[0].secret: looks like a shell's variable, and nothing " +
				"replaces it here; give its name as secret_env, without the $"},
		{"braces around it", change(`"u:p@tcp(h:1)/d"`, `"${DSN}"`), "f.yaml:1:12: database.dsn: looks " +
			"like a shell's variable, and nothing replaces it here; give its name as dsn_env, without " +
			"the $"},
		{"rate", textConfig + "    send: {rate: 100000000}\n", "f.yaml:6:12: official_accounts[0].send.rate: " +
			"1e+08 messages a second is more than WeChat takes from any account; 200 is the " +
			"default, and at most 100000"},
	} {
		_, _, err := decode([]byte(tc.text), t.TempDir(), "f.yaml")
		got := ""
		if err != nil {
			got, _, _ = strings.Cut(err.Error(), "\n")
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}

// TestAppSecretWarning: what is too short to be an AppSecret is named, and not shown.
func TestAppSecretWarning(t *testing.T) {
	for secret, want := range map[string]int{"0123456789abcdef0123456789abcdef": 0, "abc": 1,
		"0123456789ABCDEF0123456789abcdef": 1} {
		cfg, _, err := decode([]byte(strings.Replace(textConfig, "0123456789abcdef0123456789abcdef",
			secret, 1)), t.TempDir(), "f.yaml")
		if err != nil {
			t.Fatal(err)
		}
		if len(cfg.Warnings) != want || strings.Contains(strings.Join(cfg.Warnings, ""), secret) {
			t.Errorf("%s: %q, want %d", secret, cfg.Warnings, want)
		}
	}
}

func TestDaylightSaving(t *testing.T) {
	for line, want := range map[string]string{
		"CRON_TZ=Europe/Berlin 17 2 * * *":       "skips",
		"CRON_TZ=America/New_York 30 2 * * *":    "skips",
		"CRON_TZ=America/New_York 30 1 * * *":    "repeats",
		"CRON_TZ=Europe/Berlin 17 3 * * *":       "",
		"CRON_TZ=Europe/Berlin 17 * * * *":       "",
		"CRON_TZ=Asia/Shanghai 17 2 * * *":       "",
		"CRON_TZ=Australia/Lord_Howe 45 1 * * *": "repeats",
		"@every 24h":                             "",
	} {
		got := daylightSaving(line)
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}
