package web

import (
	"context"
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	readTimeout = 10 * time.Second
	// readyTimeout bounds the checks behind one /readyz. Probes commonly give up after a second or
	// two, and an answer that says why is worth more than their timeout.
	readyTimeout = time.Second
	// maxScrapes is how many scrapes are answered at once; more come only from a mistake.
	maxScrapes = 4
)

// AdminConfig is what an Admin needs. Every field is required but Degraded.
type AdminConfig struct {
	Listen   string              // host:port; port 0 takes a free one, see Listener.Addr
	Gatherer prometheus.Gatherer // of what /metrics shows
	// Ready is called by /readyz, with a context of one second. It returns nil, or why the daemon
	// cannot work now, in words for people and without secrets.
	Ready func(ctx context.Context) error
	// Degraded returns what does not work while the daemon as a whole does, each with its cure, under
	// the same rules. nil: nothing is known of that.
	Degraded func(ctx context.Context) []string
	Version  string // for the index page
	Logger   *slog.Logger
}

// Admin is the operators' listener. Make it with NewAdmin.
type Admin struct {
	*Listener
	cfg AdminConfig
}

// NewAdmin returns an Admin that does nothing until Start.
func NewAdmin(cfg AdminConfig) *Admin {
	a := &Admin{cfg: cfg}
	a.Listener = NewListener(ListenerConfig{
		Listen: cfg.Listen, Key: "http.listen", Logger: cfg.Logger, Server: &http.Server{
			// Machines nearby request a few hundred bytes. An answer may take all checks of /readyz,
			// or a slow scrape; one connection serves all scrapes of the usual interval.
			Handler: a.routes(), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: readTimeout,
			WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
		},
	})
	return a
}

// Alive requests /healthz of the running listener, through the network as anybody else would. It
// fails where the process no longer accepts or answers: a check for a watchdog.
func (a *Admin) Alive(ctx context.Context) error {
	url := "http://" + a.Addr() + "/healthz"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return fmt.Errorf("checking own health: %w", err)
	}
	// No proxy, and a connection of its own: whether the accept loop lives is part of the check.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("checking own health: %w", err)
	}
	_ = resp.Body.Close() // the status says it all
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("checking own health: answered %s", resp.Status)
	}
	return nil
}

func (a *Admin) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", a.index())
	mux.HandleFunc("GET /healthz", a.healthz)
	mux.HandleFunc("GET /readyz", a.readyz)
	mux.Handle("GET /metrics", promhttp.HandlerFor(a.cfg.Gatherer, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(a.cfg.Logger.Handler(), slog.LevelWarn),
		// One metric that cannot be collected must not hide all others.
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: maxScrapes,
		Timeout:             readTimeout,
		EnableOpenMetrics:   true,
	}))
	return mux
}

// healthz says that the process is alive, and nothing about what it depends on: a supervisor that
// restarted the daemon because the database is down would only add to the trouble.
// Its headers say who it is, for "unionbridge doctor": whether a port is held by a daemon.
func (a *Admin) healthz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Unionbridge-Version", a.cfg.Version)
	w.Header().Set("Unionbridge-Pid", strconv.Itoa(os.Getpid()))
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "ok\n") // the reader may be gone
}

// readiness is the answer of /readyz.
type readiness struct {
	Ready  bool   `json:"ready"`
	Reason string `json:"reason,omitempty"` // why not
	// Degraded does not change the status: a load balancer must not take callbacks from an instance
	// because one account's secret is wrong.
	Degraded []string `json:"degraded,omitempty"`
}

func (a *Admin) readyz(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), readyTimeout)
	defer cancel()
	answer, status := readiness{Ready: true}, http.StatusOK
	if err := a.cfg.Ready(ctx); err != nil {
		answer, status = readiness{Reason: err.Error()}, http.StatusServiceUnavailable
	} else if a.cfg.Degraded != nil {
		answer.Degraded = a.cfg.Degraded(ctx)
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

func (a *Admin) index() http.HandlerFunc {
	page := template.Must(template.New("index").Parse(indexPage))
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_ = page.Execute(w, a.cfg.Version) // the reader may be gone
	}
}
