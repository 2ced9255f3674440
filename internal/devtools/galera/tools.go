package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

// tools are the programs that a node is made of.
type tools struct {
	server   string // path of mariadbd
	provider string // path of libgalera_smm.so
}

// sstScript hands a new node its data. It comes with the package mariadb-server, which brings a system
// service as well: where it is missing it is unpacked from that package, not installed.
const sstScript = "wsrep_sst_mariabackup"

// findTools finds the programs, and installs what is missing where apt-get is there. rsync, the other
// method of the state transfer, is no choice: its daemon gives root's rights up and then cannot write
// into the folder of a server that runs as root.
func findTools(ctx context.Context, s *stage.Stage, screen *stage.Screen) (tools, error) {
	if err := extendPath("/usr/sbin", "/usr/local/sbin"); err != nil {
		return tools{}, err
	}
	wanted := map[string]string{
		"mariadbd": "mariadb-server-core", "mariadb-backup": "mariadb-backup", "mbstream": "mariadb-backup", "socat": "socat",
	}
	var missing []string
	for program, pkg := range wanted {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, pkg)
		}
	}
	if provider() == "" {
		missing = append(missing, "galera-4")
	}
	if err := aptInstall(ctx, missing, screen); err != nil {
		return tools{}, err
	}
	if err := unpackScripts(ctx, s, screen); err != nil {
		return tools{}, err
	}
	found := tools{provider: provider()}
	for program := range wanted {
		path, err := exec.LookPath(program)
		if err != nil {
			return tools{}, fmt.Errorf("looking for %s (%s): %w", program, wanted[program], err)
		}
		if program == "mariadbd" {
			found.server = path
		}
	}
	if found.provider == "" {
		return tools{}, errors.New("looking for libgalera_smm.so (package galera-4): it is not there")
	}
	return found, nil
}

// provider returns where Debian's or Red Hat's package puts the library; "" if it is not there.
func provider() string {
	for _, path := range []string{"/usr/lib/galera/libgalera_smm.so", "/usr/lib64/galera-4/libgalera_smm.so", "/usr/lib64/galera/libgalera_smm.so"} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// extendPath puts folders behind the PATH of this process, which its children inherit. The servers look
// there for the script and its programs.
func extendPath(dirs ...string) error {
	return os.Setenv("PATH", strings.Join(append([]string{os.Getenv("PATH")}, dirs...), string(filepath.ListSeparator)))
}

func aptInstall(ctx context.Context, packages []string, screen *stage.Screen) error {
	if len(packages) == 0 {
		return nil
	}
	words := strings.Join(packages, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("missing: %s (Debian's names); install them, there is no apt-get to do it", words)
	}
	command := append([]string{"apt-get", "install", "-q", "-y", "--no-install-recommends"}, packages...)
	if os.Geteuid() != 0 {
		command = append([]string{"sudo"}, command...)
	}
	screen.Say("running %s", strings.Join(command, " "))
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	cmd.Stdin = os.Stdin // sudo may have to ask
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("installing %s: %w\n%s", words, err, out)
	}
	return nil
}

// unpackScripts makes the script of the state transfer available, in the stage's folder if need be.
func unpackScripts(ctx context.Context, s *stage.Stage, screen *stage.Screen) error {
	if _, err := exec.LookPath(sstScript); err == nil {
		return nil
	}
	dir := s.Path("scripts")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making a folder: %w", err)
	}
	screen.Say("unpacking %s from the package mariadb-server, without installing that", sstScript)
	download := exec.CommandContext(ctx, "apt-get", "download", "-q", "mariadb-server")
	download.Dir = dir
	if out, err := download.CombinedOutput(); err != nil {
		return fmt.Errorf("downloading mariadb-server for its %s: %w\n%s", sstScript, err, out)
	}
	files, err := filepath.Glob(filepath.Join(dir, "mariadb-server_*.deb"))
	if err != nil || len(files) != 1 {
		return fmt.Errorf("downloading mariadb-server: want one package in %s, found %q", dir, files)
	}
	if out, err := exec.CommandContext(ctx, "dpkg-deb", "-x", files[0], dir).CombinedOutput(); err != nil {
		return fmt.Errorf("unpacking %s: %w\n%s", files[0], err, out)
	}
	if err := extendPath(filepath.Join(dir, "usr", "bin")); err != nil {
		return err
	}
	if _, err := exec.LookPath(sstScript); err != nil {
		return fmt.Errorf("the package mariadb-server has no %s: %w", sstScript, err)
	}
	return nil
}
