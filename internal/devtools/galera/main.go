// Command galera proves that unionbridge works on a Galera cluster. It starts three MariaDB nodes on
// loopback and in a temporary folder, and on them:
//
//   - runs the database tests through one node;
//   - writes the same rows through all three at once: a counter loses no step, a lease has one
//     holder;
//   - sweeps a simulated account through a proxy, kills the node in use in mid-sweep with SIGKILL,
//     starts the sweep again and compares the map on both remaining nodes with the truth.
//
// It needs MariaDB, galera-4, mariadb-backup and socat, and on Debian and Ubuntu installs what is
// missing. Exit codes: 0 success, 1 a mismatch or a failure, 2 wrong usage, 130 interrupted.
package main

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/unionbridge/unionbridge/internal/devtools/harness"
)

type options struct {
	followers int
	tests     bool
	packages  string // what go test is told to test, separated by blanks
	timeout   time.Duration
}

func program() harness.Program {
	var o options
	return harness.Program{
		Name: "galera", Failed: "Not as it should be",
		Flags: func(flags *flag.FlagSet) func() error {
			flags.IntVar(&o.followers, "followers", 100_000, "followers of the swept account, 20,000 or more")
			flags.BoolVar(&o.tests, "tests", true, "run the database tests on the cluster too")
			flags.StringVar(&o.packages, "packages",
				"./internal/database/... ./bridge/... ./sync/... ./sender/...",
				"the packages whose tests are run")
			// Minutes are usual. A machine that does other work takes several times as long.
			flags.DurationVar(&o.timeout, "timeout", 30*time.Minute, "give up after this long")
			return func() error {
				if o.followers < 20_000 {
					return errors.New("it takes 20,000 followers at least")
				}
				return nil
			}
		},
		Run: func(t *harness.T) { run(t, o) },
	}
}

func main() { harness.Main(program()) }

func run(t *harness.T, o options) {
	t.Limit(o.timeout)
	t.Title("unionbridge on MariaDB with Galera, three nodes")
	t.Step("looking for MariaDB, Galera and the programs of the state transfer")
	provider := findTools(t)
	t.Step("starting three nodes; a new node waits 10 s before it takes the data over")
	nodes := startCluster(t, provider)
	describe(t, nodes)
	// A failure of one part does not spare the others.
	var failures []error
	try := func(part func(*harness.T)) {
		failures = append(failures, harness.Try(t.Context(), t.Screen, part))
	}
	if o.tests {
		t.Step("the database tests, through node 1")
		try(func(t *harness.T) { goTest(t, nodes[:1], strings.Fields(o.packages)...) })
	}
	t.Step("writing the same rows through all three nodes at once")
	try(func(t *harness.T) { goTest(t, nodes, "-v", "-run=Galera", "./internal/database") })
	t.Step("a sweep of %s followers, whose node is killed", harness.Count(o.followers))
	try(func(t *harness.T) { (&sweepTest{T: t, nodes: nodes, followers: o.followers}).run() })
	t.Check(errors.Join(failures...))
	t.Line("\nall as it should be")
}

// goTest runs tests through the first node; where there are more, the tests of the cluster find
// them all. CI is set so that a test which does not find its server fails instead of being skipped.
func goTest(t *harness.T, nodes []*node, args ...string) {
	nodes[0].admin.Do("CREATE OR REPLACE DATABASE unionbridge_galera CHARACTER SET utf8mb4")
	var dsns []string
	for _, n := range nodes {
		// wsrep_sync_wait makes a read wait for what the others have written.
		dsns = append(dsns, n.dsn(n.sql, "unionbridge_galera")+"?wsrep_sync_wait=1")
	}
	lines := t.Lines()
	t.Cleanup(lines.Close)
	// A package that hangs says where before the whole run ends.
	args = append([]string{"test", "-count=1", "-timeout=15m"}, args...)
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Env = append(os.Environ(), "UNIONBRIDGE_TEST_DSN="+nodes[0].dsn(nodes[0].sql, ""), "CI=1")
	if len(nodes) > 1 {
		cmd.Env = append(cmd.Env, "UNIONBRIDGE_TEST_GALERA="+strings.Join(dsns, " "))
	}
	cmd.Stdout, cmd.Stderr = lines, lines
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		t.Bad("some tests fail on the cluster")
		t.Fatalf("go %s: %w", strings.Join(args, " "), err)
	}
	t.Good("all pass")
}

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
