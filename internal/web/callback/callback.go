// Package callback is the listener for what WeChat pushes. It is open to the world and believes
// only what is signed. It owns the bounds and the answers; the owners of the tables store what a
// push says.
package callback

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/internal/web"
	"github.com/unionbridge/unionbridge/internal/wechat/push"
)

// WeChat waits 5 seconds for an answer; then it repeats the push, three times in total, and the
// console raises an alarm. The rest of the 5 seconds is for the network, with a proxy in it.
const (
	readTimeout  = 3 * time.Second // headers and body: both come in one packet or two
	writeTimeout = 10 * time.Second
	// pushTimeout bounds the whole of one request in here, the reading of its body included.
	pushTimeout = 4 * time.Second
	// idleTimeout exceeds the default of nginx and others, which must close first.
	idleTimeout = 90 * time.Second
)

const (
	// maxPush is the most bytes that a push may have. WeChat's have one or two thousand.
	maxPush = 64 << 10
	// maxStoring is how many pushes are being stored at once. A mass send brings one receipt per
	// recipient, 73,000 in five minutes have been reported; a write takes a millisecond or two. The
	// database's other users need connections too.
	maxStoring = 4
	// maxPushes is how many signed requests may be under way. Each holds its body in memory while
	// it waits; further ones are refused at once, and WeChat repeats them.
	maxPushes = 512
)

// Store takes in what WeChat pushes. Once a method has returned nil, the event must survive a
// crash: WeChat will not repeat it. The same event may come again, also at the same time.
type Store interface {
	Receipt(ctx context.Context, appid string, r push.Receipt) error
	Follow(ctx context.Context, appid string, e push.FollowEvent) error
	// Event takes what concerns subscribe messages, a person's data or the account itself. It
	// reports whether that means anything to this program.
	Event(ctx context.Context, appid string, m push.Message) (stored bool, err error)
}

// Config is what a Listener needs. Every field is required.
type Config struct {
	Listen string // host:port; port 0 takes a free one, see Listener.Addr
	// Accounts by appid. WeChat calls /wechat/{appid}; another appid is not found.
	Accounts   map[string]*push.Callback
	Store      Store
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// Listener answers "success" only after a push has been stored, and an error in time where that did
// not work, so that WeChat repeats it. Make it with New.
type Listener struct {
	*web.Listener
	cfg     Config
	storing sync.WaitGroup
	slots   chan struct{}
	pushes  chan struct{}
	seen    recent
	quiet   *quiet
	guard   *guard
	total   *prometheus.CounterVec
	seconds prometheus.Histogram
}

// New returns a Listener that does nothing until Start.
func New(cfg Config) *Listener {
	l := &Listener{
		cfg: cfg, slots: make(chan struct{}, maxStoring), pushes: make(chan struct{}, maxPushes),
		quiet: newQuiet(cfg.Now), guard: newGuard(cfg.Now),
		total: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unionbridge_callbacks_total",
			Help: "Requests to the callback by event and by what became of them.",
		}, []string{"appid", "event", "result"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "unionbridge_callback_seconds",
			Help:    "Time from a push's arrival to its answer; WeChat waits 5 s.",
			Buckets: []float64{.005, .02, .1, .5, 1, 2, 4, 5},
		}),
	}
	cfg.Registerer.MustRegister(l.total, l.seconds)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /wechat/{appid}", l.echo)
	mux.HandleFunc("POST /wechat/{appid}", l.push)
	l.Listener = web.NewListener(web.ListenerConfig{
		Listen: cfg.Listen, Key: "http.callback_listen", Logger: cfg.Logger, Server: &http.Server{
			Handler: l.guard.doubt(mux), ConnContext: l.guard.connContext,
			ConnState: l.guard.connState, ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout,
			WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		},
	})
	return l
}

// Stop closes the listener and all connections but those of signed pushes, which it lets finish
// until ctx ends; WeChat repeats the others. It may be called more than once and without Start.
func (l *Listener) Stop(ctx context.Context) error {
	l.guard.close()
	err := l.Listener.Stop(ctx)
	stored := make(chan struct{})
	go func() {
		defer close(stored)
		l.storing.Wait()
	}()
	select {
	case <-stored:
	case <-ctx.Done():
		err = errors.Join(err, fmt.Errorf("waiting for pushes to be stored: %w", ctx.Err()))
	}
	return err
}
