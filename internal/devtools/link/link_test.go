package link

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func open(t *testing.T, upstream string) *Link {
	t.Helper()
	l, err := Open(upstream)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// A link loses, delays and comes back; a toxic that is stuck does not keep it from healing.
func TestLink(t *testing.T) {
	l := open(t, echo(t))
	if err := say(t, l.Addr()); err != nil {
		t.Fatalf("a good link: %v", err)
	}
	for name, spoil := range map[string]func() error{
		"mute":  func() error { return l.Poison(Toxic{"timeout", "downstream", `"timeout": 0`, ""}) },
		"deaf":  func() error { return l.Poison(Toxic{"timeout", "upstream", `"timeout": 0`, ""}) },
		"reset": func() error { return l.Poison(Toxic{"reset_peer", "downstream", `"timeout": 0`, ""}) },
		"half":  func() error { return l.Poison(Toxic{"limit_data", "upstream", `"bytes": 2`, ""}) },
		"cut":   func() error { l.Cut(); return nil },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if err := say(t, l.Addr()); err == nil {
			t.Errorf("%s: the link is as good as ever", name)
		}
		if err := l.Heal(); err != nil {
			t.Fatal(err)
		}
		if err := say(t, l.Addr()); err != nil {
			t.Errorf("%s: healed, but %v", name, err)
		}
	}
}

func TestOpenDSN(t *testing.T) {
	l, dsn, err := OpenDSN("u:secret@tcp(" + echo(t) + ")/db")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	if want := "u:secret@tcp(" + l.Addr() + ")/db"; dsn != want {
		t.Errorf("the DSN is %s, want %s", dsn, want)
	}
	for _, bad := range []string{"u:secret@unix(/run/s.sock)/db", "u:secret@tcp(host/db"} {
		if _, _, err := OpenDSN(bad); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("OpenDSN(%q) = %v", bad, err)
		}
	}
}

func echo(t *testing.T) (addr string) {
	t.Helper()
	return serve(t, "127.0.0.1:0", func(conn net.Conn) { _, _ = io.Copy(conn, conn); _ = conn.Close() }).
		Addr().String()
}

func serve(t *testing.T, addr string, handle func(net.Conn)) net.Listener {
	t.Helper()
	var lc net.ListenConfig
	listener, err := lc.Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go handle(conn)
		}
	}()
	return listener
}

// say sends a word to the echo and waits, not long, for it to come back.
func say(t *testing.T, addr string) error {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "hello"); err != nil {
		return err
	}
	_, err = io.ReadFull(conn, make([]byte, 5))
	return err
}

// named is a server that says its name to everybody who connects.
type named struct {
	net.Listener
	conns chan net.Conn
}

func listen(t *testing.T, name, addr string) *named {
	t.Helper()
	n := &named{conns: make(chan net.Conn, 1000)}
	n.Listener = serve(t, addr, func(conn net.Conn) {
		_, _ = io.WriteString(conn, name+"\n")
		n.conns <- conn
	})
	return n
}

// die ends the server as a killed process does: nobody listens, and its connections end.
func (n *named) die() {
	_ = n.Close()
	for {
		select {
		case conn := <-n.conns:
			_ = conn.Close()
		case <-time.After(50 * time.Millisecond):
			return
		}
	}
}

// connect returns the name of the server that the link leads to, "" if to none.
func connect(t *testing.T, addr string) (net.Conn, string) {
	t.Helper()
	var dialer net.Dialer
	conn, err := dialer.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		return nil, ""
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	var name strings.Builder
	for one := make([]byte, 1); ; {
		if _, err := conn.Read(one); err != nil || one[0] == '\n' {
			return conn, name.String()
		}
		name.Write(one)
	}
}

func TestFailoverLeadsToALivingServerAndStaysThere(t *testing.T) {
	one, two := listen(t, "one", "127.0.0.1:0"), listen(t, "two", "127.0.0.1:0")
	servers := []string{one.Addr().String(), two.Addr().String()}
	l := open(t, servers[0])
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go l.Failover(ctx, servers)
	conn, name := connect(t, l.Addr())
	if name != "one" || l.Upstream() != servers[0] {
		t.Errorf("the link leads to %q, upstream %s", name, l.Upstream())
	}

	one.die()
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlives its server")
	}
	for end := time.Now().Add(10 * time.Second); l.Upstream() != servers[1]; {
		if time.Now().After(end) {
			t.Fatal("the link still leads to the dead server")
		}
		time.Sleep(5 * time.Millisecond)
	}
	open, name := connect(t, l.Addr())
	if name != "two" {
		t.Errorf("after the death the link leads to %q", name)
	}
	listen(t, "one", servers[0])
	time.Sleep(100 * time.Millisecond) // several turns of Failover
	if _, name := connect(t, l.Addr()); name != "two" {
		t.Errorf("the link went back to %q: writes then go to two servers", name)
	}
	cancel()
	_ = l.Close()
	if _, err := open.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlives the link")
	}
	if err := l.Close(); err != nil {
		t.Errorf("a second close: %v", err)
	}
}

func TestFailoverWithoutAnyServer(t *testing.T) {
	gone := listen(t, "gone", "127.0.0.1:0")
	_ = gone.Close()
	l := open(t, gone.Addr().String())
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); l.Failover(ctx, []string{gone.Addr().String()}) }()
	if _, name := connect(t, l.Addr()); name != "" {
		t.Errorf("the link leads to %q", name)
	}
	cancel()
	<-ended
}
