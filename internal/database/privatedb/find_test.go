package privatedb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fakeHost is a machine with the named programs. Commands are noted, not run; an installation makes
// the programs of installs appear.
type fakeHost struct {
	host
	dir      string
	versions map[string]string
	installs map[string][]string // package → programs
	fails    string              // a command that contains this fails
	ran      []string
}

func newFakeHost(t *testing.T, root bool, programs ...string) *fakeHost {
	t.Helper()
	f := &fakeHost{dir: t.TempDir(), versions: map[string]string{}, installs: map[string][]string{}}
	f.host = host{dirs: []string{f.dir}, output: io.Discard, root: root, run: f.command}
	f.add(programs...)
	return f
}

func (f *fakeHost) add(programs ...string) {
	for _, name := range programs {
		//nolint:gosec // it plays an executable
		if err := os.WriteFile(filepath.Join(f.dir, name), nil, 0o700); err != nil {
			panic(err)
		}
	}
}

func (f *fakeHost) command(_ context.Context, output io.Writer, name string, args ...string) error {
	if len(args) == 1 && (args[0] == "--version" || args[0] == "-V") {
		version, ok := f.versions[filepath.Base(name)]
		if !ok || (args[0] == "-V") != (filepath.Base(name) == "tidb-server") {
			return errors.New("exit status 2")
		}
		_, err := fmt.Fprintln(output, version)
		return err
	}
	line := strings.Join(append([]string{name}, args...), " ")
	f.ran = append(f.ran, strings.ReplaceAll(line, f.dir+"/", ""))
	if f.fails != "" && strings.Contains(line, f.fails) {
		return errors.New("exit status 100")
	}
	for _, arg := range args {
		f.add(f.installs[arg]...)
	}
	return nil
}

// TestFindNamed: a server that is named is taken, whatever else the machine has, and an unpacked
// MariaDB is filled by its own installer.
func TestFindNamed(t *testing.T) {
	f := newFakeHost(t, true, "mariadbd", "mariadb-install-db", "mysqld", "tidb-server")
	f.versions["mariadbd"], f.versions["mysqld"] = mariadb, oracle
	f.versions["tidb-server"] = "Release Version: v8.4.0\nEdition: Community"
	other := newFakeHost(t, true, "mariadbd", "mariadb-install-db")
	unpacked := filepath.Join(other.dir, "mariadbd")
	lonely := filepath.Join(newFakeHost(t, true, "mariadbd").dir, "mariadbd")
	in := func(name string) string { return filepath.Join(f.dir, name) }
	for server, want := range map[string]flavour{
		in("mysqld"): {server: in("mysqld"), version: oracle},
		unpacked: {mariadb: true, server: unpacked, version: mariadb,
			installer: filepath.Join(other.dir, "mariadb-install-db")},
		lonely: {mariadb: true, server: lonely, version: mariadb,
			installer: in("mariadb-install-db")},
		in("tidb-server"): {tidb: true, server: in("tidb-server"), version: "TiDB v8.4.0"},
	} {
		got, err := find(t.Context(), f.host, server)
		if err != nil || got != want {
			t.Errorf("find %s = %+v, %v, want %+v", server, got, err, want)
		}
	}
	if _, err := find(t.Context(), f.host, in("postgres")); err == nil ||
		!strings.Contains(err.Error(), in("postgres")) {
		t.Errorf("find of a program that is not there = %v, want its path", err)
	}
}

const (
	mariadb = "mariadbd  Ver 10.11.19-MariaDB for debian-linux-gnu on x86_64 (Debian 12)"
	oracle  = "/usr/sbin/mysqld  Ver 8.4.3 for Linux on x86_64 (MySQL Community Server - GPL)"
)

func TestFind(t *testing.T) {
	const update = "apt-get update -q"
	const install = "apt-get install -q -y --no-install-recommends mariadb-server-core " +
		"mariadb-client-core"
	const install22 = "apt-get install -q -y --no-install-recommends mariadb-server-core-10.6 " +
		"mariadb-client-core-10.6"
	programs := []string{"mariadbd", "mariadb-install-db"}
	for name, test := range map[string]struct {
		have    []string
		root    bool
		pkg     string // the package that brings MariaDB here
		fails   string
		ran     []string
		want    string // base name of the server found
		wantErr []string
	}{
		"MariaDB": {have: []string{"mariadbd", "mysqld", "mariadb-install-db",
			"apt-get"}, want: "mariadbd"},
		"MySQL": {have: []string{"mysqld", "apt-get"}, want: "mysqld"},
		"incomplete": {have: []string{"mariadbd", "apt-get"},
			wantErr: []string{"mariadb-install-db is not", "mariadb-server-core"}},
		"apt as root": {have: []string{"apt-get"}, root: true,
			pkg: "mariadb-server-core", ran: []string{update, install}, want: "mariadbd"},
		"apt with sudo": {have: []string{"apt-get", "sudo"}, pkg: "mariadb-server-core",
			ran: []string{"sudo " + update, "sudo " + install}, want: "mariadbd"},
		"apt, a list is down": {have: []string{"apt-get"}, root: true, fails: "update",
			pkg: "mariadb-server-core", ran: []string{update, install}, want: "mariadbd"},
		"Ubuntu 22.04": {have: []string{"apt-get"}, root: true,
			fails: "mariadb-server-core ", pkg: "mariadb-server-core-10.6",
			ran: []string{update, install, install22}, want: "mariadbd"},
		"dnf": {have: []string{"dnf"}, root: true, pkg: "mariadb-server",
			ran: []string{"dnf install -y mariadb-server"}, want: "mariadbd"},
		"brew": {have: []string{"brew"}, pkg: "mariadb",
			ran: []string{"brew install mariadb"}, want: "mariadbd"},
		"brew as root": {have: []string{"brew"}, root: true,
			wantErr: []string{"brew does not work as root", byHand}},
		"neither root nor sudo": {have: []string{"apt-get"},
			wantErr: []string{"needs root", "sudo is not there", byHand}},
		"no package manager": {wantErr: []string{"none of apt-get, dnf, brew", byHand}},
		"the installation fails": {have: []string{"dnf"}, root: true, fails: "install",
			ran:     []string{"dnf install -y mariadb-server"},
			wantErr: []string{"did not work", "exit status 100", byHand}},
		"installed and not there": {have: []string{"dnf"}, root: true,
			ran:     []string{"dnf install -y mariadb-server"},
			wantErr: []string{"neither mariadbd nor mysqld"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeHost(t, test.root, test.have...)
			f.versions["mariadbd"], f.versions["mysqld"] = mariadb, oracle
			f.installs[test.pkg] = programs
			f.fails = test.fails
			var said bytes.Buffer
			f.output = &said

			got, err := find(t.Context(), f.host, "")
			if diff := cmp.Diff(test.ran, f.ran); diff != "" {
				t.Errorf("commands (-want +got):\n%s", diff)
			}
			for _, command := range test.ran {
				if !strings.Contains(strings.ReplaceAll(said.String(), f.dir+"/", ""), command) {
					t.Errorf("said %q, want it to announce %q", said.String(), command)
				}
			}
			if (err != nil) != (test.wantErr != nil) {
				t.Fatalf("find = %v, %v", got, err)
			}
			for _, want := range test.wantErr {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("find = %v, want it to say %q", err, want)
				}
			}
			if err == nil && filepath.Base(got.server) != test.want {
				t.Errorf("found %s, want %s", got.server, test.want)
			}
			if got.mariadb != (test.want == "mariadbd") {
				t.Errorf("flavour of %s: MariaDB %t", got.server, got.mariadb)
			}
		})
	}
}
