package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/unionbridge/unionbridge/internal/database/privatedb"
	"github.com/unionbridge/unionbridge/internal/devtools/stage"
)

const clusterSize = 3

// joinTimeout is long enough for a state transfer on a slow machine: the donor's script alone waits 10 s.
const joinTimeout = 90 * time.Second

// startCluster starts the nodes one after the other; the stage ends them. Each but the first begins with
// an empty folder and gets all data from another one, as in production.
func startCluster(ctx context.Context, s *stage.Stage, t tools) ([]*node, error) {
	first := s.Path("n1")
	pass, err := install(ctx, first)
	if err != nil {
		return nil, err
	}
	var nodes []*node
	var group []string
	taken := map[string]bool{}
	for i := range clusterSize {
		name := "n" + strconv.Itoa(i+1)
		n := &node{name: name, dir: s.Path(name), pass: pass}
		if err := n.prepare(ctx, taken); err != nil {
			return nil, err
		}
		nodes, group = append(nodes, n), append(group, n.group)
		s.OnClose(n.stop)
	}
	for i, n := range nodes {
		if err := n.start(t, group, i == 0); err != nil {
			return nil, err
		}
		if err := n.await(ctx, i+1); err != nil {
			return nil, err
		}
	}
	return nodes, nil
}

// install fills the first node's data folder, and returns the password that root has there.
func install(ctx context.Context, dir string) (string, error) {
	server, err := privatedb.Start(ctx, privatedb.Config{Dir: dir, BufferPool: 32 << 20})
	if err != nil {
		return "", err
	}
	settings, err := mysql.ParseDSN(server.DSN())
	if err != nil {
		return "", fmt.Errorf("reading the private server's DSN: %w", err)
	}
	return settings.Passwd, server.Stop()
}

// await waits until the node is a synced member of a group of that size.
func (n *node) await(ctx context.Context, size int) error {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := n.joined(ctx, size)
		if err == nil {
			return nil
		}
		select {
		case <-n.process.Done():
			return fmt.Errorf("node %s ended while joining:\n%s", n.name, n.lastWords())
		case <-ctx.Done():
			return fmt.Errorf("waiting for node %s to join: %w: %w\n%s", n.name, ctx.Err(), err, n.lastWords())
		case <-tick.C:
		}
	}
}

func (n *node) joined(ctx context.Context, size int) error {
	for name, want := range map[string]string{
		"wsrep_cluster_size": strconv.Itoa(size), "wsrep_local_state_comment": "Synced", "wsrep_ready": "ON",
	} {
		got, err := n.status(ctx, name)
		if err != nil {
			return err
		}
		if got != want {
			return fmt.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	return nil
}

// describe says what the cluster is, for the record.
func describe(ctx context.Context, nodes []*node, screen *stage.Screen) error {
	var version string
	if err := nodes[0].admin.QueryRowContext(ctx, "SELECT VERSION()").Scan(&version); err != nil {
		return fmt.Errorf("asking for the version: %w", err)
	}
	galera, err := nodes[0].status(ctx, "wsrep_provider_version")
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if err := n.await(ctx, clusterSize); err != nil {
			return err
		}
	}
	screen.Good("%s, Galera %s, wsrep_cluster_size %d, all synced", version, galera, clusterSize)
	return nil
}
