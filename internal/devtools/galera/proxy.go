package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// proxy stands where HAProxy or a virtual address stands in production: it leads every new connection to
// the node in use, and to the next one that accepts connections once that one does not. It stays there:
// all writes go to one node at a time.
type proxy struct {
	listener net.Listener
	targets  []string
	serving  sync.WaitGroup

	mu    sync.Mutex
	inUse int
	conns map[net.Conn]struct{}
	down  bool
}

// newProxy listens on a free loopback port; close ends it and all its connections.
func newProxy(ctx context.Context, targets []string) (*proxy, error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("starting the proxy: %w", err)
	}
	p := &proxy{listener: listener, targets: targets, conns: map[net.Conn]struct{}{}}
	p.serving.Go(p.serve)
	return p, nil
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

// current is the index of the target in use.
func (p *proxy) current() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.inUse
}

func (p *proxy) close() error {
	err := p.listener.Close()
	p.mu.Lock()
	p.down = true
	for c := range p.conns {
		_ = c.Close() // the relay hears of it
	}
	p.mu.Unlock()
	p.serving.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (p *proxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.serving.Go(func() { p.relay(client) })
	}
}

// dial connects to the target in use, or to the next one that answers.
func (p *proxy) dial() (net.Conn, error) {
	first := p.current()
	var failures []error
	for i := range p.targets {
		at := (first + i) % len(p.targets)
		// No context: the connection belongs to the client, and a dial on loopback is refused at once.
		conn, err := net.DialTimeout("tcp", p.targets[at], time.Second) //nolint:noctx // see above
		if err != nil {
			failures = append(failures, err)
			continue
		}
		p.mu.Lock()
		p.inUse = at
		p.mu.Unlock()
		return conn, nil
	}
	return nil, errors.Join(failures...)
}

// relay copies both ways until one side ends.
func (p *proxy) relay(client net.Conn) {
	defer func() { _ = client.Close() }()
	server, err := p.dial()
	if err != nil {
		return // the client sees its connection end
	}
	defer func() { _ = server.Close() }()
	if !p.enter(client, server) {
		return
	}
	defer p.leave(client, server)
	var both sync.WaitGroup
	for from, to := range map[net.Conn]net.Conn{client: server, server: client} {
		both.Go(func() {
			_, _ = io.Copy(to, from)
			_, _ = to.Close(), from.Close()
		})
	}
	both.Wait()
}

func (p *proxy) enter(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		return false
	}
	for _, c := range conns {
		p.conns[c] = struct{}{}
	}
	return true
}

func (p *proxy) leave(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		delete(p.conns, c)
	}
}
