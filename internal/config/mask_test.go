package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestExcerptMasks shows single lines as an excerpt does.
func TestExcerptMasks(t *testing.T) {
	for _, test := range []struct{ source, want string }{
		{"appid: wx0123456789abcdef", "appid: wx0123456789abcdef"},
		{"  - appid: wx0123456789abcdef # hush", "  - appid: wx0123456789abcdef [redacted]"},
		{"name: 服务号", "name: 服务号"},
		{"# secret: hush", "[redacted]"},
		{"secret: hush", "secret: [redacted]"},
		{"secret:hush", "secret: [redacted]"},
		{"secret : hush", "secret : [redacted]"},
		{`"secret": "hush"`, `"secret": [redacted]`},
		{"secret hush", "[redacted]"},
		{"secrett: hush", "secrett: [redacted]"},
		{"app_password: hush", "app_password: [redacted]"},
		{"- {appid: wx1, secret: hush, name: x}", "- {appid: wx1, secret: [redacted]"},
		{"sync: {sweep: daily}", "sync: {sweep: daily}"},
		{"sync: {sweep: daily, refresh: daily}", "sync: {sweep: daily, refresh: daily}"},
		{"order_paid: {official: {id: x}}", "order_paid: {official: {id: x}}"},
		{"order_paid:", "order_paid:"},
		{"order_paid: hush", "order_paid: [redacted]"},
		{"secret_env: 0123456789abcdef0123456789abcdef", "secret_env: [redacted]"},
		{"dsn_file: u:hush@tcp(h)/d", "dsn_file: [redacted]"},
		{"base_url: https://me:hush@h", "base_url: [redacted]"},
		{"listen: 127.0.0.1:8080", "listen: 127.0.0.1:8080"},
		{"name: x secret: hush", "name: [redacted]"},
		{`name: "x`, `name: "x`},
		{"user:hush@tcp(h)/d", "[redacted]"},
		{"secret: |\n  hush: hush\n  name: hush", "secret: [redacted]\n  [redacted]\n  [redacted]"},
		{"  secret: |\n hush: hush\n  name: x", "  secret: [redacted]\n [redacted]\n  name: x"},
		{"  secret:\n    hush\n\n    hush: x\n  appid: x",
			"  secret:\n    [redacted]\n\n    [redacted]\n  appid: x"},
	} {
		lines := strings.Split(test.source, "\n")
		var got []string
		for i := range lines { // each line as the one in question, so that none is out of sight
			for line := range strings.Lines(excerpt(test.source, position{i + 1, 1})) {
				if text, ok := strings.CutPrefix(line, fmt.Sprintf("> %4d | ", i+1)); ok {
					got = append(got, strings.TrimSuffix(text, "\n"))
				}
			}
		}
		if diff := cmp.Diff(test.want, strings.Join(got, "\n")); diff != "" {
			t.Errorf("%q, -want +got:\n%s", test.source, diff)
		}
	}
}

func TestQuote(t *testing.T) {
	for _, value := range []string{
		"", "61 3 * * *", "CRON_TZ=America/Argentina/Buenos_Aires 0 0 31 2 *", "TM00015",
		"127.0.0.1:99999", "wx0123456789ABCDEF", "5",
	} {
		if got, want := quote(value), fmt.Sprintf("%q", value); got != want {
			t.Errorf("quote(%q) = %s", value, got)
		}
	}
	for _, value := range []string{
		"wx0 secret: 'hush'", "wx0 secret 'hush'", "17 3 * * * token=hush", "daily name: hush",
		"0123456789abcdef0123456789abcdef",
		"u:hush@tcp(h)/d", "u:hush@(h)/d", strings.Repeat("a b ", 20),
	} {
		if got := quote(value); got != `"[redacted]"` {
			t.Errorf("quote(%q) = %s", value, got)
		}
	}
}
