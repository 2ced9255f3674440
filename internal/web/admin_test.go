package web

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

// started returns a running server on a free port, and a client that keeps no connection.
func started(t *testing.T, ready func(context.Context) error) (*Admin, *http.Client) {
	t.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "answer"}, func() float64 {
		return 42
	}))
	s := NewAdmin(AdminConfig{
		Listen: "127.0.0.1:0", Gatherer: reg, Ready: ready, Version: `v1<"2">`,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Errorf("stopping: %v", err)
		}
	})
	return s, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
}

type page struct {
	status            int
	contentType, body string
}

func get(t *testing.T, client *http.Client, url string) page {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return page{resp.StatusCode, resp.Header.Get("Content-Type"), string(body)}
}

func TestPages(t *testing.T) {
	var reason error
	s, client := started(t, func(context.Context) error { return reason })
	base := "http://" + s.Addr()

	for _, tc := range []struct {
		path   string
		reason error
		want   page
	}{
		{"/healthz", nil, page{200, "text/plain; charset=utf-8", "ok\n"}},
		{"/healthz", errors.New("no database"), page{200, "text/plain; charset=utf-8", "ok\n"}},
		{"/readyz", nil, page{200, "application/json", `{"ready":true}` + "\n"}},
		{"/readyz", errors.New("no database"),
			page{503, "application/json", `{"ready":false,"reason":"no database"}` + "\n"}},
		{"/nowhere", nil, page{404, "text/plain; charset=utf-8", "404 page not found\n"}},
	} {
		reason = tc.reason
		if diff := cmp.Diff(tc.want, get(t, client, base+tc.path),
			cmp.AllowUnexported(page{})); diff != "" {
			t.Errorf("%s with %v (-want +got):\n%s", tc.path, tc.reason, diff)
		}
	}

	s.cfg.Degraded = func(context.Context) []string { return []string{"wx1: wrong_secret"} }
	for body, why := range map[string]error{
		`{"ready":true,"degraded":["wx1: wrong_secret"]}`: nil,
		`{"ready":false,"reason":"x"}`:                    errors.New("x"),
	} {
		reason = why
		if got := get(t, client, base+"/readyz"); got.body != body+"\n" || (got.status == 200) != (why == nil) {
			t.Errorf("/readyz: %d %s, want %s", got.status, got.body, body)
		}
	}
	reason = nil

	if got := get(t, client, base+"/metrics"); got.status != 200 ||
		!strings.Contains(got.body, "\nanswer 42\n") {
		t.Errorf("/metrics: %d %s", got.status, got.body)
	}
	index := get(t, client, base+"/")
	for _, want := range []string{`href="healthz"`, `href="readyz"`, `href="metrics"`,
		"v1&lt;&#34;2&#34;&gt;"} {
		if !strings.Contains(index.body, want) {
			t.Errorf("the index page lacks %s:\n%s", want, index.body)
		}
	}
}

// TestReadyzIsBounded: a database that does not answer must not hang the probe.
func TestReadyzIsBounded(t *testing.T) {
	s, client := started(t, func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	})
	begin := time.Now()
	got := get(t, client, "http://"+s.Addr()+"/readyz")
	if got.status != http.StatusServiceUnavailable {
		t.Errorf("status %d, want 503", got.status)
	}
	if took := time.Since(begin); took < readyTimeout || took > 5*readyTimeout {
		t.Errorf("the answer took %s, want about %s", took, readyTimeout)
	}
}

func TestTakenPort(t *testing.T) {
	s, _ := started(t, func(context.Context) error { return nil })
	second := NewAdmin(AdminConfig{Listen: s.Addr(), Gatherer: prometheus.NewRegistry(),
		Logger: slog.New(slog.DiscardHandler)})
	err := second.Start(t.Context())
	if err == nil || !strings.Contains(err.Error(), "http.listen") {
		t.Errorf("a taken port gives %v, want an error that names http.listen", err)
	}
	if err := second.Stop(t.Context()); err != nil {
		t.Errorf("stopping what never started: %v", err)
	}
}

// TestStop: requests under way are finished, then the port is free, and life is no longer reported.
func TestStop(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	s, client := started(t, func(context.Context) error {
		close(asked)
		<-answer
		return nil
	})
	if err := s.Alive(t.Context()); err != nil {
		t.Errorf("a running server is not alive: %v", err)
	}
	late := make(chan page, 1)
	go func() { late <- get(t, client, "http://"+s.Addr()+"/readyz") }()
	<-asked
	stopped := make(chan error, 1)
	go func() { stopped <- s.Stop(t.Context()) }()
	select {
	case err := <-stopped:
		t.Errorf("stopped with a request under way: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(answer)
	if got := <-late; got.status != http.StatusOK {
		t.Errorf("the request under way got %d", got.status)
	}
	if err := <-stopped; err != nil {
		t.Errorf("stopping: %v", err)
	}
	if err := s.Alive(t.Context()); err == nil {
		t.Error("a stopped server is still alive")
	}
	select {
	case err := <-s.Failed():
		t.Errorf("a stop counts as a failure: %v", err)
	default:
	}
}

// TestStopIsBounded: a request that never ends does not keep the daemon.
func TestStopIsBounded(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	s, client := started(t, func(context.Context) error {
		close(asked)
		<-release
		return nil
	})
	defer close(release)
	go func() {
		resp, err := client.Get("http://" + s.Addr() + "/readyz")
		if err == nil {
			_ = resp.Body.Close()
		}
	}()
	<-asked
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Stop(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stopping gives %v, want the deadline", err)
	}
}
