package callback

import (
	"sync"
	"time"

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
	case push.EventReceipt, push.EventSubscribe, push.EventUnsubscribe, "SCAN", "CLICK", "VIEW", "LOCATION",
		"user_info_modified", "user_authorization_revoke", "user_authorization_cancellation":
		return event
	case "":
		return eventMessage
	}
	return eventOther
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

func newRecent() *recent { return &recent{now: make(map[string]struct{})} }

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
	if len(r.now) >= minRecent {
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
	lines map[string]*quietLine
}

type quietLine struct {
	spoken  time.Time
	skipped int
}

func newQuiet(clock func() time.Time) *quiet {
	return &quiet{clock: clock, lines: make(map[string]*quietLine)}
}

// speak reports whether the line may be written, and how often it was skipped since the last time.
func (q *quiet) speak(key string) (skipped int, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	line := q.lines[key]
	if line == nil {
		line = &quietLine{}
		q.lines[key] = line
	}
	if now := q.clock(); line.spoken.IsZero() || now.Sub(line.spoken) >= quietFor {
		skipped = line.skipped
		*line = quietLine{spoken: now}
		return skipped, true
	}
	line.skipped++
	return 0, false
}
