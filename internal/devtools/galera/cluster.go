package main

import (
	_ "embed"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/unionbridge/unionbridge/internal/database/privatedb"
	"github.com/unionbridge/unionbridge/internal/devtools/harness"
)

const clusterSize = 3

func startCluster(t *harness.T, provider string) []*node {
	server, err := privatedb.Start(t.Context(),
		privatedb.Config{Dir: t.Path("n1"), BufferPool: 32 << 20})
	t.Check(err)
	pass := t.ParseDSN(server.DSN()).Passwd
	t.Check(server.Stop())
	var nodes []*node
	var group []string
	taken := map[string]bool{}
	for i := range clusterSize {
		name := "n" + strconv.Itoa(i+1)
		n := &node{t: t, name: name, dir: t.Path(name), pass: pass}
		n.prepare(taken)
		nodes, group = append(nodes, n), append(group, n.group)
	}
	for i, n := range nodes {
		n.start(provider, group, i == 0)
		n.await(i + 1)
	}
	return nodes
}

func describe(t *harness.T, nodes []*node) {
	var version, galera string
	nodes[0].admin.Fetch(&version, "SELECT VERSION()")
	nodes[0].admin.Fetch(&galera, statusQuery, "WSREP_PROVIDER_VERSION")
	for _, n := range nodes {
		n.await(clusterSize)
	}
	t.Good("%s, Galera %s, wsrep_cluster_size %d, all synced", version, galera, clusterSize)
}

type node struct {
	t       *harness.T
	name    string
	dir     string
	sql     string // addresses on loopback, host:port: of clients,
	group   string // of the group's own messages,
	ist     string // where it takes missed write sets,
	sst     string // and where it takes all data
	pass    string // root's
	process *harness.Process
	admin   harness.DB // to this node alone, outside any schema
}

// prepare makes the node's folders and chooses its ports; taken are those of the others.
func (n *node) prepare(taken map[string]bool) {
	for _, addr := range []*string{&n.sql, &n.group, &n.ist, &n.sst} {
		for *addr == "" || taken[*addr] {
			*addr = n.t.FreeAddr()
		}
		taken[*addr] = true
	}
	for _, sub := range []string{"data", "tmp"} {
		n.t.Check(os.MkdirAll(filepath.Join(n.dir, sub), 0o700))
	}
}

//go:embed node.cnf
var settingsText string

func (n *node) settings(provider string, group []string) string {
	_, port, _ := net.SplitHostPort(n.sql)
	_, groupPort, _ := net.SplitHostPort(n.group)
	var text strings.Builder
	n.t.Check(template.Must(template.New("node").Parse(settingsText)).Execute(&text, map[string]any{
		"name": n.name, "dir": n.dir, "pass": n.pass, "root": os.Geteuid() == 0,
		"sql": n.sql, "group": n.group, "ist": n.ist, "sst": n.sst, "port": port,
		"groupPort": groupPort, "provider": provider, "cluster": strings.Join(group, ","),
	}))
	return text.String()
}

func (n *node) start(provider string, group []string, first bool) {
	file := filepath.Join(n.dir, "my.cnf")
	err := os.WriteFile(file, []byte(n.settings(provider, group)), 0o600)
	n.t.Checkf(err, "writing the settings of %s", n.name)
	args := []string{"--defaults-file=" + file}
	if first {
		args = append(args, "--wsrep-new-cluster")
	}
	n.process = n.t.Start(harness.Command{Path: "mariadbd", Args: args})
	n.admin = n.open(n.t, "", nil)
}

func (n *node) await(size int) {
	last := ""
	n.t.Await(harness.Wait{
		For: "node " + n.name + " to join", Every: 50 * time.Millisecond,
		Most:    90 * time.Second, // for a state transfer, whose script alone waits 10 s
		Process: n.process, Log: func() string { return last + "\n" + n.lastWords() },
	}, func() bool {
		for name, want := range map[string]string{
			"WSREP_CLUSTER_SIZE": strconv.Itoa(size), "WSREP_LOCAL_STATE_COMMENT": "Synced",
			"WSREP_READY": "ON",
		} {
			var got string
			err := n.admin.GetContext(n.t.Context(), &got, statusQuery, name)
			if last = fmt.Sprintf("%s is %q, want %q: %v", name, got, want, err); got != want {
				return false
			}
		}
		return true
	})
}

func (n *node) dsn(addr, schema string) string {
	c := mysql.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr, c.DBName = "root", n.pass, "tcp", addr, schema
	return c.FormatDSN()
}

func (n *node) open(t *harness.T, schema string, params map[string]string) harness.DB {
	c := t.ParseDSN(n.dsn(n.sql, schema))
	c.Params, c.Timeout = params, time.Second
	return t.Connect(c)
}

const statusQuery = `SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS
	 WHERE VARIABLE_NAME = ?`

// lastWords are the last errors of the log, or else its last lines.
func (n *node) lastWords() string {
	text, err := os.ReadFile(filepath.Join(n.dir, "err.log"))
	if err != nil {
		return "it left no error log"
	}
	const most = 12
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	harmless := func(line string) bool { return !strings.Contains(line, "[ERROR]") }
	if failures := slices.DeleteFunc(slices.Clone(lines), harmless); len(failures) > 0 {
		lines = failures
	}
	return strings.Join(lines[max(0, len(lines)-most):], "\n")
}
