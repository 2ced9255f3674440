package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/unionbridge/unionbridge/internal/wechat/push"
)

// WeChat waits 5 seconds for an answer; then it repeats the push, three times in total, and the console raises an alarm.
// What these leave of the 5 seconds is for the way here and back, with a proxy on it.
const (
	pushReadTimeout  = 3 * time.Second // headers and body: both come in one packet or two
	pushWriteTimeout = 10 * time.Second
	// pushTimeout bounds the whole of one request in here, the reading of its body included.
	pushTimeout = 4 * time.Second
	// pushIdleTimeout is longer than the default of nginx and others, which must be the ones that close.
	pushIdleTimeout = 90 * time.Second
)

const (
	// MaxPush is the most bytes that a push may have. WeChat's have one or two thousand.
	MaxPush = 64 << 10
	// maxStoring is how many pushes are being stored at once. A mass send brings one receipt per recipient, 73,000 in
	// five minutes have been reported; a write takes a millisecond or two. The database's other users need connections
	// too.
	maxStoring = 4
	// maxPushes is how many signed requests may be under way. More are told at once to come again; without a bound each
	// would hold its body in memory while it waits for its turn.
	maxPushes = 512
)

// Pushes takes in what WeChat pushes. When a method has returned nil, the event must survive a crash: WeChat will not
// repeat it. It may be called with the same event again, also at the same time.
type Pushes interface {
	Receipt(ctx context.Context, appid string, r push.Receipt) error
	Follow(ctx context.Context, appid string, e push.FollowEvent) error
}

// CallbacksConfig is what Callbacks needs. Every field is required.
type CallbacksConfig struct {
	// Listen is host:port; port 0 takes a free one, see Callbacks.Addr.
	Listen string
	// Accounts by appid. WeChat calls /wechat/{appid}; another appid is not found.
	Accounts   map[string]*push.Callback
	Pushes     Pushes
	Logger     *slog.Logger
	Registerer prometheus.Registerer
	Now        func() time.Time
}

// Callbacks is the listener for WeChat's pushes, the one port of the daemon that is open to the world. It answers with
// "success" only after a push has been stored, and with an error in time where that did not work, so that WeChat repeats
// it. Make it with NewCallbacks.
type Callbacks struct {
	cfg     CallbacksConfig
	http    *http.Server
	addr    net.Addr
	failed  chan error
	served  sync.WaitGroup
	storing sync.WaitGroup
	slots   chan struct{}
	pushes  chan struct{}
	seen    *recent
	quiet   *quiet
	guard   *guard
	total   *prometheus.CounterVec
	seconds prometheus.Histogram

	timeout time.Duration
}

// NewCallbacks returns Callbacks that do nothing until Start.
func NewCallbacks(cfg CallbacksConfig) *Callbacks {
	c := &Callbacks{
		cfg: cfg, failed: make(chan error, 1), slots: make(chan struct{}, maxStoring), pushes: make(chan struct{}, maxPushes),
		seen: newRecent(), quiet: newQuiet(cfg.Now), guard: newGuard(cfg.Now), timeout: pushTimeout,
	}
	c.total = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "unionbridge_callbacks_total", Help: "Requests to the callback by event and by what became of them.",
	}, []string{"appid", "event", "result"})
	c.seconds = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "unionbridge_callback_seconds", Help: "Time from a push's arrival to its answer; WeChat waits 5 s.",
		Buckets: []float64{.005, .02, .1, .5, 1, 2, 4, 5},
	})
	cfg.Registerer.MustRegister(c.total, c.seconds)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /wechat/{appid}", c.echo)
	mux.HandleFunc("POST /wechat/{appid}", c.push)
	c.http = &http.Server{
		Handler:           plainHeaders(c.guard.doubt(mux)),
		ConnContext:       c.guard.connContext,
		ConnState:         c.guard.connState,
		ReadHeaderTimeout: pushReadTimeout,
		ReadTimeout:       pushReadTimeout,
		WriteTimeout:      pushWriteTimeout,
		IdleTimeout:       pushIdleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		// A port that is open to the world hears much nonsense.
		ErrorLog: slog.NewLogLogger(cfg.Logger.Handler(), slog.LevelDebug),
	}
	return c
}

// Start listens and returns; pushes are taken from then on until Stop. An address that is taken or does not exist fails
// here.
func (c *Callbacks) Start(ctx context.Context) error {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", c.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listening (http.callback_listen): %w", err)
	}
	c.addr = listener.Addr()
	c.served.Go(func() {
		if err := c.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			c.failed <- fmt.Errorf("serving WeChat's pushes: %w", err)
		}
	})
	return nil
}

// Addr is the address that Start listens on, such as 0.0.0.0:8081.
func (c *Callbacks) Addr() string { return c.addr.String() }

// Failed receives one error if the listener ends by itself.
func (c *Callbacks) Failed() <-chan error { return c.failed }

