package privatedb

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

type flavour struct {
	mariadb   bool
	tidb      bool
	server    string // path of mariadbd, mysqld or tidb-server
	installer string // path of mariadb-install-db; empty with the others, which need none
	version   string // first line of --version
}

// host is the machine that is searched; tests put their own folders and commands in its place.
type host struct {
	dirs   []string
	output io.Writer
	root   bool
	run    func(ctx context.Context, output io.Writer, name string, args ...string) error
}

// machine is this machine. Servers live in sbin folders, which are not on every user's PATH, and
// brew keeps mysqld of a not-linked formula below opt.
func machine(output io.Writer) host {
	dirs := filepath.SplitList(os.Getenv("PATH"))
	dirs = append(dirs, "/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin",
		"/usr/libexec", "/usr/local/mysql/bin", "/usr/local/mysql/scripts",
		"/opt/homebrew/bin", "/opt/homebrew/opt/mariadb/bin", "/opt/homebrew/opt/mysql/bin",
		"/usr/local/opt/mariadb/bin", "/usr/local/opt/mysql/bin",
		"/home/linuxbrew/.linuxbrew/bin", "/home/linuxbrew/.linuxbrew/opt/mariadb/bin")
	return host{dirs: dirs, output: output, root: os.Geteuid() == 0, run: run}
}

func run(ctx context.Context, output io.Writer, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	// The terminal stays connected: sudo may have to ask.
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, output, output
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	return cmd.Run()
}

func find(ctx context.Context, h host, server string) (flavour, error) {
	if server != "" {
		return h.identify(ctx, server)
	}
	found, err := search(ctx, h)
	if err == nil || !errors.Is(err, errNotFound) {
		return found, err
	}
	if err := install(ctx, h); err != nil {
		return flavour{}, err
	}
	return search(ctx, h)
}

var errNotFound = errors.New("neither mariadbd nor mysqld was found")

// search prefers MariaDB where both are installed; Config.Server names another.
func search(ctx context.Context, h host) (flavour, error) {
	for _, name := range []string{"mariadbd", "mysqld"} {
		if path := h.look(name); path != "" {
			return h.identify(ctx, path)
		}
	}
	return flavour{}, errNotFound
}

// identify asks a server program what it is. MariaDB's installer is looked for beside the program
// first, so that an unpacked server does not meet the machine's.
func (h host) identify(ctx context.Context, path string) (flavour, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return flavour{}, fmt.Errorf("resolving the server's path: %w", err)
	}
	f := flavour{server: path, tidb: strings.HasPrefix(filepath.Base(path), tidbName)}
	ask := "--version"
	if f.tidb {
		ask = "-V"
	}
	var version strings.Builder
	if err := h.run(ctx, &version, path, ask); err != nil {
		return flavour{}, fmt.Errorf("asking %s for its version: %w: %s", path, err,
			tail([]byte(version.String())))
	}
	if f.version = strings.TrimSpace(version.String()); f.tidb {
		f.version = parseTiDBVersion(f.version)
	}
	if !strings.Contains(f.version, "MariaDB") {
		return f, nil
	}
	f.mariadb = true
	dir := filepath.Dir(path)
	beside := []string{dir, filepath.Join(dir, "../bin"), filepath.Join(dir, "../scripts")}
	h.dirs = append(beside, h.dirs...)
	if f.installer = h.look("mariadb-install-db", "mysql_install_db"); f.installer == "" {
		return flavour{}, fmt.Errorf("%s is there, but mariadb-install-db is not: the "+
			"installation of MariaDB is incomplete "+
			"(Debian: package mariadb-server-core)", path)
	}
	return f, nil
}

func (h host) look(names ...string) string {
	for _, name := range names {
		for _, dir := range h.dirs {
			path := filepath.Join(dir, name)
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
				return path
			}
		}
	}
	return ""
}
