package callback

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat/push"
)

// speak connects to the listener and says something, such as the beginning of a request.
func speak(t *testing.T, l *listener, text string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	return conn
}

// slowPost is a POST of which nothing but the beginning of its body is there.
func slowPost(url string) string {
	_, path, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	return fmt.Sprintf("POST /%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n<", path,
		len(receiptXML(1)))
}

func stored(context.Context, push.Receipt) error { return nil }

// TestStrangersTakeNoSlot: a stranger is answered before the body is read, and keeps
// nobody out.
func TestStrangersTakeNoSlot(t *testing.T) {
	l := listen(t, fake{stored}, func(c *Listener) { c.pushes = make(chan struct{}, 1) })
	begin := time.Now()
	strangers := []net.Conn{speak(t, l, slowPost(l.url)),
		speak(t, l, slowPost(pushURL(l.url, "guess", "")))}
	eventually(t, "the strangers are refused", func() bool {
		return l.counted(eventUnread, resultRefused) == len(strangers)
	})
	if status, answer := post(t, pushURL(l.url, pushToken, ""), receiptXML(1)); status != 200 {
		t.Errorf("WeChat's push is answered %d %q", status, answer)
	}
	strangers = append(strangers, speak(t, l,
		slowPost(strings.Replace(l.url, pushAppID, "wx0000000000000000", 1))))
	for i, conn := range strangers {
		answer, err := io.ReadAll(conn) // to the end of the connection
		if want := []string{"403", "403", "404"}[i]; err != nil ||
			!strings.HasPrefix(string(answer), "HTTP/1.1 "+want) {
			t.Errorf("stranger %d got %q, %v; want %s", i, answer, err, want)
		}
	}
	if took := time.Since(begin); took >= readTimeout {
		t.Errorf("the strangers held their connections for %v", took)
	}
}

// TestStopLeavesStrangers: none of them delays the end, and a signed push whose body is on its way
// is still answered.
func TestStopLeavesStrangers(t *testing.T) {
	l := listen(t, fake{stored}, nil)
	known := func() int {
		l.guard.mu.Lock()
		defer l.guard.mu.Unlock()
		return len(l.guard.unknown)
	}
	speak(t, l, "")
	speak(t, l, "POST /wechat/")
	eventually(t, "the silent ones are known", func() bool { return known() == 2 })
	signed := speak(t, l, slowPost(pushURL(l.url, pushToken, "")))
	eventually(t, "the push is under way", func() bool { return len(l.pushes) == 1 })
	speak(t, l, slowPost(l.url))
	eventually(t, "the one without a signature is refused", func() bool {
		return l.counted(eventUnread, resultRefused) == 1
	})

	// the header's and the body's timeouts are 3 s
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	stopped := make(chan error, 1)
	go func() { stopped <- l.Stop(ctx) }()
	eventually(t, "only the push is left", func() bool { return known() == 0 })
	select {
	case err := <-stopped:
		t.Fatalf("stopped with a push under way: %v", err)
	default:
	}
	if _, err := io.WriteString(signed, receiptXML(1)[1:]); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(signed), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if err := <-stopped; err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("stopped with %v, the push was answered %d", err, resp.StatusCode)
	}
}

// TestStopBeforeAConnection: one that the listener had accepted when it was closed does not stay
// either.
func TestStopBeforeAConnection(t *testing.T) {
	g := newGuard(time.Now)
	g.close()
	ours, theirs := net.Pipe()
	defer func() { _ = theirs.Close() }()
	g.connState(ours, http.StateNew)
	if _, err := theirs.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("reading gives %v, want the end", err)
	}
}
