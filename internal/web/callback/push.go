package callback

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/unionbridge/unionbridge/internal/wechat/push"
)

// What became of a request to the callback, as the metric's label.
const (
	resultAnswered   = "answered"   // the console's test
	resultStored     = "stored"     // answered with success after it was stored
	resultDuplicate  = "duplicate"  // answered with success, it had been stored before
	resultIgnored    = "ignored"    // WeChat's, and nothing that concerns us
	resultRefused    = "refused"    // not proved to be WeChat's
	resultUnreadable = "unreadable" // WeChat's, and not understood
	resultFailed     = "failed"     // could not be stored in time; WeChat repeats it
	resultBusy       = "busy"       // too many at once; WeChat repeats it
	resultTooLarge   = "too_large"
	resultCut        = "cut_off" // ended before its body did
)

// Values of the label event that are no event's name.
const (
	eventEcho    = "echo"
	eventMessage = "message" // a person wrote to the account
	eventOther   = "other"
	eventUnread  = "unread" // it was not read
)

func (l *Listener) count(appid, event, result string) {
	l.total.WithLabelValues(appid, event, result).Inc()
}

// eventLabel keeps the metric's label small, whatever events WeChat adds.
func eventLabel(event string) string {
	switch event {
	case push.EventReceipt, push.EventSubscribe, push.EventUnsubscribe, push.EventPopup,
		push.EventChange, push.EventSent, push.EventInfoModified, push.EventRevoked,
		push.EventCancelled, push.EventPunished, "SCAN", "CLICK", "VIEW", "LOCATION":
		return event
	case "":
		return eventMessage
	}
	return eventOther
}

// echo answers the console's test of the URL.
func (l *Listener) echo(w http.ResponseWriter, r *http.Request) {
	appid := r.PathValue("appid")
	account, ok := l.cfg.Accounts[appid]
	if !ok {
		http.NotFound(w, r)
		return
	}
	echo, err := account.Echo(r.URL.Query())
	if err != nil {
		l.refuse(w, r, err)
		return
	}
	l.count(appid, eventEcho, resultAnswered)
	say(w, http.StatusOK, echo)
}

// push answers one push.
func (l *Listener) push(w http.ResponseWriter, r *http.Request) {
	begin := l.cfg.Now()
	defer func() { l.seconds.Observe(l.cfg.Now().Sub(begin).Seconds()) }()
	appid := r.PathValue("appid")
	account, ok := l.cfg.Accounts[appid]
	if !ok {
		http.NotFound(w, r)
		return
	}
	if err := signed(account, r); err != nil {
		l.refuse(w, r, err)
		return
	}
	l.guard.trust(w, r)
	select {
	case l.pushes <- struct{}{}:
		defer func() { <-l.pushes }()
	default:
		l.count(appid, eventUnread, resultBusy)
		say(w, http.StatusServiceUnavailable, "busy")
		return
	}
	// Not the request's own context: what WeChat has brought is stored even if WeChat has gone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), pushTimeout)
	defer cancel()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxPush))
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		l.count(appid, eventUnread, resultTooLarge)
		say(w, http.StatusRequestEntityTooLarge, "too large")
		return
	}
	if err != nil {
		l.count(appid, eventUnread, resultCut)
		say(w, http.StatusBadRequest, "cut off")
		return
	}
	message, err := account.Decode(r.URL.Query(), body)
	switch {
	case errors.Is(err, push.ErrUnreadable):
		l.log(appid, "a push cannot be read", err)
		l.count(appid, eventUnread, resultUnreadable)
		say(w, http.StatusOK, "success") // the same again would not be readable either
	case err != nil:
		l.refuse(w, r, err)
	default:
		l.take(ctx, w, appid, message)
	}
}

// take stores a push and answers.
func (l *Listener) take(ctx context.Context, w http.ResponseWriter, appid string, p push.Message) {
	event, key, result := eventLabel(p.Event), appid+"\x00"+p.Key, resultStored
	switch {
	case !concerns(p):
		result = resultIgnored
	case l.seen.has(key):
		result = resultDuplicate
	default:
		stored, err := l.store(ctx, appid, p)
		if err != nil {
			l.log(appid, "a push could not be stored, WeChat repeats it", err)
			l.count(appid, event, resultFailed)
			// WeChat documents repetitions after 5 seconds of silence and after broken connections.
			// It calls any wrong answer a failure of the service, too.
			say(w, http.StatusInternalServerError, "not stored")
			return
		}
		if !stored {
			result = resultIgnored
		}
		l.seen.add(key)
	}
	l.count(appid, event, result)
	say(w, http.StatusOK, "success")
}

// concerns reports whether a push is of a kind that Store takes.
func concerns(p push.Message) bool {
	return p.Receipt != nil || p.Follow != nil || p.Authorization != nil || p.Punishment != nil ||
		len(p.Popup)+len(p.Change)+len(p.Sent) > 0
}

// store calls Store and waits until ctx ends, even if Store ignores ctx: the answer is due. The
// slot stays taken until Store returns.
func (l *Listener) store(ctx context.Context, appid string, p push.Message) (bool, error) {
	select {
	case l.slots <- struct{}{}:
	case <-ctx.Done():
		return false, fmt.Errorf("waiting for %d pushes that are being stored: %w", maxStoring,
			ctx.Err())
	}
	type outcome struct {
		stored bool
		err    error
	}
	done := make(chan outcome, 1)
	l.storing.Go(func() {
		defer func() { <-l.slots }()
		o := outcome{stored: true}
		switch {
		case p.Receipt != nil:
			o.err = l.cfg.Store.Receipt(ctx, appid, *p.Receipt)
		case p.Follow != nil:
			o.err = l.cfg.Store.Follow(ctx, appid, *p.Follow)
		default:
			o.stored, o.err = l.cfg.Store.Event(ctx, appid, p)
		}
		done <- o
	})
	select {
	case o := <-done:
		return o.stored, o.err
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

// refuse answers what does not prove to be WeChat's, and reveals nothing to a stranger.
func (l *Listener) refuse(w http.ResponseWriter, r *http.Request, err error) {
	appid := r.PathValue("appid")
	l.log(appid, "a request to the callback was refused", err, "from", r.RemoteAddr)
	event := eventUnread
	if r.Method == http.MethodGet {
		event = eventEcho
	}
	l.count(appid, event, resultRefused)
	say(w, http.StatusForbidden, "refused")
}

// log writes one line a minute per account and text: a stranger may call the port without end.
func (l *Listener) log(appid, text string, err error, more ...any) {
	if skipped, ok := l.quiet.speak(appid + text); ok {
		l.cfg.Logger.Warn(text, append([]any{"appid", appid, "err", err, "not_logged_before",
			skipped}, more...)...)
	}
}

func say(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) // the reader may be gone
}
