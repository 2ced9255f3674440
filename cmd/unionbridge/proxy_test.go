package main

import (
	"io"
	"net"
	gosync "sync"
	"testing"

	"github.com/go-sql-driver/mysql"
)

// proxy stands between the program and the database, so that a test can take the database away.
type proxy struct {
	dsn    string // through the proxy
	addr   string
	server string

	mu       gosync.Mutex
	listener net.Listener
	conns    []net.Conn
}

// newProxy makes a proxy that refuses connections until start.
func newProxy(t *testing.T, dsn string) *proxy {
	t.Helper()
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: freePort(t), server: cfg.Addr}
	cfg.Addr = p.addr
	p.dsn = cfg.FormatDSN()
	t.Cleanup(p.stop)
	return p
}

func (p *proxy) start(t *testing.T) {
	t.Helper()
	listener, err := net.Listen("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.listener = listener
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			p.pipe(client)
		}
	}()
}

func (p *proxy) pipe(client net.Conn) {
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		_ = client.Close()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns = append(p.conns, client, server)
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		go func() {
			_, _ = io.Copy(way[0], way[1])
			_ = way[0].Close()
		}()
	}
}

// stop refuses new connections and cuts those there are, as a server that crashes does.
func (p *proxy) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		_ = p.listener.Close()
		p.listener = nil
	}
	for _, conn := range p.conns {
		_ = conn.Close()
	}
	p.conns = nil
}
