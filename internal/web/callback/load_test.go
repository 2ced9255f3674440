package callback

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/internal/wechat/push"
)

// TestSlowStore: the answer comes in time although nothing listens to its context; meanwhile no
// more than the slots are at work, and everything else is answered in time too.
func TestSlowStore(t *testing.T) {
	release := make(chan struct{})
	var working, most atomic.Int64
	l := listen(t, fake{func(context.Context, push.Receipt) error {
		n := working.Add(1)
		defer working.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-release
		return nil
	}}, nil)
	begin := time.Now()
	var posts sync.WaitGroup
	for i := range 3 * maxStoring {
		posts.Go(func() {
			if status, answer := post(t, pushURL(l.url, pushToken, ""),
				receiptXML(i+1)); status != 500 || answer == "success" {
				t.Errorf("answer %d %q, want 500", status, answer)
			}
		})
	}
	posts.Wait()
	if took := time.Since(begin); took >= 5*time.Second || took < pushTimeout {
		t.Errorf("the answers took %v, WeChat waits 5 s", took)
	}
	if n := most.Load(); n != maxStoring {
		t.Errorf("%d at once, want %d", n, maxStoring)
	}
	close(release)
	eventually(t, "the slots are free", func() bool { return working.Load() == 0 && len(l.slots) == 0 })
	if status, _ := post(t, pushURL(l.url, pushToken, ""), receiptXML(1)); status != 200 {
		t.Errorf("repeated: %d", status) // 1 was not stored as far as WeChat was told
	}
}

// TestTooManyAtOnce: requests beyond the bound are told so at once.
func TestTooManyAtOnce(t *testing.T) {
	asked, release := make(chan struct{}, 1), make(chan struct{})
	l := listen(t, fake{func(context.Context, push.Receipt) error {
		asked <- struct{}{}
		<-release
		return nil
	}}, func(c *Listener) { c.pushes = make(chan struct{}, 1) })
	first := make(chan int, 1)
	go func() {
		status, _ := post(t, pushURL(l.url, pushToken, ""), receiptXML(1))
		first <- status
	}()
	<-asked
	if status, answer := post(t, pushURL(l.url, pushToken, ""), receiptXML(2)); status != 503 ||
		answer != "busy" {
		t.Errorf("the second one: %d %q", status, answer)
	}
	close(release)
	if status := <-first; status != 200 {
		t.Errorf("the first one: %d", status)
	}
}

// TestCallbacksStop: what is being stored is finished and answered, and then the port is free.
func TestCallbacksStop(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	l := listen(t, fake{func(context.Context, push.Receipt) error {
		close(asked)
		<-release
		return nil
	}}, nil)
	second := New(Config{Listen: l.Addr(), Registerer: prometheus.NewRegistry(),
		Logger: slog.New(slog.DiscardHandler), Now: time.Now})
	if err := second.Start(t.Context()); err == nil ||
		!strings.Contains(err.Error(), "http.callback_listen") {
		t.Errorf("a taken port gives %v", err)
	}
	if err := second.Stop(t.Context()); err != nil {
		t.Errorf("stopping what never started: %v", err)
	}
	status := make(chan int, 1)
	go func() {
		s, _ := post(t, pushURL(l.url, pushToken, ""), receiptXML(1))
		status <- s
	}()
	<-asked
	stopped := make(chan error, 1)
	go func() { stopped <- l.Stop(t.Context()) }()
	eventually(t, "the port is closed", func() bool {
		resp, err := http.Get("http://" + l.Addr() + "/")
		if err == nil {
			_ = resp.Body.Close()
		}
		return err != nil
	})
	select {
	case err := <-stopped:
		t.Fatalf("stopped with a push under way: %v", err)
	default:
	}
	close(release)
	if err, s := <-stopped, <-status; err != nil || s != 200 {
		t.Errorf("stopped with %v, the push was answered %d", err, s)
	}
	select {
	case err := <-l.Failed():
		t.Errorf("a stop counts as a failure: %v", err)
	default:
	}
}

// TestCallbacksStopIsBounded: neither a store that hangs nor its request keeps the daemon.
func TestCallbacksStopIsBounded(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	l := listen(t, fake{func(context.Context, push.Receipt) error {
		close(asked)
		<-release
		return nil
	}}, nil)
	defer close(release)
	go func() {
		resp, err := http.Post(pushURL(l.url, pushToken, ""), "text/xml",
			strings.NewReader(receiptXML(1)))
		if err == nil {
			_ = resp.Body.Close()
		}
	}()
	<-asked
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := l.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stopping gives %v, want the deadline", err)
	}
}

// TestRecent: the memory is bounded, and its newest half is never forgotten.
func TestRecent(t *testing.T) {
	var r recent
	for i := range 3 * minRecent {
		r.add(fmt.Sprint(i))
		if !r.has(fmt.Sprint(i)) || !r.has(fmt.Sprint(max(0, i-minRecent+1))) {
			t.Fatalf("%d is forgotten too early", i)
		}
	}
	if n := len(r.now) + len(r.old); n > 2*minRecent {
		t.Errorf("%d are remembered", n)
	}
	if r.has("0") {
		t.Error("the first one is remembered for ever")
	}
}
