// Package echo tells applications what became of their messages, as WeChat tells an account: with
// TEMPLATESENDJOBFINISH in WeChat's own XML, whose MsgID is the id that the door answered. It owns the
// table door_echo, which package intake fills. It settles nothing and delays nothing.
package echo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/jmoiron/sqlx"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/unionbridge/unionbridge/internal/database"
)

const (
	leaseName = "echo"
	// pause is how often due rows are looked for, and batch how many at once.
	pause = time.Second
	batch = 200
	// concurrency bounds the POSTs at once: one application that is slow holds up few of another's.
	concurrency = 16
	// postTimeout is what WeChat itself waits for an account.
	postTimeout = 5 * time.Second
	// keep is how long news is tried, and awaitReceipt how long a sent message's receipt is waited for.
	keep         = 24 * time.Hour
	awaitReceipt = 24 * time.Hour
)

// Target is where an application is told.
type Target struct {
	URL   string // from the configuration alone, never from a request
	Token string // signs the news, as an account's token does
}

// Config is what an Echo needs.
type Config struct {
	DB         *sqlx.DB
	Leases     *database.Leases
	Targets    map[string]Target // by application
	Transport  http.RoundTripper // nil: the standard one
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// Echo tells applications. Make it with New.
type Echo struct {
	cfg    Config
	client *http.Client
	told   *prometheus.CounterVec
}

// New returns an Echo that does nothing until Run.
func New(cfg Config) *Echo {
	e := &Echo{cfg: cfg,
		client: &http.Client{
			Timeout: postTimeout, Transport: cfg.Transport,
			// The URL is the operator's; where it leads is not the other side's to say.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		told: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unionbridge_echoes_total",
			Help: "News of messages by application and outcome: taken, failed (it is tried again), given_up.",
		}, []string{"application", "outcome"}),
	}
	cfg.Registerer.MustRegister(e.told)
	return e
}

// Run tells applications until ctx ends, under a lease: one instance does it at a time.
func (e *Echo) Run(ctx context.Context) {
	if len(e.cfg.Targets) == 0 {
		return
	}
	failing := false
	for sleep(ctx, pause) {
		err := e.underLease(ctx)
		if err != nil && ctx.Err() == nil && !failing {
			e.cfg.Logger.Error("telling applications what became of their messages", "err", err)
		}
		failing = err != nil
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// underLease works as long as this instance has the lease.
func (e *Echo) underLease(ctx context.Context) error {
	lease, err := e.cfg.Leases.TryAcquire(ctx, leaseName)
	if lease == nil {
		return err
	}
	defer func() { _ = database.Detached(ctx, lease.Release) }() // it ends by itself
	held, cancel := lease.Context(ctx)
	defer cancel()
	for {
		n, err := e.Round(held)
		if err != nil && held.Err() == nil {
			return err
		}
		if n < batch && !sleep(held, pause) || held.Err() != nil {
			return nil
		}
	}
}

// Round looks at the rows that are due, and returns how many there were.
func (e *Echo) Round(ctx context.Context) (int, error) {
	rows, err := e.due(ctx)
	if err != nil {
		return 0, err
	}
	group, posting := errgroup.WithContext(ctx)
	group.SetLimit(concurrency)
	for _, r := range rows {
		group.Go(func() error { return e.handle(posting, r) })
	}
	if err := group.Wait(); err != nil {
		return 0, fmt.Errorf("telling applications: %w", err)
	}
	return len(rows), nil
}

// handle tells one application of one message, or says when to look again. An error is the database's.
func (e *Echo) handle(ctx context.Context, r row) error {
	target, known := e.cfg.Targets[r.Application]
	status, news := r.news()
	switch {
	case !known, r.Gone, !news && r.silent():
		return e.forget(ctx, r)
	case !news:
		return e.later(ctx, r, r.lookAgain())
	}
	err := e.post(ctx, target, r, status)
	switch {
	case err == nil:
		e.told.WithLabelValues(r.Application, "taken").Inc()
		return e.forget(ctx, r)
	case ctx.Err() != nil:
		return nil // stopped: it is due still
	case r.newsAge() >= keep:
		e.told.WithLabelValues(r.Application, "given_up").Inc()
		e.cfg.Logger.Warn("an application was not told what became of a message, for a day",
			"application", r.Application, "request", r.ID, "err", err)
		return e.forget(ctx, r)
	}
	e.told.WithLabelValues(r.Application, "failed").Inc()
	return e.failed(ctx, r)
}

// errRefused is an answer other than 200.
var errRefused = errors.New("the application did not take it")
