package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

// node is one server of the cluster.
type node struct {
	name    string
	dir     string
	sql     string // addresses on loopback, host:port: of clients,
	group   string // of the group's own messages,
	ist     string // where it takes missed write sets,
	sst     string // and where it takes all data
	pass    string // root's
	process *stage.Process
	admin   *sql.DB // to this node alone, outside any schema
}

// prepare makes the node's folders and chooses its ports; taken are those of the others.
func (n *node) prepare(ctx context.Context, taken map[string]bool) error {
	for _, addr := range []*string{&n.sql, &n.group, &n.ist, &n.sst} {
		for *addr == "" || taken[*addr] {
			free, err := stage.FreeAddr(ctx)
			if err != nil {
				return err
			}
			*addr = free
		}
		taken[*addr] = true
	}
	for _, sub := range []string{"data", "tmp"} {
		if err := os.MkdirAll(filepath.Join(n.dir, sub), 0o700); err != nil {
			return fmt.Errorf("making the folder of %s: %w", n.name, err)
		}
	}
	return nil
}

// settings is the node's option file. A file and not arguments, because of the password in it. The
// binlog format and the interleaved lock mode are what Galera demands.
func (n *node) settings(provider string, group []string) string {
	_, port, _ := net.SplitHostPort(n.sql)
	_, groupPort, _ := net.SplitHostPort(n.group)
	lines := []string{
		"[mysqld]",
		"datadir=" + filepath.Join(n.dir, "data"),
		"tmpdir=" + filepath.Join(n.dir, "tmp"),
		"socket=" + filepath.Join(n.dir, "s"),
		"pid-file=" + filepath.Join(n.dir, "pid"),
		"log-error=" + n.errorLog(),
		"port=" + port,
		"bind-address=127.0.0.1",
		"skip-name-resolve",
		"skip-log-bin",
		"character-set-server=utf8mb4",
		"collation-server=utf8mb4_bin",
		"max-connections=300",
		"innodb-buffer-pool-size=96M",
		"innodb-flush-log-at-trx-commit=2",
		"innodb-autoinc-lock-mode=2",
		"binlog-format=ROW",
		"wsrep-on=ON",
		"wsrep-provider=" + provider,
		"wsrep-cluster-name=unionbridge",
		"wsrep-cluster-address=gcomm://" + strings.Join(group, ","),
		"wsrep-node-name=" + n.name,
		"wsrep-node-address=" + n.group,
		"wsrep-node-incoming-address=" + n.sql,
		"wsrep-sst-method=mariabackup",
		"wsrep-sst-auth=root:" + n.pass,
		"wsrep-sst-receive-address=" + n.sst,
		`wsrep-provider-options="gmcast.listen_addr=tcp://` + n.group + ";ist.recv_addr=" + n.ist +
			";base_port=" + groupPort + `;gcache.size=64M"`,
		// What the transfer leaves behind stays in the node's folder.
		"[sst]",
		"sst-log-archive=0",
		"tmpdir=" + filepath.Join(n.dir, "tmp"),
	}
	if os.Geteuid() == 0 {
		lines = append(lines, "[mariadbd]", "user=root")
	}
	return strings.Join(lines, "\n") + "\n"
}

func (n *node) errorLog() string { return filepath.Join(n.dir, "err.log") }

// start starts the server; the first node of a cluster makes the group, the others join it.
func (n *node) start(t tools, group []string, first bool) (err error) {
	file := filepath.Join(n.dir, "my.cnf")
	if err := os.WriteFile(file, []byte(n.settings(t.provider, group)), 0o600); err != nil {
		return fmt.Errorf("writing the settings of %s: %w", n.name, err)
	}
	args := []string{"--defaults-file=" + file}
	if first {
		args = append(args, "--wsrep-new-cluster")
	}
	if n.process, err = stage.Start(stage.Command{Path: t.server, Args: args}); err != nil {
		return err
	}
	n.admin, err = n.open("", nil)
	return err
}

// stop ends the server and everything that belongs to it.
func (n *node) stop() error {
	var failures []error
	if n.admin != nil {
		failures = append(failures, n.admin.Close())
	}
	if n.process != nil {
		failures = append(failures, n.process.Stop())
	}
	return errors.Join(failures...)
}

// kill ends the server at once, as a power failure does, and waits until it has gone.
func (n *node) kill() error {
	process, err := os.FindProcess(n.process.Pid())
	if err != nil {
		return fmt.Errorf("killing %s: %w", n.name, err)
	}
	if err := process.Kill(); err != nil {
		return fmt.Errorf("killing %s: %w", n.name, err)
	}
	<-n.process.Done()
	return nil
}

// dsn leads to the node, or to addr in its place; schema may be empty.
func (n *node) dsn(addr, schema string) string {
	c := mysql.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr, c.DBName = "root", n.pass, "tcp", addr, schema
	return c.FormatDSN()
}

// open returns a pool of connections to this node; params are variables of the session.
func (n *node) open(schema string, params map[string]string) (*sql.DB, error) {
	c, err := mysql.ParseDSN(n.dsn(n.sql, schema))
	if err != nil {
		return nil, fmt.Errorf("preparing the client of %s: %w", n.name, err)
	}
	c.Params, c.Timeout, c.Logger = params, time.Second, silent{}
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, fmt.Errorf("preparing the client of %s: %w", n.name, err)
	}
	return sql.OpenDB(connector), nil
}

// silent keeps the driver from writing about connections that this program breaks on purpose.
type silent struct{}

func (silent) Print(...any) {}

// status returns one of Galera's status values.
func (n *node) status(ctx context.Context, name string) (value string, err error) {
	err = n.admin.QueryRowContext(ctx, `
		SELECT VARIABLE_VALUE
		  FROM information_schema.GLOBAL_STATUS
		 WHERE VARIABLE_NAME = ?`, strings.ToUpper(name)).Scan(&value)
	if err != nil {
		return "", fmt.Errorf("asking %s for %s: %w", n.name, name, err)
	}
	return value, nil
}

// lastWords are the lines of the error log that say what went wrong, or its end.
func (n *node) lastWords() string {
	text, err := os.ReadFile(n.errorLog())
	if err != nil {
		return "it left no error log"
	}
	const most = 12
	var errorLines []string
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	for _, line := range lines {
		if strings.Contains(line, "[ERROR]") {
			errorLines = append(errorLines, line)
		}
	}
	if len(errorLines) == 0 {
		errorLines = lines
	}
	return strings.Join(errorLines[max(0, len(errorLines)-most):], "\n")
}
