package checkup

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// machine is a root of its own, in which a test puts files.
type machine struct {
	t    *testing.T
	root string
}

func (m machine) write(name, text string, mode os.FileMode) string {
	m.t.Helper()
	path := filepath.Join(m.root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// expect insists on the states and on words of each finding or its cure.
func expect(t *testing.T, what string, got []finding, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %+v, want %d findings", what, got, len(want))
	}
	for i, w := range want {
		state, words, _ := strings.Cut(w, " ")
		if text := got[i].seen + " " + got[i].cure.EN; string(got[i].state) != state || !strings.Contains(text, words) {
			t.Errorf("%s: %s %s, want %s", what, got[i].state, text, w)
		}
	}
}

// TestUnit: the unit is of this version, and hands over each secret that its user cannot read.
func TestUnit(t *testing.T) {
	m := machine{t, t.TempDir()}
	private := m.write("etc/unionbridge/oa.secret", "x", 0o600)
	readable := m.write("etc/unionbridge/mini.secret", "x", 0o640)
	e := &exam{Input: Input{Root: m.root, Unit: []byte("[Service]\n"), Secrets: []Secret{
		{Key: "official_accounts[0].secret_file", Path: private, Name: "oa.secret"},
		{Key: "mini_programs[0].secret_file", Path: readable, Name: "mini.secret"},
		{Key: "database.dsn"},
	}}}
	expect(t, "no unit", checkUnit(t.Context(), e), "skip there is no unionbridge.service")
	m.write("usr/lib/systemd/system/unionbridge.service", "[Service]\n", 0o644)
	expect(t, "no credential", checkUnit(t.Context(), e),
		"fail oa.secret has no LoadCredential")
	drop := "etc/systemd/system/unionbridge.service.d/secrets.conf"
	m.write(drop, "[Service]\nLoadCredential=oa.secret:/etc/unionbridge/oa.secret\n", 0o644)
	expect(t, "credential", checkUnit(t.Context(), e), "ok hands over every secret")
	m.write("etc/systemd/system/unionbridge.service", "[Service]\nUser=old\n", 0o644)
	expect(t, "an older one stands before it", checkUnit(t.Context(), e),
		"warn etc/systemd/system/unionbridge.service is not the unit of this version")
	e.Secrets[0].Name = private
	expect(t, "an absolute name is read by the daemon's user", checkUnit(t.Context(), e),
		"warn is not the unit", "fail Write the name oa.secret without its folder")
}

// TestUser: the daemon's user must be able to read the configuration, and to write its state.
func TestUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may look at another user's rights")
	}
	m := machine{t, t.TempDir()}
	config := m.write("config.yaml", "x", 0o640)
	e := &exam{Input: Input{Root: m.root, ConfigPath: config, User: "unionbridge", Offline: true,
		StateDir: filepath.Join(m.root, "state")}}
	expect(t, "no such user", checkUser(t.Context(), e), "fail may not read it (mode 0640)")
	m.write("etc/passwd", "root:x:0:0::/root:/bin/sh\nunionbridge:x:991:991::/:/bin/false\n", 0o644)
	expect(t, "another group", checkUser(t.Context(), e), "fail chgrp unionbridge")
	if err := os.Chown(config, 0, 991); err != nil {
		t.Fatal(err)
	}
	expect(t, "its group", checkUser(t.Context(), e), "ok the configuration can be read")
	if err := os.Chmod(config, 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, "its group without the right", checkUser(t.Context(), e), "fail may not read it (mode 0600)")
	e.User, e.StateDir = "", filepath.Join(m.root, "config.yaml", "state")
	expect(t, "no folder", checkUser(t.Context(), e), "fail state_dir: ")
	e.StateDir = "/proc/unionbridge"
	expect(t, "a folder that cannot be written", checkUser(t.Context(), e), "fail state_dir: ")
}

// TestClock: WeChat's Date says that this machine's clock is wrong.
func TestClock(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	shift := time.Duration(0)
	e := &exam{Input: Input{BaseURL: server.URL, Now: func() time.Time { return time.Now().Add(shift) }}}
	expect(t, "right", checkClock(t.Context(), e), "ok WeChat: ")
	shift = -time.Hour
	expect(t, "an hour late", checkClock(t.Context(), e), "fail the clock of WeChat is ")
	server.Close()
	expect(t, "away", checkClock(t.Context(), e), "skip")
}

// TestHolder: who listens on a port is found in /proc.
func TestHolder(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	if p := holderOf("/", strings.TrimPrefix(server.URL, "http://")); p.pid != os.Getpid() {
		t.Errorf("held by %+v, want pid %d", p, os.Getpid())
	}
	if p := holderOf(t.TempDir(), "127.0.0.1:1"); p != (process{}) {
		t.Errorf("held by %+v", p)
	}
}
