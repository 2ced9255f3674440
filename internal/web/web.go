// Package web is the daemon's two HTTP listeners. [Server] is for operators: health, readiness, metrics,
// and a page that links them. It has no authentication and belongs on the machine itself or in the
// company's own network. [Callbacks] takes what WeChat pushes, and is open to the world; it believes only
// what is signed.
//
// It asks the database nothing by itself: whatever a page needs is read when the page is asked for, and
// what WeChat pushes is stored by those who own the tables.
package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// What a request may cost. Everything here is asked for by machines nearby, in a few hundred bytes.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	// writeTimeout is longer than all checks of /readyz and than a slow scrape.
	writeTimeout   = 30 * time.Second
	idleTimeout    = 2 * time.Minute // longer than the usual scrape interval: one connection serves them all
	maxHeaderBytes = 16 << 10
)

// Config is what a Server needs. Every field is required.
type Config struct {
	// Listen is host:port; port 0 takes a free one, see Server.Addr.
	Listen string
	// Gatherer's metrics stand under /metrics.
	Gatherer prometheus.Gatherer
	// Ready is asked by /readyz, with a context of ReadyTimeout: nil, or why the daemon cannot work
	// now, in words for people and without secrets.
	Ready func(ctx context.Context) error
	// Version stands on the index page.
	Version string
	Logger  *slog.Logger
}

// Server is the listener. Make it with New.
type Server struct {
	cfg    Config
	http   *http.Server
	addr   net.Addr
	failed chan error
	served sync.WaitGroup
}

// New returns a Server that does nothing until Start.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, failed: make(chan error, 1)}
	s.http = &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	return s
}

// Start listens and returns; requests are served from then on until Stop. An address that is taken or
// does not exist fails here.
func (s *Server) Start(ctx context.Context) error {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", s.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listening (http.listen): %w", err)
	}
	s.addr = listener.Addr()
	s.served.Go(func() {
		if err := s.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- fmt.Errorf("serving HTTP: %w", err)
		}
	})
	return nil
}

// Addr is the address that Start listens on, such as 127.0.0.1:8080.
func (s *Server) Addr() string { return s.addr.String() }

// Failed receives one error if the listener ends by itself.
func (s *Server) Failed() <-chan error { return s.failed }

// Stop closes the listener, lets requests under way finish until ctx ends, and then cuts them off. It
// may be called more than once and without Start.
func (s *Server) Stop(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("waiting for HTTP requests to finish: %w", err), s.http.Close())
	}
	s.served.Wait()
	return err
}

// Alive asks the running Server for /healthz, through the network as anybody else would: it fails where
// the process no longer accepts or answers. It is what a watchdog should ask.
func (s *Server) Alive(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.Addr()+"/healthz", nil)
	if err != nil {
		return fmt.Errorf("asking for own health: %w", err)
	}
	// No proxy, and a connection of its own: that the accept loop lives is part of the question.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("asking for own health: %w", err)
	}
	if err := resp.Body.Close(); err != nil {
		return fmt.Errorf("asking for own health: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("asking for own health: %s", resp.Status)
	}
	return nil
}
