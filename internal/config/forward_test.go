package config

import (
	"strings"
	"testing"
)

// TestEchoURL: what is told says who gets messages, so it leaves the company's own network by TLS only.
func TestEchoURL(t *testing.T) {
	for url, words := range map[string]string{
		"https://shop.example.com/wechat": "",
		"http://127.0.0.1:9000/":          "",
		"http://localhost/x?y=z":          "",
		"http://10.1.2.3/":                "",
		"http://[fd00::1]/":               "",
		"":                                "missing",
		"shop.example.com":                "no whole address",
		"ftp://shop.example.com":          "no whole address",
		"http://shop.example.com":         "use https://",
		"http://8.8.8.8/":                 "use https://",
		"https://user:pw@shop.example":    "has a user in it",
	} {
		ps := &problems{}
		validateEcho("echo", &Echo{URL: url}, ps)
		var got string
		if err := ps.err(); err != nil {
			got = err.Error()
		}
		if (words == "") != (got == "") || !strings.Contains(got, words) || strings.Contains(got, "pw") {
			t.Errorf("%q: %q, want %q", url, got, words)
		}
	}
	validateEcho("echo", nil, nil)
}
