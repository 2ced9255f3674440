package applications

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// maxLogged is how many refusals of one reason, and tokens of one application, are logged a
	// minute; the rest is counted. There are programs that fetch a token for each message.
	maxLogged = 20
	logWindow = time.Minute
	// maxShown bounds what is logged of a caller's own words.
	maxShown = 32
)

// audit writes down who was let in and who was not. No secret and no token reaches it.
type audit struct {
	log     *slog.Logger
	now     func() time.Time
	tokens  *prometheus.CounterVec
	refused *prometheus.CounterVec

	mu     sync.Mutex
	recent map[string]*recent
}

type recent struct {
	since           time.Time
	logged, skipped int
}

func newAudit(log *slog.Logger, reg prometheus.Registerer, now func() time.Time) *audit {
	a := &audit{log: log, now: now, recent: make(map[string]*recent),
		tokens: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unionbridge_application_tokens_total",
			Help: "Tokens that were handed out to applications.",
		}, []string{"application"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "unionbridge_application_refusals_total",
			Help: `Calls of applications that were refused, by reason; application "" is unknown.`,
		}, []string{"application", "reason"}),
	}
	if reg != nil {
		reg.MustRegister(a.tokens, a.refused)
	}
	return a
}

func (a *audit) issued(s Session) {
	a.tokens.WithLabelValues(s.Application.Name).Inc()
	skipped, ok := a.mayLog("token of " + s.Application.Name)
	if !ok {
		return
	}
	attrs := []any{"application", s.Application.Name, "appid", s.AppID, "source", s.From.String()}
	if skipped > 0 {
		attrs = append(attrs, "not_logged", skipped)
	}
	a.log.Info("application got a token", attrs...)
}

// refuse logs and counts a refusal, and returns it. hint is for the operator alone.
func (a *audit) refuse(r *Refusal, s Session, hint string) error {
	name := ""
	if s.Application != nil {
		name = s.Application.Name
	}
	a.refused.WithLabelValues(name, string(r.Reason)).Inc()
	skipped, ok := a.mayLog(string(r.Reason))
	if !ok {
		return r
	}
	attrs := []any{"reason", string(r.Reason), "errcode", r.Code, "source", s.From.String()}
	for _, attr := range [][2]string{{"application", name}, {"appid", s.AppID}, {"hint", hint}} {
		if attr[1] != "" {
			attrs = append(attrs, attr[0], attr[1])
		}
	}
	if skipped > 0 {
		attrs = append(attrs, "not_logged", skipped)
	}
	level := slog.LevelWarn
	if r.Reason == ReasonExpired { // every two hours, of each SDK that has no margin
		level = slog.LevelInfo
	}
	if r.Reason == ReasonManySecrets {
		level = slog.LevelError
	}
	a.log.Log(context.Background(), level, "application refused", attrs...)
	return r
}

// mayLog bounds the log, since everybody who reaches the door can write to it.
func (a *audit) mayLog(what string) (skipped int, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	r := a.recent[what]
	now := a.now()
	if r == nil || now.Sub(r.since) >= logWindow || now.Before(r.since) {
		if r != nil {
			skipped = r.skipped
		}
		r = &recent{since: now}
		a.recent[what] = r
	}
	if r.logged == maxLogged {
		r.skipped++
		return 0, false
	}
	r.logged++
	return skipped, true
}

// printable is what may be logged of a caller's appid or template. A secret or a token that slipped
// into that place is not shown: only what has another form is.
func printable(text string) string {
	odd := strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
	hex := len(text) >= maxShown && !strings.ContainsFunc(text, func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'f') && (r < 'A' || r > 'F')
	})
	if odd || hex || len(text) > maxShown {
		return "[not shown]"
	}
	return text
}
