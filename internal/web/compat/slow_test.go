package compat

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestSlowClients: a thousand callers who send large bodies slowly, and never end, hold little memory;
// others are answered meanwhile, and nothing is left of them afterwards.
func TestSlowClients(t *testing.T) {
	f := newDoor(t, func(_ *Config, s *http.Server) { s.ReadTimeout = 8 * time.Second })
	before := runtime.NumGoroutine()
	conns := make([]net.Conn, 0, 1000)
	head := fmt.Sprintf("POST %s?access_token=%s_%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n",
		templatePath, token, official, maxBody)
	var mu sync.Mutex
	var opening sync.WaitGroup
	for range 20 {
		opening.Go(func() {
			for range 50 {
				conn, err := net.Dial("tcp", f.addr)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = conn.Write([]byte(head + strings.Repeat(" ", 12<<10)))
				mu.Lock()
				conns = append(conns, conn)
				mu.Unlock()
			}
		})
	}
	opening.Wait()
	var memory runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&memory)
	if most := uint64(160 << 20); memory.HeapInuse > most {
		t.Errorf("%d slow callers hold %d MiB, want at most %d", len(conns), memory.HeapInuse>>20, most>>20)
	}
	for range 20 {
		began := time.Now()
		if status, got := f.post(t, templatePath, official, `{"touser":"o1","template_id":"t","data":{"a":"b"}}`); status != http.StatusOK {
			t.Errorf("beside slow callers: %d %s", status, got)
		}
		if took := time.Since(began); took > 2500*time.Millisecond {
			t.Errorf("beside slow callers an answer took %s", took)
		}
	}
	for _, conn := range conns {
		_ = conn.Close()
	}
	for end := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before+20; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
}

// TestHalfClosed: a caller who has said all and closed their half of the connection still gets the answer
// of what was done.
func TestHalfClosed(t *testing.T) {
	f := newDoor(t, nil)
	conn, err := net.Dial("tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	const body = `{"touser":"o1","template_id":"t","data":{"a":"b"}}`
	f.slow = 200 * time.Millisecond
	_, _ = fmt.Fprintf(conn, "POST %s?access_token=%s_%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s",
		templatePath, token, official, len(body), body)
	_ = conn.(*net.TCPConn).CloseWrite()
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	got, _ := io.ReadAll(conn)
	if !strings.Contains(string(got), `"errcode":0`) || len(f.messages) != 1 {
		t.Errorf("%d messages, and the answer %q", len(f.messages), got)
	}
}
