package link

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
)

// Thief is a loopback port that leads to a database server, and keeps the answer to one statement:
// the server has carried it out, and the program does not know. Toxiproxy cannot do that, because a
// toxic sees bytes of one direction only.
type Thief struct {
	listener net.Listener
	server   string
	quarry   atomic.Pointer[quarry]

	mu    sync.Mutex
	conns map[net.Conn]bool // nil: closed
}

// quarry is whose answer is kept.
type quarry struct {
	parts [][]byte // all in the statement
	hangs bool
	taken atomic.Bool
}

// OpenThief opens the port, and returns the DSN that leads through it.
func OpenThief(dsn string) (t *Thief, through string, err error) {
	settings, err := parseTCP(dsn)
	if err != nil {
		return nil, "", err
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", fmt.Errorf("opening a link to %s: %w", settings.Addr, err)
	}
	t = &Thief{listener: listener, server: settings.Addr, conns: map[net.Conn]bool{}}
	go t.accept()
	settings.Addr = listener.Addr().String()
	return t, settings.FormatDSN(), nil
}

// Steal keeps the answer to the next statement that contains all parts. hangs: its connection lives
// on without a word; else it ends.
func (t *Thief) Steal(hangs bool, parts ...string) {
	q := &quarry{hangs: hangs}
	for _, part := range parts {
		q.parts = append(q.parts, []byte(part))
	}
	t.quarry.Store(q)
}

// Stole reports whether there was such a statement since Steal.
func (t *Thief) Stole() bool {
	q := t.quarry.Load()
	return q != nil && q.taken.Load()
}

// Close ends the port and all its connections. It may be called twice.
func (t *Thief) Close() error {
	t.mu.Lock()
	conns := t.conns
	t.conns = nil
	t.mu.Unlock()
	for conn := range conns {
		_ = conn.Close() // it may have ended before
	}
	if conns == nil {
		return nil
	}
	return t.listener.Close()
}

func (t *Thief) accept() {
	for {
		client, err := t.listener.Accept()
		if err != nil {
			return
		}
		go t.serve(client)
	}
}

// own notes a connection for Close, and reports whether the port is still open.
func (t *Thief) own(conn net.Conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.conns == nil {
		return false
	}
	t.conns[conn] = true
	return true
}

func (t *Thief) end(conn net.Conn) {
	t.mu.Lock()
	delete(t.conns, conn)
	t.mu.Unlock()
	_ = conn.Close() // it may have ended before
}

func (t *Thief) serve(client net.Conn) {
	defer t.end(client)
	var dialer net.Dialer
	server, err := dialer.DialContext(context.Background(), "tcp", t.server)
	if err != nil {
		return
	}
	defer t.end(server)
	if !t.own(client) || !t.own(server) {
		return
	}
	var stolen atomic.Pointer[quarry]
	go t.ask(client, server, &stolen)
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if q := stolen.Load(); q != nil {
			if q.hangs {
				_, _ = io.Copy(io.Discard, server) // until one of both ends
			}
			return
		}
		if _, werr := client.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

// ask leads statements to the server. A statement is known before the server has it, so its answer
// cannot come first.
func (t *Thief) ask(client, server net.Conn, stolen *atomic.Pointer[quarry]) {
	defer t.end(server)
	buf := make([]byte, 64<<10)
	for {
		n, err := client.Read(buf)
		if q := t.quarry.Load(); q != nil && q.in(buf[:n]) && q.taken.CompareAndSwap(false, true) {
			stolen.Store(q)
		}
		if _, werr := server.Write(buf[:n]); err != nil || werr != nil {
			return
		}
	}
}

func (q *quarry) in(statement []byte) bool {
	for _, part := range q.parts {
		if !bytes.Contains(statement, part) {
			return false
		}
	}
	return true
}
