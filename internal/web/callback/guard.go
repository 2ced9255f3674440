package callback

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/unionbridge/unionbridge/internal/wechat/push"
)

// strangerTimeout is how long the listener waits for the body of a request that is not signed, only
// to throw it away: a connection that is closed with bytes unread may lose the answer, which an
// operator needs during the set-up.
const strangerTimeout = 250 * time.Millisecond

// signed checks that the URL of a request is signed with the account's token; the error is
// [push.ErrRefused]. The signature of a URL does not cover the body, so it can be checked before a
// byte of that is read. It proves less than Decode requires, but no stranger has it.
//
// It is the check of an echo, which requires an echostr as well.
func signed(account *push.Callback, r *http.Request) error {
	query := r.URL.Query()
	query.Set("echostr", "-")
	_, err := account.Echo(query)
	return err
}

// guard keeps strangers from using up what others need: their requests get no time for a body, and
// their connections do not delay a stop. Its methods are safe for concurrent use.
type guard struct {
	now func() time.Time

	mu      sync.Mutex
	closing bool
	unknown map[net.Conn]struct{} // nothing on it is being answered that was signed
}

func newGuard(now func() time.Time) *guard {
	return &guard{now: now, unknown: make(map[net.Conn]struct{})}
}

// connKey is the key of a connection in its requests' contexts.
type connKey struct{}

func (g *guard) connContext(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, conn)
}

// connState tracks a connection: new, or between two requests, it belongs to a stranger.
func (g *guard) connState(conn net.Conn, state http.ConnState) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch state {
	case http.StateNew, http.StateIdle:
		if g.closing {
			_ = conn.Close() // the server notices
			return
		}
		g.unknown[conn] = struct{}{}
	case http.StateClosed, http.StateHijacked:
		delete(g.unknown, conn)
	}
}

// doubt gives a request strangerTimeout for its body, until trust extends it.
func (g *guard) doubt(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// On error the server's own timeout holds.
		_ = http.NewResponseController(w).SetReadDeadline(g.now().Add(strangerTimeout))
		next.ServeHTTP(w, r)
	})
}

// trust gives a signed request time for its body and its answer, also during a stop.
func (g *guard) trust(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).SetReadDeadline(g.now().Add(readTimeout))
	if conn, ok := r.Context().Value(connKey{}).(net.Conn); ok {
		g.mu.Lock()
		defer g.mu.Unlock()
		delete(g.unknown, conn)
	}
}

// close ends all connections on which nothing signed is being answered, and those to come. WeChat
// repeats a push whose headers are being read at this moment.
func (g *guard) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closing = true
	for conn := range g.unknown {
		_ = conn.Close()
	}
}

// minRecent pushes are remembered: two minutes of a mass send. Duplicates come within seconds.
const minRecent = 30_000

// recent remembers pushes that were stored, to spare the database their duplicates. It does not
// make duplicates harmless, since instances do not share it and a restart forgets it: the primary
// key of receipts and the times of follow events do.
type recent struct {
	mu       sync.Mutex
	now, old map[string]struct{} // two generations: forgetting costs nothing
}

func (r *recent) has(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, now := r.now[key]
	_, old := r.old[key]
	return now || old
}

func (r *recent) add(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now == nil || len(r.now) >= minRecent {
		r.now, r.old = make(map[string]struct{}), r.now
	}
	r.now[key] = struct{}{}
}

// quietFor is how long a log line is not repeated.
const quietFor = time.Minute

// quiet limits how often a log line repeats. Its keys are made of configured accounts and
// constants, so they are few.
type quiet struct {
	mu    sync.Mutex
	clock func() time.Time
	lines map[string]quietLine
}

type quietLine struct {
	spoken  time.Time
	skipped int
}

func newQuiet(clock func() time.Time) *quiet {
	return &quiet{clock: clock, lines: make(map[string]quietLine)}
}

// speak reports whether the line may be written, and how often it was skipped since the last time.
func (q *quiet) speak(key string) (skipped int, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	line := q.lines[key]
	if now := q.clock(); line.spoken.IsZero() || now.Sub(line.spoken) >= quietFor {
		q.lines[key] = quietLine{spoken: now}
		return line.skipped, true
	}
	line.skipped++
	q.lines[key] = line
	return 0, false
}