// Stop closes the listener and all connections but those of signed pushes, lets these be stored and answered until ctx
// ends, and then cuts them off; WeChat repeats those. It may be called more than once and without Start.
func (c *Callbacks) Stop(ctx context.Context) error {
	c.guard.close()
	err := c.http.Shutdown(ctx)
	if err != nil {
		err = errors.Join(fmt.Errorf("waiting for pushes to be answered: %w", err), c.http.Close())
	}
	c.served.Wait()
	stored := make(chan struct{})
	go func() {
		defer close(stored)
		c.storing.Wait()
	}()
	select {
	case <-stored:
	case <-ctx.Done():
		err = errors.Join(err, fmt.Errorf("waiting for pushes to be stored: %w", ctx.Err()))
	}
	return err
}

// echo answers the console's test of the URL.
func (c *Callbacks) echo(w http.ResponseWriter, r *http.Request) {
	appid := r.PathValue("appid")
	account, ok := c.cfg.Accounts[appid]
	if !ok {
		http.NotFound(w, r)
		return
	}
	echo, err := account.Echo(r.URL.Query())
	if err != nil {
		c.refuse(w, r, err)
		return
	}
	c.count(appid, eventEcho, resultAnswered)
	say(w, http.StatusOK, echo)
}

// push answers one push.
func (c *Callbacks) push(w http.ResponseWriter, r *http.Request) {
	begin := c.cfg.Now()
	defer func() { c.seconds.Observe(c.cfg.Now().Sub(begin).Seconds()) }()
	appid := r.PathValue("appid")
	account, ok := c.cfg.Accounts[appid]
	if !ok {
		http.NotFound(w, r)
		return
	}
	if err := signed(account, r); err != nil {
		c.refuse(w, r, err)
		return
	}
	c.guard.trust(w, r)
	select {
	case c.pushes <- struct{}{}:
		defer func() { <-c.pushes }()
	default:
		c.count(appid, eventUnread, resultBusy)
		say(w, http.StatusServiceUnavailable, "busy")
		return
	}
	// Not the request's own context: once WeChat has gone, what it brought is stored all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), c.timeout)
	defer cancel()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxPush))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		c.count(appid, eventUnread, resultTooLarge)
		say(w, http.StatusRequestEntityTooLarge, "too large")
		return
	}
	if err != nil {
		c.count(appid, eventUnread, resultCut)
		say(w, http.StatusBadRequest, "cut off")
		return
	}
	message, err := account.Decode(r.URL.Query(), body)
	switch {
	case errors.Is(err, push.ErrUnreadable):
		c.log(appid, "a push cannot be read", err)
		c.count(appid, eventUnread, resultUnreadable)
		success(w) // the same again would not be readable either
	case err != nil:
		c.refuse(w, r, err)
	default:
		c.take(ctx, w, appid, message)
	}
}

// take stores a push and answers.
func (c *Callbacks) take(ctx context.Context, w http.ResponseWriter, appid string, p push.Message) {
	event := eventLabel(p.Event)
	key := appid + "\x00" + p.Key
	switch {
	case p.Receipt == nil && p.Follow == nil:
		c.count(appid, event, resultIgnored)
		success(w)
		return
	case c.seen.has(key):
		c.count(appid, event, resultDuplicate)
		success(w)
		return
	}
	if err := c.store(ctx, appid, p); err != nil {
		c.log(appid, "a push could not be stored, WeChat repeats it", err)
		c.count(appid, event, resultFailed)
		// WeChat documents repetitions after 5 seconds of silence and after broken connections. It calls any wrong
		// answer a failure of the service, too; and it must not be called a success.
		say(w, http.StatusInternalServerError, "not stored")
		return
	}
	c.seen.add(key)
	c.count(appid, event, resultStored)
	success(w)
}

// store hands a push on and waits for it until ctx ends, also where the one who stores it does not listen to ctx: the
// answer is due. The slot stays taken until he has ended.
func (c *Callbacks) store(ctx context.Context, appid string, p push.Message) error {
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("waiting for %d pushes that are being stored: %w", maxStoring, ctx.Err())
	}
	done := make(chan error, 1)
	c.storing.Go(func() {
		defer func() { <-c.slots }()
		if p.Receipt != nil {
			done <- c.cfg.Pushes.Receipt(ctx, appid, *p.Receipt)
		} else {
			done <- c.cfg.Pushes.Follow(ctx, appid, *p.Follow)
		}
	})
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// refuse answers what does not prove to be WeChat's, in words that tell a stranger nothing.
func (c *Callbacks) refuse(w http.ResponseWriter, r *http.Request, err error) {
	appid := r.PathValue("appid")
	c.log(appid, "a request to the callback was refused", err, "from", r.RemoteAddr)
	event := eventUnread
	if r.Method == http.MethodGet {
		event = eventEcho
	}
	c.count(appid, event, resultRefused)
	say(w, http.StatusForbidden, "refused")
}

// log writes one line a minute per account and text: whoever finds the port can call it as often as he likes.
func (c *Callbacks) log(appid, text string, err error, more ...any) {
	if skipped, ok := c.quiet.speak(appid + text); ok {
		c.cfg.Logger.Warn(text, append([]any{"appid", appid, "err", err, "not_logged_before", skipped}, more...)...)
	}
}

func success(w http.ResponseWriter) { say(w, http.StatusOK, "success") }

func say(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) // the reader may be gone
}
