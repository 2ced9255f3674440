package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/unionbridge/unionbridge/internal/devtools/harness"
)

// tools are the programs that a node is made of.
type tools struct {
	server   string // path of mariadbd
	provider string // path of libgalera_smm.so
}

// sstScript hands a new node its data. It comes with the package mariadb-server, which brings a
// system service as well: where it is missing it is unpacked from that package, not installed.
const sstScript = "wsrep_sst_mariabackup"

// findTools finds the programs, and installs what is missing where apt-get is there. rsync, the
// other method of the state transfer, is no choice: its daemon gives root's rights up and then
// cannot write into the folder of a server that runs as root.
func findTools(t *harness.T) tools {
	extendPath(t, "/usr/sbin", "/usr/local/sbin")
	wanted := map[string]string{
		"mariadbd": "mariadb-server-core", "mariadb-backup": "mariadb-backup",
		"mbstream": "mariadb-backup", "socat": "socat",
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
	aptInstall(t, missing)
	unpackScripts(t)
	found := tools{provider: provider()}
	for program, pkg := range wanted {
		path, err := exec.LookPath(program)
		t.Checkf(err, "looking for %s (%s)", program, pkg)
		if program == "mariadbd" {
			found.server = path
		}
	}
	if found.provider == "" {
		t.Fatalf("looking for libgalera_smm.so (package galera-4): it is not there")
	}
	return found
}

// provider returns where Debian's or Red Hat's package puts the library; "" if it is not there.
func provider() string {
	for _, path := range []string{
		"/usr/lib/galera/libgalera_smm.so", "/usr/lib64/galera-4/libgalera_smm.so",
		"/usr/lib64/galera/libgalera_smm.so",
	} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// extendPath puts folders behind the PATH of this process, which its children inherit. The servers
// look there for the script and its programs.
func extendPath(t *harness.T, dirs ...string) {
	path := append([]string{os.Getenv("PATH")}, dirs...)
	t.Check(os.Setenv("PATH", strings.Join(path, string(filepath.ListSeparator))))
}

func aptInstall(t *harness.T, packages []string) {
	if len(packages) == 0 {
		return
	}
	words := strings.Join(packages, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Fatalf("missing: %s (Debian's names); install them, there is no apt-get to do it", words)
	}
	command := []string{"apt-get", "install", "-q", "-y", "--no-install-recommends"}
	command = append(command, packages...)
	if os.Geteuid() != 0 {
		command = append([]string{"sudo"}, command...)
	}
	t.Say("running %s", strings.Join(command, " "))
	cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	cmd.Stdin = os.Stdin // sudo may have to ask
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("installing %s: %w\n%s", words, err, out)
	}
}

func unpackScripts(t *harness.T) {
	if _, err := exec.LookPath(sstScript); err == nil {
		return
	}
	dir := t.Path("scripts")
	t.Check(os.MkdirAll(dir, 0o700))
	t.Say("unpacking %s from the package mariadb-server, without installing that", sstScript)
	download := exec.CommandContext(t.Context(), "apt-get", "download", "-q", "mariadb-server")
	download.Dir = dir
	if out, err := download.CombinedOutput(); err != nil {
		t.Fatalf("downloading mariadb-server for its %s: %w\n%s", sstScript, err, out)
	}
	files, err := filepath.Glob(filepath.Join(dir, "mariadb-server_*.deb"))
	if err != nil || len(files) != 1 {
		t.Fatalf("downloading mariadb-server: want one package in %s, found %q", dir, files)
	}
	_, err = t.Output(harness.Command{Path: "dpkg-deb", Args: []string{"-x", files[0], dir}})
	t.Check(err)
	extendPath(t, filepath.Join(dir, "usr", "bin"))
	_, err = exec.LookPath(sstScript)
	t.Checkf(err, "the package mariadb-server has no %s", sstScript)
}
