package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/unionbridge/unionbridge/internal/devtools/harness"
)

// sstScript hands a new node its data. It comes with the package mariadb-server, which brings a
// system service as well: where it is missing it is unpacked from that package, not installed.
const sstScript = "wsrep_sst_mariabackup"

// findTools finds the programs that a node is made of, and installs what is missing where apt-get
// is there. It returns the path of Galera's library. rsync, the other method of the state transfer,
// is no choice: its daemon gives root's rights up and then cannot write into the folder of a server
// that runs as root.
func findTools(t *harness.T) (provider string) {
	extendPath(t, "/usr/sbin", "/usr/local/sbin")
	if missing, _ := look(); len(missing) > 0 {
		aptInstall(t, missing)
	}
	unpackScripts(t)
	missing, provider := look()
	if len(missing) > 0 {
		t.Fatalf("the packages are there, but not the programs of %s", strings.Join(missing, ", "))
	}
	return provider
}

func look() (missing []string, provider string) {
	for program, pkg := range map[string]string{
		"mariadbd": "mariadb-server-core", "mariadb-backup": "mariadb-backup",
		"mbstream": "mariadb-backup", "socat": "socat",
	} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, pkg)
		}
	}
	for _, path := range []string{
		"/usr/lib/galera/libgalera_smm.so", "/usr/lib64/galera-4/libgalera_smm.so",
		"/usr/lib64/galera/libgalera_smm.so",
	} {
		if _, err := os.Stat(path); err == nil {
			return missing, path
		}
	}
	return append(missing, "galera-4"), ""
}

// extendPath puts folders behind the PATH of this process, which its children inherit. The servers
// look there for the script and its programs.
func extendPath(t *harness.T, dirs ...string) {
	path := append([]string{os.Getenv("PATH")}, dirs...)
	t.Check(os.Setenv("PATH", strings.Join(path, string(filepath.ListSeparator))))
}

func aptInstall(t *harness.T, packages []string) {
	words := strings.Join(packages, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Fatalf("missing: %s (Debian's names); install them, there is no apt-get to do it", words)
	}
	command := strings.Fields("apt-get install -q -y --no-install-recommends " + words)
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
	t.Say("unpacking %s from the package mariadb-server, without installing that", sstScript)
	const unpack = `mkdir "$0" && cd "$0" && apt-get download -q mariadb-server &&
		dpkg-deb -x mariadb-server_*.deb .`
	_, err := t.Output(harness.Command{Path: "sh", Args: []string{"-c", unpack, dir}})
	t.Check(err)
	extendPath(t, filepath.Join(dir, "usr", "bin"))
	_, err = exec.LookPath(sstScript)
	t.Checkf(err, "the package mariadb-server has no %s", sstScript)
}
