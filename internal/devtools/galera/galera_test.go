package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/unionbridge/unionbridge/internal/devtools/stage"
	"github.com/unionbridge/unionbridge/internal/wechatsim"
)

// named is a server that says its name to everybody who connects.
type named struct {
	net.Listener
	conns chan net.Conn
}

func listen(t *testing.T, name, addr string) *named {
	t.Helper()
	var lc net.ListenConfig
	listener, err := lc.Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	n := &named{Listener: listener, conns: make(chan net.Conn, 10)}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, name+"\n")
			n.conns <- conn
		}
	}()
	t.Cleanup(func() { _ = listener.Close() })
	return n
}

// die ends the server as a killed process does: nobody listens, and its one connection ends.
func (n *named) die() {
	_ = n.Close()
	_ = (<-n.conns).Close()
}

// connect returns the name of the server that the proxy leads to, "" if to none.
func connect(t *testing.T, addr string) (net.Conn, string) {
	t.Helper()
	var dialer net.Dialer
	conn, err := dialer.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
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

func TestProxyGoesOnAtALivingNodeAndStaysThere(t *testing.T) {
	one, two := listen(t, "one", "127.0.0.1:0"), listen(t, "two", "127.0.0.1:0")
	p, err := newProxy(t.Context(), []string{one.Addr().String(), two.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	conn, name := connect(t, p.addr())
	if name != "one" || p.current() != 0 {
		t.Errorf("the proxy leads to %q, current %d", name, p.current())
	}

	one.die()
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlives its server")
	}
	if _, name := connect(t, p.addr()); name != "two" || p.current() != 1 {
		t.Errorf("after the death the proxy leads to %q, current %d", name, p.current())
	}
	listen(t, "one", one.Addr().String())
	if _, name := connect(t, p.addr()); name != "two" {
		t.Errorf("the proxy went back to %q: writes then go to two nodes", name)
	}

	open, _ := connect(t, p.addr())
	if err := p.close(); err != nil {
		t.Error(err)
	}
	if _, err := open.Read(make([]byte, 1)); err == nil {
		t.Error("a connection outlives the proxy")
	}
	if err := p.close(); err != nil {
		t.Errorf("a second close: %v", err)
	}
}

func TestProxyWithoutAnyNode(t *testing.T) {
	gone := listen(t, "gone", "127.0.0.1:0")
	_ = gone.Close()
	p, err := newProxy(t.Context(), []string{gone.Addr().String()})
	if err != nil {
		t.Fatal(err)
	}
	if _, name := connect(t, p.addr()); name != "" {
		t.Errorf("the proxy leads to %q", name)
	}
	if err := p.close(); err != nil {
		t.Error(err)
	}
}

func TestDifferences(t *testing.T) {
	sim := wechatsim.NewStandard(3, 0, 0)
	person := func(i int) entry {
		return entry{openid: sim.OpenID(stage.AppID, i), unionid: sim.UnionID(i), subscribed: true}
	}
	a, b, c := person(0), person(1), person(2)
	swapped := b
	swapped.unionid = c.unionid
	gone := c
	gone.subscribed = false
	for name, test := range map[string]struct {
		entries []entry
		want    []string
	}{
		"the truth": {[]entry{a, b, c}, nil},
		"missing":   {[]entry{a, b}, []string{"the map has 2 followers, WeChat has 3"}},
		"swapped": {[]entry{a, swapped, c}, []string{
			fmt.Sprintf("%s has the unionid %q, the truth is %q", b.openid, c.unionid, b.unionid)}},
		"gone": {[]entry{a, b, gone}, []string{
			c.openid + ": subscribed is false, the truth is true", "the map has 2 followers, WeChat has 3"}},
		"nobody": {[]entry{a, b, c, {openid: "o"}}, []string{"o is nobody's openid"}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, differences(test.entries, sim)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestCheckCalls(t *testing.T) {
	var out bytes.Buffer
	sweep := sweepTest{screen: stage.NewScreen(&out, time.Now), followers: 100_000}
	for _, test := range []struct {
		lists, batches int64
		ok             bool
	}{{11, 1000, true}, {12, 1000 + flight, true}, {13, 1000, false}, {11, 1001 + flight, false}} {
		err := sweep.checkCalls(map[string]int64{"/cgi-bin/user/get": test.lists, "/cgi-bin/user/info/batchget": test.batches})
		if (err == nil) != test.ok {
			t.Errorf("%d list calls and %d batchgets: %v", test.lists, test.batches, err)
		}
	}
}

func TestHolders(t *testing.T) {
	h := &holders{epochs: map[int64]bool{}}
	h.take(1)
	h.giveBack()
	h.take(2)
	if len(h.wrong) > 0 || h.rounds() != 2 {
		t.Errorf("%d rounds, wrong: %v", h.rounds(), h.wrong)
	}
	h.take(2)
	if len(h.wrong) != 2 {
		t.Errorf("two holders in one epoch: %v", h.wrong)
	}
}

func TestNodesGetPortsOfTheirOwn(t *testing.T) {
	taken := map[string]bool{}
	for i := range clusterSize {
		n := &node{name: "n", dir: t.TempDir(), pass: "secret"}
		if err := n.prepare(t.Context(), taken); err != nil {
			t.Fatal(err)
		}
		if len(taken) != 4*(i+1) {
			t.Errorf("%d nodes have %d addresses", i+1, len(taken))
		}
		settings := n.settings("/lib/provider.so", []string{"a:1", n.group})
		for _, want := range []string{
			"\nwsrep-provider=/lib/provider.so\n", "\nwsrep-cluster-address=gcomm://a:1," + n.group + "\n", "\nbind-address=127.0.0.1\n",
		} {
			if !strings.Contains(settings, want) {
				t.Errorf("the settings lack %q:\n%s", want, settings)
			}
		}
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"-followers", "10"}, {"argument"}, {"-unknown"}} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), args, &out, &errs); code != exitUsage || errs.Len() == 0 || out.Len() > 0 {
			t.Errorf("run(%q) = %d, said %q", args, code, errs.String())
		}
	}
}
