package web

import (
	"context"
	"encoding/json"
	"html/template"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// ReadyTimeout bounds the questions behind one /readyz. Probes commonly give up after a second or two,
// and an answer that says why is worth more than their timeout.
const ReadyTimeout = time.Second

// maxScrapes is how many scrapes are answered at once; more come only from a mistake.
const maxScrapes = 4

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", s.index())
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.cfg.Gatherer, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(s.cfg.Logger.Handler(), slog.LevelWarn),
		// One metric that cannot be collected must not hide all others.
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
		Timeout:             readTimeout,
		EnableOpenMetrics:   true,
	}))
	return plainHeaders(mux)
}

// plainHeaders sets what holds for every answer: nothing here is to be cached, guessed at, or framed.
func plainHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'")
		next.ServeHTTP(w, r)
	})
}

// healthz says that the process is alive, and nothing about what it depends on: a supervisor that
// restarted the daemon because the database is down would only add to the trouble.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "ok\n") // the reader may be gone
}

// readiness is the answer of /readyz.
type readiness struct {
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"` // why not
}

func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), ReadyTimeout)
	defer cancel()
	answer, status := readiness{Ready: true}, http.StatusOK
	if err := s.cfg.Ready(ctx); err != nil {
		answer, status = readiness{Reason: err.Error()}, http.StatusServiceUnavailable
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer) // the reader may be gone
}

const indexPage = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>unionbridge</title>
<style>body{font:16px/1.6 system-ui,sans-serif;max-width:40em;margin:3em auto;padding:0 1em;color-scheme:light dark}</style>
<h1>unionbridge {{.}}</h1>
<ul>
<li><a href="healthz">healthz</a>: the process is alive
<li><a href="readyz">readyz</a>: it can work, or why not
<li><a href="metrics">metrics</a>: figures for Prometheus
</ul>
</html>
`

func (s *Server) index() http.HandlerFunc {
	page := template.Must(template.New("index").Parse(indexPage))
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = page.Execute(w, s.cfg.Version) // the reader may be gone
	}
}
