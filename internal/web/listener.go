// Package web serves HTTP. [Listener] is any of the daemon's listeners; [Admin] is the one for
// operators: health, readiness, metrics, and a page that links them. It has no authentication and
// belongs on the machine itself or in the company's own network.
//
// It queries nothing on its own: what a page needs is read when the page is requested.
package web

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
)

const maxHeaderBytes = 16 << 10

// ListenerConfig is what a Listener needs.
type ListenerConfig struct {
	Listen string // host:port; port 0 takes a free one, see Listener.Addr
	Key    string // the configuration's name for Listen, for errors
	Logger *slog.Logger
	// Server has the handler and all four timeouts, and TLSConfig where it serves TLS. NewListener adds
	// headers, bounds and the log.
	Server *http.Server
}

// Listener is one listening port. Make it with NewListener.
type Listener struct {
	cfg    ListenerConfig
	addr   net.Addr
	failed chan error
	served sync.WaitGroup
}

// NewListener returns a Listener that does nothing until Start.
func NewListener(cfg ListenerConfig) *Listener {
	cfg.Server.Handler = plainHeaders(cfg.Server.Handler)
	cfg.Server.MaxHeaderBytes = maxHeaderBytes
	// An open port hears much nonsense.
	cfg.Server.ErrorLog = slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug)
	return &Listener{cfg: cfg, failed: make(chan error, 1)}
}

// Start listens and returns; requests are served from then on until Stop. An address that is taken
// or does not exist fails here.
func (l *Listener) Start(ctx context.Context) error {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", l.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listening (%s): %w", l.cfg.Key, err)
	}
	l.addr = listener.Addr()
	l.served.Go(func() {
		if err := l.serve(listener); !errors.Is(err, http.ErrServerClosed) {
			l.failed <- fmt.Errorf("serving (%s): %w", l.cfg.Key, err)
		}
	})
	return nil
}

func (l *Listener) serve(listener net.Listener) error {
	if l.cfg.Server.TLSConfig != nil {
		return l.cfg.Server.ServeTLS(listener, "", "") // TLSConfig has the certificate
	}
	return l.cfg.Server.Serve(listener)
}

// Addr is the address that Start listens on, such as 127.0.0.1:8080.
func (l *Listener) Addr() string { return l.addr.String() }

// Failed receives one error if the listener ends without Stop.
func (l *Listener) Failed() <-chan error { return l.failed }

// Stop closes the listener, lets requests under way finish until ctx ends, and then cuts them off.
// It may be called more than once and without Start.
func (l *Listener) Stop(ctx context.Context) error {
	err := l.cfg.Server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("waiting for requests to finish (%s): %w", l.cfg.Key, err),
			l.cfg.Server.Close())
	}
	l.served.Wait()
	return err
}

// plainHeaders sets what holds for every answer: nothing is to be cached, guessed at, or framed.
func plainHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy",
			"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		next.ServeHTTP(w, r)
	})
}
