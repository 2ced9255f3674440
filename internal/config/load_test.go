package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const withFiles = `
database: {dsn_file: dsn}
official_accounts: [{appid: wx0000000000000001, secret_file: oa.secret}]
`

func TestLoadReadsBesideTheFile(t *testing.T) {
	dir := scene(t)
	path := filepath.Join(dir, "unionbridge.yaml")
	writeFile(t, path, withFiles, 0o644) // holds no secret itself: nothing to warn about
	writeFile(t, filepath.Join(dir, "dsn"), "u:p@tcp(h)/d\n", 0o640)
	writeFile(t, filepath.Join(dir, "oa.secret"), "s3cret\n", 0o644)
	t.Chdir(t.TempDir())

	cfg, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.Database.DSN.Reveal(); got != "u:p@tcp(h)/d" {
		t.Errorf("DSN = %q", got)
	}
	want := []string{fmt.Sprintf(
		"official_accounts[0].secret_file: every user of this machine can read %s (mode 0644): "+
			"chmod 640",
		filepath.Join(dir, "oa.secret"))}
	if diff := cmp.Diff(want, otherWarnings(cfg)); diff != "" {
		t.Errorf("warnings, -want +got:\n%s", diff)
	}
}

func TestLoadRelativePath(t *testing.T) {
	dir := scene(t)
	writeFile(t, filepath.Join(dir, "unionbridge.yaml"), withFiles+"state_dir: spool\n", 0o600)
	writeFile(t, filepath.Join(dir, "dsn"), "u:p@tcp(h)/d", 0o600)
	writeFile(t, filepath.Join(dir, "oa.secret"), "s3cret", 0o600)
	t.Chdir(filepath.Dir(dir))

	cfg, err := Load(filepath.Join(filepath.Base(dir), "unionbridge.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if !filepath.IsAbs(cfg.StateDir) ||
		!strings.HasSuffix(cfg.StateDir, filepath.Join(filepath.Base(dir), "spool")) {
		t.Errorf("StateDir = %s, want spool beside the file, absolute", cfg.StateDir)
	}
	if len(otherWarnings(cfg)) != 0 {
		t.Errorf("warnings = %q", cfg.Warnings)
	}
}

func TestLoadWarnsOfSecretsForEverybody(t *testing.T) {
	dir := scene(t)
	path := filepath.Join(dir, "unionbridge.yaml")
	data := readTestdata(t, "good/smallest.yaml")
	for mode, want := range map[os.FileMode]int{0o600: 0, 0o640: 0, 0o644: 1, 0o604: 1} {
		writeFile(t, path, string(data), mode)
		cfg, err := Load(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(otherWarnings(cfg)) != want {
			t.Errorf("mode %04o: warnings = %q, want %d", mode, cfg.Warnings, want)
		}
	}
}

func TestWarnsOfAStopShorterThanASend(t *testing.T) {
	data := string(readTestdata(t, "good/smallest.yaml"))
	const warning = "shutdown_timeout: 10s is not above wechat.send_timeout (10s), so a stop may " +
		"cut a message off on its way; " +
		"raise shutdown_timeout above it, or lower wechat.send_timeout"
	for timeout, want := range map[string][]string{"10s": {warning}, "10001ms": nil} {
		cfg, _, err := decode([]byte(data+"\nshutdown_timeout: "+timeout+"\n"), "/", "f.yaml")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, otherWarnings(cfg)); diff != "" {
			t.Errorf("shutdown_timeout %s, warnings, -want +got:\n%s", timeout, diff)
		}
	}
}

func TestLoadErrors(t *testing.T) {
	dir := scene(t)
	writeFile(t, filepath.Join(dir, "large.yaml"), strings.Repeat("# much\n", maxFileSize/7+1),
		0o600)
	writeFile(t, filepath.Join(dir, "bad.yaml"), "proxy: none", 0o600)
	for name, want := range map[string]string{
		"absent.yaml": `open DIR/absent.yaml: no such file or directory; "unionbridge config ` +
			`example" prints one to start from`,
		"large.yaml": "reading DIR/large.yaml: larger than 1048576 bytes, surely not the file " +
			"meant",
		"folder":   "read DIR/folder: is a directory",
		"bad.yaml": "DIR/bad.yaml:1:1: proxy: unknown key; known here: ",
	} {
		cfg, err := Load(filepath.Join(dir, name))
		if err == nil {
			t.Errorf("%s: no error, but %+v", name, cfg)
			continue
		}
		if got := strings.ReplaceAll(err.Error(), dir, "DIR"); !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestStateDirDefault(t *testing.T) {
	data := readTestdata(t, "good/smallest.yaml")
	for _, test := range []struct{ state, cache, want string }{
		{"/var/lib/unionbridge", "/cache", "/var/lib/unionbridge"},
		{"/var/lib/a:/var/lib/b", "/cache", "/var/lib/a"},
		{"", "/cache", "/cache/unionbridge"},
	} {
		t.Setenv("STATE_DIRECTORY", test.state)
		t.Setenv("XDG_CACHE_HOME", test.cache)
		cfg, _, err := decode(data, "/", "f.yaml")
		if err != nil {
			t.Fatal(err)
		}
		if cfg.StateDir != test.want {
			t.Errorf("STATE_DIRECTORY=%s: StateDir = %s, want %s", test.state, cfg.StateDir,
				test.want)
		}
	}
	t.Setenv("STATE_DIRECTORY", "")
	t.Setenv("XDG_CACHE_HOME", "")
	t.Setenv("HOME", "")
	want := "f.yaml: state_dir: missing, and this user has no cache directory to default to; " +
		"name a folder"
	if _, _, err := decode(data, "/", "f.yaml"); err == nil || err.Error() != want {
		t.Errorf("without a home: got %v, want %s", err, want)
	}
}

// TestCredentialsOutsideTheirFolder: a relative name that climbs is no credential's.
func TestCredentialsOutsideTheirFolder(t *testing.T) {
	dir := scene(t)
	credentials := filepath.Join(dir, "credentials")
	if err := os.Mkdir(credentials, 0o700); err != nil {
		t.Fatal(err)
	}
	r := &resolver{baseDir: "/etc/unionbridge", credentialsDir: credentials}
	for name, want := range map[string]string{
		"../aes.key":    "/etc/aes.key",
		"aes.key":       "/etc/unionbridge/aes.key",
		"/run/dsn":      "/run/dsn",
		"../../etc/dsn": "/etc/dsn",
	} {
		if got, credential := r.locate(name); got != want || credential {
			t.Errorf("locate(%s) = %s, %t; want %s", name, got, credential, want)
		}
	}
}
